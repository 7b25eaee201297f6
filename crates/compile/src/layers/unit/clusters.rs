//! Clusters and their endpoints.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use proto::ResourceType;
use world::api::delivery::Revision;
use world::{
    Endpoint, Hostname, Object, ObjectRef, Problem, Protocol, Resolution, Service, ServicePort, Severity, Subset,
};

use crate::cluster::{self, ClusterInput, ClusterRollout, Discovery};
use crate::layers::output::Output;
use crate::layers::resolver::Resolver;
use crate::layers::rollout::{InForce, RevisionCluster, Via, Whole};
use crate::security::{Peers, Stated, Strictness};
use crate::{Interception, MutualTls, Proxy, Secrets, endpoints, listener, names};

/// The clusters and listeners that are always there.
pub(in crate::layers) fn statics(resolver: &Resolver<'_, '_>) -> Output {
    let mut output = Output::default();
    let audience = resolver.audience;
    let mut clusters = vec![cluster::black_hole()];
    match audience.proxy {
        Proxy::Sidecar { .. } if audience.interception() != Interception::None => {
            clusters.extend([cluster::passthrough(), cluster::inbound_passthrough()]);
        }
        Proxy::Sidecar { .. } => clusters.push(cluster::passthrough()),
        Proxy::Gateway => {}
        Proxy::Grpc => {
            let name: Arc<str> = names::BLACK_HOLE.into();
            let nothing = endpoints::assignment(&name, &[], &audience.proxy);
            let assignment = [(ResourceType::Endpoints, name.clone())];
            let (cluster, origins) = (cluster::black_hole_for_grpc(), BTreeSet::new());
            output.add(ResourceType::Cluster, name.clone(), &cluster, assignment, &origins);
            output.add_encoded(ResourceType::Endpoints, name, &nothing, None, &origins);
            return output;
        }
    }
    for cluster in clusters {
        output.add(ResourceType::Cluster, cluster.name.as_str().into(), &cluster, [], &BTreeSet::new());
    }
    if let Some(listener) = listener::virtual_outbound(audience, resolver.options) {
        output.add_listener(listener, []);
    }
    if let Proxy::Sidecar { http_proxy_port: Some(port), .. } = audience.proxy {
        output.add_listener(
            listener::http_proxy(port, resolver.audience.lacks, resolver.reading(), None),
            [(ResourceType::Route, names::HTTP_PROXY.into())],
        );
    }
    output
}

/// The clusters of a host: for each port one of the whole service, one of each subset and one of each revision.
pub(in crate::layers) fn clusters(resolver: &Resolver<'_, '_>, host: &Hostname) -> Output {
    let mut output = Output::default();
    each_cluster(resolver, host, Wanted::Clusters, |input, divided, strictness| {
        let built = cluster::encoded(input);
        let discovery = input.discovery();
        let assignment = (discovery == Discovery::Eds).then(|| (ResourceType::Endpoints, input.name.clone()));
        output.problems.extend(built.problems);
        if let Some(divided) = divided {
            output.problems.extend(divided.in_force.clashes());
            output.problems.extend(divided.in_force.is_in_vain(input.service, discovery, input.subset.is_none()));
        }
        let mut origins = built.origins;
        if let Some(strictness) = strictness {
            origins.extend(strictness.stated.iter().filter_map(|stated| stated.origin().cloned()));
            if cluster::is_left_in_the_clear(input) {
                output.problems.extend(strictness.stated.iter().filter_map(|stated| mixed(stated, input)));
            }
        }
        let (name, peers) = (input.name.clone(), cluster::admitted(input));
        output.add_meeting(peers, ResourceType::Cluster, name, &built.value, assignment, &origins);
    });
    output
}

/// gRPC treats all endpoints of a cluster alike, so those that take mutual TLS only are out of reach when others do not take
/// it.
fn mixed(stated: &Stated, input: &ClusterInput<'_>) -> Option<Problem> {
    let (host, port) = (&input.service.host, input.port.number);
    let (of_subset, hint) = match input.subset {
        Some(subset) => (
            format!(" in subset \"{}\"", subset.name),
            "Let STRICT hold for all workloads of the subset, or ask for ISTIO_MUTUAL in a DestinationRule.",
        ),
        None => (
            String::new(),
            "Let STRICT hold for all workloads of the service, send gRPC clients to subsets that are of one kind, or ask for \
             ISTIO_MUTUAL in a DestinationRule.",
        ),
    };
    let message = format!(
        "only some endpoints of port {port} of {host}{of_subset} take nothing but mutual TLS, and gRPC clients without a \
         proxy treat all of them alike"
    );
    let consequence =
        format!("gRPC clients that are sent to {host}{of_subset} call it in the clear, and fail where STRICT holds");
    let problem = stated.error(&message, &consequence)?;
    Some(Problem { severity: Severity::Warning, ..problem }.hint(hint))
}

/// What a gRPC client without a certificate cannot reach.
fn out_of_reach(stated: &Stated) -> Option<Problem> {
    let problem = stated.error(
        "workloads that this is for can be called by a gRPC client without a proxy whose bootstrap names no certificate \
         provider",
        "its calls to them fail",
    )?;
    let hint = "Keep certificates for it with `pointsman certificate`, and name them by `pointsman bootstrap --kind grpc \
                --certificates DIRECTORY`.";
    Some(Problem { severity: Severity::Warning, ..problem }.hint(hint))
}

/// The assignments of those clusters of a host that ask for one.
pub(in crate::layers) fn assignments(resolver: &Resolver<'_, '_>, host: &Hostname) -> Output {
    let mut output = Output::default();
    let proxy = &resolver.audience.proxy;
    let mut known: Option<(u16, Vec<Endpoint>, BTreeSet<ObjectRef>)> = None;
    each_cluster(resolver, host, Wanted::Assignments, |input, divided, _| {
        if input.discovery() != Discovery::Eds {
            return;
        }
        let port = input.port.number;
        if known.as_ref().is_none_or(|(of, ..)| *of != port) {
            let (found, policies) = resolver.endpoints(input.service, port);
            output.problems.extend(endpoints::problems(&input.service.origin, &found, proxy));
            if *proxy == Proxy::Grpc && resolver.audience.secrets == Secrets::None {
                let strictness = resolver.strictness(input.service, port, None, &[]);
                output.problems.extend(strictness.stated.iter().filter_map(out_of_reach));
            }
            known = Some((port, found, policies));
        }
        let all = known.as_ref().map(|(_, all, _)| all.as_slice()).unwrap_or_default();
        let (bytes, peers) = match (input.subset, divided) {
            (None, Some(Divided { in_force, .. })) => {
                (whole(resolver, input, in_force, all, &mut output.problems), resolver.peers(input.service, all))
            }
            (Some(subset), Some(Divided { fallback, revision, .. })) => {
                let all = with_kept(resolver, input, subset, revision.as_ref(), all);
                let own = endpoints::of_subset(&all, &subset.labels);
                match fallback {
                    Some(fallback) => {
                        let bytes = endpoints::with_fallback(input.name, &all, &subset.labels, &fallback.labels, proxy);
                        let others = endpoints::of_subset(&all, &fallback.labels);
                        (bytes, resolver.peers(input.service, own.chain(others)))
                    }
                    None => assigned(resolver, input, own),
                }
            }
            (Some(subset), None) => assigned(resolver, input, endpoints::of_subset(all, &subset.labels)),
            (None, None) => assigned(resolver, input, all),
        };
        let mut origins = BTreeSet::from([input.service.origin.clone()]);
        origins.extend(resolver.reader.endpoint_objects(input.service));
        origins.extend(input.rollout.map(|rollout| rollout.run.clone()));
        origins.extend(known.iter().flat_map(|(.., policies)| policies).cloned());
        let name = input.name.clone();
        output.add_meeting(peers.as_ref(), ResourceType::Endpoints, name, &bytes, None, &origins);
    });
    output
}

/// These endpoints as an assignment, and who they are.
fn assigned<'e>(
    resolver: &Resolver<'_, '_>,
    input: &'e ClusterInput<'_>,
    endpoints: impl IntoIterator<Item = &'e Endpoint> + Clone,
) -> (Vec<u8>, Option<Peers>) {
    let peers = resolver.peers(input.service, endpoints.clone());
    (endpoints::assignment(input.name, endpoints, &input.audience.proxy), peers)
}

/// All endpoints, and with a revision that has none those that it had and that its cluster keeps until clients know.
fn with_kept<'a>(
    resolver: &Resolver<'_, '_>,
    input: &ClusterInput<'_>,
    subset: &Subset,
    revision: Option<&Revision>,
    all: &'a [Endpoint],
) -> Cow<'a, [Endpoint]> {
    let kept =
        revision.map_or(&[][..], |revision| resolver.reader.kept_endpoints(input.service, input.port.number, revision));
    match kept.is_empty() || endpoints::of_subset(all, &subset.labels).next().is_some() {
        true => Cow::Borrowed(all),
        false => Cow::Owned([all, &resolver.marked(input.service, kept.to_vec()).0].concat()),
    }
}

/// The endpoints of the service as a whole, as the rollout divides them.
fn whole(
    resolver: &Resolver<'_, '_>,
    input: &ClusterInput<'_>,
    in_force: &InForce<'_>,
    all: &[Endpoint],
    problems: &mut Vec<Problem>,
) -> Vec<u8> {
    let ClusterInput { name, service, port, audience, .. } = input;
    let gateways: Vec<String>;
    let via = match audience.proxy {
        Proxy::Gateway => {
            let of = |gateway: &&Arc<Object>| format!("{}/{}", gateway.reference.namespace, gateway.reference.name);
            gateways = resolver.reader.gateways(&audience.labels).iter().map(of).collect();
            Via::Gateways(&gateways)
        }
        Proxy::Sidecar { .. } | Proxy::Grpc => Via::Mesh,
    };
    let (whole, wrong) = in_force.whole(audience, service, port, all, via);
    problems.extend(wrong);
    match whole {
        Whole::Plain => endpoints::assignment(name, all, &audience.proxy),
        Whole::Localities(parts) => endpoints::by_parts(name, all, &parts, &audience.proxy),
        Whole::Members(members) => endpoints::by_count(name, all, &members, &audience.proxy),
    }
}

/// How a rollout concerns a cluster.
struct Divided<'a> {
    in_force: &'a InForce<'a>,
    /// Whose endpoints follow those of the cluster.
    fallback: Option<&'a Subset>,
    /// Whose cluster it is; `None` for the service as a whole.
    revision: Option<Revision>,
}

/// What the clusters of a host are gone through for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Clusters,
    Assignments,
}

/// Calls `with` for every cluster of a host, ports outside, subsets and revisions inside, the whole service first; with
/// the rollout where the cluster is its own or divided by it, and for gRPC clients that have a certificate what the
/// endpoints take.
fn each_cluster(
    resolver: &Resolver<'_, '_>,
    host: &Hostname,
    wanted: Wanted,
    mut with: impl FnMut(&ClusterInput<'_>, Option<&Divided<'_>>, Option<&Strictness>),
) {
    let Some(service) = resolver.own_service(host) else { return };
    let rule = resolver.rule(service);
    let subsets = resolver.subsets(service, &rule);
    for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
        let inline = inline_endpoints(resolver, service, port);
        let in_force = resolver.in_force(service, &rule, port.number);
        let revisions = in_force.as_ref().map_or(&[][..], InForce::revisions);
        let mutual_tls = (wanted == Wanted::Clusters).then(|| {
            let kept = |revision: &RevisionCluster<'_>| {
                resolver.reader.kept_endpoints(service, port.number, revision.revision)
            };
            let kept: Vec<Endpoint> = revisions.iter().flat_map(kept).cloned().collect();
            resolver.mutual_tls(service, port.number, &kept)
        });
        let mutual_tls = mutual_tls.flatten();
        let mut one = |subset: Option<&Subset>, divided: Option<&Divided<'_>>| {
            let name = subset.map_or("", |subset| &subset.name);
            let name: Arc<str> = names::outbound_cluster(port.number, name, &service.host);
            let audience = resolver.audience;
            let rollout = divided.map(|divided| ClusterRollout {
                run: divided.in_force.run(),
                has_fallback: divided.fallback.is_some(),
                by_localities: subset.is_none() && divided.in_force.by_localities(port),
            });
            let (rule, endpoints) = (&rule, &inline);
            let strictness = (mutual_tls.is_some() && audience.is_grpc()).then(|| {
                let revision = divided.and_then(|divided| divided.revision.as_ref());
                let kept = |revision| resolver.reader.kept_endpoints(service, port.number, revision);
                resolver.strictness(service, port.number, subset, revision.map_or(&[], kept))
            });
            let of_cluster = strictness
                .as_ref()
                .zip(mutual_tls.as_ref())
                .map(|(strictness, mutual)| MutualTls { is_taken_by_all: strictness.is_of_all, ..mutual.clone() });
            let mutual_tls = of_cluster.as_ref().or(mutual_tls.as_ref());
            let input =
                ClusterInput { audience, name: &name, service, port, subset, rule, rollout, mutual_tls, endpoints };
            with(&input, divided, strictness.as_ref());
        };
        let whole = in_force.as_ref().filter(|in_force| in_force.by_endpoints(port));
        one(None, whole.map(|in_force| Divided { in_force, fallback: None, revision: None }).as_ref());
        let of = |revision: &RevisionCluster<'_>| {
            let in_force = in_force.as_ref()?;
            let fallback = in_force.fallback_of(revision);
            Some(Divided { in_force, fallback, revision: Some(revision.revision.clone()) })
        };
        for subset in &subsets {
            let revision = revisions.iter().find(|revision| revision.is_defined && revision.subset.name == subset.name);
            one(Some(subset), revision.and_then(of).as_ref());
        }
        for revision in revisions.iter().filter(|revision| !revision.is_defined) {
            one(Some(&revision.subset), of(revision).as_ref());
        }
    }
}

/// Endpoints that are part of the cluster itself.
fn inline_endpoints(resolver: &Resolver<'_, '_>, service: &Service, port: &ServicePort) -> Vec<Endpoint> {
    match service.resolution {
        Resolution::Dns | Resolution::DnsRoundRobin => resolver.endpoints(service, port.number).0,
        Resolution::Static | Resolution::Passthrough => Vec::new(),
    }
}
