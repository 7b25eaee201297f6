//! Requests to an admin interface.

mod caller;

pub use caller::{Caller, Event, Events};

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::admin::Admin;

/// The body of the answer to `GET path`, which must have status 200.
///
/// # Errors
/// If nobody answers within a minute, or with another status; the message holds the body.
pub async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let body = Admin::Tcp(address).get(path).await?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// The status of the answer to `GET path`, and its body as JSON, whatever the status is.
///
/// # Errors
/// If nobody answers within a minute, or with something else than JSON.
pub async fn ask_json(address: SocketAddr, path: &str) -> Result<(u16, Value)> {
    let (status, body) = Admin::Tcp(address).ask(path).await?;
    let value = serde_json::from_slice(&body).with_context(|| format!("the answer to \"{path}\" is not JSON"))?;
    Ok((status.as_u16(), value))
}

/// The status of the answer to `POST path` with this body, and its own body as JSON, whatever the status is.
///
/// # Errors
/// If nobody answers within a minute, or with something else than JSON.
pub async fn post_json(address: SocketAddr, path: &str, body: &Value) -> Result<(u16, Value)> {
    let (status, answer) = Admin::Tcp(address).post_body(path, body.to_string().into()).await?;
    let value = serde_json::from_slice(&answer).with_context(|| format!("the answer to \"{path}\" is not JSON"))?;
    Ok((status.as_u16(), value))
}

/// The body of an answer with status 200, read as JSON.
///
/// # Errors
/// As for [`get`], or if the body is not JSON.
pub async fn get_json(address: SocketAddr, path: &str) -> Result<Value> {
    serde_json::from_str(&get(address, path).await?).with_context(|| format!("the answer to \"{path}\" is not JSON"))
}

/// The JSON answer to `PUT path` with this body, which must have status 200.
///
/// # Errors
/// As for [`get_json`].
pub async fn put_json(address: SocketAddr, path: &str, body: &Value) -> Result<Value> {
    let answer = Admin::Tcp(address).put(path, body.to_string().into()).await?;
    serde_json::from_slice(&answer).with_context(|| format!("the answer to \"{path}\" is not JSON"))
}
