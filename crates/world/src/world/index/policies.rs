//! Policies of security, under what a workload can look them up by.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Index, Name, Objects, Way, mark, shift};
use crate::policies::{Selection, selection};
use crate::world::age;
use crate::{Few, Key, Labels, Object, ObjectRef, PolicyKind, Problem, Settings};

/// The policies of one kind in one namespace, by one pair of their selectors, or none.
pub(super) type OfNamespace = BTreeMap<Option<(String, String)>, Few<ObjectRef>>;

impl Index {
    pub(super) fn shift_policy(&mut self, object: &Object, touched: &mut BTreeSet<Key>, way: Way) {
        let Some((kind, selection)) = selection(&object.spec) else { return };
        let namespace = &object.reference.namespace;
        if kind == PolicyKind::RequestAuthentication {
            mark(&mut self.request_authentications, &object.reference, way == Way::In);
        }
        let pair = match selection {
            Selection::All => None,
            Selection::Labels(labels) => labels.first_key_value().map(|(key, value)| (key.clone(), value.clone())),
            Selection::Nothing => return,
        };
        touched.insert(match &pair {
            None => Key::Policies(kind, namespace.clone()),
            Some((label, value)) => Key::SelectingPolicies(namespace.clone(), format!("{label}={value}").into()),
        });
        touched.insert(Key::PoliciesIn(kind, namespace.clone()));
        let of_namespace = self.policies.entry((kind, namespace.clone())).or_default();
        shift(of_namespace, pair, &object.reference, way);
        if of_namespace.is_empty() {
            self.policies.remove(&(kind, namespace.clone()));
        }
    }

    /// The policies of `kind` in `namespace` without a selector, in no useful order.
    pub(in crate::world) fn policies_for_all<'o>(
        &self,
        kind: PolicyKind,
        namespace: &Name,
        objects: &'o Objects,
    ) -> Vec<&'o Arc<Object>> {
        let found = self.policies.get(&(kind, namespace.clone())).and_then(|all| all.get(&None)).into_iter().flatten();
        found.map(|reference| &objects[reference]).collect()
    }

    /// The policies of `kind` in `namespace` whose selector matches these labels, in no useful order.
    pub(in crate::world) fn policies_selecting<'o>(
        &self,
        kind: PolicyKind,
        namespace: &Name,
        labels: &Labels,
        objects: &'o Objects,
    ) -> Vec<&'o Arc<Object>> {
        let Some(of_namespace) = self.policies.get(&(kind, namespace.clone())) else { return Vec::new() };
        let pairs = labels.iter().map(|(label, value)| Some((label.clone(), value.clone())));
        let slots = pairs.filter_map(|pair| of_namespace.get(&pair));
        let matches = |object: &&Arc<Object>| match selection(&object.spec) {
            Some((_, Selection::Labels(wanted))) => wanted.iter().all(|(k, v)| labels.get(k) == Some(v)),
            Some((_, Selection::All | Selection::Nothing)) | None => false,
        };
        slots.flatten().map(|reference| &objects[reference]).filter(matches).collect()
    }

    /// All PeerAuthentications, in no useful order.
    pub(in crate::world) fn all_peer_authentications<'o>(
        &self,
        objects: &'o Objects,
    ) -> impl Iterator<Item = &'o Arc<Object>> {
        let of_peers = self.policies.iter().filter(|((kind, ..), _)| *kind == PolicyKind::PeerAuthentication);
        of_peers.flat_map(|(_, slots)| slots.values().flatten()).map(|reference| &objects[reference])
    }

    /// PeerAuthentications that have no effect: one of several for the same workloads, and those of the root namespace that
    /// select some.
    pub(super) fn peer_authentications(&self, objects: &Objects, settings: &Settings, problems: &mut Vec<Problem>) {
        let mut said_by: BTreeMap<_, Vec<&Arc<Object>>> = BTreeMap::new();
        for object in self.all_peer_authentications(objects) {
            let labels = match selection(&object.spec) {
                Some((_, Selection::Labels(labels))) => Some(labels),
                Some((_, Selection::All | Selection::Nothing)) | None => None,
            };
            if labels.is_some() && object.reference.namespace == settings.root_namespace {
                let problem = Problem::warning(
                    &object.reference,
                    "spec.selector",
                    "a policy of the root namespace is for the whole mesh, and cannot select workloads",
                );
                problems.push(
                    problem
                        .consequence("it has no effect")
                        .hint("Put it into the namespace of the workloads.")
                        .at(object.meta.location.clone()),
                );
                continue;
            }
            said_by.entry((object.reference.namespace.clone(), labels)).or_default().push(object);
        }
        for mut rivals in said_by.into_values() {
            rivals.sort_by_key(|object| age(object));
            let [winner, losers @ ..] = &rivals[..] else { continue };
            problems.extend(losers.iter().map(|loser| {
                let message = format!("the same workloads have {} already", winner.reference);
                Problem::warning(&loser.reference, "", message)
                    .consequence("it has no effect")
                    .hint("Join the two, or select other workloads.")
                    .at(loser.meta.location.clone())
            }));
        }
    }
}
