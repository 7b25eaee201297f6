//! Asking the admin API of a running server.

use std::fmt::Write;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;
use server::view::Failure;

/// The answer to `GET path`.
///
/// # Errors
/// If nobody answers there; or with what the server says is wrong with the question, and the way out that it knows.
pub(crate) async fn ask<T: DeserializeOwned>(admin: SocketAddr, path: &str) -> Result<T> {
    let nobody = || format!("cannot ask http://{admin}{path} (is `pointsman serve` running there?)");
    let (status, value) = testkit::http::ask_json(admin, path).await.with_context(nobody)?;
    if status != 200 {
        match serde_json::from_value::<Failure>(value.clone()) {
            Ok(Failure { error, hint }) => bail!("{error}\n    {hint}"),
            Err(_) => bail!("http://{admin}{path} was answered with {status}: {value}"),
        }
    }
    serde_json::from_value(value).context("the server answered something unexpected: is it of another version?")
}

/// The answer to `POST path` with this body, or what the server says against it when it understood the question.
///
/// # Errors
/// If nobody answers there, or with something unexpected.
pub(crate) async fn post<T: DeserializeOwned>(
    admin: SocketAddr,
    path: &str,
    body: &Value,
) -> Result<std::result::Result<T, Failure>> {
    let nobody = || format!("cannot ask http://{admin}{path} (is `pointsman serve` running there?)");
    let (status, value) = testkit::http::post_json(admin, path, body).await.with_context(nobody)?;
    let unexpected = "the server answered something unexpected: is it of another version?";
    match status {
        200 => Ok(Ok(serde_json::from_value(value).context(unexpected)?)),
        _ => Ok(Err(serde_json::from_value(value).context(unexpected)?)),
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
