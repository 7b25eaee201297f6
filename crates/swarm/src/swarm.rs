//! The nodes, and the phases they go through, one method each.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::address::Address;
use crate::catalogue::{Catalogue, Found, Held};
use crate::clock::{self, Nanos};
use crate::connection::Target;
use crate::cost::Cost;
use crate::error::Error;
use crate::report::{ChangeReport, PhaseReport, Span};
use crate::scenario::{Change, Connect, Hold, Reconnect, Scenario, Share, Stream, Variant, seconds};
use crate::scout;
use crate::tally::{Expected, Manners, Record, Standing, Tally};
use crate::tls::TlsFiles;
use crate::worker::{Command, Common, Random, Worker};

/// How often a phase looks whether it is over.
const LOOK: Duration = Duration::from_millis(2);
/// How often progress is told.
const TELL: Duration = Duration::from_millis(500);
/// Files that are open beside the connections.
const OTHER_FILES: u64 = 64;
/// How long stragglers of a stream of changes are waited for.
const STRAGGLERS: Duration = Duration::from_secs(30);

/// Where a swarm goes.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server.
    pub server: Address,
    /// Its process, if what it costs is to be measured.
    pub server_pid: Option<u32>,
    /// Certificates, if TLS is spoken.
    pub tls: Option<TlsFiles>,
    /// A bearer token for every request.
    pub token: Option<String>,
    /// Set by whoever wants the swarm to end early.
    pub stop: Arc<AtomicBool>,
}

impl Options {
    /// A server without anything else.
    pub fn new(server: impl Into<Address>) -> Self {
        Self { server: server.into(), server_pid: None, tls: None, token: None, stop: Arc::default() }
    }
}

/// Where a phase stands.
#[derive(Clone, Debug)]
pub struct Progress {
    /// `connect`, `change 3/10`, ...
    pub phase: String,
    /// Nodes that are to get there.
    pub wanted: usize,
    /// Nodes that are there.
    pub reached: usize,
    /// Open connections, of all nodes.
    pub connected: usize,
    /// Responses in this phase, of all nodes.
    pub responses: u64,
    /// Connections that ended without being told to.
    pub ended: u64,
}

/// One line.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}/{} nodes", self.phase, self.reached, self.wanted)?;
        write!(f, ", {} connected, {} responses", self.connected, self.responses)?;
        if self.ended > 0 { write!(f, ", {} lost", self.ended) } else { Ok(()) }
    }
}

/// A thread and its line.
#[derive(Debug)]
struct Thread {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    fn tell(&self, command: Command) {
        // A worker only ends when it is told to; if it panicked, the phase times out and says who is missing.
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }
}

/// Nodes against a server. Dropping it closes their connections.
pub struct Swarm<'a> {
    common: Arc<Common>,
    options: Options,
    threads: Vec<Thread>,
    manners: Vec<Manners>,
    watch: Box<dyn FnMut(&Progress) + 'a>,
    told: Instant,
}

impl fmt::Debug for Swarm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swarm").field("scenario", &self.common.scenario).finish_non_exhaustive()
    }
}

/// What a phase had cost when it began.
struct Began {
    at: Instant,
    server: Option<Cost>,
    client: Cost,
}

impl<'a> Swarm<'a> {
    /// Learns what there is by a node of its own, and gets the others ready. `watch` learns of progress twice a second.
    ///
    /// # Errors
    /// If the scenario cannot be run, the server does not answer, or the system has not enough for so many nodes.
    pub fn start(scenario: &Scenario, options: Options, watch: impl FnMut(&Progress) + 'a) -> Result<Self, Error> {
        scenario.check()?;
        if let Some(pid) = options.server_pid {
            Cost::of(pid)?;
        }
        allow_files(scenario.nodes)?;
        let target = Target::new(&options, scenario.variant)?;
        let found = scout::explore(scenario, &target, &options.stop)?;
        let common = Arc::new(Common {
            scenario: scenario.clone(),
            target,
            catalogue: Catalogue::new(&found, &scenario.endpoints),
            standing: Standing::default(),
        });
        let manners = assign(scenario);
        let threads: Result<Vec<_>, _> = (0..scenario.threads).map(|at| start(&common, &manners, at)).collect();
        Ok(Self { common, options, threads: threads?, manners, watch: Box::new(watch), told: Instant::now() })
    }

    /// Whether somebody wants it to end.
    pub fn is_stopped(&self) -> bool {
        self.options.stop.load(Ordering::Relaxed)
    }

    /// All nodes connect; over when all well-behaved ones have their first configuration.
    ///
    /// # Errors
    /// If the server's process is gone.
    pub fn connect(&mut self, phase: &Connect) -> Result<PhaseReport, Error> {
        let began = self.begin(Expected::of([]))?;
        let wanted = self.well_behaved().count();
        self.open(0..self.manners.len(), phase.rate, phase.jitter, None);
        let deadline = began.at + seconds(phase.timeout_seconds);
        let standing = |standing: &Standing| standing.synced.load(Ordering::Relaxed);
        self.wait("connect", wanted, deadline, Duration::ZERO, standing);
        self.finish("connect", began, wanted, |report, records| {
            let synced = records.filter(|record| record.synced > 0);
            report.synced = Span::of(synced.map(|record| record.synced.saturating_sub(record.connecting)));
            report.reached = report.synced.as_ref().map_or(0, |span| span.count);
        })
    }

    /// Nothing happens, for a while.
    ///
    /// # Errors
    /// If the server's process is gone.
    pub fn hold(&mut self, phase: &Hold) -> Result<PhaseReport, Error> {
        let began = self.begin(Expected::of([]))?;
        let wanted = self.well_behaved().count();
        // Over by time alone.
        self.wait("hold", wanted + 1, began.at + seconds(phase.seconds), Duration::ZERO, |standing| {
            standing.synced.load(Ordering::Relaxed)
        });
        let reached = self.common.standing.synced.load(Ordering::Relaxed);
        self.finish("hold", began, wanted, |report, _| {
            report.reached = reached;
            // Nothing is compared while nothing happens.
            report.is_client_bound = None;
        })
    }

    /// Something changes, once or several times; over when all that should learn of it have acknowledged it. `make` makes
    /// the change with a number from 0, and says just before when it did (nanoseconds since 1970).
    ///
    /// # Errors
    /// If a change cannot be made, or the server's process is gone.
    pub fn change(
        &mut self,
        phase: &Change,
        mut make: impl FnMut(u32) -> Result<u64, String>,
    ) -> Result<PhaseReport, Error> {
        let wanted = phase.nodes.unwrap_or_else(|| self.well_behaved().count());
        let expected = Expected::of(phase.expect.iter().map(|kind| kind.0));
        let whole = self.costs()?;
        let mut changes = Vec::new();
        let mut sum = PhaseReport::default();
        for number in 0..phase.repeat {
            if self.is_stopped() {
                break;
            }
            if number > 0 {
                self.wait("pause", usize::MAX, Instant::now() + seconds(phase.pause_seconds), Duration::ZERO, |_| 0);
            }
            let began = self.begin(expected)?;
            let made = make(number).map_err(|reason| Error::Trigger { number, reason })?;
            let name = format!("change {}/{}", number + 1, phase.repeat);
            let deadline = began.at + seconds(phase.timeout_seconds);
            self.wait(&name, wanted, deadline, seconds(phase.quiet_seconds), |standing| {
                standing.acknowledged.load(Ordering::Relaxed)
            });
            let mut change = ChangeReport::default();
            let report = self.finish("change", began, wanted, |report, records| {
                change = change_report(made, records);
                report.reached = change.acknowledged.as_ref().map_or(0, |span| span.count);
            })?;
            change.server_micros_per_node = report.server.as_ref().map(|cost| cost.micros(wanted));
            changes.push(change);
            sum.add(report);
        }
        sum.began_and_ended(whole.at.elapsed());
        Ok(sum.with_changes("change", changes))
    }

    /// Changes go on for a while; over when that time is, and nothing more arrives. `make` starts them, on a thread of its
    /// own; it may return at once or when they are over.
    ///
    /// # Errors
    /// If they cannot be started, or the server's process is gone.
    pub fn stream(
        &mut self,
        phase: &Stream,
        make: impl FnOnce() -> Result<u64, String> + Send,
    ) -> Result<PhaseReport, Error> {
        let began = self.begin(Expected::of([]))?;
        let wanted = self.well_behaved().count();
        let has_failed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let maker = scope.spawn(|| make().inspect_err(|_| has_failed.store(true, Ordering::Relaxed)));
            let end = began.at + seconds(phase.seconds);
            let arrived = |standing: &Standing| standing.arrived.load(Ordering::Relaxed);
            while Instant::now() < end && !self.is_stopped() && !has_failed.load(Ordering::Relaxed) {
                self.wait("stream", usize::MAX, end.min(Instant::now() + TELL), Duration::ZERO, arrived);
            }
            self.wait("stragglers", 0, Instant::now() + STRAGGLERS, seconds(phase.quiet_seconds), arrived);
            let made = maker.join().unwrap_or_else(|_| Err("whoever makes them panicked".to_owned()));
            made.map_err(|reason| Error::Trigger { number: 0, reason })
        })?;
        let reached = self.common.standing.arrived.load(Ordering::Relaxed);
        self.finish("stream", began, wanted, |report, _| report.reached = reached)
    }

    /// Nodes lose their connection and come back; over when the server has read all that they said, and has said all that
    /// it had to.
    ///
    /// # Errors
    /// If the server's process is gone, or it does not answer the node that learns which versions there are.
    pub fn reconnect(&mut self, phase: &Reconnect) -> Result<PhaseReport, Error> {
        let well_behaved: Vec<_> = self.well_behaved().collect();
        let wanted = phase.share.of(well_behaved.len());
        let chosen: Vec<_> = (0..wanted).map(|at| well_behaved[at * well_behaved.len() / wanted.max(1)]).collect();
        let whole = self.costs()?;
        let mut sum = PhaseReport::default();
        let mut changes = Vec::new();
        for number in 0..phase.repeat {
            if self.is_stopped() {
                break;
            }
            let held = if phase.versions { Some(Arc::new(self.held()?)) } else { None };
            let began = self.begin(Expected::of([]))?;
            self.open(chosen.iter().copied(), phase.rate, phase.jitter, held);
            let name = format!("reconnect {}/{}", number + 1, phase.repeat);
            let deadline = began.at + seconds(phase.timeout_seconds);
            self.wait(&name, wanted, deadline, seconds(phase.quiet_seconds), |standing| {
                standing.back.load(Ordering::Relaxed)
            });
            let report = self.finish("reconnect", began, wanted, |report, records| {
                let back = records.filter(|record| record.back > 0);
                let back = back.map(|record| record.back.max(record.arrived).saturating_sub(record.connecting));
                report.synced = Span::of(back);
                report.reached = report.synced.as_ref().map_or(0, |span| span.count);
            })?;
            changes.push(ChangeReport {
                arrived: report.synced.clone(),
                acknowledged: None,
                server_micros_per_node: report.server.as_ref().map(|cost| cost.micros(wanted)),
            });
            sum.add(report);
        }
        sum.began_and_ended(whole.at.elapsed());
        Ok(sum.with_reconnects(changes))
    }

    /// Of the services and the times of their last commit, how many pairs of a well-behaved node and a service are up to
    /// date by their [`Stamp`](crate::Stamp).
    pub fn up_to_date(&self, last: &BTreeMap<u32, u64>) -> usize {
        let (reply, replies) = channel();
        let last = Arc::new(last.clone());
        self.threads.iter().for_each(|thread| thread.tell(Command::Compare(last.clone(), reply.clone())));
        drop(reply);
        replies.iter().sum()
    }

    /// The versions that there are now.
    fn held(&self) -> Result<Held, Error> {
        let common = &*self.common;
        let found = match common.scenario.variant {
            Variant::Delta => scout::explore(&common.scenario, &common.target, &self.options.stop)?,
            // Each node knows its own version of each type.
            Variant::Sotw => Found::default(),
        };
        Ok(Held::new(&found, &common.scenario.endpoints))
    }

    fn well_behaved(&self) -> impl Iterator<Item = usize> {
        (0..).zip(&self.manners).filter(|(_, manners)| **manners == Manners::Good).map(|(index, _)| index)
    }

    fn costs(&self) -> Result<Began, Error> {
        let server = self.options.server_pid.map(Cost::of).transpose()?;
        Ok(Began { at: Instant::now(), server, client: Cost::of_self() })
    }

    fn begin(&mut self, expected: Expected) -> Result<Began, Error> {
        // Every worker has forgotten the last phase before this one is looked at.
        self.threads.iter().for_each(|thread| thread.tell(Command::Begin(expected)));
        self.gather();
        self.common.standing.reset();
        self.costs()
    }

    /// Connects nodes, closing connections that they have.
    fn open(&self, nodes: impl Iterator<Item = usize>, rate: Option<f64>, jitter: Share, held: Option<Arc<Held>>) {
        let threads = self.threads.len();
        let mut shares = vec![Vec::new(); threads];
        nodes.for_each(|index| shares[index % threads].push(index / threads));
        let every = rate.map_or(Duration::ZERO, |rate| seconds(threads as f64 / rate));
        for (thread, nodes) in self.threads.iter().zip(shares) {
            thread.tell(Command::Connect { nodes, every, jitter: jitter.fraction(), held: held.clone() });
        }
    }

    fn gather(&self) -> Tally {
        let (reply, replies) = channel();
        self.threads.iter().for_each(|thread| thread.tell(Command::Gather(reply.clone())));
        drop(reply);
        let mut sum = Tally::default();
        replies.iter().for_each(|tally| sum.add(tally));
        sum
    }

    /// Waits until `reached` says that so many nodes are there and nothing has arrived for `quiet`, or until the deadline.
    fn wait(
        &mut self,
        phase: &str,
        wanted: usize,
        deadline: Instant,
        quiet: Duration,
        reached: impl Fn(&Standing) -> usize,
    ) {
        loop {
            let standing = &self.common.standing;
            let reached = reached(standing);
            let since = clock::now().saturating_sub(standing.last.load(Ordering::Relaxed));
            let is_quiet = Duration::from_nanos(since) >= quiet;
            let now = Instant::now();
            if (reached >= wanted && is_quiet) || now >= deadline || self.is_stopped() {
                return;
            }
            if now.duration_since(self.told) >= TELL {
                self.told = now;
                let progress = Progress {
                    phase: phase.to_owned(),
                    wanted: wanted.min(self.manners.len()),
                    reached,
                    connected: standing.connected.load(Ordering::Relaxed),
                    responses: standing.responses.load(Ordering::Relaxed),
                    ended: standing.ended.load(Ordering::Relaxed),
                };
                (self.watch)(&progress);
            }
            std::thread::sleep(LOOK.min(deadline.saturating_duration_since(now)));
        }
    }

    /// Ends a phase: what it cost, and what the nodes saw of it. `fill` adds what only this phase has, out of the records
    /// of well-behaved nodes.
    fn finish(
        &mut self,
        name: &str,
        began: Began,
        wanted: usize,
        fill: impl FnOnce(&mut PhaseReport, &mut dyn Iterator<Item = Record>),
    ) -> Result<PhaseReport, Error> {
        let client = Cost::of_self();
        let server = self.options.server_pid.map(Cost::of).transpose()?;
        let seconds = began.at.elapsed();
        let tally = self.gather();
        let mut report = PhaseReport::new(name, seconds, wanted, &tally);
        report.cost(began.server.zip(server), (began.client, client));
        let well_behaved = tally.records.iter().filter(|(manners, _)| *manners == Manners::Good);
        fill(&mut report, &mut well_behaved.map(|(_, record)| *record));
        report.connected = self.common.standing.connected.load(Ordering::Relaxed);
        Ok(report)
    }
}

impl Drop for Swarm<'_> {
    fn drop(&mut self) {
        self.threads.iter().for_each(|thread| thread.tell(Command::Stop));
        for thread in &mut self.threads {
            if let Some(handle) = thread.handle.take() {
                // A worker that panicked has said so on standard error.
                let _ = handle.join();
            }
        }
    }
}

fn change_report(made: Nanos, records: &mut dyn Iterator<Item = Record>) -> ChangeReport {
    let records: Vec<_> = records.collect();
    let after = |time: fn(&Record) -> Nanos| {
        Span::of(records.iter().map(time).filter(|time| *time > 0).map(move |time| time.saturating_sub(made)))
    };
    ChangeReport {
        arrived: after(|record| record.arrived),
        acknowledged: after(|record| record.acknowledged),
        server_micros_per_node: None,
    }
}

/// Which node is of which manners: spread over all by chance, and the same for the same seed.
fn assign(scenario: &Scenario) -> Vec<Manners> {
    let mut random = Random(scenario.seed);
    let mut order: Vec<_> = (0..scenario.nodes).map(|index| (random.next(), index)).collect();
    order.sort_unstable();
    let mut manners = vec![Manners::Good; scenario.nodes];
    let odd = [(scenario.slow, Manners::Slow), (scenario.nack, Manners::Refusing), (scenario.silent, Manners::Silent)];
    let mut chosen = order.iter().map(|(_, index)| *index);
    for (share, kind) in odd {
        for index in chosen.by_ref().take(share.of(scenario.nodes)) {
            manners[index] = kind;
        }
    }
    manners
}

fn start(common: &Arc<Common>, manners: &[Manners], at: usize) -> Result<Thread, Error> {
    let failed = |reason: String| Error::System { what: "a thread of nodes", reason };
    let wake =
        EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(|e| failed(e.to_string()))?;
    let wake = Arc::new(wake);
    let (commands, receiver) = channel();
    let nodes = (0..).zip(manners).skip(at).step_by(common.scenario.threads).map(|(index, kind)| (index, *kind));
    let seed = common.scenario.seed.wrapping_add(at as u64 + 1);
    let worker = Worker::new(Arc::clone(common), nodes, receiver, Arc::clone(&wake), seed)?;
    let thread = std::thread::Builder::new().name(format!("swarm-{at}"));
    let handle = thread.spawn(move || worker.run()).map_err(|e| failed(e.to_string()))?;
    Ok(Thread { commands, wake, handle: Some(handle) })
}

/// Raises the limit of open files as far as it may be, and checks that it is enough.
fn allow_files(nodes: usize) -> Result<(), Error> {
    let failed = |error: nix::Error| Error::System { what: "enough open files", reason: error.to_string() };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    let wanted = nodes as u64 + OTHER_FILES;
    if soft < wanted && soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(wanted.max(soft)), hard).map_err(failed)?;
    }
    if hard < wanted { Err(Error::Files { nodes, limit: hard }) } else { Ok(()) }
}
