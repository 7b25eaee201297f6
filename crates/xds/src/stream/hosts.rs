//! Virtual hosts follow their route configurations (rule P-66).
//!
//! Envoy asks once, without names, for the virtual hosts of all its route configurations together, and never again when
//! it gets another one. It gives each that comes to the route configuration before the last slash of its name, and drops
//! it silently when it has none of that name yet (`WatchMap`, `source/extensions/config_subscription/grpc/watch_map.cc`
//! of 1.40). So under the wildcard of an aggregated stream:
//!
//! - A virtual host is owed to a client that was sent its route configuration, and to no other.
//! - With a route configuration that it has not yet, or asks for once more, all its virtual hosts are owed, whatever was
//!   sent before. With another form of one that it has they are not: Envoy keeps them.
//! - A virtual host whose route configuration is to go as well goes after it.

use std::collections::BTreeSet;
use std::time::Instant;

use proto::ResourceType;
use snapshot::{Name, Snapshot, parent};

use super::plan::Plan;
use super::substream::Substream;
use super::view::Held;
use super::{Stream, Substreams};
use crate::{Service, Variant};

/// For which of the resources that a client has subscribed to it has use.
#[derive(Clone, Copy)]
pub(crate) enum Scope<'a> {
    /// All.
    All,
    /// Virtual hosts of the route configurations that it was sent on this stream, or came with.
    Routes(Option<&'a Substream>),
}

impl<'a> Scope<'a> {
    pub(crate) fn new(resource_type: ResourceType, service: Service, substreams: &'a Substreams) -> Self {
        match (resource_type, service) {
            (ResourceType::VirtualHost, Service::Aggregated) => {
                Scope::Routes(substreams[ResourceType::Route.index()].as_deref())
            }
            _ => Scope::All,
        }
    }

    /// Whether the client has use for the resource of this name.
    pub(crate) fn holds(self, name: &str) -> bool {
        match (self, parent(name)) {
            (Scope::All, _) | (Scope::Routes(_), None) => true,
            (Scope::Routes(routes), Some(parent)) => has_route(routes, parent),
        }
    }

    /// Whether it has use for all of a type.
    pub(crate) fn holds_all(self, resource_type: ResourceType, target: &Snapshot) -> bool {
        match self {
            Scope::All => true,
            Scope::Routes(routes) => target.parents(resource_type).all(|parent| has_route(routes, parent)),
        }
    }

    /// The parents of these snapshots that the client has use for; `None` for all.
    pub(crate) fn parents<'s>(
        self,
        resource_type: ResourceType,
        snapshots: impl Iterator<Item = &'s Snapshot>,
    ) -> Option<BTreeSet<Name>> {
        match self {
            Scope::All => None,
            Scope::Routes(routes) => {
                let all = snapshots.flat_map(|snapshot| snapshot.parents(resource_type));
                Some(all.filter(|parent| has_route(routes, parent)).map(Name::from).collect())
            }
        }
    }

    /// Whether the client is to be told that a resource is gone. A virtual host of a route configuration that holds its
    /// hosts itself by now is not: Envoy, which goes on listening, would take all of them for gone
    /// (`RouteConfigUpdateReceiverImpl::onVhdsUpdate`, `source/common/router/route_config_update_receiver_impl.cc`).
    pub(crate) fn tells_removal(self, name: &str, target: &Snapshot) -> bool {
        match (self, parent(name)) {
            (Scope::All, _) | (Scope::Routes(_), None) => true,
            (Scope::Routes(_), Some(parent)) => {
                target.get(ResourceType::Route, parent).is_none()
                    || target.under(ResourceType::VirtualHost, parent).next().is_some()
            }
        }
    }
}

/// What it refused it may hold in a form from an earlier stream; if not, it drops the virtual hosts.
fn has_route(routes: Option<&Substream>, name: &str) -> bool {
    routes.filter(|routes| routes.subscription.covers(name)).is_some_and(|routes| {
        let held = routes.view.held(ResourceType::Route, name);
        held.cell().or(held.doubtful()).is_some()
    })
}

/// Whether the client holds any route configuration whose virtual hosts are apart.
pub(crate) fn are_expected(substreams: &Substreams, target: &Snapshot) -> bool {
    let routes = substreams[ResourceType::Route.index()].as_deref();
    target.parents(ResourceType::VirtualHost).any(|parent| has_route(routes, parent))
}

/// Whether the client has accepted all virtual hosts of a route configuration: until then Envoy keeps a new listener that
/// asks for it back.
pub(crate) fn are_ready(substreams: &Substreams, target: &Snapshot, route: &str) -> bool {
    let hosts = substreams[ResourceType::VirtualHost.index()].as_deref();
    target.under(ResourceType::VirtualHost, route).all(|cell| hosts.is_some_and(|hosts| hosts.is_accepted(cell.name())))
}

impl Stream {
    /// With route configurations that the client does not have, or that it may have lost, go all their virtual hosts.
    pub(super) fn mark_hosts(&mut self, plan: &Plan, target: &Snapshot) {
        if self.variant != Variant::Delta || self.service != Service::Aggregated {
            return;
        }
        let Some(routes) = self.substreams[ResourceType::Route.index()].as_deref() else { return };
        let is_kept = |name: &Name| match routes.view.held(ResourceType::Route, name) {
            Held::Cell(held) => !routes.is_unproven(&held),
            // It went on with the older form, if that is not in doubt itself.
            Held::Doubtful { before: Some(before), refused, .. } => {
                before.version() != refused.version() && !routes.is_unproven(&before)
            }
            Held::Nothing | Held::Foreign(_) | Held::Again(_) | Held::Doubtful { .. } | Held::Probable { .. } => false,
        };
        let sent: Vec<Name> = if plan.is_whole() {
            target.iter(ResourceType::Route).map(|cell| cell.name().clone()).collect()
        } else {
            plan.send.iter().map(|cell| cell.name()).filter(|name| !is_kept(name)).cloned().collect()
        };
        let hosts = self.substreams[ResourceType::VirtualHost.index()].as_deref_mut();
        if self.returning_until.is_some() && hosts.as_ref().is_none_or(|hosts| hosts.view.base.is_none()) {
            self.renewed_routes.extend(sent.iter().cloned());
        }
        let Some(hosts) = hosts else { return };
        self.resting.remove(ResourceType::VirtualHost);
        for route in sent {
            let of_route = target.under(ResourceType::VirtualHost, &route).map(|cell| cell.name());
            for name in of_route.filter(|name| hosts.subscription.covers(name)) {
                hosts.view.exceptions.insert(name.clone(), Held::Nothing);
            }
        }
    }

    /// Something happened to this type. If it is route configurations, the client may have others than before, and use for
    /// other virtual hosts.
    pub(super) fn wake_hosts_of(&mut self, resource_type: ResourceType) {
        if resource_type == ResourceType::Route
            && let Some(hosts) = self.substreams[ResourceType::VirtualHost.index()].as_deref_mut()
        {
            self.resting.remove(ResourceType::VirtualHost);
            hosts.wake_all();
        }
    }

    /// Whether virtual hosts are not looked at yet: what a returning client says of them can be judged once it is known
    /// which of its route configurations it has kept. Envoy asks for all types at once.
    pub(super) fn hosts_must_wait(&self, now: Instant) -> bool {
        self.service == Service::Aggregated && self.is_returning(now) && !self.was_served(ResourceType::Route)
    }

    /// Until when they wait for that.
    pub(super) fn hosts_wait_until(&self) -> Option<Instant> {
        let hosts = self.substreams[ResourceType::VirtualHost.index()].as_deref()?;
        let waits = self.service == Service::Aggregated
            && self.snapshot.is_some()
            && hosts.view.base.is_none()
            && !hosts.subscription.is_empty()
            && !hosts.is_blocked()
            && !self.was_served(ResourceType::Route);
        self.returning_until.filter(|_| waits)
    }
}
