//! Intents as a stream, for HTTP and gRPC: first all that there are, then whatever is different.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::watch;
use world::ObjectRef;

use super::{IntentFilter, Intents};
use crate::Stopped;
use crate::plane_task::Catalogued;
use crate::view::{IntentChange, IntentEvent, IntentObject};

/// However much happens, it is looked no more often than this.
const PAUSE: Duration = Duration::from_millis(100);

/// The events that pass a filter, one at a time, until the server ends. Each look compares the newest state with what was
/// told last, so whoever reads slowly is told less often, and never waits for what is outdated.
#[derive(Debug)]
pub(crate) struct IntentFeed {
    intents: Intents,
    filter: IntentFilter,
    catalogued: watch::Receiver<Catalogued>,
    news: watch::Receiver<u64>,
    told: BTreeMap<ObjectRef, IntentObject>,
    ready: VecDeque<IntentEvent>,
    is_synced: bool,
}

impl IntentFeed {
    /// What `intents` have, from now on.
    pub(super) fn new(intents: Intents, filter: IntentFilter) -> Self {
        let (catalogued, news) = (intents.plane.catalogued(), intents.rollouts.news());
        Self { intents, filter, catalogued, news, told: BTreeMap::new(), ready: VecDeque::new(), is_synced: false }
    }

    /// The next event; `None` when the server ends. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Option<IntentEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.is_synced {
                let draining = self.intents.draining.clone();
                tokio::select! {
                    () = draining.cancelled() => return None,
                    changed = self.catalogued.changed() => changed.ok()?,
                    changed = self.news.changed() => changed.ok()?,
                }
                tokio::time::sleep(PAUSE).await;
            }
            self.look().await.ok()?;
        }
    }

    async fn look(&mut self) -> Result<(), Stopped> {
        // What comes while this is under way is seen by the next look.
        self.news.mark_unchanged();
        self.catalogued.mark_unchanged();
        let now = self.intents.look(&self.filter).await?;
        for (reference, object) in &now {
            let change = match self.told.get(reference) {
                None => IntentChange::Added,
                Some(told) if told != object => IntentChange::Modified,
                Some(_) => continue,
            };
            self.ready.push_back(IntentEvent { change, object: Some(object.clone()) });
        }
        for (reference, object) in std::mem::take(&mut self.told) {
            if !now.contains_key(&reference) {
                self.ready.push_back(IntentEvent { change: IntentChange::Deleted, object: Some(object) });
            }
        }
        self.told = now;
        if !std::mem::replace(&mut self.is_synced, true) {
            self.ready.push_back(IntentEvent { change: IntentChange::Synced, object: None });
        }
        Ok(())
    }
}
