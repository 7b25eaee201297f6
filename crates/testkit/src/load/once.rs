//! One request, and all of its response.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Plan;

/// A whole response.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// From before the connection was opened until the last byte of the body.
    pub took: Duration,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    /// The first header of this name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All headers of this name that are text, in the order in which they came.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
    }

    /// The backend that answered (`x-backend`), or nothing if it was none.
    pub fn backend(&self) -> &str {
        self.header("x-backend").unwrap_or_default()
    }

    /// The body; bytes that are not UTF-8 are replaced.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// The body as JSON, as of an echo.
    ///
    /// # Errors
    /// If it is none; the message holds the status and the body.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.body)
            .with_context(|| format!("status {} with the body {:?}", self.status, self.body))
    }
}

impl Plan {
    /// Sends the request once, on a connection of its own, whatever the plan says about rates, and returns what came
    /// back, whatever its status.
    ///
    /// # Errors
    /// If there is no whole response within the plan's timeout.
    pub async fn once(&self) -> Result<Reply> {
        let exchange = tokio::time::timeout(self.timeout, self.exchange());
        exchange.await.with_context(|| format!("no answer within {:?}", self.timeout))?
    }

    async fn exchange(&self) -> Result<Reply> {
        let begun = Instant::now();
        let request = self.request()?;
        let stream = TcpStream::connect(self.address).await.context("could not connect")?;
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(stream);
        // Moves the bytes; ends with this function.
        let mut mover = JoinSet::new();
        let response = if self.is_http2() {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            mover.spawn(async move { drop(connection.await) });
            sender.send_request(request).await?
        } else {
            let (mut sender, connection) = http1::handshake(stream).await?;
            mover.spawn(async move { drop(connection.await) });
            sender.send_request(request).await?
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await.context("the response broke off")?.to_bytes();
        Ok(Reply {
            status: head.status.as_u16(),
            took: begun.elapsed(),
            headers: head.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}
