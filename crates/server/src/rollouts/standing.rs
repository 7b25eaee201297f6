//! Looks where nodes stand to the assignments of runs that wait for them.
//!
//! While a run waits, every answer of a node is a reason to look again, at most for half of the time, because users may
//! be hurt by every moment of it; once all have accepted it is looked now and then, for nodes that come and go.

use std::time::{Duration, Instant};

use rollout::Standing;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use world::ObjectRef;

use crate::admin::Views;

/// However much happens, it is looked no more often than this.
const PAUSE: Duration = Duration::from_millis(10);
/// However little happens, it is looked so often: not everything that matters is an event.
const AT_LEAST_EVERY: Duration = Duration::from_millis(500);
/// When nobody waits.
const RESTING: Duration = Duration::from_secs(2);

/// The assignment that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The run.
    pub(super) run: ObjectRef,
    /// All nodes have accepted it, as far as is known.
    pub(super) is_settled: bool,
    /// Its version.
    pub(super) version: u64,
}

/// Runs until `stop` is cancelled, or nobody listens any more.
pub(super) async fn look(
    views: Views,
    mut wanted: watch::Receiver<Vec<Wanted>>,
    tell: mpsc::Sender<(ObjectRef, Standing)>,
    stop: CancellationToken,
) {
    loop {
        let now: Vec<Wanted> = wanted.borrow_and_update().clone();
        let is_urgent = now.iter().any(|wanted| !wanted.is_settled);
        // Frequent events are made only while somebody listens.
        let mut events = is_urgent.then(|| views.listen());
        let begun = Instant::now();
        let runs: Vec<ObjectRef> = now.iter().map(|wanted| wanted.run.clone()).collect();
        if !runs.is_empty() {
            let Ok(standings) = views.standings(&runs).await else { return };
            for standing in runs.into_iter().zip(standings) {
                if tell.send(standing).await.is_err() {
                    return;
                }
            }
        }
        let took = begun.elapsed();
        let pause = PAUSE.max(if is_urgent { took } else { 4 * took });
        let longest = if is_urgent { AT_LEAST_EVERY.max(pause) } else { RESTING.max(pause) };
        if !now.is_empty() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = async {
                match &mut events {
                    Some(events) => events.changed().await,
                    None => std::future::pending().await,
                }
            } => {}
            () = tokio::time::sleep(longest), if !now.is_empty() => {}
            () = stop.cancelled() => return,
        }
    }
}
