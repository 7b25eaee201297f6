//! Endpoints that change at a steady rate.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ::swarm::Stamp;
use serde_json::{Value, json};
use server::{Input, Stopped};

use super::control::now_ns;
use super::objects::Mesh;

/// How much changes, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Churn {
    /// Changes a second.
    pub(super) rate: u32,
    pub(super) lasting: Duration,
    /// The changes go round so many services.
    pub(super) services: u32,
}

/// How often it is looked what is due: changes that are due together enter as one update, as those of a watch would.
const TICK: Duration = Duration::from_millis(1);

impl Churn {
    /// Makes the changes, and says how many there were and the last stamp of each service. `turn` counts changes over
    /// all churns. A server that takes in nothing more delays the changes; they are not dropped.
    pub(super) async fn run(self, mesh: Mesh, input: &Input, turn: &mut u32) -> Result<Value, Stopped> {
        let due_in_all = u64::from(self.rate) * self.lasting.as_millis() as u64 / 1000;
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        let (begun, begun_ns) = (Instant::now(), now_ns());
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut done = 0;
        let mut updates = 0;
        while done < due_in_all {
            ticks.tick().await;
            let due = (begun.elapsed().as_secs_f64() * f64::from(self.rate)) as u64;
            let due = due.min(due_in_all);
            let committed_ns = now_ns();
            let mut changes = Vec::new();
            for number in done..due {
                let service = (number % u64::from(self.services)) as u32;
                *turn = turn.wrapping_add(1);
                changes.push(mesh.changed_endpoints(Stamp { committed_ns, service }, *turn));
                last.insert(service, committed_ns);
            }
            if !changes.is_empty() {
                input.apply(changes, Vec::new(), Instant::now()).await?;
                updates += 1;
            }
            done = due;
        }
        let seconds = begun.elapsed().as_secs_f64();
        Ok(json!({
            "changes": done,
            "updates": updates,
            "seconds": seconds,
            "rate": done as f64 / seconds,
            "begun_ns": begun_ns,
            "ended_ns": now_ns(),
            "last": last,
        }))
    }
}
