//! `pointsman swarm`: thousands of imitated sidecars against any xDS server.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::swarm::scenario::{
    Change, Connect, Endpoints, Hold, NodeSize, Phase, Reconnect, Scenario, Share, Trigger, Type, Variant,
};
use ::swarm::{Address, Options, Progress, TlsFiles};
use anyhow::{Context, Result};

use crate::config::Format;
use crate::output::say;

/// Imitate thousands of sidecars against any xDS server, and say what they saw and what they cost it.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  pointsman swarm --nodes 1000 --server 127.0.0.1:15010 --server-pid $(pidof pointsman)
  pointsman swarm --nodes 500 --variant sotw --node full --change-file mesh/routes.yaml \\
      --change-to even.yaml,odd.yaml --repeat 10
  pointsman swarm --scenario benches/scenarios/weight-change.yaml --server 127.0.0.1:15010 -o json

Without a scenario: the nodes connect, stay for --hold seconds, the change is made --repeat times if there is one, and
--reconnect lets all of them come back with what they have.

Exit codes: 0 all nodes got everything, 1 some did not, 2 it could not run, 130 interrupted.")]
pub(crate) struct Arguments {
    /// The server: HOST:PORT or unix:PATH.
    #[arg(long, default_value = "127.0.0.1:15010", value_name = "ADDRESS")]
    server: Address,
    /// The server's process, to measure what it costs.
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Speak TLS, and trust the authorities in this PEM file.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The nodes' certificate chain, as PEM.
    #[arg(long, value_name = "FILE", requires_all = ["ca", "key"])]
    cert: Option<PathBuf>,
    /// The key of that certificate, as PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The name in the server's certificate, if it is not the host of its address.
    #[arg(long, value_name = "NAME", requires = "ca")]
    server_name: Option<String>,
    /// A file with a bearer token that every node sends.
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// A file that says what to do, instead of the flags below.
    #[arg(long, value_name = "FILE", conflicts_with = "Flags")]
    scenario: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    /// How the result is printed.
    #[arg(long, short, value_enum, default_value = "text")]
    output: Format,
}

/// A simple scenario.
#[derive(clap::Args, Clone, Debug)]
#[group(id = "Flags", multiple = true)]
struct Flags {
    /// How many nodes.
    #[arg(long, default_value_t = 100)]
    nodes: usize,
    /// The variant of the protocol.
    #[arg(long, value_enum, default_value = "delta")]
    variant: VariantFlag,
    /// How large the node of a first request is: half a kilobyte, or the 61 KB of a real Envoy.
    #[arg(long, value_enum, default_value = "small")]
    node: NodeFlag,
    /// Namespaces of the nodes, in turn.
    #[arg(long, default_value = "default", value_delimiter = ',')]
    namespace: Vec<String>,
    /// New connections a second; all at once without.
    #[arg(long)]
    rate: Option<f64>,
    /// How much the time between two connects varies, such as 20%.
    #[arg(long, default_value = "0%")]
    jitter: Share,
    /// Nodes that ask and never read.
    #[arg(long, default_value = "0%")]
    slow: Share,
    /// Nodes that refuse every response.
    #[arg(long, default_value = "0%")]
    nack: Share,
    /// Nodes that connect and say nothing.
    #[arg(long, default_value = "0%")]
    silent: Share,
    /// How many endpoint assignments each node asks for; all without.
    #[arg(long, value_name = "NUMBER")]
    endpoints: Option<usize>,
    /// The only endpoint assignments that nodes ask for.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    clusters: Vec<String>,
    /// Threads that play nodes.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Where random choices begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds to stay connected before anything else happens.
    #[arg(long, value_name = "SECONDS")]
    hold: Option<f64>,
    /// Change something by replacing this file, by renaming.
    #[arg(long, value_name = "FILE", requires = "change_to")]
    change_file: Option<PathBuf>,
    /// What the file is replaced by, in turn.
    #[arg(long, value_name = "FILES", value_delimiter = ',', requires = "change_file")]
    change_to: Vec<PathBuf>,
    /// Change something by running a shell command; CHANGE counts from 0 in its environment.
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["change_file", "change_post"])]
    change_run: Option<String>,
    /// Change something by an HTTP POST without a body; {} becomes the number of the change.
    #[arg(long, value_name = "URL", conflicts_with = "change_file")]
    change_post: Option<String>,
    /// How often the change is made.
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// Only responses of these types count as the change: cds, eds, lds, rds, vhds.
    #[arg(long, value_name = "TYPES", value_delimiter = ',', value_parser = resource_type)]
    expect: Vec<Type>,
    /// All nodes lose their connection at the end, and come back with the versions that they have.
    #[arg(long)]
    reconnect: bool,
    /// Seconds to wait for nodes to connect, and for each change.
    #[arg(long, default_value_t = 120.0, value_name = "SECONDS")]
    timeout: f64,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum VariantFlag {
    /// Incremental.
    Delta,
    /// State of the world.
    Sotw,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum NodeFlag {
    /// Half a kilobyte.
    Small,
    /// 61 KB.
    Full,
}

fn resource_type(name: &str) -> Result<Type, String> {
    name.parse()
}

impl Flags {
    fn scenario(&self) -> Scenario {
        let timeout_seconds = self.timeout;
        let mut phases = vec![Phase::Connect(Connect { rate: self.rate, jitter: self.jitter, timeout_seconds })];
        phases.extend(self.hold.map(|seconds| Phase::Hold(Hold { seconds })));
        phases.extend(self.trigger().map(|trigger| {
            let (repeat, expect) = (self.repeat, self.expect.clone());
            Phase::Change(Change { repeat, expect, timeout_seconds, ..Change::by(trigger) })
        }));
        if self.reconnect {
            phases.push(Phase::Reconnect(Reconnect { rate: self.rate, timeout_seconds, ..Reconnect::default() }));
        }
        Scenario {
            nodes: self.nodes,
            variant: match self.variant {
                VariantFlag::Delta => Variant::Delta,
                VariantFlag::Sotw => Variant::Sotw,
            },
            node: match self.node {
                NodeFlag::Small => NodeSize::Small,
                NodeFlag::Full => NodeSize::Full,
            },
            namespaces: self.namespace.clone(),
            endpoints: Endpoints { each: self.endpoints, only: self.clusters.clone() },
            slow: self.slow,
            nack: self.nack,
            silent: self.silent,
            threads: self.threads,
            seed: self.seed,
            phases,
            ..Scenario::default()
        }
    }

    fn trigger(&self) -> Option<Trigger> {
        let rename = |file: &PathBuf| Trigger::Rename { file: file.clone(), from: self.change_to.clone() };
        let post = |url: &String| Trigger::Post { url: url.clone(), body: String::new() };
        let run = self.change_run.clone().map(Trigger::Run);
        self.change_file.as_ref().map(rename).or(run).or(self.change_post.as_ref().map(post))
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let scenario = match &arguments.scenario {
        Some(file) => Scenario::from_file(file)?,
        None => arguments.flags.scenario(),
    };
    let token = arguments.token.as_deref().map(|file| {
        let text = std::fs::read_to_string(file);
        text.with_context(|| format!("could not read the token in \"{}\"", file.display()))
    });
    let token = token.transpose()?.map(|token| token.trim().to_owned());
    let tls = arguments.ca.map(|authorities| TlsFiles {
        authorities,
        certificate: arguments.cert.zip(arguments.key),
        server_name: arguments.server_name,
    });
    let stop = Arc::new(AtomicBool::new(false));
    let interrupts = watch_interrupts(Arc::clone(&stop))?;
    let options = Options { server_pid: arguments.server_pid, tls, token, stop, ..Options::new(arguments.server) };
    let report = ::swarm::run(&scenario, options, progress)?;
    // Nothing waits for it: it ends with the process.
    drop(interrupts);
    end_progress();
    match arguments.output {
        Format::Json => say!("{}", serde_json::to_string_pretty(&report)?),
        Format::Text => say!("{}", report.to_string().trim_end()),
    }
    Ok(match (report.is_interrupted, report.is_complete()) {
        (true, _) => ExitCode::from(130),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::from(1),
    })
}

/// Has the flag set by the first Ctrl-C or SIGTERM; the second Ctrl-C ends the process.
fn watch_interrupts(stop: Arc<AtomicBool>) -> Result<tokio::runtime::Runtime> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_io()
        .build()
        .context("cannot start the runtime")?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    runtime.spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.store(true, Ordering::Relaxed);
        interrupt.recv().await;
        std::process::exit(130);
    });
    Ok(runtime)
}

/// Shows progress on standard error: in place on a terminal, as lines elsewhere.
fn progress(progress: &Progress) {
    let mut stderr = std::io::stderr().lock();
    let _ = match stderr.is_terminal() {
        true => write!(stderr, "\r\x1b[K{progress}").and_then(|()| stderr.flush()),
        false => writeln!(stderr, "{progress}"),
    };
}

fn end_progress() {
    let mut stderr = std::io::stderr().lock();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K").and_then(|()| stderr.flush());
    }
}
