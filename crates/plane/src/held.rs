//! What is held, as it is told to people.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Instant;

use compile::Audience;
use world::ObjectRef;
use world::api::delivery::Revision;

use crate::exposure::KeptEntry;
use crate::holds::Entry;
use crate::modes::ModesEntry;

/// Nodes that are named in one sentence.
const NAMED: usize = 3;

/// Something that is gone, and that is kept because nodes may still use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The Service or ServiceEntry that led to it, or the policy that said it.
    pub object: ObjectRef,
    /// The service's port; 0 for policies.
    pub port: u16,
    /// What it is.
    pub kept: Kept,
    /// The generation of the configuration that does not lead to it.
    pub generation: u64,
    /// Since when it is kept.
    pub since: Instant,
    /// When it goes, if nothing else is heard.
    pub due: Instant,
    /// Ids of the connected nodes that keep it, in order; named for ports only.
    pub kept_by: Vec<String>,
    /// Ids of the nodes that have not settled that generation, in order.
    pub missing: Vec<String>,
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A port that no service leads to any more, or not as it did, by the workloads that have it.
    Inbound {
        /// The workload's port.
        target: u16,
    },
    /// The last endpoints of a revision that a rollout sends requests to, by its clusters.
    Endpoints {
        /// The revision.
        revision: Revision,
        /// How many they are.
        count: usize,
    },
    /// What workloads take by a PeerAuthentication that has changed.
    Modes,
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
                object: service.clone(),
                port,
                kept: Kept::Inbound { target },
                generation,
                since: entry.wait.since,
                due: entry.wait.due,
                kept_by: owned(kept_by),
                missing: owned(entry.wait.missing()),
            }
        };
        groups.into_iter().map(held).collect()
    }

    /// The endpoints of a revision.
    pub(crate) fn endpoints(entry: KeptEntry<'_>) -> Self {
        Self {
            object: entry.service.clone(),
            port: entry.place.port,
            kept: Kept::Endpoints { revision: entry.place.revision.clone(), count: entry.count },
            generation: entry.generation,
            since: entry.wait.since,
            due: entry.wait.due,
            kept_by: Vec::new(),
            missing: entry.wait.missing().into_iter().map(str::to_owned).collect(),
        }
    }

    /// What a policy said before.
    pub(crate) fn modes(entry: ModesEntry<'_>) -> Self {
        Self {
            object: entry.policy.clone(),
            port: 0,
            kept: Kept::Modes,
            generation: entry.generation,
            since: entry.wait.since,
            due: entry.wait.due,
            kept_by: Vec::new(),
            missing: entry.wait.missing().into_iter().map(str::to_owned).collect(),
        }
    }

    /// How many things are kept: workloads that keep the port, endpoints, or one policy.
    pub fn count(&self) -> usize {
        match &self.kept {
            Kept::Inbound { .. } => self.kept_by.len(),
            Kept::Endpoints { count, .. } => *count,
            Kept::Modes => 1,
        }
    }
}

impl fmt::Display for Held {
    /// `inbound port 8080 of default/reviews may still be used by 2 nodes (a, b): they have not acknowledged generation 7`,
    /// or `revision "v2" of default/reviews, whose last 3 endpoints behind port 80 are gone, may still be used by ...`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ObjectRef { namespace, name, .. } = &self.object;
        let Self { port, generation, missing, .. } = self;
        match &self.kept {
            Kept::Inbound { target } => write!(f, "inbound port {target} of {namespace}/{name} ")?,
            Kept::Endpoints { revision, count } => {
                let (endpoints, are) = if *count == 1 { ("endpoint", "is") } else { ("endpoints", "are") };
                let of = format_args!("revision \"{revision}\" of {namespace}/{name}");
                write!(f, "{of}, whose last {count} {endpoints} behind port {port} {are} gone, ")?;
            }
            Kept::Modes => write!(f, "what PeerAuthentication {namespace}/{name} said before ")?,
        }
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
