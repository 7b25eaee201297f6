//! What nodes and services cost in memory.

use std::time::Duration;

use anyhow::{Context, Result};
use swarm::scenario::{Connect, Phase, Scenario};

use crate::figures::Figures;
use crate::fleet::scenario;
use crate::rounds::connect_of;
use crate::row::{Row, Target, Unit};
use crate::server::Server;

/// For whatever is still going on to end.
const REST: Duration = Duration::from_secs(2);

/// Connects a second, where they do not come all at once.
const RATE: f64 = 400.0;

/// How nodes come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coming {
    /// One after the other.
    Steadily,
    /// All at once; then all of them anew, several times.
    AtOnce,
}

/// Per connected node, and after many came and went.
pub async fn nodes(coming: Coming) -> Result<Vec<Row>> {
    let scenario = scenario("memory")?;
    let manner = match coming {
        Coming::Steadily => format!("at {RATE}/s"),
        Coming::AtOnce => "at once".to_owned(),
    };
    let title = format!("memory, {} delta nodes with a full-size Node, {manner}, 1000 services", scenario.nodes);
    let ours = Server::mesh(1000).await?;
    // One node has everything compiled and encoded: the rest is what nodes add to that.
    let first = Scenario { nodes: 1, ..scenario.clone() };
    let mut one = ours.swarm(&first)?;
    one.connect(&connect_of(&first))?;
    std::thread::sleep(REST);
    let shared = ours.resident()?;
    let mut swarm = ours.swarm(&scenario)?;
    let rate = (coming == Coming::Steadily).then_some(RATE);
    let connected = swarm.connect(&Connect { rate, ..connect_of(&scenario) })?;
    anyhow::ensure!(connected.reached == connected.wanted, "only {} nodes got everything", connected.reached);
    std::thread::sleep(REST);
    let full = ours.resident()?;
    let per_node = |resident: f64| Figures::new([(resident - shared) / scenario.nodes as f64]);
    let full_row = Row::new(&title, "RSS per node", Unit::Bytes, per_node(full))
        .target(Target::AtMost(32.0 * 1024.0))
        .remark(format!("{:.1} MB with one node", shared / 1e6));
    if coming == Coming::Steadily {
        return Ok(vec![full_row]);
    }
    let anew = scenario.phases.iter().find_map(|phase| match phase {
        Phase::Reconnect(reconnect) => Some(reconnect.clone()),
        _ => None,
    });
    let again = swarm.reconnect(&anew.context("the scenario has no reconnects")?)?;
    std::thread::sleep(REST);
    let later = ours.resident()?;
    drop(swarm);
    std::thread::sleep(REST);
    let empty = ours.resident()?;
    let times = scenario.nodes * again.repetitions as usize;
    Ok(vec![
        full_row,
        Row::new(&title, "growth by 10,000 connects", Unit::Bytes, Figures::new([(later - full).max(0.0)]))
            .target(Target::AtMost(0.02 * full))
            .remark(format!("of {:.1} MB, after {times} reconnects; {} back", full / 1e6, again.reached)),
        Row::new(&title, "RSS left when all are gone", Unit::Bytes, Figures::new([empty]))
            .beside("with one node", Figures::new([shared])),
    ])
}

/// Per service, beside what its resources weigh.
pub async fn services() -> Result<Vec<Row>> {
    const SIZES: [u32; 2] = [1_000, 10_000];
    let scenario = Scenario { nodes: 1, ..scenario("memory")? };
    let mut resident = Vec::new();
    let mut encoded = Vec::new();
    for services in SIZES {
        let ours = Server::mesh(services).await?;
        let mut one = ours.swarm(&scenario)?;
        encoded.push(one.connect(&connect_of(&scenario))?.bytes_per_node);
        std::thread::sleep(REST);
        resident.push(ours.resident()?);
    }
    let more = f64::from(SIZES[1] - SIZES[0]);
    let slope = |sizes: &[f64]| Figures::new([(sizes[1] - sizes[0]) / more]);
    Ok(vec![
        Row::new("memory, from 1000 to 10000 services, one node", "RSS per service", Unit::Bytes, slope(&resident))
            .beside("encoded", slope(&encoded))
            .target(Target::TimesAtMost(2.0))
            .remark(format!("RSS {:.0} and {:.0} MB", resident[0] / 1e6, resident[1] / 1e6)),
    ])
}
