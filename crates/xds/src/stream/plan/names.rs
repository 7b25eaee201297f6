//! Virtual hosts by the domains that they serve: as names to ask for them by, and as what no two of them may have.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use proto::ResourceType;
use snapshot::{Cell, Name, Snapshot, parent};

use super::{Plan, Planner};
use crate::stream::isolation::Turn;
use crate::stream::view::Held;

/// A domain within a route configuration.
type Domain<'a> = (&'a str, &'a str);

impl<'a> Planner<'a> {
    /// The resource that a subscribed name stands for: the one of this name, or one that has it as an alias (rule P-39).
    pub(super) fn published(&self, name: &str) -> Option<&'a Arc<Cell>> {
        let by_alias = || {
            let asked = self.has_aliases() && self.substream.subscription.names().contains(name);
            if asked { self.target.by_alias(self.resource_type, name) } else { None }
        };
        self.target.get(self.resource_type, name).or_else(by_alias)
    }

    /// Whether resources of this type are asked for by other names than their own: virtual hosts are, on demand.
    pub(super) fn has_aliases(&self) -> bool {
        self.resource_type == ResourceType::VirtualHost
    }

    /// The aliases that the client has subscribed to, by the name of the resource that each stands for in `snapshot`.
    pub(super) fn aliases_in(&self, snapshot: &Snapshot) -> BTreeMap<Name, BTreeSet<Name>> {
        let mut found: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        if !self.has_aliases() {
            return found;
        }
        for name in self.substream.subscription.names().iter() {
            if snapshot.get(self.resource_type, name).is_some() {
                continue;
            }
            if let Some(cell) = snapshot.by_alias(self.resource_type, name) {
                found.entry(cell.name().clone()).or_default().insert(name.clone());
            }
        }
        found
    }

    /// Keeps all virtual hosts of a route configuration back while one waits, if the client has none of them yet: Envoy
    /// takes a listener into use with the first that it gets, and what is not there yet would be answered wrongly.
    pub(super) fn keep_first_hosts_together(&self, plan: &mut Plan) {
        // What is tried was sent before, with the others.
        if self.resource_type != ResourceType::VirtualHost || self.turn == Turn::Trial {
            return;
        }
        let is_new = |route: &&str| {
            let mut hosts = self.target.under(self.resource_type, route);
            hosts.all(|cell| self.substream.view.cell(self.resource_type, cell.name()).is_none())
        };
        let waiting = plan.keep.keys().filter(|name| !self.is_refused(name)).filter_map(|name| parent(name));
        let waiting: BTreeSet<String> = waiting.filter(is_new).map(str::to_owned).collect();
        let hosts = plan.send.iter().map(|cell| cell.name());
        let kept = hosts.filter(|name| parent(name).is_some_and(|route| waiting.contains(route))).cloned().collect();
        self.keep(plan, kept);
    }

    /// Whether what is published under this name is held back because the client refused it.
    pub(super) fn is_refused(&self, name: &Name) -> bool {
        self.target.get(self.resource_type, name).is_some_and(|published| self.substream.has_refused(published))
    }

    /// Keeps back what would give a domain to one virtual host while another that waits still has it, or take it from one
    /// before the other gets it: Envoy refuses the first, and answers 404 in the second.
    pub(super) fn keep_domains_together(&self, plan: &mut Plan) {
        if self.resource_type != ResourceType::VirtualHost || plan.send.is_empty() && plan.remove.is_empty() {
            return;
        }
        let view = &self.substream.view;
        let had = |name: &Name| view.cell(self.resource_type, name).cloned();
        let is_foreign = |name: &Name| matches!(view.held(self.resource_type, name), Held::Foreign(_));
        loop {
            let (mut still_had, mut to_come) = (HashSet::new(), HashSet::new());
            // What a client brought along in another version than ours has domains that nobody here knows: route
            // configurations of such virtual hosts, and of those that one of them may have the domains of.
            let (mut unknown, mut awaited) = (HashSet::new(), HashSet::new());
            // What rests is refused: it does not come, but the client may have an older form.
            let resting = plan.at_rest(self).filter(|_| view.exceptions.rests_with_aliases());
            for (name, held) in plan.keep.iter().chain(plan.passed_over(self)).chain(resting) {
                still_had.extend(held.cell().into_iter().flat_map(domains));
                if matches!(held, Held::Foreign(_)) {
                    unknown.extend(parent(name));
                }
                // What is refused does not come, so nothing waits for it.
                if let Some(new) = self.target.get(self.resource_type, name).filter(|_| !self.is_refused(name)) {
                    to_come.extend(domains(new));
                    awaited.extend(parent(name));
                }
            }
            let waits_too = |name: &Name, new: Option<&Arc<Cell>>| {
                new.is_some() && parent(name).is_some_and(|route| unknown.contains(route))
                    || new.is_some_and(|new| domains(new).any(|domain| still_had.contains(&domain)))
                    || had(name).is_some_and(|old| domains(&old).any(|domain| to_come.contains(&domain)))
                    || is_foreign(name) && parent(name).is_some_and(|route| awaited.contains(route))
            };
            let kept_sends = plan.send.iter().filter(|cell| waits_too(cell.name(), Some(cell)));
            let kept_removals = plan.remove.iter().filter(|name| waits_too(name, None));
            let kept: BTreeSet<Name> = kept_sends.map(|cell| cell.name()).chain(kept_removals).cloned().collect();
            if kept.is_empty() {
                return;
            }
            self.keep(plan, kept);
        }
    }

    /// Whether a virtual host has, or is to have, a domain that one that is tried has or is to have.
    pub(super) fn shares_tried_domain(&self, name: &str) -> bool {
        if self.resource_type != ResourceType::VirtualHost {
            return false;
        }
        let forms = |name: &str| {
            let now = self.target.get(self.resource_type, name);
            let before = self.substream.view.cell(self.resource_type, name);
            let all = now.into_iter().chain(before).flat_map(domains);
            all.map(|(route, domain)| (route.to_owned(), domain.to_owned())).collect::<Vec<_>>()
        };
        let tried = self.tried_domains.get_or_init(|| {
            let isolation = self.substream.isolation.as_ref();
            isolation.into_iter().flat_map(|isolation| isolation.tried()).flat_map(|name| forms(name)).collect()
        });
        forms(name).iter().any(|domain| tried.contains(domain))
    }

    /// Moves what was to be sent or removed to what is kept back.
    fn keep(&self, plan: &mut Plan, kept: BTreeSet<Name>) {
        plan.send.retain(|cell| !kept.contains(cell.name()));
        plan.remove.retain(|name| !kept.contains(name));
        plan.fresh.retain(|name| !kept.contains(name));
        plan.replaced.retain(|cell| !kept.contains(cell.name()));
        plan.doubtful.retain(|cell| !kept.contains(cell.name()));
        plan.keep.extend(kept.into_iter().map(|name| {
            let held = self.substream.view.held(self.resource_type, &name);
            (name, held)
        }));
    }
}

fn domains(cell: &Arc<Cell>) -> impl Iterator<Item = Domain<'_>> {
    let route = parent(cell.name()).unwrap_or_default();
    cell.aliases().iter().map(move |alias| (route, &**alias))
}
