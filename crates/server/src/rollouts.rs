//! Carries rollouts out: the task between the conductor, which decides, and everything that it decides about.
//!
//! ```text
//!  plane task ──picture──▶ ┌───────────┐ ──assignments──▶ plane task ──▶ nodes
//!  nodes ──standing──────▶ │ conductor │ ──records──────▶ store (durable before anything that depends on it)
//!  people, gates ────────▶ └───────────┘ ──questions, news──▶ webhooks
//! ```
//!
//! It decides nothing itself. Records are written on a thread of their own, one batch at a time; whatever comes up
//! meanwhile is the next batch.

mod board;
mod measuring;
mod rollouts_handle;
mod standing;
mod store;
mod webhook;

pub(crate) use rollouts_handle::RolloutsHandle;
pub use store::StoreError;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rollout::{
    ActError, Action, Conductor, Deed, Event, Evidence, GateAnswer, GateId, IntentRecord, Lane, Observation, Record,
    Standing, Time,
};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use world::{Change, Kind, ObjectRef, Problem};

use crate::admin::Views;
use crate::metrics::Metrics;
use crate::plane_task::PlaneHandle;
use crate::{Input, Stopped, Telemetry, view};
use board::Board;
use measuring::Measuring;
use standing::Wanted;
use store::{Entry, Store, WriteError};
use webhook::Webhooks;

/// Questions that may wait. When it is full those who ask wait.
const QUESTIONS: usize = 64;
/// Looks at nodes that may wait; the one who looks waits then.
const STANDINGS: usize = 16;
/// Webhooks that are under way at one time. Beyond that a question counts as failed, and news are dropped.
const WEBHOOKS: usize = 256;
/// News are no question: who takes longer than this to listen has not heard them.
const NEWS_TIMEOUT: Duration = Duration::from_secs(10);
const NEWS_RETRIES: u32 = 3;
/// How often requests of a run that goes on are counted, if it has not said so since the start.
const MEASURED_EVERY: Duration = Duration::from_secs(1);

/// What others ask.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Everything.
    All {
        /// Where the answer goes.
        reply: oneshot::Sender<view::Rollouts>,
    },
    /// One intent.
    One {
        /// Its namespace.
        namespace: String,
        /// Its name, or that of a run.
        name: String,
        /// Where the answer goes.
        reply: oneshot::Sender<Option<view::Rollout>>,
    },
    /// An action.
    Act {
        /// The namespace.
        namespace: String,
        /// An intent's name, or that of a run.
        name: String,
        /// What.
        action: Box<Action>,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<view::Rollout, ActError>>,
    },
}

/// What a webhook has led to.
#[derive(Debug)]
enum Heard {
    Gate(ObjectRef, GateId, GateAnswer),
    /// News that nobody took: of which run, for which URL, and why.
    NotTold(ObjectRef, String, String),
    Told,
}

/// Everything that the task waits for.
enum Incident {
    Picture,
    Standing(ObjectRef, Standing),
    Measured(ObjectRef, Evidence),
    Written(Store, Batch, Result<(), WriteError>),
    Heard(Heard),
    Asked(Ask),
    Due,
    Stop,
}

/// Somebody who has acted, and is told when a crash cannot take it back any more.
#[derive(Debug)]
struct Unanswered {
    namespace: String,
    name: String,
    /// The run acted on.
    run: String,
    reply: oneshot::Sender<Result<view::Rollout, ActError>>,
}

/// The records of one transaction.
type Batch = Vec<Entry>;

/// The task's state.
#[derive(Debug)]
pub(crate) struct Rollouts {
    conductor: Conductor,
    board: Board,
    /// With the writing thread while it writes.
    store: Option<Store>,
    /// What is to be written next.
    unwritten: Batch,
    writing: JoinSet<(Store, Batch, Result<(), WriteError>)>,
    measuring: Measuring,
    webhooks: Webhooks,
    calls: JoinSet<Heard>,
    /// Actions that were taken, and are not durable yet.
    unanswered: Vec<Unanswered>,
    asks: mpsc::Receiver<Ask>,
    news: watch::Sender<u64>,
    wanted: watch::Sender<Vec<Wanted>>,
    input: Input,
    telemetry: Option<Arc<Telemetry>>,
    metrics: Arc<Metrics>,
    /// What was said to the plane last.
    problems: Vec<Problem>,
}

impl Rollouts {
    /// Opens the state and says to the plane what is in force, before anybody is served.
    ///
    /// # Errors
    /// The state cannot be had.
    pub(crate) async fn open(
        state: Option<&Path>,
        input: Input,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, RolloutsHandle), StoreError> {
        let (store, stored) = Store::open(state)?;
        let conductor = Conductor::resume(now(), store.fence(), stored);
        let (ask, asks) = mpsc::channel(QUESTIONS);
        let (news, news_seen) = watch::channel(0);
        let mut rollouts = Self {
            conductor,
            board: Board::default(),
            store: Some(store),
            unwritten: Vec::new(),
            writing: JoinSet::new(),
            measuring: Measuring::default(),
            webhooks: Webhooks::new(),
            calls: JoinSet::new(),
            unanswered: Vec::new(),
            asks,
            news,
            wanted: watch::Sender::new(Vec::new()),
            input,
            telemetry: None,
            metrics,
            problems: Vec::new(),
        };
        // The plane's task takes this in before anything that comes later.
        let _ = rollouts.carry_out().await;
        Ok((rollouts, RolloutsHandle::new(ask, news_seen)))
    }

    /// Runs until `stop` is cancelled; what is being written then is written.
    pub(crate) async fn run(
        mut self,
        mut plane: PlaneHandle,
        views: Views,
        telemetry: Arc<Telemetry>,
        stop: CancellationToken,
    ) {
        self.telemetry = Some(telemetry);
        tokio::select! {
            () = plane.synced() => {}
            () = stop.cancelled() => return,
        }
        let (tell, mut standings) = mpsc::channel(STANDINGS);
        let mut looking = JoinSet::new();
        looking.spawn(standing::look(views, self.wanted.subscribe(), tell, stop.clone()));
        let mut picture = plane.picture();
        picture.mark_changed();
        loop {
            let incident = tokio::select! {
                () = stop.cancelled() => Incident::Stop,
                Ok(()) = picture.changed() => Incident::Picture,
                Some((run, standing)) = standings.recv() => Incident::Standing(run, standing),
                Some((run, evidence)) = self.measuring.next() => Incident::Measured(run, evidence),
                Some(Ok((store, batch, result))) = self.writing.join_next() => Incident::Written(store, batch, result),
                Some(Ok(heard)) = self.calls.join_next() => Incident::Heard(heard),
                Some(ask) = self.asks.recv() => Incident::Asked(ask),
                () = until(self.conductor.poll_timeout()) => Incident::Due,
            };
            match incident {
                Incident::Stop => break,
                Incident::Picture => {
                    let picture = picture.borrow_and_update().clone();
                    self.conductor.handle_picture(now(), picture);
                    self.measure_all();
                }
                Incident::Standing(run, standing) => self.stand(run, standing),
                Incident::Measured(run, evidence) => self.measured(run, evidence),
                Incident::Written(store, batch, result) => self.written(store, &batch, &result),
                Incident::Heard(heard) => self.heard(heard),
                Incident::Asked(ask) => self.answer(ask),
                Incident::Due => self.conductor.handle_timeout(now()),
            }
            if self.carry_out().await.is_err() {
                break;
            }
        }
        while self.writing.join_next().await.is_some() {}
        looking.shutdown().await;
        self.measuring.shutdown().await;
        self.calls.shutdown().await;
    }

    fn stand(&mut self, run: ObjectRef, standing: Standing) {
        if self.board.standing(&run) != Some(&standing) {
            self.board.stand(run.clone(), standing.clone());
            self.conductor.handle(now(), &run, Event::Standing(standing));
        }
    }

    /// Begins to count for runs that went on before the start, or before there was a service.
    fn measure_all(&mut self) {
        let goes_on = |lane: &&Lane| lane.run().is_some_and(|run| !run.record().phase.is_terminal());
        let runs: Vec<_> = self.conductor.lanes().filter(goes_on).filter_map(Lane::run_reference).collect();
        runs.into_iter().for_each(|run| self.measure(run, MEASURED_EVERY));
    }

    /// Begins to count for a run, unless that is being done.
    fn measure(&mut self, run: ObjectRef, interval: Duration) {
        let Some(telemetry) = &self.telemetry else { return };
        let lane = self.conductor.lanes().find(|lane| lane.run_reference().as_ref() == Some(&run));
        if let Some(targets) = lane.and_then(|lane| measuring::targets(&run, lane, interval)) {
            self.measuring.begin(run, targets, telemetry);
        }
    }

    fn measured(&mut self, run: ObjectRef, evidence: Evidence) {
        let lane = self.conductor.lanes().find(|lane| lane.run_reference().as_ref() == Some(&run));
        if let Some(record) = lane.and_then(Lane::run).map(rollout::Run::record) {
            let counts = evidence.metrics.values().find_map(|observation| match observation {
                Observation::Counts { candidate, stable, .. } => Some((candidate.total, stable.total)),
                // What others count is not divided by the weights that are in force now.
                Observation::Since { .. } | Observation::Value(_) | Observation::ProviderError(_) => None,
            });
            // What was counted before all nodes had the weights is a mixture.
            let is_settled = record.settled.is_some_and(|settled| evidence.from >= settled);
            if let (Some((candidate, stable)), true) = (counts, is_settled) {
                self.board.observe(run.clone(), record.assignment.version, candidate, stable);
            }
        }
        self.conductor.handle(now(), &run, Event::Evidence(evidence));
        let lane = self.conductor.lanes().find(|lane| lane.run_reference().as_ref() == Some(&run));
        if let Some((lane, current)) = lane.and_then(|lane| Some((lane, lane.run()?)))
            && !current.record().phase.is_terminal()
        {
            self.metrics.judged().set(lane.intent(), &current.explain());
        }
    }

    fn written(&mut self, store: Store, batch: &[Entry], result: &Result<(), WriteError>) {
        self.store = Some(store);
        if let Err(error) = result {
            tracing::error!(%error, "what rollouts decided cannot be stored; nothing of it is published");
        }
        let (words, is_fenced) = match result {
            Ok(()) => (None, false),
            Err(error) => (Some(error.to_string()), matches!(error, WriteError::Fenced(_))),
        };
        for entry in batch {
            match entry {
                Entry::Run { namespace, record } => {
                    let run = ObjectRef::new(Kind::RolloutRun, namespace, &record.plan.run);
                    let sequence = record.sequence;
                    let event = match &words {
                        None => Event::Committed(sequence),
                        Some(words) => Event::CommitFailed { sequence, words: words.clone(), is_fenced },
                    };
                    self.conductor.handle(now(), &run, event);
                }
                Entry::Intent(record) => {
                    let IntentRecord { namespace, name, sequence, .. } = &**record;
                    let intent = ObjectRef::new(Kind::DeploymentIntent, namespace, name);
                    self.conductor.intent_saved(now(), &intent, *sequence, words.clone().map_or(Ok(()), Err));
                }
                Entry::Forget { .. } => {}
            }
        }
    }

    fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Gate(run, id, answer) => self.conductor.handle(now(), &run, Event::Gate(id, answer)),
            Heard::NotTold(run, url, words) => {
                tracing::warn!(%run, url, words, "news of a rollout were not taken");
                self.note(&run, "Webhook", format!("{url} was not told: {words}"));
            }
            Heard::Told => {}
        }
    }

    // Whoever no longer waits for the answer has gone.
    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::All { reply } => drop(reply.send(self.board.all(&self.conductor))),
            Ask::One { namespace, name, reply } => {
                drop(reply.send(self.board.one(&self.conductor, &namespace, &name)));
            }
            Ask::Act { namespace, name, action, reply } => {
                let (verb, actor) = (action.verb.as_str(), action.actor.clone());
                let result = self.conductor.act(now(), &namespace, &name, *action);
                if result.is_ok() {
                    tracing::info!(rollout = format!("{namespace}/{name}"), verb, actor, "somebody acted");
                }
                match result {
                    Ok(run) => self.unanswered.push(Unanswered { namespace, name, run, reply }),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
        }
    }

    /// Answers those whose action is durable, or cannot be made so now: then the rollout says why.
    fn answer_actions(&mut self) {
        let is_open = |waiting: &Unanswered| {
            let mut runs = self.conductor.lanes().filter_map(Lane::run);
            let run = runs.find(|run| run.record().plan.run == waiting.run);
            run.is_some_and(|run| !run.is_durable() && !run.has_commit_failed())
        };
        let (open, done) = std::mem::take(&mut self.unanswered).into_iter().partition(is_open);
        self.unanswered = open;
        let done: Vec<Unanswered> = done;
        for Unanswered { namespace, name, reply, .. } in done {
            let view = self.board.one(&self.conductor, &namespace, &name);
            drop(reply.send(view.ok_or(ActError::Unknown { namespace, name })));
        }
    }

    /// Carries out what the conductor wants, in order.
    async fn carry_out(&mut self) -> Result<(), Stopped> {
        let mut changes = Vec::new();
        while let Some(deed) = self.conductor.poll_deed() {
            match deed {
                Deed::SaveRun { run, record } => self.save_run(&run, record),
                Deed::SaveIntent(record) => self.unwritten.push(Entry::Intent(record)),
                Deed::ForgetRun(run) => {
                    let (namespace, run) = (run.namespace.to_string(), run.name.to_string());
                    self.unwritten.push(Entry::Forget { namespace, run });
                }
                Deed::Change(more) => changes.extend(more),
                Deed::AskGate { run, question } => self.ask_gate(run, question),
                Deed::Notify { run, notice, urls } => self.notify(&run, notice.event, notice.text, urls),
                Deed::LoadReports { run, revisions, interval } => match revisions.is_empty() {
                    true => {
                        self.measuring.end(&run);
                        self.intent_of(&run).iter().for_each(|intent| self.metrics.judged().forget(intent));
                    }
                    false => self.measure(run, interval),
                },
                Deed::SafeToScaleDown { run, revision } => {
                    self.note(&run, "SafeToScaleDown", format!("nothing is sent to \"{revision}\" any more"));
                }
            }
        }
        self.write();
        self.answer_actions();
        let problems = self.conductor.problems();
        if !changes.is_empty() || problems != self.problems {
            self.problems.clone_from(&problems);
            self.tell_of_publications(&changes);
            self.input.decide(changes, problems).await?;
        }
        self.board.retain(&self.conductor);
        let board = &self.board;
        let wanted = self.conductor.standing_wanted().into_iter().map(|(run, version)| {
            let standing = board.standing(&run).filter(|standing| standing.version == version);
            let is_settled = standing.is_some_and(|standing| standing.accepted >= standing.concerned);
            Wanted { run, is_settled, version }
        });
        let wanted: Vec<_> = wanted.collect();
        self.wanted.send_if_modified(|known| {
            let is_new = *known != wanted;
            *known = wanted;
            is_new
        });
        self.news.send_modify(|news| *news += 1);
        Ok(())
    }

    fn save_run(&mut self, run: &ObjectRef, record: Box<Record>) {
        // A newer record of a run stands for those before it that were not written.
        let namespace = run.namespace.to_string();
        self.unwritten.push(Entry::Run { namespace, record });
    }

    /// Writes what has come up, unless something is being written.
    fn write(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        let Some(mut store) = self.store.take() else { return };
        let batch = std::mem::take(&mut self.unwritten);
        self.writing.spawn_blocking(move || {
            let result = store.write(&batch);
            (store, batch, result)
        });
    }

    fn tell_of_publications(&self, changes: &[Change]) {
        for change in changes {
            if let Change::Apply(object) = change {
                tracing::info!(run = %object.reference, version = object.meta.generation, "weights are published");
            }
        }
    }

    fn ask_gate(&mut self, run: ObjectRef, question: rollout::GateQuestion) {
        let body = json!({
            "namespace": &*run.namespace,
            "run": question.run,
            "intent": self.intent_of(&run).map(|intent| intent.name.to_string()),
            "candidate": question.candidate.as_str(),
            "phase": question.id.phase,
            "step": question.id.step,
        });
        if self.calls.len() >= WEBHOOKS {
            let words = format!("{WEBHOOKS} webhooks are under way already");
            self.conductor.handle(now(), &run, Event::Gate(question.id, GateAnswer::Failed(words)));
            return;
        }
        let webhooks = self.webhooks.clone();
        self.calls.spawn(async move {
            let answer = webhooks.ask(&question.url, &body, question.timeout, question.retries).await;
            Heard::Gate(run, question.id, answer)
        });
    }

    fn notify(&mut self, run: &ObjectRef, event: &'static str, text: String, urls: Vec<String>) {
        tracing::info!(%run, event, "{text}");
        let body = json!({
            "namespace": &*run.namespace,
            "run": &*run.name,
            "intent": self.intent_of(run).map(|intent| intent.name.to_string()),
            "event": event,
            "text": text,
            "time": board::timestamp(now()),
        });
        self.note(run, event, text);
        for url in urls {
            if self.calls.len() >= WEBHOOKS {
                self.note(run, "Webhook", format!("{url} was not told: {WEBHOOKS} webhooks are under way already"));
                continue;
            }
            let (webhooks, body, run) = (self.webhooks.clone(), body.clone(), run.clone());
            self.calls.spawn(async move {
                match webhooks.tell(&url, &body, NEWS_TIMEOUT, NEWS_RETRIES).await {
                    Ok(()) => Heard::Told,
                    Err(words) => Heard::NotTold(run, url, words),
                }
            });
        }
    }

    fn note(&mut self, run: &ObjectRef, event: &str, text: String) {
        if let Some(intent) = self.intent_of(run) {
            self.board.event(&intent, now(), &run.name, event, text);
        }
    }

    fn intent_of(&self, run: &ObjectRef) -> Option<ObjectRef> {
        let is_its = |lane: &&Lane| {
            let is_run = |record: &Record| record.plan.run == *run.name;
            let current = lane.run().is_some_and(|current| is_run(current.record()));
            lane.intent().namespace == run.namespace && (current || lane.history().iter().any(is_run))
        };
        self.conductor.lanes().find(is_its).map(|lane| lane.intent().clone())
    }
}

/// The time, as runs count it.
fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Returns at this time; never if there is none. Cancel safe.
async fn until(time: Option<Time>) {
    match time {
        Some(time) => tokio::time::sleep(time.since(now())).await,
        None => std::future::pending().await,
    }
}
