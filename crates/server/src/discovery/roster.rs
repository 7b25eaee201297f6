//! The open discovery streams, and the way to ask one what it holds.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use plane::MemberId;
use proto::ResourceType;
use snapshot::{Name, Snapshot};
use tokio::sync::oneshot;
use xds::{Holding, Node, Service, Standing, Summary, Variant};

use super::Connection;
use crate::mailbox::{self, mailbox};
use crate::rotation::ClientTrust;

/// Questions that may wait at one stream. When it is full the stream counts as not answering.
const INSPECTIONS: usize = 4;

/// How long a node that left is told of.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);
/// How many of them at most.
const DEPARTED: usize = 1024;

/// The open streams, in the order of their opening, and those that ended lately.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    streams: BTreeMap<u64, Entry>,
    /// Oldest first.
    departed: VecDeque<Arc<Departed>>,
}

/// A stream of a known node that has ended.
#[derive(Debug)]
pub(crate) struct Departed {
    /// Who it was.
    pub(crate) node: Arc<Node>,
    /// The peer's address.
    pub(crate) address: String,
    /// When its connection was opened.
    pub(crate) opened: SystemTime,
    /// When it ended.
    pub(crate) ended: (Instant, SystemTime),
    /// Why, in words.
    pub(crate) reason: String,
    /// What it was opened on.
    pub(crate) service: Service,
    /// The form of the protocol.
    pub(crate) variant: Variant,
    /// How it stood in the end.
    pub(crate) report: Report,
}

/// One open stream.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Unique in the server's life, in order of opening.
    pub(crate) number: u64,
    /// Its connection.
    pub(crate) connection: Arc<Connection>,
    /// What it was opened on.
    pub(crate) service: Service,
    /// The form of the protocol.
    pub(crate) variant: Variant,
    /// Who it is; `None` before the first request.
    pub(crate) node: Option<Arc<Node>>,
    inspect: mailbox::Sender<Inspection>,
}

/// A question to a stream.
#[derive(Debug)]
pub(crate) struct Inspection {
    /// Whether the answer needs the holdings, which cost memory when there are many.
    pub(crate) with_holdings: bool,
    /// Where the answer goes.
    pub(crate) reply: oneshot::Sender<Report>,
}

/// What a stream says about itself.
#[derive(Debug)]
pub(crate) struct Report {
    /// Each type that was asked for.
    pub(crate) summaries: Vec<Summary>,
    /// How each of them stands, in a form that others can be compared with.
    pub(crate) standings: Vec<Standing>,
    /// What the client was sent; empty when it was not asked for.
    pub(crate) holdings: Vec<Holding>,
    /// Names that the client asks for and that do not exist, by type; empty when holdings were not asked for.
    pub(crate) missing: Vec<(ResourceType, Name)>,
    /// What the client is to have, as it is published, whether the stream has come to it or not; `None` until the
    /// stream had its turn.
    pub(crate) target: Option<Snapshot>,
    /// The generation of `target`.
    pub(crate) generation: u64,
    /// Its place in the plane; `None` until it is known.
    pub(crate) member: Option<MemberId>,
    /// The newest generation of which the client was sent everything and has answered all of it.
    pub(crate) settled: Option<u64>,
    /// The client's part in the trust of the mesh; `None` for one that has proved nothing.
    pub(crate) trust: Option<ClientTrust>,
    /// The pair of clocks of the answer, by which instants in it can be told as times.
    pub(crate) now: (Instant, SystemTime),
}

/// A stream's place in the roster; given up when dropped.
#[derive(Debug)]
pub(super) struct Place {
    roster: Arc<Roster>,
    number: u64,
    /// The questions to the stream.
    pub(super) inspections: mailbox::Receiver<Inspection>,
}

impl Roster {
    /// Enters a stream.
    pub(super) fn enter(self: &Arc<Self>, connection: Arc<Connection>, service: Service, variant: Variant) -> Place {
        let (inspect, inspections) = mailbox(INSPECTIONS);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.next += 1;
        let number = entries.next;
        entries.streams.insert(number, Entry { number, connection, service, variant, node: None, inspect });
        Place { roster: self.clone(), number, inspections }
    }

    /// Every stream whose node is known, ordered by the node's id, then by the time of opening.
    pub(crate) fn identified(&self) -> Vec<Entry> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known: Vec<Entry> = entries.streams.values().filter(|entry| entry.node.is_some()).cloned().collect();
        drop(entries);
        known.sort_by(|a, b| (a.id(), a.number).cmp(&(b.id(), b.number)));
        known
    }

    /// The last streams of nodes that left not long ago and did not come back, ordered by id.
    pub(crate) fn departed(&self) -> Vec<Arc<Departed>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let present: HashSet<&str> = entries.streams.values().map(Entry::id).collect();
        let recent = entries.departed.iter().filter(|departed| departed.ended.0.elapsed() < REMEMBERED);
        let mut departed: Vec<_> = recent.filter(|departed| !present.contains(&*departed.node.id)).cloned().collect();
        drop(entries);
        departed.sort_by(|a, b| (&a.node.id, a.ended.0).cmp(&(&b.node.id, b.ended.0)));
        departed
    }

    /// Asks all of `entries` at once. An answer is `None` when the stream has not answered within `patience`, or has
    /// ended meanwhile.
    pub(crate) async fn inspect(
        entries: Vec<Entry>,
        with_holdings: bool,
        patience: Duration,
    ) -> Vec<(Entry, Option<Report>)> {
        let deadline = tokio::time::Instant::now() + patience;
        let ask = |entry: Entry| {
            let (reply, answer) = oneshot::channel();
            // A full queue drops the question, and with it the other end of the answer.
            let _ = entry.inspect.send(Inspection { with_holdings, reply });
            (entry, answer)
        };
        let asked: Vec<_> = entries.into_iter().map(ask).collect();
        let mut reports = Vec::with_capacity(asked.len());
        for (entry, answer) in asked {
            let report = tokio::time::timeout_at(deadline, answer).await.ok().and_then(Result::ok);
            reports.push((entry, report));
        }
        reports
    }
}

impl Entry {
    /// The node's id; empty before the first request.
    pub(crate) fn id(&self) -> &str {
        self.node.as_ref().map_or("", |node| &node.id)
    }
}

impl Report {
    /// When `instant` was.
    pub(crate) fn time(&self, instant: Instant) -> SystemTime {
        let (now, time) = self.now;
        time.checked_sub(now.saturating_duration_since(instant)).unwrap_or(time)
    }
}

impl Place {
    /// The stream's number.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The stream of a known node ends: what it was is remembered for a while.
    pub(super) fn depart(&self, departed: Departed) {
        let mut entries = self.roster.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |old: &Arc<Departed>| old.ended.0.elapsed() >= REMEMBERED;
        while entries.departed.len() >= DEPARTED || entries.departed.front().is_some_and(is_over) {
            entries.departed.pop_front();
        }
        entries.departed.push_back(Arc::new(departed));
    }

    /// The stream's node is known now, or has changed. What is remembered of its earlier streams is forgotten: it has
    /// come back.
    pub(super) fn identify(&self, node: &Arc<Node>) {
        let mut entries = self.roster.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.departed.retain(|departed| departed.node.id != node.id);
        if let Some(entry) = entries.streams.get_mut(&self.number) {
            entry.node = Some(node.clone());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.roster.entries.lock().unwrap_or_else(PoisonError::into_inner).streams.remove(&self.number);
    }
}
