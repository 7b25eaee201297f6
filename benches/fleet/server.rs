//! Servers under measurement, each a process on the first core.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use swarm::scenario::{Scenario, Variant};
use swarm::{Options, Swarm};
use testkit::pointsman::Pointsman;

use crate::fleet;
use crate::guarded::Guarded;

/// How long a server may take until it serves.
const PATIENCE: Duration = Duration::from_secs(60);
/// The core of the servers; the swarm has the other one.
const CORE: &str = "0";

/// A running server with a control over HTTP. Dropping it kills it.
pub struct Server {
    /// As the table calls it.
    pub name: String,
    pub control: SocketAddr,
    xds: SocketAddr,
    pid: u32,
    process: Pointsman,
}

/// The peer's two ways of keeping snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshots {
    Shared,
    PerNode,
}

impl Server {
    /// The product, with a mesh of so many services with ten endpoints and a VirtualService each, in one namespace.
    pub async fn mesh(services: u32) -> Result<Server> {
        Server::mesh_with(services, &[]).await
    }

    /// The same, which also serves over TLS; its state is kept in this directory.
    pub async fn guarded_mesh(services: u32, state: &Path, more: &[&str]) -> Result<(Server, SocketAddr)> {
        let state = state.to_str().context("the directory's name is no text")?;
        let tls = ["--xds-tls-listen", "127.0.0.1:0", "--state-dir", state];
        let mut server = Server::mesh_with(services, &[&tls[..], more].concat()).await?;
        let address = server.process.address("xds-tls", PATIENCE).await?;
        Ok((server, address))
    }

    async fn mesh_with(services: u32, more: &[&str]) -> Result<Server> {
        let services = services.to_string();
        let any = "127.0.0.1:0";
        let arguments =
            ["--log", "warn", "mesh", "--services", &services, "--xds-listen", any, "--admin-listen", "none"];
        let arguments = arguments.into_iter().chain(["--control", any]).chain(more.iter().copied());
        Server::start("pointsman", env!("CARGO_BIN_EXE_pointsman"), arguments).await
    }

    /// The bare fan-out, with what `like` sends.
    pub async fn floor(like: &Server, variant: Variant) -> Result<Server> {
        let (xds, control) = (like.xds.to_string(), like.control.to_string());
        let variant = match variant {
            Variant::Delta => "delta",
            Variant::Sotw => "sotw",
        };
        let arguments = ["--log", "warn", "floor", "--like", &xds, "--like-control", &control, "--variant", variant];
        Server::start("h2 floor", env!("CARGO_BIN_EXE_pointsman"), arguments).await
    }

    /// go-control-plane with a mesh of so many services.
    pub async fn peer(binary: &Path, services: u32, snapshots: Snapshots) -> Result<Server> {
        let services = services.to_string();
        let (name, kind) = match snapshots {
            Snapshots::Shared => ("go-control-plane, one snapshot", "shared"),
            Snapshots::PerNode => ("go-control-plane, one per node", "per-node"),
        };
        Server::start(name, binary, ["-services", &services, "-snapshots", kind]).await
    }

    async fn start<'a>(
        name: &str,
        binary: impl Into<OsString>,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Result<Server> {
        let pinned = ["-c", CORE].into_iter().map(OsString::from).chain([binary.into()]);
        let arguments = pinned.chain(arguments.into_iter().map(OsString::from));
        // taskset becomes the program that it starts, so the process is the server's.
        let mut process = Pointsman::start("taskset", arguments)?;
        let xds = process.address("xds", PATIENCE).await.with_context(|| format!("{name} does not start"))?;
        let control = process.address("control", PATIENCE).await.with_context(|| format!("{name} does not start"))?;
        let pid = process.process().pid();
        Ok(Server { name: name.to_owned(), control, xds, pid, process })
    }

    /// What it said when it started.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Seconds of processor time so far.
    pub fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).context("the server is gone")?;
        // What comes before the last parenthesis is the name; user and system time are the 14th and 15th (proc(5)).
        let (_, rest) = stat.rsplit_once(')').context("no name in stat")?;
        let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
        Ok(ticks / 100.0)
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).context("the server is gone")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? * 1024.0)
    }

    /// Nodes that are about to connect to it.
    pub fn swarm(&self, scenario: &Scenario) -> Result<Swarm<'static>> {
        self.nodes(scenario, Options::new(self.xds))
    }

    /// The same over mutual TLS.
    pub fn swarm_over_tls(&self, scenario: &Scenario, guarded: &Guarded) -> Result<Swarm<'static>> {
        self.nodes(scenario, Options { tls: Some(guarded.files.clone()), ..Options::new(guarded.address) })
    }

    fn nodes(&self, scenario: &Scenario, options: Options) -> Result<Swarm<'static>> {
        let options = Options { server_pid: Some(self.pid), stop: fleet::STOP.clone(), ..options };
        let name = self.name.clone();
        let tell = move |progress: &swarm::Progress| eprintln!("  {name}: {progress}");
        Swarm::start(scenario, options, tell).with_context(|| format!("cannot start the nodes of {}", self.name))
    }

    /// Has something changed, and returns what it says about that.
    pub fn post(&self, path: &str) -> Result<Value> {
        let answer = http::post(self.control, path)?;
        serde_json::from_str(&answer).with_context(|| format!("the answer to \"{path}\" is not JSON: {answer}"))
    }
}

/// When the server was given the change, as it says itself, in nanoseconds since 1970.
pub fn committed(answer: &Value) -> Result<u64, String> {
    answer["committed_ns"].as_u64().ok_or_else(|| format!("no time of the change in {answer}"))
}

mod http {
    //! One request, blocking.

    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    use anyhow::{Context, Result, bail};

    pub fn post(address: SocketAddr, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        if !head.starts_with("HTTP/1.1 200") {
            bail!("POST {path} was answered with \"{}\"", head.lines().next().unwrap_or_default());
        }
        // Small answers come in one piece, with their length; the peer's may come in chunks.
        match body.find('{') {
            Some(at) => Ok(body[at..=body.rfind('}').unwrap_or(body.len() - 1)].to_owned()),
            None => Ok(body.to_owned()),
        }
    }
}
