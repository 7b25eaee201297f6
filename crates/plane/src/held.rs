//! What is held, as it is told to people.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Instant;

use compile::Audience;
use world::ObjectRef;

use crate::holds::Entry;

/// Nodes that are named in one sentence.
const NAMED: usize = 3;

/// A port that no service leads to any more, or not as it did, and that workloads keep because nodes may still use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The Service or ServiceEntry that led to it.
    pub service: ObjectRef,
    /// The service's port.
    pub port: u16,
    /// The workload's port.
    pub target: u16,
    /// The generation of the configuration without it.
    pub generation: u64,
    /// Since when it is kept.
    pub since: Instant,
    /// When it goes, if nothing else is heard.
    pub due: Instant,
    /// Ids of the connected nodes that keep it, in order.
    pub kept_by: Vec<String>,
    /// Ids of the nodes that have not settled the generation without it, in order.
    pub missing: Vec<String>,
}

impl Held {
    /// Workloads that keep the same port since the same generation make up one; in order of service, port, target and
    /// generation. `nodes` has the ids of each audience.
    pub(crate) fn of<'a>(
        entries: impl Iterator<Item = Entry<'a>>,
        nodes: &HashMap<Audience, BTreeSet<&str>>,
    ) -> Vec<Self> {
        let mut groups: BTreeMap<_, (Entry<'a>, BTreeSet<&str>)> = BTreeMap::new();
        for entry in entries {
            let key = (&entry.what.service.origin, entry.what.port, entry.what.target, entry.generation);
            let kept_by = nodes.get(entry.audience).into_iter().flatten();
            groups.entry(key).or_insert_with(|| (entry.clone(), BTreeSet::new())).1.extend(kept_by);
        }
        let owned = |ids: BTreeSet<&str>| ids.into_iter().map(str::to_owned).collect();
        let held = |((service, port, target, generation), (entry, kept_by)): ((&ObjectRef, _, _, _), _)| {
            let (entry, kept_by): (Entry<'a>, _) = (entry, kept_by);
            Self {
                service: service.clone(),
                port,
                target,
                generation,
                since: entry.since,
                due: entry.due,
                kept_by: owned(kept_by),
                missing: owned(entry.missing()),
            }
        };
        groups.into_iter().map(held).collect()
    }
}

impl fmt::Display for Held {
    /// `inbound port 8080 of default/reviews is still used by 2 nodes (a, b): they have not acknowledged generation 7`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ObjectRef { namespace, name, .. } = &self.service;
        let Self { target, generation, missing, .. } = self;
        write!(f, "inbound port {target} of {namespace}/{name} ")?;
        let (nodes, they_have) = match missing.len() {
            0 => return write!(f, "is no longer used: all nodes have acknowledged generation {generation}"),
            1 => ("node", "it has"),
            _ => ("nodes", "they have"),
        };
        let named = missing.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if missing.len() > NAMED { ", ..." } else { "" };
        write!(f, "may still be used by {} {nodes} ({named}{more}): ", missing.len())?;
        write!(f, "{they_have} not acknowledged generation {generation}")
    }
}
