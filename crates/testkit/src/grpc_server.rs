//! A real gRPC server that is configured by xDS, of any [`Language`].
//!
//! It answers any unary method with the request, and tells who called.

use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Child;

use crate::grpc_language::Language;

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct GrpcServer {
    // Killed when dropped.
    _child: Child,
    directory: TempDir,
}

impl GrpcServer {
    /// Starts a server in Python at `address` that calls itself `name`. `bootstrap` is gRPC's xDS bootstrap as JSON. It serves once
    /// its control plane has a listener for it.
    ///
    /// # Errors
    /// If the server cannot be had, or cannot be started.
    pub fn start(address: SocketAddr, name: &str, bootstrap: &Value) -> Result<GrpcServer> {
        Self::start_in(Language::Python, address, name, bootstrap)
    }

    /// The same in any language.
    ///
    /// # Errors
    /// As for [`GrpcServer::start`].
    pub fn start_in(language: Language, address: SocketAddr, name: &str, bootstrap: &Value) -> Result<GrpcServer> {
        let directory = TempDir::with_prefix("pointsman-grpc-").context("could not make a directory for the server")?;
        let mut command = language.command("server")?;
        command.arg(address.to_string()).arg(name).stdin(Stdio::piped()).kill_on_drop(true);
        command.stdout(Stdio::null()).stderr(std::fs::File::create(directory.path().join("log"))?);
        command.env("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap.to_string());
        let child = command.spawn().context("could not start the gRPC server")?;
        Ok(GrpcServer { _child: child, directory })
    }

    /// What the server has printed on standard error; see [`crate::grpc_client::GrpcClient::log`].
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.directory.path().join("log")).unwrap_or_default()).into_owned()
    }
}
