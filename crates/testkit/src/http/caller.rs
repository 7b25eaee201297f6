//! Calls of an admin interface that asks for tokens, and streams of events.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::admin::{TIMEOUT, send};

/// Calls one admin interface, each time on a new connection.
#[derive(Clone, Debug)]
pub struct Caller {
    address: SocketAddr,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Caller {
    /// Calls this address.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, headers: Vec::new() }
    }

    /// The same with a bearer token, which no output shows.
    ///
    /// # Errors
    /// If it cannot stand in a header.
    pub fn with_token(self, token: &str) -> Result<Self> {
        let mut value: HeaderValue = format!("Bearer {token}").parse().context("the token cannot stand in a header")?;
        value.set_sensitive(true);
        Ok(self.with_header(header::AUTHORIZATION, value))
    }

    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The status and the body of the answer, whatever they are.
    ///
    /// # Errors
    /// If nobody answers within a minute.
    pub async fn call(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Result<(StatusCode, Bytes)> {
        let exchange = async {
            let (response, _driver) = self.send(method, path, body.into()).await?;
            let status = response.status();
            anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        let answer = tokio::time::timeout(TIMEOUT, exchange).await;
        answer.with_context(|| format!("no answer to \"{path}\" within {TIMEOUT:?}"))?
    }

    /// A stream of server-sent events, after the one of this id if that is not empty.
    ///
    /// # Errors
    /// If nobody answers within a minute, or with another status than 200; the message holds the body then.
    pub async fn events(&self, path: &str, after: &str) -> Result<Events> {
        let mut caller = self.clone();
        if !after.is_empty() {
            caller = caller.with_header(HeaderName::from_static("last-event-id"), after.parse()?);
        }
        let answer = tokio::time::timeout(TIMEOUT, caller.send(Method::GET, path, Bytes::new())).await;
        let (response, driver) = answer.with_context(|| format!("no answer to \"{path}\" within {TIMEOUT:?}"))??;
        if response.status() != StatusCode::OK {
            let status = response.status();
            let body = tokio::time::timeout(TIMEOUT, response.into_body().collect()).await??.to_bytes();
            bail!("\"{path}\" was answered with {status}: {}", String::from_utf8_lossy(&body).trim_end());
        }
        Ok(Events { body: response.into_body(), text: Vec::new(), _driver: driver })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(hyper::Response<Incoming>, JoinSet<hyper::Result<()>>)> {
        let mut request = Request::builder().method(method).uri(path);
        // What is given counts before what is usual.
        if self.headers.iter().all(|(name, _)| *name != header::HOST) {
            request = request.header(header::HOST, self.address.to_string());
        }
        if self.headers.iter().all(|(name, _)| *name != header::CONTENT_TYPE) {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let unreachable = || format!("could not reach the admin interface at {}", self.address);
        let stream = TcpStream::connect(self.address).await.with_context(unreachable)?;
        send(stream, request.body(Full::new(body))?).await
    }
}

/// A stream of server-sent events.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    text: Vec<u8>,
    /// The connection, for as long as it is read.
    _driver: JoinSet<hyper::Result<()>>,
}

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// By which the stream can be taken up again; empty when there is none.
    pub id: String,
    /// What kind it is.
    pub event: String,
    /// What it says.
    pub data: String,
}

impl Events {
    /// The next event; `None` when the stream has ended. Cancel safe.
    ///
    /// # Errors
    /// If the connection broke, or something else than text came.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = self.text.drain(..end + 2).collect();
                // Comments keep the connection alive.
                match event(std::str::from_utf8(&frame)?) {
                    Some(event) => return Ok(Some(event)),
                    None => continue,
                }
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Some(data) = frame?.data_ref() {
                self.text.extend_from_slice(data);
            }
        }
    }
}

fn event(frame: &str) -> Option<Event> {
    let mut event = Event::default();
    let mut has_data = false;
    for line in frame.lines() {
        match line.split_once(':').map(|(field, value)| (field, value.strip_prefix(' ').unwrap_or(value))) {
            Some(("id", value)) => event.id = value.to_owned(),
            Some(("event", value)) => event.event = value.to_owned(),
            Some(("data", value)) => {
                if std::mem::replace(&mut has_data, true) {
                    event.data.push('\n');
                }
                event.data.push_str(value);
            }
            Some(_) | None => {}
        }
    }
    has_data.then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_fields_and_comments_are_none() {
        let full = Event { id: "7".to_owned(), event: "rollout".to_owned(), data: "a\nb".to_owned() };
        assert_eq!(event("id: 7\nevent: rollout\ndata: a\ndata:b\n\n"), Some(full));
        assert_eq!(event(": alive\n\n"), None);
    }
}
