//! The server as a whole: what is bound, what runs, and how it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::Response;
use hyper_util::rt::{TokioIo, TokioTimer};
use plane::Plane;
use proto::pb::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitServiceServer;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};
use tower::Service;

use crate::admin::{self, Access, Admin, AdminService, IntentService, Intents, Views, guard, guard_views, is_grpc};
use crate::certificates::CertificateService;
use crate::client_status::ClientStatusService;
use crate::discovery::{Discovery, serve_connection, service_names};
use crate::grpc::of_bad_message;
use crate::intake::Intake;
use crate::journal::Journal;
use crate::jwks::Jwks;
use crate::listen::{Listener, Lobby, Peer, Seat, Socket, accept_until};
use crate::load_reports::LoadService;
use crate::metrics::Metrics;
use crate::plane_task::{PlaneHandle, PlaneTask};
use crate::quotas::{QuotaService, Store};
use crate::rollouts::{Rollouts, RolloutsHandle};
use crate::rotation::Rotator;
use crate::telemetry::{LogService, MetricsService};
use crate::token_review::{Reviewing, TokenReviews};
use crate::trust::{Trust, handshake, keep};
use crate::{Config, Deadlines, Error, GatewaySecrets, Input, Limits, Listen, LoadReports, Submitted, Telemetry};

/// File descriptors that are kept for everything but xDS connections: listeners, watched files, the admin API.
const OTHER_DESCRIPTORS: usize = 64;
/// Concurrent streams of one HTTP/2 connection to the admin port.
const ADMIN_STREAMS: u32 = 256;
/// The health service's name for the server as a whole.
const WHOLE_SERVER: &str = "";
const LOAD_REPORTING: &str = "envoy.service.load_stats.v3.LoadReportingService";
const METRICS: &str = "envoy.service.metrics.v3.MetricsService";
const ACCESS_LOGS: &str = "envoy.service.accesslog.v3.AccessLogService";
const RATE_LIMITS: &str = "envoy.service.ratelimit.v3.RateLimitService";
const CLIENT_STATUS: &str = "envoy.service.status.v3.ClientStatusDiscoveryService";
const ADMIN: &str = "pointsman.admin.v1.Admin";
const INTENTS: &str = "pointsman.delivery.v1alpha1.Intents";
const HEALTH: &str = "grpc.health.v1.Health";
const AGGREGATED: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// xDS, in the order of the configuration, with the ports that were taken where port 0 was asked for.
    pub xds: Vec<Listen>,
    /// xDS over TLS, in the order of the configuration.
    pub xds_tls: Vec<Listen>,
    /// The admin API.
    pub admin: Option<SocketAddr>,
}

/// A server that is bound and does not run yet. Clients that connect wait.
#[derive(Debug)]
pub struct Server {
    addresses: Addresses,
    xds: Vec<Listener>,
    tls: Vec<Listener>,
    trust: Option<Trust>,
    reviewing: Option<Reviewing>,
    /// The services over TLS.
    for_callers: Routes,
    admin: Option<Listener>,
    discovery: Arc<Discovery>,
    plane: PlaneHandle,
    plane_task: PlaneTask,
    input: Input,
    views: Views,
    rollouts: (Rollouts, RolloutsHandle),
    intents: Intents,
    /// `None` when somebody has taken it.
    submitted: Option<mpsc::Receiver<Submitted>>,
    access: Arc<Access>,
    health: HealthReporter,
    others: Routes,
    /// Cuts every connection off.
    cut_off: CancellationToken,
}

impl Server {
    /// Takes all addresses.
    ///
    /// # Errors
    /// [`Error::Bind`], [`Error::SocketInUse`] or [`Error::NotASocket`] when one cannot be had; none is kept then.
    /// [`Error::Tls`] when keys, certificates or the state directory cannot be used.
    /// [`Error::Quotas`] when the address of their store is none.
    /// [`Error::State`] when the state of rollouts cannot be had.
    /// [`Error::Admin`] when the admin API would be open to everybody, or its tokens cannot be used.
    pub async fn bind(config: Config, plane: Plane) -> Result<Self, Error> {
        let mut xds = Vec::new();
        for listen in &config.xds_listen {
            xds.push(Listener::bind(listen)?);
        }
        let admin = match config.admin_listen {
            Some(address) => Some(Listener::bind(&Listen::Tcp(address))?),
            None => None,
        };
        let mut tls = Vec::new();
        for listen in config.tls.iter().flat_map(|settings| &settings.listen) {
            tls.push(Listener::bind_for_all(listen)?);
        }
        let metrics = Metrics::new();
        let (reviews, reviewing) = match config.tls.as_ref().and_then(|settings| settings.token_review.as_ref()) {
            Some(settings) => {
                TokenReviews::open(settings, metrics.clone()).await.map(|(ask, answer)| (Some(ask), Some(answer)))?
            }
            None => (None, None),
        };
        let trust = config.tls.as_ref().map(|settings| Trust::open(settings, reviews)).transpose()?;
        let access = Access::open(&config.admin_access, config.admin_listen, config.state.as_deref())?;
        let access = Arc::new(access);
        let addresses = addresses(&config, &xds, &tls, admin.as_ref())?;

        let store = Store::open(&config.quotas).map_err(Error::Quotas)?;
        let lobby = Arc::new(Lobby::new(max_connections(&config.limits)));
        let journal = Journal::new();
        let plane = plane.patient(plane::Patience {
            // What refers to a port that goes may wait itself, before a client can give it up.
            longest: 2 * config.streams.order_wait,
            ..plane::Patience::default()
        });
        let secrets = GatewaySecrets::default();
        let (plane_task, input, plane) = PlaneTask::new(plane, secrets.inventory(), metrics.clone(), journal.clone());
        let rollouts = Rollouts::open(config.state.as_deref(), input.clone(), metrics.clone()).await?;
        let patience = config.deadlines.inspect;
        let draining = CancellationToken::new();
        let issuer = trust.as_ref().map(|trust: &Trust| trust.issuer.clone());
        let mut discovery =
            Discovery::new(config, plane.clone(), metrics, journal.clone(), lobby, issuer, draining.clone());
        discovery.gateway_secrets = secrets;
        let discovery = Arc::new(discovery);
        let (intake, submitted) = Intake::new();
        let intents = Intents::new(plane.clone(), rollouts.1.clone(), intake, draining.clone());
        let views = Views::new(discovery.roster.clone(), plane.clone(), journal, patience, draining);
        let health = HealthReporter::new();
        for service in [WHOLE_SERVER, AGGREGATED] {
            health.set_service_status(service, ServingStatus::NotServing).await;
        }
        let quotas = QuotaService::new(plane.limits(), Arc::new(store), discovery.metrics.clone());
        let for_callers = for_callers(&health, &discovery, quotas.clone());
        let others = others(&health, &views, &discovery, access.clone(), quotas)?;
        let cut_off = CancellationToken::new();
        Ok(Self {
            addresses,
            xds,
            tls,
            trust,
            reviewing,
            for_callers,
            admin,
            discovery,
            plane,
            plane_task,
            input,
            views,
            rollouts,
            intents,
            submitted: Some(submitted),
            access,
            health,
            others,
            cut_off,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The way in for sources. Nothing is taken in before [`Server::run`].
    pub fn input(&self) -> Input {
        self.input.clone()
    }

    /// The objects that are handed over through the API, for whoever keeps them: once, and before [`Server::run`]. When
    /// nobody takes this, or it is dropped, nothing is taken.
    pub fn submitted(&mut self) -> Option<mpsc::Receiver<Submitted>> {
        self.submitted.take()
    }

    /// What clients report about their traffic, and the way to ask them for it.
    pub fn load_reports(&self) -> Arc<LoadReports> {
        self.discovery.loads.clone()
    }

    /// Certificates and keys of gateways, for whoever has them to put there.
    pub fn gateway_secrets(&self) -> GatewaySecrets {
        self.discovery.gateway_secrets.clone()
    }

    /// What clients report, as evidence for runs.
    pub fn telemetry(&self) -> Arc<Telemetry> {
        self.discovery.telemetry.clone()
    }

    /// Serves until `shutdown` is cancelled; then no new connections are taken, streams end as UNAVAILABLE, and what
    /// is still open at the drain deadline is cut off. When this returns, all tasks and Unix sockets are gone.
    /// Needs a multi-threaded runtime to serve more than one client at a time.
    ///
    /// # Errors
    /// [`Error::TaskEnded`] when a task that must not end has panicked; everything else is ended as above.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self {
            xds,
            tls,
            trust,
            reviewing,
            for_callers,
            admin,
            discovery,
            plane,
            plane_task,
            views,
            rollouts,
            intents,
            submitted,
            access,
            mut health,
            others,
            ..
        } = self;
        // What nobody has taken nobody will.
        drop(submitted);
        let (cut_off, input) = (self.cut_off, self.input);
        let (rollouts, rollouts_handle) = rollouts;
        let jwks = Jwks::new(&discovery.config.jwks, plane.key_sets(), input, discovery.metrics.clone());
        let (stop_plane, stop_admin) = (CancellationToken::new(), CancellationToken::new());
        // Should this future be dropped before its end, nothing of it goes on.
        let _guards = [&discovery.draining, &cut_off, &stop_admin, &stop_plane].map(|token| token.clone().drop_guard());
        let (runtime, stop) = (Handle::current(), stop_plane.clone());
        let mut plane_thread = tokio::task::spawn_blocking(move || plane_task.run(&runtime, &stop));
        let telemetry = discovery.telemetry.clone();
        let rollouts = rollouts.run(plane.clone(), views.clone(), telemetry, discovery.draining.clone());
        let mut conducting = tokio::spawn(rollouts);
        let mut accepting = JoinSet::new();
        for listener in xds {
            accepting.spawn(accept_xds(listener, discovery.clone(), others.clone(), cut_off.clone()));
        }
        let rotator = trust.as_ref().map(|trust| {
            let (roster, patience) = (discovery.roster.clone(), discovery.config.deadlines.inspect);
            Rotator::new(trust, roster, patience, trust.rotation_settle)
        });
        if let Some(trust) = trust {
            for listener in tls {
                let (discovery, services) = (discovery.clone(), for_callers.clone());
                accepting.spawn(accept_tls(listener, discovery, services, trust.clone(), cut_off.clone()));
            }
            accepting.spawn(keep(trust, discovery.draining.clone()));
        }
        if let Some(reviewing) = reviewing {
            accepting.spawn(reviewing.run(discovery.draining.clone()));
        }
        accepting.spawn(jwks.run(discovery.draining.clone()));
        let mut administration = JoinSet::new();
        if let Some(listener) = admin {
            let Discovery { metrics, draining, config, loads, .. } = &*discovery;
            let deadlines = config.deadlines.clone();
            let services = admin_services(&health, &views, &intents, &discovery)?;
            let router = admin::router(Admin {
                views,
                plane: plane.clone(),
                metrics: metrics.clone(),
                draining: draining.clone(),
                deadlines: deadlines.clone(),
                loads: loads.clone(),
                rollouts: rollouts_handle,
                intents,
                rotator,
            });
            let router = router.layer(from_fn_with_state(services.into_axum_router(), by_protocol));
            let router = router.layer(from_fn_with_state(access, guard));
            administration.spawn(accept_admin(listener, router, stop_admin.clone(), deadlines));
        }

        let tasks = (&mut accepting, &mut administration, &mut conducting);
        let outcome = serve(&shutdown, &mut plane_thread, tasks, plane, &health).await;

        discovery.draining.cancel();
        for service in [WHOLE_SERVER, AGGREGATED] {
            health.set_service_status(service, ServingStatus::NotServing).await;
            // Ends the streams of those who watch it.
            health.clear_service_status(service).await;
        }
        if !conducting.is_finished() {
            ended("rollouts", conducting.await)?;
        }
        // The listeners are closed and their files removed when these have ended.
        while accepting.join_next().await.is_some() {}
        discovery.tasks.close();
        let drain = discovery.config.deadlines.drain;
        if tokio::time::timeout(drain, discovery.tasks.wait()).await.is_err() {
            tracing::warn!(seconds = drain.as_secs_f64(), "cutting off what has not ended by itself");
            cut_off.cancel();
            discovery.tasks.wait().await;
        }
        stop_admin.cancel();
        while administration.join_next().await.is_some() {}
        stop_plane.cancel();
        if !plane_thread.is_finished() {
            ended("plane", plane_thread.await)?;
        }
        outcome
    }
}

/// Waits for the shutdown, or for a task to end that must not.
async fn serve(
    shutdown: &CancellationToken,
    plane_thread: &mut tokio::task::JoinHandle<()>,
    (accepting, administration, conducting): (&mut JoinSet<()>, &mut JoinSet<()>, &mut tokio::task::JoinHandle<()>),
    mut plane: PlaneHandle,
    health: &HealthReporter,
) -> Result<(), Error> {
    let mut is_announced = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = plane.synced(), if !is_announced => {
                is_announced = true;
                for service in [WHOLE_SERVER, AGGREGATED] {
                    health.set_service_status(service, ServingStatus::Serving).await;
                }
                tracing::info!("synchronised; streams are served");
            }
            result = &mut *plane_thread => return ended("plane", result),
            result = &mut *conducting => return ended("rollouts", result),
            Some(result) = accepting.join_next() => return ended("accept", result),
            Some(result) = administration.join_next() => return ended("admin", result),
        }
    }
}

fn ended(task: &'static str, result: Result<(), JoinError>) -> Result<(), Error> {
    result.map_err(|error| Error::TaskEnded { task, reason: error.to_string() })
}

fn addresses(
    config: &Config,
    xds: &[Listener],
    tls: &[Listener],
    admin: Option<&Listener>,
) -> Result<Addresses, Error> {
    let address = |listen: &Listen, listener: &Listener| {
        listener.address().map_err(|source| Error::Bind { listen: listen.clone(), source })
    };
    let xds = config.xds_listen.iter().zip(xds).map(|(listen, listener)| address(listen, listener));
    let wanted = config.tls.iter().flat_map(|settings| &settings.listen);
    let tls = wanted.zip(tls).map(|(wanted, listener)| address(wanted, listener));
    let admin = match (config.admin_listen, admin) {
        (Some(asked), Some(listener)) => match address(&Listen::Tcp(asked), listener)? {
            Listen::Tcp(address) => Some(address),
            Listen::Unix(_) => None,
        },
        _ => None,
    };
    Ok(Addresses { xds: xds.collect::<Result<_, _>>()?, xds_tls: tls.collect::<Result<_, _>>()?, admin })
}

/// What the limit on open files leaves, unless the operator has chosen.
fn max_connections(limits: &Limits) -> usize {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let descriptors = descriptors.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    limits.max_connections.unwrap_or(usize::MAX).min(descriptors.saturating_sub(OTHER_DESCRIPTORS)).max(1)
}

/// The gRPC services beside discovery on the ports for xDS. What shows the server is guarded; nothing changes it.
fn others(
    health: &HealthReporter,
    views: &Views,
    discovery: &Arc<Discovery>,
    access: Arc<Access>,
    quotas: RateLimitServiceServer<QuotaService>,
) -> Result<Routes, Error> {
    let for_clients = [LOAD_REPORTING, METRICS, ACCESS_LOGS, RATE_LIMITS, CLIENT_STATUS];
    let routes = views_of(health, views, discovery, for_clients.into_iter().chain(service_names()).collect())?
        .add_service(LoadService::new(discovery.clone()))
        .add_service(MetricsService::new(discovery.clone()))
        .add_service(LogService::new(discovery.clone()))
        .add_service(quotas);
    Ok(Routes::from(routes.into_axum_router().layer(from_fn_with_state(access, guard_views))).prepare())
}

/// The gRPC services of the admin port.
fn admin_services(
    health: &HealthReporter,
    views: &Views,
    intents: &Intents,
    discovery: &Arc<Discovery>,
) -> Result<Routes, Error> {
    let routes = views_of(health, views, discovery, vec![CLIENT_STATUS, INTENTS])?;
    let routes = routes.add_service(IntentService::new(intents.clone()));
    Ok(Routes::from(routes.into_axum_router().layer(map_response(async |response: Response| of_bad_message(response))))
        .prepare())
}

/// What shows the server by gRPC, with reflection that knows these services beside it.
fn views_of(
    health: &HealthReporter,
    views: &Views,
    discovery: &Arc<Discovery>,
    others: Vec<&'static str>,
) -> Result<Routes, Error> {
    let reflection = |error: tonic_reflection::server::Error| Error::Reflection(error.to_string());
    let builder = || {
        let ours = [ADMIN, HEALTH];
        ours.into_iter().chain(others.clone()).fold(
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET),
            |builder, name| builder.with_service_name(name),
        )
    };
    let health = HealthService::from_health_reporter(health.clone());
    Ok(Routes::new(tonic_health::pb::health_server::HealthServer::new(health))
        .add_service(builder().build_v1().map_err(reflection)?)
        .add_service(builder().build_v1alpha().map_err(reflection)?)
        .add_service(AdminService::new(views.clone()))
        .add_service(ClientStatusService::new(discovery.roster.clone(), discovery.config.deadlines.inspect)))
}

/// Calls of gRPC go to its services, everything else to the API over HTTP.
async fn by_protocol(State(mut services): State<Router>, request: Request, next: Next) -> Response {
    match is_grpc(request.headers()) {
        true => match Service::call(&mut services, request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        false => next.run(request).await,
    }
}

/// The gRPC services beside discovery that callers over TLS have, who have proved who they are: what shows or changes the
/// server itself is not among them.
fn for_callers(
    health: &HealthReporter,
    discovery: &Arc<Discovery>,
    quotas: RateLimitServiceServer<QuotaService>,
) -> Routes {
    let health = HealthService::from_health_reporter(health.clone());
    let routes = Routes::new(tonic_health::pb::health_server::HealthServer::new(health))
        .add_service(LoadService::new(discovery.clone()))
        .add_service(quotas);
    match &discovery.issuer {
        Some(issuer) => routes.add_service(CertificateService::new(issuer.clone(), discovery.metrics.clone())),
        None => routes,
    }
    .prepare()
}

async fn accept_xds(listener: Listener, discovery: Arc<Discovery>, others: Routes, cut_off: CancellationToken) {
    let serve = |socket: Socket, peer: Peer, seat: Seat| {
        discovery.tasks.spawn(serve_connection(discovery.clone(), others.clone(), socket, peer, seat, None));
    };
    accept_with(listener, &discovery, &cut_off, serve).await;
}

/// The same over TLS, or to users of this machine: what follows the handshake is served as without.
async fn accept_tls(
    listener: Listener,
    discovery: Arc<Discovery>,
    services: Routes,
    trust: Trust,
    cut_off: CancellationToken,
) {
    let serve = |socket: Socket, peer: Peer, seat: Seat| {
        discovery.tasks.spawn(serve_tls(discovery.clone(), services.clone(), trust.clone(), socket, peer, seat));
    };
    accept_with(listener, &discovery, &cut_off, serve).await;
}

async fn serve_tls(discovery: Arc<Discovery>, services: Routes, trust: Trust, socket: Socket, peer: Peer, seat: Seat) {
    let (cut_off, draining) = (seat.cut_off().clone(), discovery.draining.clone());
    // In a box: what the handshake needs is not to be kept by the connection that follows.
    let begun = Box::pin(handshake(&trust.front, &trust.gate, socket, peer, discovery.config.deadlines.first_request));
    let begun = tokio::select! {
        begun = begun => begun,
        () = cut_off.cancelled() => None,
        () = draining.cancelled() => None,
    };
    match begun {
        Some((socket, peer, channel)) => {
            serve_connection(discovery, services, socket, peer, seat, Some(channel)).await;
        }
        None => discovery.metrics.connection_closed("tls"),
    }
}

async fn accept_with(
    listener: Listener,
    discovery: &Discovery,
    cut_off: &CancellationToken,
    serve: impl Fn(Socket, Peer, Seat),
) {
    let (stop, lobby) = (discovery.draining.clone(), discovery.lobby.clone());
    let mut was_full = false;
    let take = |socket: Socket, peer: Peer| match discovery.lobby.take_seat(cut_off.child_token()) {
        Some(seat) => {
            was_full = false;
            serve(socket, peer, seat);
        }
        None => {
            discovery.metrics.connection_closed("full");
            if !std::mem::replace(&mut was_full, true) {
                let open = discovery.lobby.taken();
                tracing::warn!(%peer, open, "connections are refused: as many are open as may be");
            }
        }
    };
    accept_until(stop, listener, take, move || lobby.cut_off_oldest_silent()).await;
}

/// Serves the admin API until `stop` is cancelled, and joins its connections.
async fn accept_admin(listener: Listener, router: Router, stop: CancellationToken, deadlines: Deadlines) {
    let connections = TaskTracker::new();
    let take = |socket: Socket, peer: Peer| {
        let streams = Tracked(connections.clone());
        connections.spawn(serve_admin(socket, peer, router.clone(), streams, stop.clone(), deadlines.clone()));
    };
    accept_until(stop.clone(), listener, take, || false).await;
    connections.close();
    connections.wait().await;
}

/// Runs the streams of HTTP/2 connections, owned like the connections themselves.
#[derive(Clone, Debug)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

async fn serve_admin(
    socket: Socket,
    peer: Peer,
    router: Router,
    streams: Tracked,
    stop: CancellationToken,
    deadlines: Deadlines,
) {
    let mut builder = hyper_util::server::conn::auto::Builder::new(streams);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(deadlines.first_request);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(deadlines.keepalive_interval)
        .keep_alive_timeout(deadlines.keepalive_timeout)
        .max_concurrent_streams(ADMIN_STREAMS);
    let has_asked = Arc::new(AtomicBool::new(false));
    let asked = has_asked.clone();
    let service = hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(peer);
        Service::call(&mut router.clone(), request)
    });
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(socket), service));
    let mut first_request = std::pin::pin!(tokio::time::sleep(deadlines.first_request));
    let (mut is_stopping, mut is_watched) = (false, true);
    loop {
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "admin connection lost");
                }
                return;
            }
            // Which protocol is spoken shows with the first bytes, for which nothing else has a limit.
            () = first_request.as_mut(), if is_watched => {
                if !has_asked.load(Ordering::Relaxed) {
                    return;
                }
                is_watched = false;
            }
            () = stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                serving.as_mut().graceful_shutdown();
            }
            // An answer that nobody takes must not keep the server from ending.
            () = tokio::time::sleep(deadlines.inspect), if is_stopping => return,
        }
    }
}
