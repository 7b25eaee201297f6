//! A real gRPC server that is configured by xDS: Python's grpcio, as for [`crate::grpc_client`].
//!
//! It answers any unary method with the request, and tells who called.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::tools;

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct GrpcServer {
    // Killed when dropped.
    _child: Child,
    directory: TempDir,
}

impl GrpcServer {
    /// Starts a server at `address` that calls itself `name`. `bootstrap` is gRPC's xDS bootstrap as JSON. It serves once
    /// its control plane has a listener for it.
    ///
    /// # Errors
    /// If there is no interpreter with gRPC and it cannot be fetched, or it cannot be started.
    pub fn start(address: SocketAddr, name: &str, bootstrap: &Value) -> Result<GrpcServer> {
        let directory = TempDir::with_prefix("pointsman-grpc-").context("could not make a directory for the server")?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/grpc_server.py");
        let mut command = Command::new(tools::GRPC_PYTHON.path()?);
        command.arg(script).arg(address.to_string()).arg(name).stdin(Stdio::piped()).kill_on_drop(true);
        command.stdout(Stdio::null()).stderr(std::fs::File::create(directory.path().join("log"))?);
        command.env("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap.to_string());
        let child = command.spawn().context("could not start the gRPC server")?;
        Ok(GrpcServer { _child: child, directory })
    }

    /// What the server has printed on standard error; with `GRPC_TRACE` in the environment that is a lot.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.directory.path().join("log")).unwrap_or_default()).into_owned()
    }
}
