//! How fast a bad candidate is caught and withdrawn, and whether a good one gets through, with real Envoys and load.
//!
//! ```text
//!   load ──▶ Envoy 0 ──(split by the run)──▶ stable, candidate      the candidate answers badly on purpose
//!            Envoy 1 … n-1, without load ─── they have to accept every split as well
//!   all of them: xDS, metrics and load reports ◀──▶ pointsman serve
//! ```
//!
//! Prints a table for each question and writes the figures to `target/rollout.json`. Words as arguments choose groups.

#![allow(missing_docs, clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "rollout/bed.rs"]
mod bed;
mod figures;
#[path = "../tests/e2e/mesh.rs"]
#[allow(dead_code, reason = "made for the tests")]
mod mesh;

use std::time::{Duration, Instant};

use bed::{Bed, Look, Story, intent};
use figures::{Figures, Table, time, verdict};
use mesh::Mesh;
use serde_json::{Map, Value, json};
use testkit::process::Process;
use testkit::{stats, wait};

/// As many as the promise names.
const CLIENTS: usize = 20;
/// Requests a second; at 10 % the candidate has 100 of them.
const RATE: f64 = 1000.0;
/// Runs of each kind of failure.
const FAILING: usize = 5;
const HEALTHY: usize = 20;
const KILLS: usize = 50;
/// Servers that are killed side by side; each has its own mesh.
const LANES: usize = 5;
/// No kill is begun after this, so that the benchmark ends in time on a slow machine.
const KILLING: Duration = Duration::from_secs(480);
/// Imitated nodes beside one Envoy.
const FLEET: usize = 5_000;

/// At 10 % until something happens.
const WAITING: &str = "{setWeight: 10}, {pause: {duration: 90s}}, {setWeight: 100}";
const SHORT: &str = "{setWeight: 10}, {analysis: {minDuration: 2s}}, {setWeight: 50}, {analysis: {minDuration: 2s}}, \
                     {setWeight: 100}";
const UNJUDGED: &str = "{setWeight: 10}, {pause: {duration: 2s}}, {setWeight: 50}, {pause: {duration: 2s}}, \
                        {setWeight: 100}, {pause: {duration: 1s}}";
const WHOLE: &str = "{setWeight: 1}, {pause: {duration: 10s}}, {setWeight: 5}, {pause: {duration: 8s}}, \
                     {setWeight: 25}, {analysis: {minDuration: 8s}}, {setWeight: 50}, {analysis: {minDuration: 8s}}, \
                     {setWeight: 100}, {analysis: {minDuration: 5s}}";

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_wanted = |group: &str| wanted.is_empty() || wanted.iter().any(|word| group.contains(&**word));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut written = Map::new();
    runtime.block_on(async {
        if ["detect", "healthy", "whole"].into_iter().any(is_wanted) {
            let mut bed = Bed::start(CLIENTS, RATE, &intent(WAITING)).await;
            if is_wanted("detect") {
                detect(&mut bed, &mut written).await;
            }
            if is_wanted("whole") {
                whole(&mut bed, &mut written).await;
            }
            if is_wanted("healthy") {
                healthy(&mut bed, &mut written).await;
            }
            bed.stop().await;
        }
        if is_wanted("fleet") {
            fleet(&mut written).await;
        }
        if is_wanted("kill") {
            kills(&mut written).await;
        }
    });
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/rollout.json");
    std::fs::write(file, serde_json::to_string_pretty(&Value::Object(written)).unwrap()).unwrap();
}

/// Candidates that are bad in several ways, at 10 %.
async fn detect(bed: &mut Bed, written: &mut Map<String, Value>) {
    let mut table = Table::new(
        &format!("Bad candidates at 10 % of {RATE:.0} requests a second, {CLIENTS} Envoys, {FAILING} runs each"),
        [
            "candidate",
            "first bad request → weight 0 acknowledged: median",
            "max",
            "promised",
            "kept",
            "failed requests",
        ],
    );
    let mut settled = Vec::new();
    bed.intend(&intent(WAITING)).await;
    for (name, every, promised) in [("5 % errors", 20, 25.0), ("50 % errors", 2, 8.0), ("endpoints gone", 0, 2.0)] {
        let (mut took, mut failed) = (Vec::new(), Vec::new());
        for _ in 0..FAILING {
            bed.candidate().fail_every(every);
            let mut gone = None;
            // Endpoints are taken away once the candidate has had its share for a while.
            let story = if every == 0 {
                let away = bed.away();
                bed.roll_out(async |_: &mut Mesh, look: &Look| {
                    if look.acknowledged >= 10.0 && gone.is_none() {
                        tokio::time::sleep(Duration::from_secs(2)).await;
                        gone = Some(away());
                    }
                })
                .await
            } else {
                bed.roll_out(async |_: &mut Mesh, _: &Look| {}).await
            };
            bed.candidate().fail_every(0);
            let window = bed.load.since(story.begun).await;
            let first = gone.or_else(|| window.failures().map(|sample| sample.finished()).min());
            let caught = first.zip(story.withdrawn()).filter(|_| story.phase() == "RolledBack");
            took.push(caught.map_or(f64::INFINITY, |(first, withdrawn)| (withdrawn - first).as_secs_f64()));
            failed.push(window.failures().count() as f64);
            settled.extend(story.settled());
            rest().await;
        }
        let (took, failed) = (Figures::new(took), Figures::new(failed));
        let is_kept = took.median() <= promised;
        table.row([
            name.to_owned(),
            time(took.median()),
            time(took.max()),
            format!("≤ {promised:.0} s"),
            verdict(is_kept).to_owned(),
            format!("{:.0} (at most {:.0})", failed.median(), failed.max()),
        ]);
        written.insert(
            name.to_owned(),
            json!({"median_s": took.median(), "max_s": took.max(), "promised_s": promised, "failed": failed.median()}),
        );
    }
    table.print();
    withdrawal("Envoys", CLIENTS, &settled, 0.1, written);
}

/// From the decision until all nodes have said that they send nothing to the candidate.
fn withdrawal(what: &str, nodes: usize, settled: &[f64], promised: f64, written: &mut Map<String, Value>) {
    let settled = Figures::new(settled.iter().copied());
    let mut table = Table::new(
        "From the decision to go back until weight 0 is acknowledged by every node",
        ["nodes", "decisions", "median", "p99", "promised", "kept"],
    );
    let p99 = settled.percentile(99.0);
    table.row([
        format!("{nodes} {what}"),
        settled.count().to_string(),
        time(settled.median()),
        time(p99),
        format!("≤ {} ms", promised * 1e3),
        verdict(p99 <= promised).to_owned(),
    ]);
    table.print();
    written.insert(format!("withdrawal, {nodes} {what}"), json!({"median_s": settled.median(), "p99_s": p99}));
}

/// The same with thousands of nodes, which are imitated.
async fn fleet(written: &mut Map<String, Value>) {
    let mut bed = Bed::start(1, 200.0, &intent(WAITING)).await;
    let (server, nodes) = (bed.mesh.xds.to_string(), FLEET.to_string());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.args(["swarm", "--server", &server, "--nodes", &nodes, "--hold", "600"]);
    let log = bed.mesh.files.path().with_extension("swarm.log");
    let mut swarm = Process::spawn("swarm", command, &log).unwrap();
    wait::until("all nodes to be connected", Duration::from_secs(120), async || {
        let metrics = testkit::http::get(bed.mesh.admin, "/metrics").await.map_err(|error| format!("{error:#}"))?;
        let streams = metrics.lines().filter(|line| line.starts_with("pilot_xds{"));
        let connected: usize = streams.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum();
        if connected > FLEET { Ok(()) } else { Err(format!("{connected} are")) }
    })
    .await
    .unwrap();
    let mut settled = Vec::new();
    for _ in 0..FAILING {
        let (away, mut gone) = (bed.away(), false);
        let story = bed
            .roll_out(async |_: &mut Mesh, look: &Look| {
                if look.acknowledged >= 10.0 && !gone {
                    gone = true;
                    away();
                }
            })
            .await;
        settled.extend(story.settled());
        rest().await;
    }
    swarm.kill().unwrap();
    let _ = swarm.exited(Duration::from_secs(10)).await;
    let _ = std::fs::remove_file(log);
    bed.stop().await;
    withdrawal("imitated nodes and an Envoy", FLEET, &settled, 1.0, written);
}

/// A whole canary without a fault on either side.
async fn whole(bed: &mut Bed, written: &mut Map<String, Value>) {
    bed.intend(&intent(WHOLE)).await;
    let (old, new) = (bed.stable().name().to_owned(), bed.candidate().name().to_owned());
    let story = bed.roll_out(async |_: &mut Mesh, _: &Look| {}).await;
    let window = bed.load.since(story.begun).await;
    let mut table = Table::new(
        &format!("A whole canary under {RATE:.0} requests a second: {} requests", window.len()),
        ["weight", "requests", "observed", "chi-square p", "as configured"],
    );
    let mut rows = Vec::new();
    for (weight, from, until) in story.steps() {
        let counts = window.between(from, until).by_backend();
        let ppm = (weight * 1e4).round() as u64;
        let all: u64 = counts.values().sum();
        let fit = stats::fit(&counts, &[(&*new, ppm), (&*old, 1_000_000 - ppm)]);
        let share = 100.0 * *counts.get(&new).unwrap_or(&0) as f64 / all.max(1) as f64;
        let is_fit = fit.p >= stats::FALSE_ALARM;
        table.row([
            format!("{weight} %"),
            all.to_string(),
            format!("{share:.2} %"),
            format!("{:.3}", fit.p),
            verdict(is_fit).to_owned(),
        ]);
        rows.push(json!({"weight": weight, "requests": all, "observed": share, "p": fit.p}));
    }
    table.print();
    let failed = window.failures().count();
    println!("\nIt ended as {}; {failed} requests failed (promised: Completed, 0).", story.phase());
    written.insert("whole".to_owned(), json!({"phase": story.phase(), "failed": failed, "steps": rows}));
    rest().await;
}

/// Candidates that are as good as stable: 0.1 % errors each.
async fn healthy(bed: &mut Bed, written: &mut Map<String, Value>) {
    bed.intend(&intent(SHORT)).await;
    let mut stories: Vec<Story> = Vec::new();
    for _ in 0..HEALTHY {
        bed.stable().fail_every(1000);
        bed.candidate().fail_every(1000);
        stories.push(bed.roll_out(async |_: &mut Mesh, _: &Look| {}).await);
        rest().await;
    }
    bed.stable().fail_every(0);
    bed.candidate().fail_every(0);
    let completed = stories.iter().filter(|story| story.phase() == "Completed").count();
    let took = Figures::new(stories.iter().map(|s| (s.looks.last().unwrap().at - s.begun).as_secs_f64()));
    let mut table = Table::new(
        "Healthy candidates: 0.1 % errors on both sides",
        ["runs", "completed", "false rollbacks", "promised", "kept", "length: median"],
    );
    table.row([
        HEALTHY.to_string(),
        completed.to_string(),
        (HEALTHY - completed).to_string(),
        "0".to_owned(),
        verdict(completed == HEALTHY).to_owned(),
        time(took.median()),
    ]);
    table.print();
    for story in stories.iter().filter(|story| story.phase() != "Completed") {
        println!("  {}: {}", story.phase(), story.end["reason"]);
    }
    written.insert("healthy".to_owned(), json!({"runs": HEALTHY, "completed": completed}));
}

/// How runs with a killed server ended.
#[derive(Default)]
struct Ends {
    kills: usize,
    completed: usize,
    rolled_back: usize,
    others: Vec<String>,
    failed: usize,
}

impl Ends {
    fn add(&mut self, more: Self) {
        self.kills += more.kills;
        self.completed += more.completed;
        self.rolled_back += more.rolled_back;
        self.others.extend(more.others);
        self.failed += more.failed;
    }
}

/// One server, killed once in each of its runs; the moments follow from the seed.
async fn killed(seed: u64) -> Ends {
    let mut bed = Bed::start(1, 200.0, &intent(UNJUDGED)).await;
    let mut state = 0x2545_f491_4f6c_dd1d_u64.wrapping_mul(seed);
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1u64 << 31) as f64
    };
    let mut ends = Ends::default();
    let mut length = Duration::from_secs(12);
    let begun = Instant::now();
    while ends.kills < KILLS / LANES && begun.elapsed() < KILLING {
        let due = Instant::now() + length.mul_f64(random());
        let mut is_killed = false;
        let story = bed
            .roll_out(async |mesh: &mut Mesh, _: &Look| {
                if !is_killed && Instant::now() >= due {
                    is_killed = true;
                    mesh.server.kill().await.unwrap();
                    mesh.restart().await;
                }
            })
            .await;
        match story.phase() {
            "Completed" => ends.completed += 1,
            "RolledBack" => ends.rolled_back += 1,
            other => ends.others.push(other.to_owned()),
        }
        if is_killed {
            ends.kills += 1;
        } else {
            length = story.looks.last().unwrap().at - story.begun;
        }
        ends.failed += bed.load.since(story.begun).await.failures().count();
        rest().await;
    }
    bed.stop().await;
    ends
}

/// The server killed at any moment of a run, several of them side by side.
async fn kills(written: &mut Map<String, Value>) {
    // Seeded, so that two runs of the benchmark kill at the same shares of a run.
    let beside = tokio::join!(killed(1), killed(2), killed(3), killed(4), killed(5));
    let mut all = Ends::default();
    <[Ends; LANES]>::from(beside).into_iter().for_each(|ends| all.add(ends));
    let Ends { kills, completed, rolled_back, others, failed } = all;
    let mut table = Table::new(
        "The server killed (SIGKILL) at a random moment of a run, and started again",
        ["kills", "completed", "rolled back", "anything else", "failed requests", "kept"],
    );
    table.row([
        format!("{kills} of {KILLS}"),
        completed.to_string(),
        rolled_back.to_string(),
        others.len().to_string(),
        failed.to_string(),
        verdict(others.is_empty() && failed == 0).to_owned(),
    ]);
    table.print();
    let kills = json!({"completed": completed, "rolled_back": rolled_back, "others": others, "failed": failed});
    written.insert("kills".to_owned(), kills);
}

/// Between two runs, for what is still under way.
async fn rest() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}
