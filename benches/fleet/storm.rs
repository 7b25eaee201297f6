//! Everybody connects at once, and comes back at once.

use std::sync::mpsc::Sender;

use anyhow::Result;
use swarm::report::PhaseReport;
use swarm::scenario::{Change, Phase, Reconnect, Scenario, Variant};

use crate::figures::Figures;
use crate::fleet::scenario;
use crate::rounds::{change_of, connect_of, server_cpu};
use crate::row::{Row, Target, Unit};
use crate::server::{Server, committed};

/// Changes while the storm lasts, seen by those who were there before.
const CHANGES: u32 = 20;
/// How many those are.
const EARLY: usize = 200;

/// Of either variant; in delta also with versions.
pub async fn storm(variant: Variant) -> Result<Vec<Row>> {
    let scenario = Scenario { variant, ..scenario("storm")? };
    let name = if variant == Variant::Delta { "delta" } else { "state-of-the-world" };
    let title = format!("connect storm, {} {name} nodes, 1000 services", scenario.nodes);
    let ours = Server::mesh(1000).await?;
    let floor = Server::floor(&ours, variant).await?;
    let connect = connect_of(&scenario);
    let at_floor = floor.swarm(&scenario)?.connect(&connect)?;
    drop(floor);
    let mut swarm = ours.swarm(&scenario)?;
    let report = swarm.connect(&connect)?;
    let peak = report.server.map_or(f64::NAN, |cost| cost.peak_bytes as f64);
    let last = |report: &PhaseReport| Figures::new(report.synced.as_ref().map(|span| span.last / 1e3));
    let mut rows = vec![
        Row::new(&title, "nodes not synced", Unit::Number, Figures::new([(report.wanted - report.reached) as f64]))
            .target(Target::AtMost(0.0))
            .remark(ends(&report)),
        Row::new(&title, "server CPU per node", Unit::Seconds, Figures::new(server_cpu(&report)))
            .beside("h2 floor", Figures::new(server_cpu(&at_floor)))
            .target(Target::TimesAtMost(2.0))
            .remark(if report.is_client_bound == Some(true) { "client-bound" } else { "" }),
        Row::new(&title, "connect → synced, last", Unit::Seconds, last(&report)).beside("h2 floor", last(&at_floor)),
        Row::new(&title, "bytes per node", Unit::Bytes, Figures::new([report.bytes_per_node]))
            .beside("h2 floor", Figures::new([at_floor.bytes_per_node])),
        Row::new(&title, "RSS peak", Unit::Bytes, Figures::new([peak])).target(Target::AtMost(1e9)),
    ];
    if variant == Variant::Delta {
        let back = swarm.reconnect(&reconnect_of(&scenario))?;
        let title = format!("reconnect storm with versions, {} delta nodes, nothing changed", scenario.nodes);
        rows.push(
            Row::new(&title, "bytes per node", Unit::Bytes, Figures::new([back.bytes_per_node]))
                .target(Target::AtMost(2000.0))
                .remark(format!("{} of {} back", back.reached, back.wanted))
                .remark(ends(&back)),
        );
        rows.push(Row::new(&title, "server CPU per node", Unit::Seconds, Figures::new(server_cpu(&back))));
        rows.push(Row::new(&title, "lost → back, last", Unit::Seconds, last(&back)));
    }
    drop(swarm);
    rows.push(during(&ours, &scenario)?);
    Ok(rows)
}

/// What those see who were there before: a weight changes again and again while the others connect.
fn during(ours: &Server, scenario: &Scenario) -> Result<Row> {
    let early = Scenario { nodes: EARLY, variant: scenario.variant, ..crate::fleet::scenario("weight-change")? };
    let change = Change { repeat: 1, ..change_of(&early)? };
    let mut swarm = ours.swarm(scenario)?;
    let (ready, is_ready) = std::sync::mpsc::channel();
    let seen = std::thread::scope(|scope| -> Result<_> {
        let changing = scope.spawn(|| watch(ours, &early, &change, ready));
        // When they could not connect, the thread says why.
        let _ = is_ready.recv();
        swarm.connect(&connect_of(scenario))?;
        changing.join().map_err(|_| anyhow::anyhow!("the thread of changes panicked"))?
    })?;
    let title = format!("connect storm, {} nodes, and {EARLY} that were there before", scenario.nodes);
    let worst = seen.iter().copied().fold(0.0, f64::max) * 1e3;
    Ok(Row::new(&title, "change → ACK of those, p99", Unit::Seconds, Figures::new(seen))
        .target(Target::AtMost(1.0))
        .remark(format!("worst of {CHANGES} changes: {worst:.0} ms; the storm's nodes are sent them too")))
}

/// Connects the nodes that are there before, says so, and changes a weight again and again; the 99th percentile of each, in seconds.
fn watch(server: &Server, scenario: &Scenario, change: &Change, ready: Sender<()>) -> Result<Vec<f64>> {
    let mut residents = server.swarm(scenario)?;
    residents.connect(&connect_of(scenario))?;
    drop(ready);
    let mut seen = Vec::new();
    for _ in 0..CHANGES {
        let report = residents
            .change(change, |_| committed(&server.post("/weight?service=0").map_err(|error| format!("{error:#}"))?))?;
        anyhow::ensure!(report.reached == report.wanted, "a change did not reach those who were there before");
        seen.extend(report.acknowledged.map(|span| span.p99 / 1e3));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Ok(seen)
}

fn reconnect_of(scenario: &Scenario) -> Reconnect {
    let found = scenario.phases.iter().find_map(|phase| match phase {
        Phase::Reconnect(reconnect) => Some(reconnect.clone()),
        _ => None,
    });
    found.unwrap_or_default()
}

/// Connections that ended by themselves, and why.
fn ends(report: &PhaseReport) -> String {
    report.ends.iter().map(|(reason, count)| format!("{count} × {reason}")).collect::<Vec<_>>().join("; ")
}
