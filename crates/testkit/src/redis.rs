//! A real Redis that forgets everything at its end.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::Process;
use crate::{ports, tools, wait};

/// It was ready within 0.1 seconds on a quiet machine.
const START: Duration = Duration::from_secs(120);

/// A running Redis. Dropping it kills it and removes its files.
#[derive(Debug)]
pub struct Redis {
    // Dropped before the directory with its files.
    process: Process,
    address: SocketAddr,
    directory: TempDir,
}

impl Redis {
    /// Starts one, and waits until it answers.
    ///
    /// # Errors
    /// If there is no Redis, or it ends or does not answer within two minutes. The message holds the end of its log.
    pub async fn start() -> Result<Redis> {
        let directory = TempDir::with_prefix("pointsman-redis-").context("could not make a directory")?;
        let address = ports::local()?;
        let process = spawn(address, &directory)?;
        let mut redis = Redis { process, address, directory };
        redis.ready().await?;
        Ok(redis)
    }

    /// Starts it again at the same address after [`Redis::kill`], empty.
    ///
    /// # Errors
    /// As for [`Redis::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.process = spawn(self.address, &self.directory)?;
        self.ready().await
    }

    /// Kills it.
    ///
    /// # Errors
    /// If the signal cannot be sent, or it does not end.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.exited(START).await.map(drop)
    }

    /// `redis://127.0.0.1:PORT/`.
    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    async fn ready(&mut self) -> Result<()> {
        let address = self.address;
        wait::until("Redis to be ready", START, async || {
            self.process.expect_running().map_err(|error| format!("{error:#}"))?;
            ping(address).await.map_err(|error| format!("{error:#}"))
        })
        .await
        .with_context(|| self.process.last_words())
    }
}

fn spawn(address: SocketAddr, directory: &TempDir) -> Result<Process> {
    let mut command = Command::new(tools::REDIS.path()?);
    command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"]).arg(directory.path());
    Process::spawn("Redis", command, directory.path().join("log"))
}

async fn ping(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await?;
    if &answer != b"+PONG\r\n" {
        bail!("it answered {:?}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}
