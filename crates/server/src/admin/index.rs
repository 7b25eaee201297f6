//! From objects to the nodes that have what came of them.
//!
//! Streams say how they stand in a few words. Those that stand alike to a layer make up one unit, whose resources are
//! looked at once: 5,000 nodes in step cost 5,000 words and one look at the mesh. What that means for objects is kept
//! by unit, and worked out for nodes when somebody asks for one object, or for counts.

mod bits;
mod join;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use plane::{MemberId, ObjectView};
use xds::{Signature, Waiting};

use crate::discovery::Report;
use crate::view::{self, NodeRejection, ObjectState, ResourceState};
use bits::Bits;
use join::{Open, Verdict, Why, join};

/// Ids of nodes that the list of objects shows of each state; the object by itself shows all.
const SHOWN: usize = 20;
/// Reasons that are shown of one node.
const REASONS: usize = 8;

/// What each object's resources have met with at each node that they concern.
#[derive(Debug)]
pub(super) struct Index {
    /// In order of id.
    nodes: Vec<Row>,
    /// The nodes of each unit.
    units: Vec<Bits>,
    /// By the object's path.
    objects: HashMap<Arc<str>, Vec<Share>>,
    silent: Vec<String>,
}

/// A node with what its streams said.
#[derive(Debug)]
struct Row {
    id: Arc<str>,
    reports: Vec<Report>,
}

impl Row {
    fn is_among(&self, members: &HashSet<MemberId>) -> bool {
        self.reports.iter().filter_map(|report| report.member).any(|member| members.contains(&member))
    }
}

/// What a unit means for an object.
#[derive(Debug)]
struct Share {
    unit: usize,
    verdict: Verdict,
}

impl Index {
    /// The index of what streams say they hold, measured against what they are to have: a resource of which a node
    /// holds an older version is pending, however well that one was taken. On these objects only, if any are given.
    /// Reports come with the ids of their nodes.
    pub(super) fn new(reports: impl IntoIterator<Item = (Arc<str>, Option<Report>)>, only: Option<&[String]>) -> Self {
        let mut by_id: BTreeMap<Arc<str>, Vec<Report>> = BTreeMap::new();
        let mut silent = Vec::new();
        for (id, report) in reports {
            match report {
                Some(report) => by_id.entry(id).or_default().push(report),
                None => silent.push(id.to_string()),
            }
        }
        silent.sort();
        silent.dedup();
        let nodes: Vec<_> = by_id.into_iter().map(|(id, reports)| Row { id, reports }).collect();
        let mut index = Self { nodes: Vec::new(), units: Vec::new(), objects: HashMap::new(), silent };
        let mut known: HashMap<Signature, usize> = HashMap::new();
        for (at, row) in nodes.iter().enumerate() {
            for report in &row.reports {
                index.add(at, report, &mut known, only);
            }
        }
        index.nodes = nodes;
        index
    }

    fn add(&mut self, row: usize, report: &Report, known: &mut HashMap<Signature, usize>, only: Option<&[String]>) {
        let Some(target) = &report.target else { return };
        for standing in &report.standings {
            for position in 0..target.layers().len() {
                let signature = standing.signature(target, position);
                let unit = *known.entry(signature).or_insert_with(|| {
                    let unit = self.units.len();
                    self.units.push(Bits::default());
                    for (object, verdict) in join(standing, target, position, only) {
                        self.objects.entry(object).or_default().push(Share { unit, verdict });
                    }
                    unit
                });
                self.units[unit].insert(row);
            }
        }
    }

    /// Ids of the nodes that did not answer, ordered.
    pub(super) fn silent_nodes(&self) -> Vec<String> {
        self.silent.clone()
    }

    /// Whether some node still holds something of an object.
    pub(super) fn knows(&self, path: &str) -> bool {
        self.objects.contains_key(path)
    }

    /// Paths of the objects that concern any of the nodes, in order.
    pub(super) fn paths(&self) -> Vec<Arc<str>> {
        let mut paths: Vec<_> = self.objects.keys().cloned().collect();
        paths.sort();
        paths
    }

    /// One object with its problems, and the first of its nodes.
    pub(super) fn describe(&self, object: &ObjectView) -> view::Object {
        let meta = object.object.as_ref().map(|object| &object.meta);
        let location = meta.and_then(|meta| meta.location.as_ref());
        let path = object.reference.path();
        let [accepted, pending, rejected] = self.nodes_of(&path);
        let ids = |rows: &Bits| rows.iter().take(SHOWN).map(|row| self.nodes[row].id.to_string()).collect();
        let state = match (rejected.count(), pending.count(), accepted.count()) {
            _ if object.object.is_none() && !self.knows(&path) => ObjectState::Unread,
            (0, 0, 0) => ObjectState::Unused,
            (0, 0, _) => ObjectState::Accepted,
            (0, _, _) => ObjectState::Pending,
            _ => ObjectState::Rejected,
        };
        view::Object {
            kind: object.reference.kind.to_string(),
            namespace: object.reference.namespace.to_string(),
            name: object.reference.name.to_string(),
            generation: object.generation,
            state,
            file: location.map(|location| location.file.to_string()).unwrap_or_default(),
            line: location.map_or(0, |location| location.line),
            problems: object.problems.iter().map(view::Problem::from).collect(),
            waiting: Vec::new(),
            accepted: accepted.count(),
            pending: pending.count(),
            rejected: rejected.count(),
            accepted_nodes: ids(&accepted),
            pending_nodes: ids(&pending),
            rejected_nodes: rejected.iter().take(SHOWN).filter_map(|row| self.rejection(&path, row)).collect(),
        }
    }

    /// How the nodes stand to the newest generation of an object, which is `version`. Those that did not answer count
    /// as concerned, for nothing is known of them. `attached` are those whose traffic is divided, if not all of them.
    pub(super) fn standing(&self, path: &str, version: u64, attached: Option<&HashSet<MemberId>>) -> rollout::Standing {
        let [accepted, pending, rejected] = self.nodes_of(path);
        let refusals = rejected.iter().filter_map(|row| self.rejection(path, row));
        let refused = refusals.map(|refusal| rollout::Refusal { node: refusal.node_id, words: refusal.message });
        let concerned = accepted.count() + pending.count() + rejected.count() + self.silent.len();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        rollout::Standing {
            version,
            concerned: count(concerned),
            accepted: count(accepted.count()),
            attached: count(attached.map_or(concerned, |attached| {
                let rows = accepted.iter().chain(pending.iter()).chain(rejected.iter());
                rows.filter(|row| self.nodes[*row].is_among(attached)).count()
            })),
            refused: refused.collect(),
            stale: 0,
        }
    }

    /// How many nodes accepted only an older generation of an object than this, or none, as of what their last streams said;
    /// those that it never concerned do not count. Reports come with the ids of their nodes.
    pub(super) fn behind<'r>(
        reports: impl Iterator<Item = (&'r str, &'r Report)>,
        path: &str,
        generation: u64,
    ) -> usize {
        let mut index = Self { nodes: Vec::new(), units: Vec::new(), objects: HashMap::new(), silent: Vec::new() };
        let (mut known, mut rows, only) = (HashMap::new(), BTreeMap::new(), [path.to_owned()]);
        for (id, report) in reports {
            let next = rows.len();
            index.add(*rows.entry(id).or_insert(next), report, &mut known, Some(&only));
        }
        let is_behind = |row: &usize| {
            let verdict = index.verdict(path, *row);
            verdict.is_some_and(|verdict| u64::try_from(verdict.generation).unwrap_or(0) < generation)
        };
        rows.values().filter(|row| is_behind(row)).count()
    }

    /// The nodes that an object concerns, in order of id.
    pub(super) fn object_nodes(&self, path: &str) -> impl Iterator<Item = view::ObjectNode> {
        let mut all = Bits::default();
        self.shares(path).for_each(|share| all.add(&self.units[share.unit]));
        all.iter().filter_map(|row| self.object_node(path, row)).collect::<Vec<_>>().into_iter()
    }

    /// How a node stands to an object; `None` when they have nothing to do with each other.
    fn object_node(&self, path: &str, row: usize) -> Option<view::ObjectNode> {
        let verdict = self.verdict(path, row)?;
        let why = verdict.open.iter().take(REASONS).map(|open| self.reason(row, open)).collect();
        let Verdict { state, generation, .. } = verdict;
        Some(view::ObjectNode { node_id: self.nodes[row].id.to_string(), state, generation, why })
    }

    fn verdict(&self, path: &str, row: usize) -> Option<Verdict> {
        let mut shares = self.shares(path).filter(|share| self.units[share.unit].contains(row));
        let mut verdict = shares.next()?.verdict.clone();
        shares.for_each(|share| verdict.worsen(&share.verdict));
        Some(verdict)
    }

    /// The nodes that an object concerns: who has accepted all of it, who has not, who refuses some of it.
    fn nodes_of(&self, path: &str) -> [Bits; 3] {
        let [mut accepted, mut pending, mut rejected] = [const { None }; 3].map(|_: Option<()>| Bits::default());
        for share in self.shares(path) {
            match share.verdict.state {
                ResourceState::Accepted => accepted.add(&self.units[share.unit]),
                ResourceState::Pending => pending.add(&self.units[share.unit]),
                ResourceState::Rejected => rejected.add(&self.units[share.unit]),
            }
        }
        pending.remove(&rejected);
        accepted.remove(&rejected);
        accepted.remove(&pending);
        [accepted, pending, rejected]
    }

    fn shares(&self, path: &str) -> impl Iterator<Item = &Share> {
        self.objects.get(path).into_iter().flatten()
    }

    /// What a node refuses of an object.
    fn rejection(&self, path: &str, row: usize) -> Option<NodeRejection> {
        let verdict = self.verdict(path, row)?;
        let refused = |open: &Open| match &open.why {
            Why::Rejected(message) => Some((open.clone(), message.clone())),
            Why::NotSent | Why::Unanswered | Why::Leaving => None,
        };
        let (open, message) = verdict.open.iter().find_map(refused)?;
        let Row { id, reports } = &self.nodes[row];
        let time = reports.iter().find_map(|report| {
            let mut summaries = report.summaries.iter().filter(|summary| summary.resource_type == open.resource_type);
            Some(report.time(summaries.find_map(|summary| summary.last_rejection.as_ref())?.at))
        });
        Some(NodeRejection {
            node_id: id.to_string(),
            type_url: open.resource_type.type_url().to_owned(),
            resource: open.name.to_string(),
            version: open.version.to_string(),
            message: message.to_string(),
            time: time.map(view::Timestamp::from).unwrap_or_default(),
        })
    }

    /// Why a node has not accepted something, in words.
    fn reason(&self, row: usize, open: &Open) -> String {
        let what = format!("{} \"{}\"", open.resource_type.short().to_uppercase(), open.name);
        let waits = |waiting: &&Waiting| waiting.resource_type == open.resource_type && waiting.name == open.name;
        let found = self.nodes[row].reports.iter().find_map(|report| {
            let waiting = report.summaries.iter().flat_map(|summary| &summary.waiting).find(waits)?;
            let since = report.now.0.saturating_duration_since(waiting.since);
            Some(format!("{waiting}, for {:.1} s", since.as_secs_f64()))
        });
        match (&open.why, found) {
            (Why::Rejected(message), _) => format!("{what} was rejected: {message}"),
            (_, Some(waiting)) => waiting,
            (Why::NotSent, None) => format!("{what} was not sent in its newest form yet"),
            (Why::Unanswered, None) => format!("{what} was sent and not acknowledged yet"),
            (Why::Leaving, None) => format!("{what} still comes from it as it was before"),
        }
    }
}

#[cfg(test)]
mod tests;
