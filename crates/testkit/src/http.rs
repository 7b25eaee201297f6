//! One request to an admin interface.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::admin::Admin;

/// The body of the answer to `GET path`, which must have status 200.
///
/// # Errors
/// If nobody answers within ten seconds, or with another status; the message holds the body.
pub async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let body = Admin::Tcp(address).get(path).await?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// The same, read as JSON.
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
