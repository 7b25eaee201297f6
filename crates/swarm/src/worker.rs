//! A thread that plays its share of the nodes: one epoll, and nothing that could block.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{setsockopt, sockopt};

use crate::catalogue::{Catalogue, Held};
use crate::clock::{self, Nanos};
use crate::connection::{Buffers, Connection, End, Happened, Target};
use crate::dialogue::{Dialogue, Opinion, Reaction};
use crate::error::Error;
use crate::identity::Identity;
use crate::scan::Scanner;
use crate::scenario::{Scenario, Variant};
use crate::stamp::Stamp;
use crate::tally::{Expected, Manners, Record, Standing, Tally, count};

/// Connections that have not heard from the server yet. More would overflow the queue of many a listener, and those that
/// fell out of it come again after a second.
const UNHEARD: usize = 256;
/// The times between tries of an Envoy that lost its server.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The receive buffer of nodes that never read; the kernel makes it as large as it must be.
const SLOW_BUFFER: usize = 4096;
/// How long to sleep when nothing is due.
const LONG: Duration = Duration::from_secs(3600);
/// Stamps of services beyond this are not taken: a node remembers one time for each.
const MOST_SERVICES: u32 = 1_000_000;
/// Marks the event that says that there are commands.
const COMMANDS: u64 = u64::MAX;

/// What a worker is told.
pub(crate) enum Command {
    /// Forget what was counted; from now on, these types count.
    Begin(Expected),
    /// Connect these of its nodes, closing connections that they have.
    Connect {
        nodes: Vec<usize>,
        /// Between two of them; zero for all at once.
        every: Duration,
        /// How much that varies, as a share of it.
        jitter: f64,
        /// What they have, if they do not begin anew.
        held: Option<Arc<Held>>,
    },
    /// Say what was counted.
    Gather(Sender<Tally>),
    /// Say how many stamps of well-behaved nodes are these: services, and when each was last committed.
    Compare(Arc<BTreeMap<u32, Nanos>>, Sender<usize>),
    /// End.
    Stop,
}

/// What all workers know.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) scenario: Scenario,
    pub(crate) target: Target,
    pub(crate) catalogue: Catalogue,
    pub(crate) standing: Standing,
}

struct Node {
    /// Its index among all nodes.
    index: usize,
    manners: Manners,
    dialogue: Dialogue,
    connection: Option<Box<Connection>>,
    record: Record,
    /// Whether its first configuration is whole, on this connection.
    is_synced: bool,
    /// Whether anything came on this connection.
    heard: bool,
    /// Whether an answer that counts is on its way out.
    answering: bool,
    /// Whether it waits for room in the kernel's buffer.
    blocked: bool,
    /// Failed tries since it was last connected.
    failures: u32,
    /// What it comes back with.
    held: Option<Arc<Held>>,
    /// By service, when what it has was committed; 0 and short where no stamp came.
    latest: Vec<Nanos>,
}

impl Node {
    /// Forgets what it saw in a phase. What it was counted for is taken back, so that the counts are those of this phase
    /// from its very begin, whatever arrives meanwhile.
    fn forget(&mut self, standing: &Standing) {
        let Record { connecting, back, arrived, acknowledged, .. } = self.record;
        if self.manners == Manners::Good {
            let counted =
                [(back, &standing.back), (arrived, &standing.arrived), (acknowledged, &standing.acknowledged)];
            for (_, counter) in counted.into_iter().filter(|(time, _)| *time > 0) {
                counter.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.answering = false;
        self.record = Record { connecting, ..Record::default() };
    }

    /// Services of which it has what was last committed.
    fn up_to_date(&self, last: &BTreeMap<u32, Nanos>) -> usize {
        let has = |(service, committed): &(&u32, &Nanos)| self.latest.get(**service as usize) == Some(*committed);
        last.iter().filter(has).count()
    }
}

/// A thread's share of the nodes.
pub(crate) struct Worker {
    common: Arc<Common>,
    nodes: Vec<Node>,
    commands: Receiver<Command>,
    wake: Arc<EventFd>,
    epoll: Epoll,
    buffers: Buffers,
    tally: Tally,
    expected: Expected,
    /// Nodes that are to connect, in this order.
    queue: VecDeque<usize>,
    every: Duration,
    jitter: f64,
    /// When the next of them may.
    next: Instant,
    /// Nodes that try again.
    retries: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Connections that have not heard from the server.
    unheard: usize,
    random: Random,
}

impl Worker {
    /// With the nodes of these indices.
    ///
    /// # Errors
    /// If the system has no epoll left.
    pub(crate) fn new(
        common: Arc<Common>,
        nodes: impl Iterator<Item = (usize, Manners)>,
        commands: Receiver<Command>,
        wake: Arc<EventFd>,
        seed: u64,
    ) -> Result<Self, Error> {
        let failed = |error: nix::Error| Error::System { what: "a thread of nodes", reason: error.to_string() };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        epoll.add(&*wake, EpollEvent::new(EpollFlags::EPOLLIN, COMMANDS)).map_err(failed)?;
        let variant = common.scenario.variant;
        let node = |(index, manners)| {
            let opinion = if manners == Manners::Refusing { Opinion::Refuses } else { Opinion::Accepts };
            Node {
                index,
                manners,
                dialogue: Dialogue::new(variant, opinion, index),
                connection: None,
                record: Record::default(),
                is_synced: false,
                heard: false,
                answering: false,
                blocked: false,
                failures: 0,
                held: None,
                latest: Vec::new(),
            }
        };
        Ok(Self {
            nodes: nodes.map(node).collect(),
            common,
            commands,
            wake,
            epoll,
            buffers: Buffers::new(),
            tally: Tally::default(),
            expected: Expected::of([]),
            queue: VecDeque::new(),
            every: Duration::ZERO,
            jitter: 0.0,
            next: Instant::now(),
            retries: BinaryHeap::new(),
            unheard: 0,
            random: Random(seed),
        })
    }

    /// Plays until it is told to stop, or until nobody is left to tell it anything.
    pub(crate) fn run(mut self) {
        let mut events = vec![EpollEvent::empty(); 1024];
        loop {
            let sleep = self.connect_due();
            // Rounded up, so as not to spin through the last millisecond.
            let timeout =
                EpollTimeout::try_from(sleep.saturating_add(Duration::from_micros(999))).unwrap_or(EpollTimeout::NONE);
            let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
            for event in &events[..count] {
                if event.data() == COMMANDS {
                    // Only wakes; what is to be done is in the channel.
                    let _ = self.wake.read();
                    if !self.obey() {
                        return;
                    }
                } else {
                    self.serve(event.data() as usize, event.events());
                }
            }
        }
    }

    /// Does what it is told; whether to go on.
    fn obey(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Begin(expected)) => {
                    self.expected = expected;
                    self.tally = Tally::default();
                    self.nodes.iter_mut().for_each(|node| node.forget(&self.common.standing));
                }
                Ok(Command::Connect { nodes, every, jitter, held }) => {
                    for at in &nodes {
                        self.nodes[*at].held.clone_from(&held);
                    }
                    self.queue = nodes.into();
                    (self.every, self.jitter, self.next) = (every, jitter, Instant::now());
                }
                Ok(Command::Gather(reply)) => {
                    let records = self.nodes.iter().map(|node| (node.manners, node.record)).collect();
                    let tally = Tally { records, ..std::mem::take(&mut self.tally) };
                    // Whoever asked may have stopped waiting.
                    let _ = reply.send(tally);
                }
                Ok(Command::Compare(last, reply)) => {
                    let good = self.nodes.iter().filter(|node| node.manners == Manners::Good);
                    let _ = reply.send(good.map(|node| node.up_to_date(&last)).sum());
                }
                Ok(Command::Stop) | Err(std::sync::mpsc::TryRecvError::Disconnected) => return false,
                Err(std::sync::mpsc::TryRecvError::Empty) => return true,
            }
        }
    }

    /// Connects the nodes that are due; how long nothing is due after that.
    fn connect_due(&mut self) -> Duration {
        let mut now = Instant::now();
        while self.unheard < UNHEARD {
            if let Some(Reverse((at, node))) = self.retries.peek().copied().filter(|Reverse((at, _))| *at <= now) {
                debug_assert!(at <= now);
                self.retries.pop();
                if self.nodes[node].connection.is_none() {
                    self.open(node);
                }
            } else if self.next <= now
                && let Some(node) = self.queue.pop_front()
            {
                let varied = 1.0 + self.jitter * (2.0 * self.random.fraction() - 1.0);
                self.next += self.every.mul_f64(varied);
                self.open(node);
            } else {
                break;
            }
            now = Instant::now();
        }
        if self.unheard >= UNHEARD {
            return LONG;
        }
        let retry = self.retries.peek().map(|Reverse((at, _))| *at);
        let next = (!self.queue.is_empty()).then_some(self.next);
        [retry, next].into_iter().flatten().min().map_or(LONG, |at| at.saturating_duration_since(now))
    }

    /// Connects a node, closing the connection that it has.
    fn open(&mut self, at: usize) {
        self.close(at);
        let node = &mut self.nodes[at];
        node.record.connecting = clock::now();
        (node.is_synced, node.heard, node.answering, node.blocked) = (false, false, false, false);
        if let Err(end) = self.begin(at) {
            self.lost(at, &end);
        }
    }

    fn begin(&mut self, at: usize) -> Result<(), End> {
        let node = &mut self.nodes[at];
        let common = &*self.common;
        let fd = common.target.address.connect(node.index).map_err(End::Connect)?;
        let mut interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
        match node.manners {
            Manners::Slow => {
                // If the kernel will not have it, it is as slow with a larger one.
                let _ = setsockopt(&fd, sockopt::RcvBuf, &SLOW_BUFFER);
                interest = EpollFlags::EPOLLOUT;
            }
            Manners::Silent => interest = EpollFlags::EPOLLIN,
            Manners::Good | Manners::Refusing => {}
        }
        let delta = common.scenario.variant == Variant::Delta;
        let scanner = if common.scenario.stamps { Scanner::finding_stamps(delta) } else { Scanner::new(delta) };
        let mut connection = Connection::new(fd, &common.target, scanner)?;
        if node.manners != Manners::Silent {
            let identity = Identity::of(&common.scenario, node.index);
            let outgoing = &mut connection.outgoing;
            match &node.held {
                Some(held) => {
                    node.dialogue.resume(&identity, &common.catalogue, held, &mut |piece| outgoing.push(piece));
                    outgoing.ping();
                }
                None => node.dialogue.open(&identity, &common.catalogue, &mut |piece| outgoing.push(piece)),
            }
        }
        self.epoll.add(connection.fd(), EpollEvent::new(interest, at as u64)).map_err(End::Connect)?;
        node.blocked = true;
        node.connection = Some(Box::new(connection));
        count(&common.standing.connected);
        if matches!(node.manners, Manners::Good | Manners::Refusing) {
            self.unheard += 1;
        } else {
            node.heard = true;
        }
        Ok(())
    }

    /// Closes a node's connection, if it has one.
    fn close(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(connection) = node.connection.take() else { return };
        // Closing takes the socket off the epoll as well.
        drop(connection);
        let standing = &self.common.standing;
        standing.connected.fetch_sub(1, Ordering::Relaxed);
        if !node.heard {
            self.unheard -= 1;
        }
        if node.is_synced && node.manners == Manners::Good {
            standing.synced.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A node lost its connection, or could not get one: it tries again after a while.
    fn lost(&mut self, at: usize, end: &End) {
        self.close(at);
        *self.tally.ends.entry(end.to_string()).or_default() += 1;
        self.common.standing.ended.fetch_add(1, Ordering::Relaxed);
        let node = &mut self.nodes[at];
        node.is_synced = false;
        let longest = BACKOFF.0.saturating_mul(1 << node.failures.min(10)).min(BACKOFF.1);
        node.failures += 1;
        let wait = longest.mul_f64(self.random.fraction());
        self.retries.push(Reverse((Instant::now() + wait, at)));
    }

    /// Something happened on a node's socket.
    fn serve(&mut self, at: usize, events: EpollFlags) {
        if let Err(end) = self.exchange(at, events) {
            self.lost(at, &end);
        }
    }

    fn exchange(&mut self, at: usize, events: EpollFlags) -> Result<(), End> {
        let (node, common) = (&mut self.nodes[at], &*self.common);
        let Some(connection) = &mut node.connection else { return Ok(()) };
        let failed = EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP;
        if node.manners == Manners::Silent && !events.intersects(EpollFlags::EPOLLIN | failed) {
            return Ok(());
        }
        if node.manners == Manners::Slow && events.intersects(failed) {
            return Err(End::Closed);
        }
        // The first event of a connection says that it stands, or not.
        if events.intersects(EpollFlags::EPOLLIN | failed) {
            if !node.heard {
                node.heard = true;
                self.unheard -= 1;
            }
            let mut play = Play {
                common,
                manners: node.manners,
                dialogue: &mut node.dialogue,
                record: &mut node.record,
                is_synced: &mut node.is_synced,
                answering: &mut node.answering,
                failures: &mut node.failures,
                latest: &mut node.latest,
                expected: self.expected,
                tally: &mut self.tally,
                resumed: node.held.is_some(),
            };
            let mut traffic = play.tally.traffic;
            let ended = connection.receive(&mut self.buffers, &mut traffic, &mut |outgoing, happened, arrived| {
                play.happened(&mut |piece| outgoing.push(piece), happened, arrived);
            });
            self.tally.traffic = traffic;
            ended?;
        }
        if node.manners == Manners::Silent {
            return Ok(());
        }
        if node.blocked || connection.wants_send() {
            let blocked = connection.send(&mut self.buffers, &mut self.tally.traffic)?;
            if blocked != node.blocked {
                node.blocked = blocked;
                let reads = if node.manners == Manners::Slow { EpollFlags::empty() } else { EpollFlags::EPOLLIN };
                let writes = if blocked { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
                let mut interest = EpollEvent::new(reads | writes, at as u64);
                self.epoll.modify(connection.fd(), &mut interest).map_err(End::Broke)?;
            }
        }
        if node.answering && !node.blocked && connection.outgoing.is_empty() {
            node.answering = false;
            if node.record.acknowledged == 0 {
                count(&common.standing.acknowledged);
            }
            node.record.acknowledged = clock::now();
        }
        Ok(())
    }
}

/// What a node does with what it receives.
struct Play<'a> {
    common: &'a Common,
    manners: Manners,
    dialogue: &'a mut Dialogue,
    record: &'a mut Record,
    is_synced: &'a mut bool,
    answering: &'a mut bool,
    failures: &'a mut u32,
    latest: &'a mut Vec<Nanos>,
    expected: Expected,
    tally: &'a mut Tally,
    resumed: bool,
}

impl Play<'_> {
    fn happened(&mut self, send: &mut dyn FnMut(crate::http2::Piece), happened: Happened, arrived: Nanos) {
        let standing = &self.common.standing;
        let is_good = self.manners == Manners::Good;
        standing.last.fetch_max(arrived, Ordering::Relaxed);
        match happened {
            Happened::Pong => {
                if self.record.back == 0 && is_good {
                    count(&standing.back);
                }
                self.record.back = arrived;
                self.sync(arrived);
            }
            Happened::Response(received) => {
                *self.failures = 0;
                standing.responses.fetch_add(1, Ordering::Relaxed);
                self.tally.response(&received);
                self.record.bytes += received.bytes;
                received.stamps.iter().for_each(|stamp| self.stamped(*stamp, arrived));
                match self.dialogue.receive(&received, &self.common.catalogue, send) {
                    Reaction::Accepted => {
                        if self.expected.has(received.kind) && is_good {
                            if self.record.arrived == 0 {
                                count(&standing.arrived);
                            }
                            self.record.arrived = self.record.arrived.max(arrived);
                            *self.answering = true;
                        }
                    }
                    Reaction::Refused => self.tally.refused += 1,
                    Reaction::Unasked => self.tally.unasked += 1,
                }
                if !self.resumed {
                    self.sync(arrived);
                }
            }
        }
    }

    fn stamped(&mut self, stamp: Stamp, arrived: Nanos) {
        if self.manners != Manners::Good || stamp.service > MOST_SERVICES {
            return;
        }
        self.tally.ages.push(arrived.saturating_sub(stamp.committed_ns));
        let at = stamp.service as usize;
        if self.latest.len() <= at {
            self.latest.resize(at + 1, 0);
        }
        self.latest[at] = stamp.committed_ns;
    }

    /// Notes when the first configuration is whole; after a reconnect that is when the server has said what it had to.
    fn sync(&mut self, arrived: Nanos) {
        if !*self.is_synced && self.dialogue.is_synced(&self.common.catalogue) {
            *self.is_synced = true;
            self.record.synced = arrived;
            if !self.resumed {
                if self.record.back == 0 && self.manners == Manners::Good {
                    count(&self.common.standing.back);
                }
                self.record.back = arrived;
            }
            if self.manners == Manners::Good {
                count(&self.common.standing.synced);
            }
        }
    }
}

/// Good enough to spread things: SplitMix64.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
