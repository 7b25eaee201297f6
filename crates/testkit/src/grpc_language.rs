//! The implementations of gRPC with an xDS client of their own that tests run.

use std::path::Path;

use anyhow::Result;
use tokio::process::Command;

use crate::tools;

/// An implementation. What it takes, refuses and does not know differs: gRPC's documents are one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Python's grpcio, which is gRPC's C++ core. The interpreter is the one that `GRPC_PYTHON` names, or else what
    /// `deploy/tools/grpc-client.sh` makes.
    Python,
    /// gRPC-Go. The program is the one that `GRPC_GO` names, or else what `deploy/tools/grpc-go.sh` builds.
    Go,
}

impl Language {
    /// Starts as `client` or `server` what understands the same arguments and orders in every language.
    pub(crate) fn command(self, role: &str) -> Result<Command> {
        match self {
            Language::Python => {
                let script = format!("python/grpc_{role}.py");
                let mut command = Command::new(tools::GRPC_PYTHON.path()?);
                command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script));
                Ok(command)
            }
            Language::Go => {
                let mut command = Command::new(tools::GRPC_GO.path()?);
                command.arg(role);
                Ok(command)
            }
        }
    }
}
