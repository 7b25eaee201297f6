//! The scripts in `deploy/tools/` that fetch the real clients, each run at most once per process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

/// Something that a script fetches.
#[derive(Debug)]
pub(crate) struct Tool {
    script: &'static str,
    /// An environment variable that names the tool instead.
    variable: &'static str,
    found: OnceLock<Result<PathBuf, String>>,
}

/// A real Envoy.
pub(crate) static ENVOY: Tool = Tool { script: "envoy.sh", variable: "ENVOY_BIN", found: OnceLock::new() };

/// A Python interpreter with gRPC.
pub(crate) static GRPC_PYTHON: Tool =
    Tool { script: "grpc-client.sh", variable: "GRPC_PYTHON", found: OnceLock::new() };

/// A client and a server of gRPC-Go.
pub(crate) static GRPC_GO: Tool = Tool { script: "grpc-go.sh", variable: "GRPC_GO", found: OnceLock::new() };

/// A Prometheus.
pub(crate) static PROMETHEUS: Tool =
    Tool { script: "prometheus.sh", variable: "PROMETHEUS_BIN", found: OnceLock::new() };

/// A Redis server.
pub(crate) static REDIS: Tool = Tool { script: "redis.sh", variable: "REDIS_BIN", found: OnceLock::new() };

impl Tool {
    /// The path of the tool. The first call may take as long as a download does; the others return what it returned.
    pub(crate) fn path(&self) -> Result<&Path> {
        let found = self.found.get_or_init(|| self.find().map_err(|error| format!("{error:#}")));
        found.as_deref().map_err(|error| anyhow!("{error}"))
    }

    fn find(&self) -> Result<PathBuf> {
        if let Some(path) = std::env::var_os(self.variable).filter(|path| !path.is_empty()) {
            let path = PathBuf::from(path);
            if !path.is_file() {
                bail!("the variable {} names \"{}\", which is not a file", self.variable, path.display());
            }
            return Ok(path);
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/tools").join(self.script);
        let output = Command::new(&script)
            .output()
            .with_context(|| format!("could not run \"{}\"; set {} instead", script.display(), self.variable))?;
        if !output.status.success() {
            bail!("\"{}\" failed: {}", script.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
        let path = String::from_utf8(output.stdout).context("the path is not UTF-8")?;
        Ok(PathBuf::from(path.trim_end()))
    }
}
