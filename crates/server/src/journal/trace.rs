//! One change, from the file to the last acknowledgement.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use crate::metrics::Metrics;
use crate::view;

/// Names of objects and of resources that a trace keeps; of the rest it keeps the number.
pub(crate) const NAMES: usize = 100;

/// What a change is, and how far the streams that it concerns have got with it.
#[derive(Debug)]
pub(crate) struct Trace {
    about: About,
    first_sent: OnceLock<Instant>,
    progress: Mutex<Progress>,
    metrics: Arc<Metrics>,
}

/// What is known of a change when it is published.
#[derive(Debug)]
pub(crate) struct About {
    /// Counts the changes that were published, from 1.
    pub(crate) generation: u64,
    /// The clock when it was published.
    pub(crate) time: SystemTime,
    /// When its source saw it: the earliest of those that were published together.
    pub(crate) seen: Instant,
    /// When the world began to take it in.
    pub(crate) begun: Instant,
    /// When the world had taken it in.
    pub(crate) applied: Instant,
    /// When everything was compiled.
    pub(crate) compiled: Instant,
    /// The objects, at most [`NAMES`].
    pub(crate) objects: Vec<view::ChangedObject>,
    /// All of them.
    pub(crate) object_count: usize,
    /// The resources that are new, changed or gone, at most [`NAMES`].
    pub(crate) resources: Vec<view::ResourceName>,
    /// Whether there are more than those.
    pub(crate) has_more_resources: bool,
    /// Audiences whose snapshot changed.
    pub(crate) audiences: usize,
}

/// What a stream has made of a change.
#[derive(Debug)]
pub(crate) enum Settled<'a> {
    /// It was sent all that follows, and has answered. `rejected` tells whether it refuses something of what it has.
    Answered { node: &'a Arc<str>, rejected: bool },
    /// Nothing of it concerned what the client asked for.
    Unaffected,
    /// It ended before.
    Gone,
}

#[derive(Debug, Default)]
struct Progress {
    concerned: usize,
    accepted: usize,
    rejected: usize,
    unaffected: usize,
    gone: usize,
    lost: usize,
    last: Option<(Arc<str>, Instant)>,
    /// The plane is done with counting whom it concerns.
    is_counted: bool,
}

impl Progress {
    fn open(&self) -> usize {
        self.concerned - self.accepted - self.rejected - self.unaffected - self.gone - self.lost
    }
}

impl Trace {
    /// A change that is about to be published.
    pub(crate) fn new(about: About, metrics: Arc<Metrics>) -> Arc<Self> {
        let since_seen = |at: Instant| at.saturating_duration_since(about.seen);
        metrics.change_compiled(since_seen(about.applied), since_seen(about.compiled));
        Arc::new(Self { about, first_sent: OnceLock::new(), progress: Mutex::default(), metrics })
    }

    /// Its generation.
    pub(crate) fn generation(&self) -> u64 {
        self.about.generation
    }

    /// What it is.
    pub(crate) fn about(&self) -> &About {
        &self.about
    }

    /// More streams will get it.
    pub(crate) fn concerns(&self, streams: usize) {
        self.progress().concerned += streams;
    }

    /// Everyone whom it concerns is counted.
    pub(crate) fn published(&self) {
        let mut progress = self.progress();
        progress.is_counted = true;
        self.end_if_done(&progress);
    }

    /// A stream was sent something of it.
    pub(crate) fn sent(&self, now: Instant) {
        // Looked at before it is set: of thousands of streams one is the first.
        if self.first_sent.get().is_none() && self.first_sent.set(now).is_ok() {
            self.metrics.change_sent(now.saturating_duration_since(self.about.seen));
        }
    }

    /// A stream has dealt with it.
    pub(crate) fn settle(&self, how: &Settled<'_>, sent_at: Option<Instant>, now: Instant) {
        let mut progress = self.progress();
        match how {
            Settled::Answered { node, rejected } => {
                // A stream that skipped it was sent it with a later one.
                sent_at.inspect(|at| self.sent(*at));
                if *rejected {
                    progress.rejected += 1;
                } else {
                    progress.accepted += 1;
                }
                progress.last = Some(((*node).clone(), now));
            }
            Settled::Unaffected => progress.unaffected += 1,
            Settled::Gone => progress.gone += 1,
        }
        self.end_if_done(&progress);
    }

    /// So many streams are not followed any more.
    pub(crate) fn lose(&self, streams: usize) {
        self.progress().lost += streams;
    }

    fn end_if_done(&self, progress: &Progress) {
        if let Some((_, at)) = &progress.last
            && progress.is_counted
            && progress.open() == 0
            && progress.lost == 0
        {
            self.metrics.change_acknowledged(at.saturating_duration_since(self.about.seen));
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The change in full.
    pub(crate) fn view(&self) -> view::Change {
        let about = &self.about;
        let since_seen = |at: Instant| at.saturating_duration_since(about.seen).as_secs_f64();
        let progress = self.progress();
        view::Change {
            generation: about.generation,
            time: about.time.into(),
            objects: about.objects.clone(),
            object_count: about.object_count,
            resources: about.resources.clone(),
            has_more_resources: about.has_more_resources,
            audiences: about.audiences,
            streams: progress.concerned,
            accepted: progress.accepted,
            rejected: progress.rejected,
            unaffected: progress.unaffected,
            gone: progress.gone,
            outstanding: progress.open() + progress.lost,
            last_node: progress.last.as_ref().map(|(node, _)| node.to_string()).unwrap_or_default(),
            begun_seconds: since_seen(about.begun),
            applied_seconds: since_seen(about.applied),
            compiled_seconds: since_seen(about.compiled),
            first_sent_seconds: self.first_sent.get().map(|at| since_seen(*at)),
            last_acknowledged_seconds: progress.last.as_ref().map(|(_, at)| since_seen(*at)),
        }
    }
}

#[cfg(test)]
impl Trace {
    /// A change of one object, seen, applied and compiled just now.
    pub(crate) fn sample(generation: u64) -> Arc<Self> {
        let now = Instant::now();
        let about = About {
            generation,
            time: SystemTime::now(),
            seen: now,
            begun: now,
            applied: now,
            compiled: now,
            objects: Vec::new(),
            object_count: 1,
            resources: vec![view::ResourceName { r#type: "rds".to_owned(), name: "80".to_owned() }],
            has_more_resources: false,
            audiences: 1,
        };
        Self::new(about, Metrics::new())
    }
}
