//! Routes that leave an intent nothing to divide: a destination that names a subset goes there, whatever a run says.

use super::super::{Index, Objects};
use super::refused;
use crate::api::delivery::{DeploymentIntent, IntentProtocol};
use crate::api::istio::VirtualService;
use crate::{Hostname, Object, ObjectRef, Problem, Service, Settings, Spec};

/// The way out.
const HINT: &str = "Leave `subset` out of a route's destination, and the run divides what that route takes.";

impl Index {
    /// Says so when all routes to the service name subsets. A run would count the proxies' acknowledgements of nothing,
    /// and end with all its weights in force nowhere.
    pub(super) fn taken_by_subsets(
        &self,
        object: &Object,
        intent: &DeploymentIntent,
        service: &Service,
        settings: &Settings,
        objects: &Objects,
        problems: &mut Vec<Problem>,
    ) {
        let is_meant = |number: u16| intent.service.ports.is_empty() || intent.service.ports.contains(&number);
        let mut ports = service.ports.iter().filter(|port| is_meant(port.number));
        // Connections are divided behind the cluster.
        if intent.protocol == IntentProtocol::Tcp || !ports.all(|port| port.protocol.is_http()) {
            return;
        }
        if intent.attach.mesh && intent.attach.routes.is_empty() && !self.is_routed(&service.host, objects) {
            return;
        }
        let mut first = None;
        for routes in self.leading.get(&service.host).into_iter().flatten().map(|routes| &objects[routes]) {
            let Spec::VirtualService(spec) = &routes.spec else { continue };
            let named =
                |route: &str| intent.attach.routes.is_empty() || intent.attach.routes.iter().any(|n| n == route);
            for (field, subset) in destinations(spec, &routes.reference.namespace, &service.host, settings, named) {
                if subset.is_empty() {
                    return;
                }
                first.get_or_insert_with(|| (format!("{} {field}", routes.reference), subset));
            }
        }
        if let Some((place, subset)) = first {
            let message = format!(
                "all routes to {} name subsets, as {place} names \"{subset}\": they leave nothing to divide",
                service.host
            );
            problems.push(refused(object, "spec.service", message).hint(HINT));
        }
    }

    /// Whether a VirtualService speaks for the host in the whole mesh, so that nobody has the service's own route.
    fn is_routed(&self, host: &Hostname, objects: &Objects) -> bool {
        let is_for_all = |routes: &ObjectRef| match &objects[routes].spec {
            Spec::VirtualService(spec) => spec.export_to.is_empty() || spec.export_to.iter().any(|to| to == "*"),
            _ => false,
        };
        host.patterns().filter_map(|pattern| self.mesh_routes.get(&pattern)).any(|all| all.iter().any(is_for_all))
    }
}

/// Where the http rules that are meant send what they send to a host: each with its field and its subset.
fn destinations<'a>(
    spec: &'a VirtualService,
    namespace: &'a str,
    host: &'a Hostname,
    settings: &'a Settings,
    is_meant: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = (String, &'a str)> {
    let rules = spec.http.iter().enumerate().filter(move |(_, rule)| is_meant(&rule.name));
    rules.flat_map(move |(at, rule)| {
        let to_host = move |named: &str| Hostname::qualified(named, namespace, &settings.domain) == *host;
        let leading = rule.route.iter().enumerate().filter(move |(_, to)| to_host(&to.destination.host));
        leading.map(move |(index, to)| (format!("spec.http[{at}].route[{index}]"), to.destination.subset.as_str()))
    })
}
