//! `tls[]` and `tcp[]` of a VirtualService.
//!
//! What depends on the client (gateways, ports, labels, namespace) is decided here; what depends on the connection
//! (SNI, destination address) is left to the proxy. The first match in the order written wins.

use std::collections::{BTreeMap, BTreeSet};

use world::api::istio::{L4Destination, L4Match, VirtualService};
use world::{Hostname, Object, Problem, Spec};

use super::chain::{Range, parse_range};
use super::shares::{Policies, SharesInput, shares};
use super::{Chain, Leaf, Matching, TcpProxyInput, Transport, mark, tcp_proxy};
use crate::{Audience, Built, Options, Resolve, Target};

/// All that the TCP and TLS routes of a VirtualService depend on.
pub(crate) struct L4Input<'a> {
    /// The client.
    pub(crate) audience: &'a Audience,
    /// `mesh`, or `<namespace>/<name>` of the Gateway.
    pub(crate) gateway: &'a str,
    /// The port that the service or the Gateway's server declares.
    pub(crate) port: u16,
    /// The VirtualService; objects of other kinds have no routes.
    pub(crate) object: &'a Object,
    /// Follows destinations.
    pub(crate) resolve: &'a Resolve<'a>,
    /// Policies of destinations.
    pub(crate) policies: &'a Policies<'a>,
    /// What to do with destinations that do not exist.
    pub(crate) options: &'a Options,
    /// The cluster's DNS domain, for short names.
    pub(crate) domain: &'a str,
}

/// The chains of `tcp[]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TcpChains {
    /// In the order written.
    pub(crate) chains: Vec<Chain>,
    /// Whether the last of them takes everything that is left, so that no default is wanted.
    pub(crate) complete: bool,
}

/// The chains of `tls[]`, each of which matches SNI; empty when no route is for this client. Addresses are those of the
/// match, else `ranges`. With `within`, names are narrowed to these patterns.
pub(crate) fn tls_chains(input: &L4Input<'_>, ranges: &[Range], within: Option<&[Hostname]>) -> Built<Vec<Chain>> {
    let mut built = Built::new(Vec::new());
    let Spec::VirtualService(spec) = &input.object.spec else { return built };
    let mut seen = Seen::default();
    for (at, route) in spec.tls.iter().enumerate() {
        for (match_at, condition) in route.matches.iter().enumerate() {
            let field = format!("spec.tls[{at}].match[{match_at}]");
            let names = server_names(input, spec, condition, &field, &mut built.problems);
            let subnets = subnets(input, condition, &field, &mut built.problems);
            let (Some(names), Some(subnets)) = (names, subnets) else { continue };
            if !input.applies(condition) {
                continue;
            }
            let names = within.map_or_else(|| names.clone(), |within| narrowed(&names, within));
            let ranges = if subnets.is_empty() { ranges.to_vec() } else { subnets };
            let mut matching = names_matching(names);
            matching.ranges = ranges;
            if within.is_some() && matching.server_names.is_empty() && matching.transport != Transport::Tls {
                continue;
            }
            let unreachable = seen.unreachable(input, &field, &matching);
            if !seen.add(&mut matching, is_for_everyone(condition)) {
                built.problems.extend(unreachable);
                continue;
            }
            let chain = built.absorb(chain(input, &route.route, &format!("spec.tls[{at}].route")));
            built.value.push(chain.matching(matching));
        }
        if route.matches.is_empty() {
            built.problems.push(
                input
                    .error(format!("spec.tls[{at}].match"), "a TLS route needs a match with sniHosts")
                    .consequence("the route has no effect")
                    .hint("Add `match: [{sniHosts: [...]}]`."),
            );
        }
    }
    built
}

/// The chains of `tcp[]`. Addresses are those of the match, else `ranges`.
pub(crate) fn tcp_chains(input: &L4Input<'_>, ranges: &[Range]) -> Built<TcpChains> {
    let mut built = Built::new(TcpChains { chains: Vec::new(), complete: false });
    let Spec::VirtualService(spec) = &input.object.spec else { return built };
    let mut seen = Seen::default();
    for (at, route) in spec.tcp.iter().enumerate() {
        let Some(subnets) = tcp_subnets(input, &route.matches, at, &mut built.problems) else { continue };
        let complete = subnets.is_empty();
        let ranges = if complete { ranges.to_vec() } else { subnets };
        let mut matching = Matching { ranges, ..Matching::default() };
        let for_everyone = route.matches.is_empty() || route.matches.iter().all(is_for_everyone);
        let unreachable = seen.unreachable(input, &format!("spec.tcp[{at}]"), &matching);
        if built.value.complete || !seen.add(&mut matching, for_everyone) {
            built.problems.extend(unreachable);
            continue;
        }
        let chain = built.absorb(chain(input, &route.route, &format!("spec.tcp[{at}].route")));
        built.value.chains.push(chain.matching(matching));
        built.value.complete = complete;
    }
    built
}

impl L4Input<'_> {
    fn applies(&self, condition: &L4Match) -> bool {
        let namespace = &*self.object.reference.namespace;
        let gateway = |name: &String| match name.split_once('/') {
            None if name == "mesh" => self.gateway == "mesh",
            None => self.gateway.split_once('/') == Some((namespace, name)),
            Some((".", name)) => self.gateway.split_once('/') == Some((namespace, name)),
            Some(_) => self.gateway == name,
        };
        let labels = &self.audience.labels;
        (condition.gateways.is_empty() || condition.gateways.iter().any(gateway))
            && condition.port.is_none_or(|port| port == self.port)
            && condition.source_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && (condition.source_namespace.is_empty() || condition.source_namespace == *self.audience.namespace)
    }

    fn error(&self, field: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem::error(&self.object.reference, field, message).at(self.object.meta.location.clone())
    }
}

/// Whether a match takes the same connections of every client, on every port.
fn is_for_everyone(condition: &L4Match) -> bool {
    let L4Match { port, source_labels, source_namespace, gateways, sni_hosts: _, destination_subnets: _ } = condition;
    port.is_none() && source_labels.is_empty() && source_namespace.is_empty() && gateways.is_empty()
}

/// What earlier routes take, and whether they take it of every client.
#[derive(Default)]
struct Seen(BTreeMap<Leaf, bool>);

impl Seen {
    /// Leaves to `matching` what nobody takes, and notes it. `false` when that is nothing.
    fn add(&mut self, matching: &mut Matching, for_everyone: bool) -> bool {
        let left = matching.remove(|leaf| self.0.contains_key(leaf));
        if left {
            self.0.extend(matching.leaves().map(|leaf| (leaf, for_everyone)));
        }
        left
    }

    /// What to say when nothing is left of `matching`. A route that only some clients never reach is as it should be.
    fn unreachable(&self, input: &L4Input<'_>, field: &str, matching: &Matching) -> Option<Problem> {
        let taken = |leaf| self.0.get(&leaf).copied().unwrap_or(false);
        let everything = Matching::default();
        if !matching.leaves().all(taken) && !everything.leaves().all(taken) {
            return None;
        }
        Some(
            Problem::warning(&input.object.reference, field, "an earlier route takes all of these connections")
                .consequence("this one is never used")
                .hint("Move the more specific route up, or remove one of them.")
                .at(input.object.meta.location.clone()),
        )
    }
}

/// One chain for a list of destinations. Limits and hashing are those of the first destination's policy.
fn chain(input: &L4Input<'_>, destinations: &[L4Destination], field: &str) -> Built<Chain> {
    let object = input.object;
    let shares = shares(&SharesInput {
        object,
        field,
        destinations,
        port: input.port,
        resolve: input.resolve,
        options: input.options,
    });
    let namespace = &object.reference.namespace;
    let policies: Vec<_> =
        destinations.iter().map(|to| (input.policies)(namespace, &to.destination, input.port)).collect();
    let place = |(to, policy): (&L4Destination, _)| match (input.resolve)(namespace, &to.destination, input.port) {
        Target::Cluster { protocol, .. } => Some(mark::Place { protocol, policy }),
        Target::Missing(_) => None,
    };
    let places: Vec<_> = destinations.iter().zip(&policies).filter_map(place).collect();
    let is_marked = mark::is_needed(input.audience, &places);
    shares.map(|shares| {
        let stat_prefix = match &shares[..] {
            [(cluster, _)] => cluster.to_string(),
            _ => format!("{}.{}", object.reference.name, object.reference.namespace),
        };
        let filter = tcp_proxy(&TcpProxyInput { stat_prefix: &stat_prefix, shares: &shares, policy: policies.first() });
        let mut chain = Chain::new("", filter).naming(shares.into_iter().map(|(name, _)| name));
        chain.origins.push(object.reference.clone());
        if is_marked { chain.marked_as_bytes() } else { chain }
    })
}

/// The subnets of a TCP route for this client: none means any. `None` when the route is not for this client, or when
/// nothing that can be understood is left of its subnets.
fn tcp_subnets(input: &L4Input<'_>, matches: &[L4Match], at: usize, problems: &mut Vec<Problem>) -> Option<Vec<Range>> {
    if matches.is_empty() {
        return Some(Vec::new());
    }
    let mut all = Vec::new();
    let mut any = false;
    for (match_at, condition) in matches.iter().enumerate() {
        let field = format!("spec.tcp[{at}].match[{match_at}]");
        if !condition.sni_hosts.is_empty() {
            problems.push(
                input
                    .error(format!("{field}.sniHosts"), "a TCP route cannot match SNI")
                    .consequence("the match is treated as if sniHosts were not there")
                    .hint("Move the route to `tls`."),
            );
        }
        let Some(subnets) = subnets(input, condition, &field, problems) else { continue };
        if input.applies(condition) {
            any |= subnets.is_empty();
            all.extend(subnets);
        }
    }
    match (any, all.is_empty()) {
        (true, _) => Some(Vec::new()),
        (false, true) => None,
        (false, false) => Some(distinct(all)),
    }
}

/// The subnets of a match, without repetition. `None` when there are some and all of them are wrong: then the match
/// must not become one for every address.
fn subnets(input: &L4Input<'_>, condition: &L4Match, field: &str, problems: &mut Vec<Problem>) -> Option<Vec<Range>> {
    let mut good = Vec::new();
    for (at, text) in condition.destination_subnets.iter().enumerate() {
        match parse_range(text) {
            Some(range) => good.push(range),
            None => problems.push(
                input
                    .error(
                        format!("{field}.destinationSubnets[{at}]"),
                        format!("\"{text}\" is neither an IP address nor a subnet"),
                    )
                    .consequence("it matches no connection")
                    .hint("Write 10.0.0.1 or 10.0.0.0/8."),
            ),
        }
    }
    (condition.destination_subnets.is_empty() || !good.is_empty()).then(|| distinct(good))
}

fn distinct(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort();
    ranges.dedup();
    ranges
}

/// The SNI patterns of a match, in lower case. `None` when none can be used.
fn server_names(
    input: &L4Input<'_>,
    spec: &VirtualService,
    condition: &L4Match,
    field: &str,
    problems: &mut Vec<Problem>,
) -> Option<Vec<Hostname>> {
    if condition.sni_hosts.is_empty() {
        problems.push(
            input
                .error(format!("{field}.sniHosts"), "a TLS match needs at least one SNI host")
                .consequence("the match takes no connection")
                .hint("Use one of the hosts of the VirtualService, or `tcp` for routes without SNI."),
        );
        return None;
    }
    let qualify = |host: &String| Hostname::qualified(host, &input.object.reference.namespace, input.domain);
    let hosts: Vec<Hostname> = spec.hosts.iter().map(qualify).collect();
    let mut names = Vec::new();
    for (at, text) in condition.sni_hosts.iter().enumerate() {
        let name = Hostname::new(text);
        let covered = |name: &Hostname| hosts.iter().any(|host| host.covers(name));
        let wrong = if text.is_empty() {
            "an SNI host cannot be empty".to_owned()
        } else if !is_whole(&name) {
            format!("\"{text}\": a wildcard is `*`, or `*.` and a domain")
        } else if !covered(&name) && !covered(&qualify(text)) {
            format!("SNI host \"{text}\" is not among the hosts of the VirtualService")
        } else {
            names.push(name);
            continue;
        };
        problems.push(
            input
                .error(format!("{field}.sniHosts[{at}]"), wrong)
                .consequence("it matches no connection")
                .hint("Use a host of `spec.hosts`, or one that is below a wildcard host."),
        );
    }
    (!names.is_empty()).then_some(names)
}

/// Whether a wildcard, if there is one, is `*` alone or stands for whole labels at the front: Envoy takes no other SNI.
pub(crate) fn is_whole(name: &Hostname) -> bool {
    let rest = name.as_str().strip_prefix("*.").unwrap_or(name.as_str());
    rest == "*" && name.as_str() == "*" || !rest.contains('*') && !rest.is_empty()
}

/// The names as far as some pattern of `within` stands for them too.
fn narrowed(names: &[Hostname], within: &[Hostname]) -> Vec<Hostname> {
    let both = |name: &Hostname| within.iter().filter_map(|w| narrower(name, w)).collect::<Vec<_>>();
    names.iter().flat_map(both).collect()
}

/// What two patterns have in common: the narrower of them, if it is within the other.
pub(crate) fn narrower(one: &Hostname, other: &Hostname) -> Option<Hostname> {
    if one.covers(other) {
        Some(other.clone())
    } else if other.covers(one) {
        Some(one.clone())
    } else {
        None
    }
}

/// Matches any of these names; `*` among them is any TLS connection, for which Envoy has no pattern.
pub(crate) fn names_matching(names: Vec<Hostname>) -> Matching {
    if names.iter().any(|name| name.as_str() == "*") {
        return Matching { transport: Transport::Tls, ..Matching::default() };
    }
    let distinct: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
    Matching { server_names: distinct.into_iter().collect(), ..Matching::default() }
}
