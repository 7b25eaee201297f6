//! A world in YAML, and every listener that one client gets from it.
//!
//! The first line says who the client is, as a comment; the rest is manifests. They are not validated as the file source
//! validates them, because objects also come from elsewhere: what makes no sense has to be harmless here too.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::config::listener::v3::Listener;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use world::api::istio::{Destination, TrafficPolicy};
use world::{
    Change, Hostname, Kind, Labels, Location, Meta, Object, ObjectRef, PolicyKind, Problem, Reader, Service, Spec,
    World,
};

use crate::gateway::{GatewayInput, hosts, listeners};
use crate::listener::{
    ContributionInput, InboundInput, OutboundInput, Reading, bound_inbound, contributions, http_proxy, outbound,
    served, virtual_inbound, virtual_outbound,
};
use crate::security::{Guards, Peer};
use crate::{
    Audience, Built, HostDelivery, Interception, Missing, MissingDestination, Options, OutboundPolicy, Proxy, Secrets,
    Target, names,
};

/// The first line, after `# client: `.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Client {
    /// `redirect`, `tproxy`, `none` (sidecars), or `gateway`.
    proxy: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    addresses: Vec<std::net::IpAddr>,
    #[serde(default)]
    http_proxy_port: Option<u16>,
    /// Whether it has a certificate.
    #[serde(default)]
    certificate: bool,
    #[serde(default)]
    reweight: bool,
    #[serde(default)]
    registry_only: bool,
    /// Which listeners to show: names, or all when empty.
    #[serde(default)]
    show: Vec<String>,
    /// Whether connection managers are shown whole.
    #[serde(default)]
    whole: bool,
}

/// A client in its world.
pub(crate) struct Mesh {
    world: World,
    pub(crate) client: Client,
    audience: Audience,
    options: Options,
}

/// What a client gets.
pub(crate) struct Compiled {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) tables: Vec<Value>,
    pub(crate) problems: Vec<Problem>,
}

impl Mesh {
    pub(crate) fn read(text: &str) -> Self {
        let first = text.lines().next().and_then(|line| line.strip_prefix("# client: ")).unwrap();
        let client: Client = serde_saphyr::from_str(first).unwrap();
        let mut world = World::default();
        for (at, document) in text.split("\n---\n").enumerate() {
            world.apply(Change::Apply(Arc::new(object(document, at + 1))));
        }
        let sidecar = |interception| Proxy::Sidecar { interception, http_proxy_port: client.http_proxy_port };
        let proxy = match client.proxy.as_str() {
            "redirect" => sidecar(Interception::Redirect),
            "tproxy" => sidecar(Interception::Tproxy),
            "none" => sidecar(Interception::None),
            "gateway" => Proxy::Gateway,
            other => panic!("unknown proxy {other}"),
        };
        let audience = Audience {
            proxy,
            namespace: if client.namespace.is_empty() { "shop".into() } else { client.namespace.as_str().into() },
            labels: Arc::new(client.labels.clone()),
            addresses: client.addresses.clone(),
            hosts: HostDelivery::Inline,
            lacks: proto::Extensions::default(),
            secrets: if client.certificate { Secrets::Stream } else { Secrets::None },
            control_plane: None,
        };
        let options = Options {
            missing_destination: if client.reweight {
                MissingDestination::Reweight
            } else {
                MissingDestination::Unavailable
            },
            outbound_policy: if client.registry_only { OutboundPolicy::RegistryOnly } else { OutboundPolicy::AllowAny },
            ..Options::default()
        };
        Self { world, client, audience, options }
    }

    /// Every listener, checked against Envoy's own rules; the clusters that a listener names are those it says it does.
    pub(crate) fn compile(&self) -> Compiled {
        let reader = Reader::new(&self.world);
        let mut all = Built::new(Vec::new());
        let mut tables = Vec::new();
        if self.audience.proxy == Proxy::Gateway {
            tables = self.gateway(&reader, &mut all);
        } else {
            self.outbound(&reader, &mut all);
            self.inbound(&reader, &mut all);
        }
        for listener in &all.value {
            let checked = proto::wire::check(ResourceType::Listener.type_url(), &listener.encode_to_vec());
            assert_eq!(checked, Ok(()), "{}", listener.name);
        }
        all.problems.sort();
        all.problems.dedup();
        Compiled { listeners: all.value, tables, problems: all.problems }
    }

    fn outbound(&self, reader: &Reader<'_>, all: &mut Built<Vec<Listener>>) {
        let resolve = |namespace: &str, to: &Destination, port| self.resolve(reader, namespace, to, port);
        let policies = |namespace: &str, to: &Destination, _| self.policy(reader, namespace, to);
        let mut by_key = BTreeMap::new();
        for host in self.world.hosts() {
            let service = reader.service(host, &self.audience.scope()).unwrap();
            let object = reader.mesh_routes(host, &self.audience.scope());
            let rule = reader.rule(host, &service.namespace, &self.audience.scope(), &self.audience.labels);
            for port in &service.ports {
                let contributions = contributions(&ContributionInput {
                    audience: &self.audience,
                    service,
                    port,
                    routes: object.map(|o| &**o),
                    policy: &rule.policy.clone().unwrap_or_default(),
                    endpoints: &reader.endpoints(service, port.number),
                    logged: false,
                    reading: Reading::default(),
                    resolve: &resolve,
                    policies: &policies,
                    options: &self.options,
                    domain: "cluster.local",
                });
                for contribution in all.absorb(contributions) {
                    by_key.entry(contribution.key.clone()).or_insert_with(Vec::new).push(contribution);
                }
            }
        }
        for (key, contributions) in by_key {
            // The order must not matter.
            let contributions: Vec<_> = contributions.iter().rev().collect();
            let input = OutboundInput {
                audience: &self.audience,
                key: key.clone(),
                contributions: &contributions,
                options: &self.options,
                access_log: None,
            };
            let listener = all.absorb(outbound(&input));
            assert_eq!(*listener.name, *key.name());
            all.value.push(listener);
        }
        let port = self.client.http_proxy_port;
        let fixed = virtual_outbound(&self.audience, &self.options).into_iter();
        for built in
            fixed.chain(port.map(|port| http_proxy(port, proto::Extensions::default(), Reading::default(), None)))
        {
            let listener = all.absorb(built);
            all.value.push(listener);
        }
    }

    fn inbound(&self, reader: &Reader<'_>, all: &mut Built<Vec<Listener>>) {
        let by = reader.served_by(&self.audience.namespace, &self.audience.labels, &self.audience.addresses);
        let served = all.absorb(served(&by));
        let policies = reader.policies(PolicyKind::PeerAuthentication, &self.audience.namespace, &self.audience.labels);
        let peer = Peer::of(&policies);
        let settings = reader.settings();
        let (audience, guards) = (&self.audience, &Guards::default());
        let reading = Reading::default();
        let input =
            InboundInput { audience, served: &served, peer: &peer, settings, reading, guards, access_log: None };
        let built = match self.audience.interception() {
            Interception::None => bound_inbound(&input),
            Interception::Redirect | Interception::Tproxy => virtual_inbound(&input).into_iter().collect(),
        };
        for built in built {
            let listener = all.absorb(built);
            all.value.push(listener);
        }
    }

    fn gateway(&self, reader: &Reader<'_>, all: &mut Built<Vec<Listener>>) -> Vec<Value> {
        let input = GatewayInput {
            audience: &self.audience,
            gateways: &reader.gateways(&self.audience.labels),
            served: &reader.served_by(&self.audience.namespace, &self.audience.labels, &self.audience.addresses),
            routes: &|gateway| reader.gateway_routes(gateway).into_iter().cloned().collect(),
            resolve: &|namespace: &str, to: &Destination, port| self.resolve(reader, namespace, to, port),
            policies: &|namespace: &str, to: &Destination, _| self.policy(reader, namespace, to),
            options: &self.options,
            settings: reader.settings(),
            secrets: &|name| reader.secret(&self.audience.namespace, &name.into()),
            reading: Reading::default(),
            guards: &Guards::default(),
            access_log: None,
        };
        let found = all.absorb(listeners(&input));
        all.value.extend(found);
        let tables = all.absorb(hosts(&input));
        let show = |table: &crate::gateway::RouteTable| {
            let hosts = table.hosts.iter().map(|host| {
                let routes = host.routes.iter().map(|r| format!("{} by {}", r.object.reference, r.gateway));
                json!({
                    "name": *host.name, "domains": host.domains.iter().map(|d| &**d).collect::<Vec<_>>(),
                    "routes": routes.collect::<Vec<_>>(), "httpsRedirect": host.https_redirect,
                })
            });
            json!({ "name": *table.name, "port": table.port, "hosts": hosts.collect::<Vec<_>>() })
        };
        tables.iter().map(show).collect()
    }

    fn find<'w>(&self, reader: &Reader<'w>, namespace: &str, to: &Destination) -> Result<&'w Arc<Service>, Hostname> {
        let host = Hostname::qualified(&to.host, namespace, "cluster.local");
        reader.service(&host, &self.audience.scope()).ok_or(host)
    }

    fn resolve(&self, reader: &Reader<'_>, namespace: &str, to: &Destination, listener_port: u16) -> Target {
        let service = match self.find(reader, namespace, to) {
            Ok(service) => service,
            Err(host) => return Target::Missing(Missing::Service { host }),
        };
        let known: Vec<u16> = service.ports.iter().map(|p| p.number).collect();
        let asked = to.port.as_ref().map(|p| p.number);
        let guessed = asked.unwrap_or(if known.len() == 1 { known[0] } else { listener_port });
        let host = service.host.clone();
        if !known.contains(&guessed) {
            return Target::Missing(Missing::Port { host, port: asked, known });
        }
        let rule = reader.rule(&host, &service.namespace, &self.audience.scope(), &self.audience.labels);
        if !to.subset.is_empty() && rule.subset(&to.subset).is_none() {
            let suggestion = "kind: DestinationRule".to_owned();
            return Target::Missing(Missing::Subset { host, subset: to.subset.clone(), suggestion });
        }
        let protocol = service.ports.iter().find(|port| port.number == guessed).unwrap().protocol;
        let name = names::outbound_cluster(guessed, &to.subset, &host);
        Target::Cluster { name, hash: None, protocol, rollout: None }
    }

    fn policy(&self, reader: &Reader<'_>, namespace: &str, to: &Destination) -> TrafficPolicy {
        let Ok(service) = self.find(reader, namespace, to) else { return TrafficPolicy::default() };
        let rule = reader.rule(&service.host, &service.namespace, &self.audience.scope(), &self.audience.labels);
        rule.policy.unwrap_or_default()
    }
}

/// Reads a manifest; its place in the file stands for its line.
fn object(document: &str, at: usize) -> Object {
    let whole: Value = serde_saphyr::from_str(document).unwrap_or_else(|e| panic!("document {at}: {e}"));
    let (metadata, spec) = (&whole["metadata"], &whole["spec"]);
    let (kind, spec) = match whole["kind"].as_str().unwrap() {
        "Service" => (Kind::Service, Spec::Service(part(spec))),
        "ServiceEntry" => (Kind::ServiceEntry, Spec::ServiceEntry(part(spec))),
        "DestinationRule" => (Kind::DestinationRule, Spec::DestinationRule(part(spec))),
        "VirtualService" => (Kind::VirtualService, Spec::VirtualService(part(spec))),
        "Gateway" => (Kind::Gateway, Spec::Gateway(part(spec))),
        "PeerAuthentication" => (Kind::PeerAuthentication, Spec::PeerAuthentication(part(spec))),
        "Pod" => (Kind::Pod, Spec::Pod(part(&whole))),
        other => panic!("document {at}: unknown kind {other}"),
    };
    let text = |field: &str| metadata[field].as_str().unwrap_or_default();
    let namespace = if text("namespace").is_empty() { "shop" } else { text("namespace") };
    Object {
        reference: ObjectRef::new(kind, namespace, text("name")),
        meta: Meta {
            labels: Arc::new(part(&metadata["labels"])),
            created: text("creationTimestamp").into(),
            location: Some(Location { file: "mesh.yaml".into(), line: u32::try_from(at).unwrap(), column: 0 }),
            ..Meta::default()
        },
        spec,
    }
}

fn part<T: DeserializeOwned + Default>(value: &Value) -> T {
    if value.is_null() { T::default() } else { serde_json::from_value(value.clone()).unwrap() }
}

impl Compiled {
    /// The golden's contents.
    pub(crate) fn view(&self, client: &Client) -> Value {
        let shown = self.listeners.iter().filter(|l| client.show.is_empty() || client.show.contains(&l.name));
        let listeners = shown.map(|listener| {
            let mut value = proto::descriptor::to_json(ResourceType::Listener.type_url(), &listener.encode_to_vec());
            shorten(&mut value, client.whole);
            value
        });
        let problems = self.problems.iter().map(|problem| json!(problem.to_string().lines().collect::<Vec<_>>()));
        let mut view = json!({ "listeners": listeners.collect::<Vec<_>>() });
        if !self.tables.is_empty() {
            view["routes"] = json!(self.tables);
        }
        view["problems"] = json!(problems.collect::<Vec<_>>());
        view
    }
}

/// Leaves of a connection manager only what differs between two of them, unless it is wanted whole.
fn shorten(value: &mut Value, whole: bool) {
    match value {
        Value::Object(fields) => {
            let manager =
                fields.get("@type").and_then(Value::as_str).is_some_and(|t| t.ends_with("HttpConnectionManager"));
            if manager && !whole {
                let filters = fields.get("http_filters").and_then(Value::as_array).map(|all| {
                    all.iter()
                        .map(|f| f["name"].as_str().unwrap().rsplit('.').next().unwrap())
                        .collect::<Vec<_>>()
                        .join(" ")
                });
                let routes = fields
                    .get("rds")
                    .map_or_else(|| fields["route_config"].clone(), |r| r["route_config_name"].clone());
                *value = json!({ "http": fields["stat_prefix"], "filters": filters, "routes": routes });
            } else {
                fields.values_mut().for_each(|value| shorten(value, whole));
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|value| shorten(value, whole)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
