//! A real Envoy as a child process.
//!
//! The binary is the one that `ENVOY_BIN` names, or else what `deploy/tools/envoy.sh` fetches.
//!
//! Unless the bootstrap says otherwise, the admin interface listens on a Unix socket in the Envoy's own directory: it
//! needs no port, and it can be reached from outside if the Envoy runs in a network namespace.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::admin::Admin;
use crate::netns::Namespace;
use crate::process::Process;
use crate::tools;
use crate::wait;

/// A hundred Envoys on two cores were seen to take six seconds to start.
const START: Duration = Duration::from_secs(120);

/// Envoy ends within a fraction of a second of SIGTERM.
const STOP: Duration = Duration::from_secs(60);

/// How an Envoy is to be started.
#[derive(Clone, Debug)]
pub struct Setup {
    bootstrap: Value,
    place: Option<Namespace>,
    user: Option<u32>,
    log_level: String,
    arguments: Vec<String>,
}

impl Setup {
    /// With this bootstrap (`envoy.config.bootstrap.v3.Bootstrap` as JSON), one worker thread and log level `warning`.
    pub fn new(bootstrap: Value) -> Setup {
        Setup { bootstrap, place: None, user: None, log_level: "warning".to_owned(), arguments: Vec::new() }
    }

    /// In this network namespace.
    pub fn in_namespace(self, place: &Namespace) -> Setup {
        Setup { place: Some(place.clone()), ..self }
    }

    /// As the user and group with this number, by `setpriv` (util-linux): interception leaves the proxy's own traffic
    /// alone by its user. Needs root.
    pub fn as_user(self, user: u32) -> Setup {
        Setup { user: Some(user), ..self }
    }

    /// With another log level, or levels per component: `warning`, `debug`, ... as in `-l`.
    pub fn log_level(self, level: &str) -> Setup {
        Setup { log_level: level.to_owned(), ..self }
    }

    /// With one more command line argument.
    pub fn argument(mut self, argument: &str) -> Setup {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts it and waits until it is ready: all static clusters initialised, all listeners of the first configuration
    /// there.
    ///
    /// # Errors
    /// If there is no Envoy, or it ends or is not ready within two minutes. The message holds the end of its log.
    pub async fn start(self) -> Result<Envoy> {
        let mut envoy = self.start_unready()?;
        envoy.ready(START).await?;
        Ok(envoy)
    }

    /// Starts it and returns at once. An Envoy whose control plane does not answer may never be ready.
    ///
    /// # Errors
    /// If there is no Envoy, or its files cannot be written.
    pub fn start_unready(mut self) -> Result<Envoy> {
        let directory = TempDir::with_prefix("pointsman-envoy-").context("could not make a directory for Envoy")?;
        // The Envoy may run as another user.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777))?;
        let admin = self.admin(directory.path())?;
        let config = directory.path().join("envoy.json");
        std::fs::write(&config, self.bootstrap.to_string())?;
        let command = self.command(&config)?;
        let process = Process::spawn("Envoy", command, directory.path().join("log"))?;
        Ok(Envoy { process, admin, directory })
    }

    /// Where the admin interface is; puts it into the bootstrap if it is not there.
    fn admin(&mut self, directory: &Path) -> Result<Admin> {
        let bootstrap = self.bootstrap.as_object_mut().context("the bootstrap is not a JSON object")?;
        let admin = bootstrap
            .entry("admin")
            .or_insert_with(|| json!({"address": {"pipe": {"path": directory.join("admin.sock")}}}));
        if let Some(path) = admin["address"]["pipe"]["path"].as_str() {
            return Ok(Admin::Unix(PathBuf::from(path)));
        }
        let socket = &admin["address"]["socket_address"];
        let ip = socket["address"].as_str().and_then(|ip| ip.parse().ok());
        let port = socket["port_value"].as_u64().and_then(|port| u16::try_from(port).ok());
        match (ip, port) {
            (Some(ip), Some(port)) if port != 0 => Ok(Admin::Tcp(SocketAddr::new(ip, port))),
            _ => bail!("the bootstrap's admin address must be a pipe, or an IP with a port other than 0: {admin}"),
        }
    }

    fn command(&self, config: &Path) -> Result<Command> {
        let binary = tools::ENVOY.path()?;
        let mut command = match (&self.place, self.user) {
            (Some(place), None) => place.command(binary),
            (None, None) => Command::new(binary),
            (place, Some(user)) => {
                let mut command = match place {
                    Some(place) => place.command("setpriv"),
                    None => Command::new("setpriv"),
                };
                let user = user.to_string();
                command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]).arg(binary);
                command
            }
        };
        // Hot restart would make all Envoys of a machine meet in shared memory.
        command.args(["--disable-hot-restart", "--concurrency", "1", "-l", &self.log_level]);
        command.arg("-c").arg(config).args(&self.arguments);
        Ok(command)
    }
}

/// A running Envoy. Dropping it kills it and removes its files.
#[derive(Debug)]
pub struct Envoy {
    // Dropped before the directory with its files.
    process: Process,
    admin: Admin,
    directory: TempDir,
}

impl Envoy {
    /// Starts an Envoy with this bootstrap and waits until it is ready: see [`Setup`].
    ///
    /// # Errors
    /// As for [`Setup::start`].
    pub async fn start(bootstrap: Value) -> Result<Envoy> {
        Setup::new(bootstrap).start().await
    }

    /// The path of the binary; fetches it if need be.
    ///
    /// # Errors
    /// If there is none and it cannot be fetched.
    pub fn binary() -> Result<&'static Path> {
        tools::ENVOY.path()
    }

    /// Lets a real Envoy check a bootstrap, without running it.
    ///
    /// # Errors
    /// What Envoy says against it, with the path of the field.
    pub async fn validate(bootstrap: &Value) -> Result<()> {
        let directory = TempDir::with_prefix("pointsman-envoy-")?;
        let config = directory.path().join("envoy.json");
        std::fs::write(&config, bootstrap.to_string())?;
        let mut command = tokio::process::Command::new(tools::ENVOY.path()?);
        command.args(["--mode", "validate", "--disable-hot-restart", "-l", "critical", "-c"]).arg(&config);
        let output = command.kill_on_drop(true).output().await.context("could not run Envoy")?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        Err(anyhow!("Envoy refuses the configuration: {}", said.trim()))
    }

    /// Waits until `/ready` says so.
    ///
    /// # Errors
    /// If the Envoy ends, or is not ready `within` this time. The message holds the end of its log.
    pub async fn ready(&mut self, within: Duration) -> Result<()> {
        let (process, admin) = (&mut self.process, &self.admin);
        let answer = wait::until("Envoy to be ready", within, async || {
            // An Envoy that has ended will not become ready: report it at once.
            match process.expect_running() {
                Err(error) => Ok(Err(error)),
                Ok(()) => admin.get("/ready").await.map(|_| Ok(())).map_err(|error| format!("{error:#}")),
            }
        });
        answer.await.with_context(|| format!("the end of Envoy's log:\n{}", self.process.last_words()))?
    }

    /// The process: its id, its log, its signals, its cost.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The directory with its bootstrap (`envoy.json`), log (`log`) and admin socket; gone when the Envoy is dropped.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What Envoy has logged so far.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// The answer of the admin interface to a GET.
    ///
    /// # Errors
    /// If there is none, or its status is not 200.
    pub async fn get(&self, path: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.admin.get(path).await?).into_owned())
    }

    /// Sends a POST to the admin interface, for instance `/drain_listeners?graceful` or `/logging?level=debug`.
    ///
    /// # Errors
    /// If there is no answer, or its status is not 200.
    pub async fn post(&self, path: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.admin.post(path).await?).into_owned())
    }

    /// The same as JSON.
    ///
    /// # Errors
    /// As for [`Envoy::get`], or if it is not JSON.
    pub async fn get_json(&self, path: &str) -> Result<Value> {
        let body = self.admin.get(path).await?;
        serde_json::from_slice(&body).with_context(|| format!("the answer to \"{path}\" is not JSON"))
    }

    /// All counters and gauges by name. Histograms and texts are left out.
    ///
    /// # Errors
    /// As for [`Envoy::get_json`].
    pub async fn stats(&self) -> Result<BTreeMap<String, u64>> {
        let answer = self.get_json("/stats?format=json").await?;
        let stats = answer["stats"].as_array().context("there are no stats in the answer")?;
        let numbers =
            stats.iter().filter_map(|stat| Some((stat["name"].as_str()?.to_owned(), stat["value"].as_u64()?)));
        Ok(numbers.collect())
    }

    /// One counter or gauge; zero if there is none of that name yet.
    ///
    /// # Errors
    /// As for [`Envoy::stats`].
    pub async fn stat(&self, name: &str) -> Result<u64> {
        Ok(self.stats().await?.get(name).copied().unwrap_or(0))
    }

    /// Everything that is configured (`/config_dump?include_eds`).
    ///
    /// # Errors
    /// As for [`Envoy::get_json`].
    pub async fn config_dump(&self) -> Result<Value> {
        self.get_json("/config_dump?include_eds").await
    }

    /// All clusters with their endpoints and health (`/clusters?format=json`).
    ///
    /// # Errors
    /// As for [`Envoy::get_json`].
    pub async fn clusters(&self) -> Result<Value> {
        self.get_json("/clusters?format=json").await
    }

    /// The bound addresses of all TCP listeners by name: also tells what port 0 became.
    ///
    /// # Errors
    /// As for [`Envoy::get_json`].
    pub async fn listeners(&self) -> Result<BTreeMap<String, SocketAddr>> {
        let answer = self.get_json("/listeners?format=json").await?;
        // Without any listener the list is left out.
        let listeners = answer["listener_statuses"].as_array().map(Vec::as_slice).unwrap_or_default();
        let address = |status: &Value| {
            let socket = &status["local_address"]["socket_address"];
            let port = u16::try_from(socket["port_value"].as_u64()?).ok()?;
            let ip = socket["address"].as_str()?.parse().ok()?;
            Some((status["name"].as_str()?.to_owned(), SocketAddr::new(ip, port)))
        };
        Ok(listeners.iter().filter_map(address).collect())
    }

    /// Waits until a counter or gauge satisfies a condition; returns its value.
    ///
    /// # Errors
    /// If it does not `within` this time; the message says the last value.
    pub async fn stat_where(&self, name: &str, within: Duration, wanted: impl Fn(u64) -> bool) -> Result<u64> {
        let what = format!("Envoy's \"{name}\"");
        let value = wait::until(&what, within, async || match self.stat(name).await {
            Ok(value) if wanted(value) => Ok(value),
            Ok(value) => Err(value.to_string()),
            Err(error) => Err(format!("{error:#}")),
        });
        Ok(value.await?)
    }

    /// Ends it by SIGTERM.
    ///
    /// # Errors
    /// If it has not ended by itself within a minute (then it is killed), or ended with another code than 0.
    pub async fn stop(mut self) -> Result<()> {
        self.process.terminate()?;
        let status = self.process.exited(STOP).await?;
        if !status.success() {
            bail!("Envoy ended with {status}; its last words:\n{}", self.process.last_words());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
