//! One node that decodes everything, to learn the names that the others ask for without decoding.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use prost::{Message, Name};
use proto::ResourceType;
use proto::pb::envoy::config::cluster::v3::Cluster;
use proto::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use proto::pb::envoy::config::listener::v3::Listener;
use proto::pb::envoy::config::listener::v3::filter::ConfigType;
use proto::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use proto::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use proto::pb::google::protobuf::Any;

use crate::catalogue::{Found, assignment};
use crate::connection::{Buffers, Connection, End, Happened, Target, Traffic};
use crate::entries::Entries;
use crate::error::Error;
use crate::identity::Identity;
use crate::request::{NAMES, Request};
use crate::scan::{Received, Scanner};
use crate::scenario::{Scenario, Variant};

/// How long a server may take to answer a first request of a type, and to become ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long nothing must come for a server to have no more of what was asked for.
const QUIET: Duration = Duration::from_secs(1);
/// The gRPC status of a server that is not ready (rule P-42).
const UNAVAILABLE: u32 = 14;

/// Takes the whole configuration of one node more than the scenario has.
///
/// # Errors
/// If the server cannot be reached, or does not answer as a discovery server.
pub(crate) fn explore(scenario: &Scenario, target: &Target, stop: &AtomicBool) -> Result<Found, Error> {
    let failed = |reason: String| Error::Scout { server: target.address.to_string(), reason };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut scout = Scout::connect(scenario, target, stop).map_err(|end| failed(end.to_string()))?;
        match scout.explore(scenario) {
            Ok(()) => return Ok(scout.found),
            Err(Failure::End(End::Status { code: UNAVAILABLE, .. })) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(Failure::End(end)) => return Err(failed(end.to_string())),
            Err(Failure::Words(words)) => return Err(failed(words)),
            Err(Failure::Interrupted) => return Err(Error::Interrupted),
        }
    }
}

enum Failure {
    End(End),
    Words(String),
    Interrupted,
}

impl From<End> for Failure {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

struct Scout<'a> {
    connection: Connection,
    buffers: Buffers,
    variant: Variant,
    stop: &'a AtomicBool,
    /// Names that were asked for, by type; they are repeated in every request of the state of the world.
    asked: BTreeMap<ResourceType, Entries>,
    found: Found,
    /// Names that what was found refers to.
    endpoints: Vec<String>,
    routes: Vec<String>,
}

impl<'a> Scout<'a> {
    fn connect(scenario: &Scenario, target: &Target, stop: &'a AtomicBool) -> Result<Self, End> {
        let fd = target.address.connect(0).map_err(End::Connect)?;
        let scanner = Scanner::keeping(scenario.variant == Variant::Delta);
        Ok(Self {
            connection: Connection::new(fd, target, scanner)?,
            buffers: Buffers::new(),
            variant: scenario.variant,
            stop,
            asked: BTreeMap::new(),
            found: Found::default(),
            endpoints: Vec::new(),
            routes: Vec::new(),
        })
    }

    fn explore(&mut self, scenario: &Scenario) -> Result<(), Failure> {
        let identity = Identity::of(scenario, scenario.nodes);
        self.request(Request { node: Some(&identity), ..Request::of(self.variant, ResourceType::Cluster) });
        // The ACK of clusters would wait until they are warm; by then the scout has seen everything, so it is not needed.
        self.take(ResourceType::Cluster, None)?;
        let endpoints = std::mem::take(&mut self.endpoints);
        self.ask(ResourceType::Endpoints, endpoints)?;
        self.request(Request::of(self.variant, ResourceType::Listener));
        self.take(ResourceType::Listener, None)?;
        let routes = std::mem::take(&mut self.routes);
        self.ask(ResourceType::Route, routes)?;
        if self.found.virtual_hosts {
            self.request(Request::of(self.variant, ResourceType::VirtualHost));
            self.take(ResourceType::VirtualHost, None)?;
        }
        Ok(())
    }

    /// Asks for names, and takes what there is of them.
    fn ask(&mut self, kind: ResourceType, mut names: Vec<String>) -> Result<(), Failure> {
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return Ok(());
        }
        let entries = Entries::texts(NAMES, names.iter().map(String::as_str));
        self.request(Request { names: Some((&entries, entries.all())), ..Request::of(self.variant, kind) });
        self.asked.insert(kind, entries);
        self.take(kind, Some(names.len()))
    }

    fn request(&mut self, request: Request<'_>) {
        let outgoing = &mut self.connection.outgoing;
        request.send(&mut |piece| outgoing.push(piece));
    }

    /// Takes responses until there are so many resources of a type, or, if there are fewer, until no more come; without a
    /// number, until one response has come.
    fn take(&mut self, kind: ResourceType, wanted: Option<usize>) -> Result<(), Failure> {
        let mut deadline = Instant::now() + PATIENCE;
        let mut answered = false;
        while !answered || wanted.is_some_and(|wanted| self.found.count(kind) < wanted) {
            let mut received = Vec::new();
            if !self.wait(deadline, &mut received)? {
                if answered {
                    break;
                }
                return Err(Failure::Words(format!("no {kind} response came within {} s", PATIENCE.as_secs())));
            }
            for response in received {
                if response.kind == Some(kind) {
                    answered = true;
                    deadline = Instant::now() + QUIET;
                }
                self.learn(response)?;
            }
        }
        Ok(())
    }

    /// Sends what is to be sent and waits for something to come; `false` when the time is up.
    fn wait(&mut self, deadline: Instant, received: &mut Vec<Received>) -> Result<bool, Failure> {
        let traffic = &mut Traffic::default();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Failure::Interrupted);
            }
            let blocked = self.connection.send(&mut self.buffers, traffic)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let flags = if blocked { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
            let mut fds = [PollFd::new(self.connection.fd(), flags)];
            // Awake often enough to notice an interruption.
            let timeout = left.min(Duration::from_millis(100)) + Duration::from_millis(1);
            let _ = poll(&mut fds, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX));
            if fds[0].revents().is_some_and(|events| events.intersects(!PollFlags::POLLOUT)) {
                self.connection.receive(&mut self.buffers, traffic, &mut |_, happened, _| {
                    if let Happened::Response(response) = happened {
                        received.push(response);
                    }
                })?;
                if !received.is_empty() {
                    return Ok(true);
                }
            }
        }
    }

    /// Remembers a response, and acknowledges it.
    fn learn(&mut self, response: Received) -> Result<(), Failure> {
        let Some(kind) = response.kind else { return Ok(()) };
        let bytes = response.message.unwrap_or_default();
        let unreadable =
            |error: prost::DecodeError| Failure::Words(format!("a {kind} response is unreadable: {error}"));
        match self.variant {
            Variant::Delta => {
                let message = DeltaDiscoveryResponse::decode(&*bytes).map_err(unreadable)?;
                for resource in message.resources {
                    if let Some(any) = resource.resource {
                        self.look_into(kind, &any).map_err(unreadable)?;
                        self.found.resources.entry(kind).or_default().insert(resource.name, resource.version);
                    }
                }
            }
            Variant::Sotw => {
                let message = DiscoveryResponse::decode(&*bytes).map_err(unreadable)?;
                for any in message.resources {
                    let name = self.look_into(kind, &any).map_err(unreadable)?;
                    self.found.resources.entry(kind).or_default().insert(name, String::new());
                }
            }
        }
        let names = self.asked.get(&kind).map(|entries| (entries.clone(), entries.all()));
        let version: &[u8] = if self.variant == Variant::Sotw { &response.version } else { b"" };
        let names = names.as_ref().filter(|_| self.variant == Variant::Sotw).map(|(entries, all)| (entries, *all));
        self.request(Request { nonce: &response.nonce, version, names, ..Request::of(self.variant, kind) });
        Ok(())
    }

    /// Notes what a resource refers to; its name.
    fn look_into(&mut self, kind: ResourceType, any: &Any) -> Result<String, prost::DecodeError> {
        let bytes = any.value.as_slice();
        Ok(match kind {
            ResourceType::Cluster => {
                let cluster = Cluster::decode(bytes)?;
                self.endpoints.extend(assignment(&cluster).map(str::to_owned));
                cluster.name
            }
            ResourceType::Endpoints => ClusterLoadAssignment::decode(bytes)?.cluster_name,
            ResourceType::Listener => {
                let listener = Listener::decode(bytes)?;
                let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
                let configured =
                    chains.flat_map(|chain| &chain.filters).filter_map(|filter| match &filter.config_type {
                        Some(ConfigType::TypedConfig(any)) => Some(any),
                        _ => None,
                    });
                let configured = configured.chain(listener.api_listener.iter().flat_map(|api| &api.api_listener));
                for any in configured.filter(|any| any.type_url == HttpConnectionManager::type_url()) {
                    let manager = HttpConnectionManager::decode(any.value.as_slice())?;
                    if let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier {
                        self.routes.push(rds.route_config_name);
                    }
                }
                listener.name
            }
            ResourceType::Route => {
                let route = RouteConfiguration::decode(bytes)?;
                self.found.virtual_hosts |= route.vhds.is_some() && self.variant == Variant::Delta;
                route.name
            }
            ResourceType::VirtualHost => VirtualHost::decode(bytes)?.name,
            _ => String::new(),
        })
    }
}
