//! A real Prometheus that scrapes what it is told.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tempfile::TempDir;

use crate::process::Process;
use crate::{http, ports, tools, wait};

/// It was ready in 0.2 seconds on a quiet machine.
const START: Duration = Duration::from_secs(120);

/// A running Prometheus. Dropping it kills it and removes its files.
#[derive(Debug)]
pub struct Prometheus {
    // Dropped before the directory with its files.
    process: Process,
    address: SocketAddr,
    _directory: TempDir,
}

impl Prometheus {
    /// Starts one that asks `target` for `path` every second, and waits until it answers.
    ///
    /// # Errors
    /// If there is no Prometheus, or it ends or does not answer within two minutes. The message holds the end of its log.
    pub async fn start(target: SocketAddr, path: &str) -> Result<Prometheus> {
        let directory = TempDir::with_prefix("pointsman-prometheus-").context("could not make a directory")?;
        let config = directory.path().join("prometheus.yml");
        // JSON is YAML.
        let settings = json!({
            "global": { "scrape_interval": "1s" },
            "scrape_configs": [{
                "job_name": "target",
                "metrics_path": path,
                "static_configs": [{ "targets": [target.to_string()] }],
            }],
        });
        std::fs::write(&config, settings.to_string())?;
        let address = ports::local()?;
        let mut command = Command::new(tools::PROMETHEUS.path()?);
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        let process = Process::spawn("Prometheus", command, directory.path().join("log"))?;
        let mut prometheus = Prometheus { process, address, _directory: directory };
        wait::until("Prometheus to be ready", START, async || {
            prometheus.process.expect_running().map_err(|error| format!("{error:#}"))?;
            http::get(address, "/-/ready").await.map_err(|error| format!("{error:#}"))
        })
        .await
        .with_context(|| prometheus.process.last_words())?;
        Ok(prometheus)
    }

    /// Where it answers queries.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
