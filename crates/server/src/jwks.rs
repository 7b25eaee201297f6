//! Key sets of token issuers: fetched for the RequestAuthentications that want them, and kept fresh.
//!
//! The plane says which it wants; what fetching leads to goes back to it as a part of the world. A set that was fetched
//! once stays in force when it cannot be had again. What a server answers that is no key set is never repeated to
//! anybody: whoever may write a policy could read with it what only this server can reach.

mod ask;
mod schedule;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use world::{Fetched, KeySet, KeySource};

use crate::Input;
use crate::metrics::Metrics;
use ask::ask;
use schedule::Schedule;

pub(crate) use schedule::KeySetCounts;

/// The key sets that are wanted, with how long fetching each may take.
pub(crate) type Wanted = BTreeMap<KeySource, Duration>;

/// So many are asked for at one time; the others wait for their turn.
const AT_ONCE: usize = 8;

/// How the key sets of token issuers are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksSettings {
    /// PEM file of the authorities by which servers are verified; those that the system trusts when absent.
    pub authorities: Option<PathBuf>,
    /// How often a set is fetched again.
    pub refresh: Duration,
}

impl Default for JwksSettings {
    /// The authorities of the system, and the interval of Istio (`pilot/pkg/model/jwks_resolver.go`).
    fn default() -> Self {
        Self { authorities: None, refresh: Duration::from_secs(20 * 60) }
    }
}

/// The task that fetches.
#[derive(Debug)]
pub(crate) struct Jwks {
    settings: Arc<JwksSettings>,
    wanted: watch::Receiver<Wanted>,
    input: Input,
    metrics: Arc<Metrics>,
    schedule: Schedule,
    asking: JoinSet<(KeySource, Result<KeySet, String>)>,
}

enum Event {
    Wanted,
    Due,
    Answered(KeySource, Result<KeySet, String>),
    Stop,
}

impl Jwks {
    pub(crate) fn new(
        settings: &JwksSettings,
        wanted: watch::Receiver<Wanted>,
        input: Input,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (schedule, asking) = (Schedule::new(settings.refresh), JoinSet::new());
        Self { settings: Arc::new(settings.clone()), wanted, input, metrics, schedule, asking }
    }

    /// Fetches what is wanted until `stop` is cancelled or the plane is gone.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        self.wanted.mark_changed();
        loop {
            let told = match self.next_event(&stop).await {
                Event::Stop => return,
                Event::Wanted => {
                    let wanted = self.wanted.borrow_and_update().clone();
                    let dropped = self.schedule.want(&wanted, Instant::now());
                    dropped.into_iter().map(|source| (source, None)).collect()
                }
                Event::Due => {
                    if let Some((source, patience)) = self.schedule.take_due(Instant::now()) {
                        let settings = self.settings.clone();
                        self.asking.spawn(async move {
                            let answer = ask(&source, patience, &settings).await;
                            (source, answer)
                        });
                    }
                    Vec::new()
                }
                Event::Answered(source, answer) => self.note(source, answer),
            };
            for (source, fetched) in told {
                if self.input.fetched(source, fetched).await.is_err() {
                    return;
                }
            }
            self.metrics.key_sets(self.schedule.standing());
        }
    }

    async fn next_event(&mut self, stop: &CancellationToken) -> Event {
        let due = self.schedule.due().filter(|_| self.asking.len() < AT_ONCE);
        tokio::select! {
            () = stop.cancelled() => Event::Stop,
            changed = self.wanted.changed() => if changed.is_ok() { Event::Wanted } else { Event::Stop },
            () = until(due) => Event::Due,
            Some(answered) = self.asking.join_next() => match answered {
                Ok((source, answer)) => Event::Answered(source, answer),
                // Tasks are neither cancelled nor panic; a set whose task did would not be asked for again.
                Err(_) => Event::Due,
            },
        }
    }

    /// Takes an answer in, and returns what is news to the plane.
    fn note(&mut self, source: KeySource, answer: Result<KeySet, String>) -> Vec<(KeySource, Option<Fetched>)> {
        self.metrics.key_set_fetched(answer.is_ok());
        let Some(fetched) = self.schedule.answered(&source, answer, Instant::now()) else { return Vec::new() };
        match (&fetched.failure, fetched.keys.is_some()) {
            (None, _) => tracing::info!(%source, "the keys of an issuer were fetched"),
            (Some(why), true) => tracing::warn!(%source, why = &**why, "the keys of an issuer cannot be fetched again"),
            (Some(why), false) => {
                tracing::error!(%source, why = &**why, "the keys of an issuer cannot be had: its tokens are refused");
            }
        }
        vec![(source, Some(fetched))]
    }
}

/// Returns at this time; never if there is none. Cancel safe.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
