//! Endpoints that change all the time.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;
use swarm::Swarm;
use swarm::report::PhaseReport;
use swarm::scenario::{Endpoints, Phase, Scenario, Stream, Variant};

use crate::figures::Figures;
use crate::fleet::scenario;
use crate::rounds::connect_of;
use crate::row::{Row, Target, Unit};
use crate::server::Server;

const RATES: [u32; 4] = [10, 100, 1_000, 10_000];
/// The floor needs less time: it does the same all along.
const FLOOR_SECONDS: f64 = 3.0;

/// Every rate, with a change that concerns so many nodes; `None` for all.
pub async fn churn(width: Option<usize>) -> Result<Vec<Row>> {
    let scenario = scenario("churn")?;
    let scenario = Scenario { endpoints: Endpoints { each: width, ..Endpoints::default() }, ..scenario };
    let stream = stream_of(&scenario)?;
    let services = u32::try_from(scenario.nodes)?;
    let ours = Server::mesh(services).await?;
    let floor = Server::floor(&ours, Variant::Delta).await?;
    let reach = width.unwrap_or(scenario.nodes);
    let floor_scenario = Scenario { stamps: false, ..scenario.clone() };
    let mut at_floor = connected(&floor, &floor_scenario)?;
    let mut at_ours = connected(&ours, &scenario)?;
    let mut rows = Vec::new();
    for rate in RATES {
        let title = format!("{rate} endpoint changes/s, {} delta nodes, each concerns {reach}", scenario.nodes);
        let path = format!("/churn?rate={rate}&seconds={FLOOR_SECONDS}&width={reach}");
        let phase = Stream { seconds: FLOOR_SECONDS, ..stream.clone() };
        let (floor_report, _) = run(&floor, &mut at_floor, &phase, &path)?;
        let path = format!("/churn?rate={rate}&seconds={}&services={services}", stream.seconds);
        let (report, answer) = run(&ours, &mut at_ours, &stream, &path)?;

        let made = answer["rate"].as_f64().unwrap_or(f64::NAN);
        let changes = answer["changes"].as_f64().unwrap_or(f64::NAN);
        let sent = resources(&report);
        let last: BTreeMap<u32, u64> = serde_json::from_value(answer["last"].clone()).context("no last stamps")?;
        // Every node asks for the endpoints of as many services as there are nodes that ask for one.
        let due = last.len() * reach;
        let held = at_ours.up_to_date(&last);
        let per_core = |report: &PhaseReport| {
            let cpu = report.server.map_or(f64::NAN, |cost| cost.cpu_seconds);
            Figures::new([resources(report) / cpu])
        };
        let busy = report.server.map_or(f64::NAN, |cost| cost.cpu_seconds) / report.seconds * 100.0;
        let bound = if report.is_client_bound == Some(true) { "client-bound; " } else { "" };
        let coalesced = 100.0 * (1.0 - sent / (changes * reach as f64));
        rows.push(
            Row::new(&title, "deliveries/s/core", Unit::Number, per_core(&report))
                .beside("h2 floor", per_core(&floor_report))
                .target(Target::TimesAtLeast(0.6))
                .remark(format!(
                    "{bound}{made:.0} changes/s made, {:.0} deliveries/s, {coalesced:.0} % coalesced, server {busy:.0} % of its core",
                    sent / report.seconds
                )),
        );
        // Above what the server or the swarm can do, changes add up to fewer deliveries and are older by that.
        let target = if busy < 80.0 { Target::AtMost(0.1) } else { Target::None };
        let age = report.age.as_ref().map(|span| span.p99 / 1e3);
        rows.push(
            Row::new(&title, "staleness, p99", Unit::Seconds, Figures::new(age))
                .target(target)
                .remark(if busy < 80.0 { "" } else { "saturated" }),
        );
        rows.push(
            Row::new(&title, "not up to date at the end", Unit::Number, Figures::new([(due - held.min(due)) as f64]))
                .target(Target::AtMost(0.0))
                .remark(format!("of {due} pairs of a node and a service")),
        );
    }
    Ok(rows)
}

fn connected(server: &Server, scenario: &Scenario) -> Result<Swarm<'static>> {
    let mut swarm = server.swarm(scenario)?;
    let report = swarm.connect(&connect_of(scenario))?;
    anyhow::ensure!(report.reached == report.wanted, "only {} nodes got everything", report.reached);
    Ok(swarm)
}

fn run(server: &Server, swarm: &mut Swarm<'static>, phase: &Stream, path: &str) -> Result<(PhaseReport, Value)> {
    let mut said = Value::Null;
    let report = swarm.stream(phase, || {
        said = server.post(path).map_err(|error| format!("{error:#}"))?;
        said["begun_ns"].as_u64().ok_or_else(|| format!("no time of the begin in {said}"))
    })?;
    Ok((report, said))
}

/// Resources of assignments that arrived.
fn resources(report: &PhaseReport) -> f64 {
    report.types.get("eds").map_or(0.0, |eds| eds.resources as f64)
}

fn stream_of(scenario: &Scenario) -> Result<Stream> {
    let found = scenario.phases.iter().find_map(|phase| match phase {
        Phase::Stream(stream) => Some(stream.clone()),
        _ => None,
    });
    found.context("the scenario has no stream of changes")
}
