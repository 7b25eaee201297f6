//! Asking the admin API of a running server.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use http::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;
use server::view::Failure;
use testkit::http::{Caller, Events};

/// The server that is asked, and what opens it.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Admin {
    /// The admin interface of the server.
    #[arg(long = "admin", global = true, default_value = "127.0.0.1:15014", value_name = "IP:PORT")]
    address: SocketAddr,
    /// A file whose first line is the token that the admin interface asks for, or NAME TOKEN; POINTSMAN_ADMIN_TOKEN has
    /// the token itself.
    #[arg(long, global = true, env = "POINTSMAN_ADMIN_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// An answer, or what the server says against the question when it understood it.
type Answer<T> = std::result::Result<T, Failure>;

const UNEXPECTED: &str = "the server answered something unexpected: is it of another version?";

impl Admin {
    /// The answer to `GET path`.
    ///
    /// # Errors
    /// If nobody answers there; or with what the server says is wrong with the question, and the way out that it knows.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        match self.call(Method::GET, path, String::new()).await? {
            Ok(answer) => Ok(answer),
            Err(Failure { error, hint, .. }) => bail!("{error}\n    {hint}"),
        }
    }

    /// The answer to a call with this body.
    ///
    /// # Errors
    /// If nobody answers there, or with something unexpected.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<Answer<T>> {
        let (status, body) = self.caller()?.call(method, path, body).await.with_context(|| self.nobody(path))?;
        match status.as_u16() {
            200 => Ok(Ok(serde_json::from_slice(&body).context(UNEXPECTED)?)),
            status => match serde_json::from_slice::<Failure>(&body) {
                // It cannot do anything now, whatever it is asked.
                Ok(Failure { error, hint, .. }) if status == 503 => bail!("{error}\n    {hint}"),
                Ok(failure) => Ok(Err(failure)),
                Err(_) => {
                    let shown = String::from_utf8_lossy(&body);
                    bail!("http://{}{path} was answered with {status}: {}", self.address, shown.trim_end())
                }
            },
        }
    }

    /// The answer to `POST path` with this body.
    ///
    /// # Errors
    /// If nobody answers there, or with something unexpected.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<Answer<T>> {
        self.call(Method::POST, path, body.to_string()).await
    }

    /// The stream of events at `path`, after the one of this id.
    ///
    /// # Errors
    /// If nobody answers there, or with something else.
    pub(crate) async fn events(&self, path: &str, after: &str) -> Result<Events> {
        self.caller()?.events(path, after).await
    }

    fn caller(&self) -> Result<Caller> {
        let caller = Caller::new(self.address);
        let token = match &self.token_file {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.with_context(|| format!("cannot read the token in \"{}\"", path.display()))?;
                let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
                let line = lines.next().with_context(|| format!("\"{}\" has no token", path.display()))?;
                line.split_whitespace().next_back().unwrap_or_default().to_owned()
            }
            None => std::env::var("POINTSMAN_ADMIN_TOKEN").unwrap_or_default(),
        };
        if token.is_empty() { Ok(caller) } else { caller.with_token(&token) }
    }

    fn nobody(&self, path: &str) -> String {
        format!("cannot ask http://{}{path} (is `pointsman serve` running there?)", self.address)
    }
}

/// A text as a part of a path or a query.
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            // Writing to a string does not fail.
            other => _ = write!(encoded, "%{other:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_safe_in_paths_and_queries() {
        assert_eq!(encoded("sidecar~10.0.0.1~a-1.default~d"), "sidecar~10.0.0.1~a-1.default~d");
        assert_eq!(encoded("../a b?c=d&e%#é"), "..%2Fa%20b%3Fc%3Dd%26e%25%23%C3%A9");
    }
}
