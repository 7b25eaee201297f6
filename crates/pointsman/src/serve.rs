//! `pointsman serve`: sources, plane and server, wired together, until a signal ends them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use compile::HostDelivery;
use load::Policy;
use plane::Plane;
use server::{
    AdminAccess, Config, Deadlines, GatewaySecrets, Input, JwksSettings, Listen, ListenError, QuotaStore, Server,
    Submitted,
};
use source::watch::Seen;
use source::{LastGood, Shelf, Update};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use world::{Problem, Severity};

use crate::config::{Compilation, Files};
use crate::output::say;
use crate::tls::Tls;

/// Serve xDS from files and watch them.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:
  pointsman serve --config mesh/
  pointsman serve --config mesh/ --xds-tls-listen 0.0.0.0:15012 --state-dir /var/lib/pointsman
  pointsman serve --config mesh/ --state-dir /var/lib/pointsman
  pointsman serve --config mesh/ --xds-listen unix:/run/pointsman.sock --admin-listen 127.0.0.1:0
  kubectl get services,endpointslices,pods,virtualservices,destinationrules -A -o yaml > mesh.yaml
  pointsman serve --config mesh.yaml

Every address may use port 0 and is printed once it is bound. Ends on SIGINT or SIGTERM, when all streams are drained.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    compilation: Compilation,
    /// Where xDS is served without TLS, to whoever connects: IP:PORT or unix:PATH; may be repeated. No secrets are
    /// served there. `none` leaves the listeners that ask who connects (--xds-tls-listen, --xds-unix-listen).
    #[arg(long, default_value = "127.0.0.1:15010", value_name = "ADDRESS|none", value_parser = parse_listen)]
    xds_listen: Vec<Option<Listen>>,
    #[command(flatten)]
    tls: Tls,
    /// Where the admin interface and the metrics are served, or `none`.
    #[arg(long, default_value = "127.0.0.1:15014", value_name = "ADDRESS|none")]
    admin_listen: String,
    /// Let those call the admin interface who bring a token of this file, one a line after its name if it has one; read
    /// again when it changes.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// The same for tokens that may only read.
    #[arg(long, value_name = "FILE")]
    admin_read_token_file: Option<PathBuf>,
    /// Let everybody call the admin interface, also where others than this machine reach it.
    #[arg(long, conflicts_with_all = ["admin_token_file", "admin_read_token_file"])]
    admin_without_token: bool,
    /// Fetch the key sets of the issuers in RequestAuthentications again every so many seconds; sooner after a failure.
    #[arg(long, value_name = "SECONDS", default_value = "1200", value_parser = parse_refresh)]
    jwks_refresh_every: Duration,
    /// Ask clients every so many seconds for the load on each of their clusters; the admin API can change it later.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    load_reports_every: Option<Duration>,
    /// How Envoys on aggregated delta streams get the virtual hosts of their route configurations; all other clients get
    /// them inline.
    #[arg(long, value_enum, default_value = "separate", value_name = "FORM")]
    virtual_hosts: VirtualHosts,
    /// Ask a client to connect again when its connection is so many seconds old, give or take a tenth, so that clients
    /// spread over replicas.
    #[arg(long, value_name = "SECONDS", value_parser = parse_age)]
    max_connection_age: Option<Duration>,
    /// Count what Global limits of RateLimitPolicies let through in this Redis, so that all replicas count together:
    /// `redis://[user:password@]host[:port][/database]`, or rediss:// with TLS. Each counts for itself without.
    #[arg(long, env = "POINTSMAN_REDIS_URL", hide_env_values = true, value_name = "URL")]
    redis: Option<QuotaStore>,
}

/// How virtual hosts are delivered.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum VirtualHosts {
    /// Each as a resource of its own (VHDS): a change sends one.
    Separate,
    /// Inside their route configuration: a change sends all of them.
    Inline,
}

impl VirtualHosts {
    /// The same for the server.
    pub(crate) fn delivery(self) -> HostDelivery {
        match self {
            VirtualHosts::Separate => HostDelivery::Separate,
            VirtualHosts::Inline => HostDelivery::Inline,
        }
    }
}

pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    parse_within(text, 0.1, 3600.0)
}

fn parse_refresh(text: &str) -> Result<Duration, String> {
    parse_within(text, 1.0, 86_400.0)
}

fn parse_age(text: &str) -> Result<Duration, String> {
    parse_within(text, 1.0, 31_536_000.0)
}

fn parse_within(text: &str, least: f64, most: f64) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("\"{text}\" is no number of seconds"))?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if (least..=most).contains(&seconds) => Ok(duration),
        Ok(_) | Err(_) => Err(format!("\"{text}\" is not from {least} to {most} seconds")),
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    let deadlines = Deadlines { connection_age: arguments.max_connection_age, ..Deadlines::default() };
    let tls = arguments.tls.settings(&arguments.compilation)?;
    let config = Config {
        xds_listen: plaintext(&arguments.xds_listen, tls.is_some())?,
        tls,
        admin_listen: admin_address(&arguments.admin_listen)?,
        admin_access: AdminAccess {
            tokens: arguments.admin_token_file.clone(),
            read_tokens: arguments.admin_read_token_file.clone(),
            is_open: arguments.admin_without_token,
        },
        virtual_hosts: arguments.virtual_hosts.delivery(),
        deadlines,
        state: arguments.tls.state_directory().map(Path::to_owned),
        jwks: JwksSettings { authorities: arguments.tls.key_set_authorities(), refresh: arguments.jwks_refresh_every },
        quotas: arguments.redis.clone().unwrap_or_default(),
        load: arguments.load_reports_every.map_or_else(Policy::default, Policy::every),
        ..Config::default()
    };
    let compilation = arguments.compilation.clone();
    run_with(config, &compilation, async move |entry, shutdown| feed(&arguments, entry, &shutdown).await)
}

/// The ways into the server.
pub(crate) struct Entry {
    /// For what sources say.
    pub(crate) input: Input,
    /// What is handed over through the API.
    pub(crate) submitted: Option<mpsc::Receiver<Submitted>>,
    /// For certificates and keys of gateways.
    pub(crate) secrets: GatewaySecrets,
}

/// Serves what `feed` says until it returns or the server ends; each of them ends the other.
pub(crate) fn run_with(
    config: Config,
    compilation: &Compilation,
    feed: impl AsyncFnOnce(Entry, CancellationToken) -> Result<()>,
) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(serve(config, compilation, feed))
}

async fn serve(
    config: Config,
    compilation: &Compilation,
    feed: impl AsyncFnOnce(Entry, CancellationToken) -> Result<()>,
) -> Result<ExitCode> {
    let plane = Plane::new(compilation.settings(), compilation.options());
    let mut server = Server::bind(config, plane).await.context("cannot start to serve")?;
    // Whoever starts this waits for these lines: they go to standard output, where nothing else does.
    for address in &server.addresses().xds {
        say!("xds listening on {address}");
    }
    for address in &server.addresses().xds_tls {
        match address {
            Listen::Tcp(address) => say!("xds-tls listening on {address}"),
            Listen::Unix(path) => say!("xds-unix listening on unix:{}", path.display()),
        }
    }
    if let Some(address) = &server.addresses().admin {
        say!("admin listening on {address}");
    }
    let (input, submitted) = (server.input(), server.submitted());
    let entry = Entry { input, submitted, secrets: server.gateway_secrets() };
    let shutdown = CancellationToken::new();
    let (served, fed) = tokio::join!(
        async {
            let served = server.run(shutdown.clone()).await;
            shutdown.cancel();
            served
        },
        async {
            let fed = feed(entry, shutdown.clone()).await;
            shutdown.cancel();
            fed
        },
    );
    fed?;
    served.context("the server ended")?;
    tracing::info!("ended");
    Ok(ExitCode::SUCCESS)
}

fn parse_listen(text: &str) -> Result<Option<Listen>, String> {
    match text {
        "none" => Ok(None),
        address => address.parse().map(Some).map_err(|error: ListenError| format!("{error}, nor none")),
    }
}

/// The listeners without TLS.
fn plaintext(said: &[Option<Listen>], has_others: bool) -> Result<Vec<Listen>> {
    let listeners: Vec<Listen> = said.iter().flatten().cloned().collect();
    if !listeners.is_empty() && listeners.len() < said.len() {
        bail!("--xds-listen none cannot stand beside another --xds-listen");
    }
    if listeners.is_empty() && !has_others {
        bail!("nobody could connect: --xds-listen none needs --xds-tls-listen or --xds-unix-listen");
    }
    Ok(listeners)
}

pub(crate) fn admin_address(text: &str) -> Result<Option<SocketAddr>> {
    if text == "none" {
        return Ok(None);
    }
    match text.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => bail!("--admin-listen \"{text}\" is neither IP:PORT nor none"),
    }
}

/// Loads the files, then has every update carried to the server until a signal arrives or the server is gone.
async fn feed(arguments: &Arguments, entry: Entry, shutdown: &CancellationToken) -> Result<()> {
    let Entry { input, mut submitted, secrets } = entry;
    let mut signals = Signals::new()?;
    let begun = Instant::now();
    let paths = arguments.files.config.clone();
    let options = arguments.files.watch_options();
    let state = arguments.tls.state_directory().map(Path::to_owned);
    let loading = tokio::task::spawn_blocking(move || {
        let shelf = state.as_deref().map(Shelf::open).transpose()?;
        let last_good = state.as_deref().map(LastGood::at);
        Ok::<_, source::ShelfError>(source::watch::open(&paths, options, shelf, last_good))
    });
    let (first, opened) = tokio::select! {
        loaded = loading => loaded.context("loading the files failed")?.context("cannot start to serve")?,
        () = signals.any() => return Ok(()),
    };
    let objects = first.changes.len();
    let mut known = BTreeSet::new();
    report(&mut known, &first.problems);
    tracing::info!(
        objects,
        problems = first.problems.len(),
        took_ms = begun.elapsed().as_millis() as u64,
        "files read"
    );
    secrets.replace(by_name(first.secrets));
    if input.apply(first.changes, first.problems.to_vec(), begun).await.is_err() || input.set_synced().await.is_err() {
        return Ok(());
    }
    let input = input.clone();
    let deliver = move |Seen { update, at }| {
        let Update { changes, problems, secrets: named } = update;
        secrets.replace(by_name(named));
        let count = changes.len();
        if input.apply_blocking(changes, problems.to_vec(), at).is_err() {
            return ControlFlow::Break(());
        }
        // Afterwards, because somebody waits to see the change.
        tracing::info!(changes = count, problems = problems.len(), "files changed");
        report(&mut known, &problems);
        ControlFlow::Continue(())
    };
    let mut watch = opened.start(deliver).context("cannot watch the files")?;
    loop {
        tokio::select! {
            () = signals.any() => return Ok(()),
            () = shutdown.cancelled() => return Ok(()),
            () = watch.ended() => bail!("the watch of the files ended"),
            Submitted { submission, time, reply } = next(&mut submitted) => watch.submit(submission, time, reply),
        }
    }
}

/// What is handed over next; never returns when nothing can be any more. Cancel safe.
async fn next(submitted: &mut Option<mpsc::Receiver<Submitted>>) -> Submitted {
    if let Some(submitted) = submitted
        && let Some(next) = submitted.recv().await
    {
        return next;
    }
    std::future::pending().await
}

/// Secrets of gateways as the server takes them.
fn by_name(secrets: source::TlsSecrets) -> server::TlsSecrets {
    secrets.into_iter().map(|(reference, secret)| ((reference.namespace, reference.name), secret)).collect()
}

/// So many problems are written out at one time; of the rest only the number is said.
const MOST_REPORTED: usize = 100;

/// Logs the problems of files that are new, and says how many are mended.
fn report(known: &mut BTreeSet<Problem>, now: &[Problem]) {
    let now: BTreeSet<_> = now.iter().cloned().collect();
    let new: Vec<_> = now.difference(known).collect();
    for problem in new.iter().take(MOST_REPORTED) {
        match problem.severity {
            Severity::Error => tracing::warn!("{problem}"),
            Severity::Warning => tracing::info!("{problem}"),
        }
    }
    if new.len() > MOST_REPORTED {
        tracing::warn!(
            more = new.len() - MOST_REPORTED,
            "more problems are listed by the admin API at /api/v1/problems"
        );
    }
    let mended = known.difference(&now).count();
    if mended > 0 {
        tracing::info!(mended, "problems are gone");
    }
    *known = now;
}

/// SIGINT and SIGTERM.
pub(crate) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
        })
    }

    pub(crate) async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
