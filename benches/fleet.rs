//! What a fleet of nodes costs, and what it sees: the real server, thousands of imitated nodes, and beside it, in the same
//! run, a bare fan-out of the same bytes. `benches/fleet.sh` builds everything and runs this.
//!
//! Arguments: parts of scenario names; only rows whose group has one of them are run.

#![allow(missing_docs, clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "fleet/churn.rs"]
mod churn;
mod figures;
#[path = "fleet/guarded.rs"]
mod guarded;
#[path = "fleet/identity.rs"]
mod identities;
#[path = "fleet/memory.rs"]
mod memory;
#[path = "fleet/rounds.rs"]
mod rounds;
#[path = "fleet/row.rs"]
mod row;
#[path = "fleet/server.rs"]
mod server;
#[path = "fleet/storm.rs"]
mod storm;
#[path = "fleet/unruly.rs"]
mod unruly;
#[path = "fleet/weight.rs"]
mod weight;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use figures::Table;
use row::Row;
use server::Snapshots;
use swarm::scenario::Variant;

mod fleet {
    //! What all groups use.

    use std::sync::atomic::AtomicBool;
    use std::sync::{Arc, LazyLock};

    use anyhow::{Context, Result};
    use swarm::scenario::Scenario;

    /// How often a change is made where a ratio is claimed.
    pub const ROUNDS: usize = 7;

    /// Set when the time is up: the nodes of every swarm stop where they are.
    pub static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

    /// A file of `benches/scenarios`.
    pub fn scenario(name: &str) -> Result<Scenario> {
        let file = format!("{}/../../benches/scenarios/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        Scenario::from_file(file.as_ref()).with_context(|| format!("cannot read the scenario \"{name}\""))
    }
}

/// The core of the nodes; the servers have the other one.
const CORE: usize = 1;
/// When whatever still runs is stopped, so that the run ends within 15 minutes.
const LAST: Duration = Duration::from_secs(14 * 60 + 30);

type Running = Pin<Box<dyn Future<Output = Result<Vec<Row>>>>>;

/// Rows that are measured together.
struct Group {
    name: String,
    run: Box<dyn FnOnce() -> Running>,
}

fn group<F>(name: impl Into<String>, run: impl FnOnce() -> F + 'static) -> Group
where
    F: Future<Output = Result<Vec<Row>>> + 'static,
{
    Group { name: name.into(), run: Box::new(|| Box::pin(run())) }
}

fn groups() -> Vec<Group> {
    let mut groups = Vec::new();
    for nodes in [1000, 5000] {
        for services in [100, 1000, 5000] {
            let name = format!("one weight, {nodes} delta nodes, {services} services");
            groups.push(group(name, move || weight::floor(nodes, services)));
        }
    }
    groups.push(group("one weight in a 300 KB table", weight::table));
    groups.push(group("one weight, 200 delta nodes, growing mesh", weight::growth));
    for (snapshots, services, times) in [
        (Snapshots::Shared, 100, fleet::ROUNDS),
        (Snapshots::Shared, 1000, fleet::ROUNDS),
        (Snapshots::PerNode, 100, fleet::ROUNDS),
        (Snapshots::PerNode, 1000, 2),
    ] {
        let name = format!("go-control-plane, {snapshots:?}, {services} services");
        groups.push(group(name, move || async move { weight::peer(&peer()?, 1000, services, snapshots, times).await }));
    }
    for (name, width) in [("1", Some(1)), ("50", Some(50)), ("all", None)] {
        groups.push(group(format!("endpoint churn, fan-out {name}"), move || churn::churn(width)));
    }
    groups.push(group("connect storm, state-of-the-world", || storm::storm(Variant::Sotw)));
    groups.push(group("connect and reconnect storm, delta", || storm::storm(Variant::Delta)));
    groups.push(group("memory per node, steadily", || memory::nodes(memory::Coming::Steadily)));
    groups.push(group("memory per node, at once", || memory::nodes(memory::Coming::AtOnce)));
    groups.push(group("memory per node, mutual TLS", guarded::memory));
    groups.push(group("connect storm, mutual TLS", guarded::storm));
    groups.push(group("identity, issuance", identities::issuance));
    groups.push(group("identity, certificates replaced", identities::replaced));
    groups.push(group("memory per service", memory::services));
    groups.push(group("unruly nodes", unruly::unruly));
    groups
}

/// The peer's program, which `benches/fleet.sh` builds where there is a Go toolchain.
fn peer() -> Result<PathBuf> {
    let file = std::env::var_os("GO_CONTROL_PLANE").context("there is no Go toolchain to build it with")?;
    Ok(file.into())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    pin()?;
    let wanted: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let begun = Instant::now();
    std::thread::spawn(|| {
        std::thread::sleep(LAST);
        fleet::STOP.store(true, Ordering::Relaxed);
    });
    let mut rows = Vec::new();
    for group in groups() {
        if !wanted.is_empty() && !wanted.iter().any(|part| group.name.contains(part)) {
            continue;
        }
        let group_begun = Instant::now();
        eprintln!("{} ...", group.name);
        let ran = if is_time_up() { Ok(Vec::new()) } else { (group.run)().await };
        match ran {
            // What was going on when the nodes stopped is no figure.
            _ if is_time_up() => rows.push(Row::missing(&group.name, "the time was up")),
            Ok(more) => rows.extend(more),
            Err(error) => {
                eprintln!("  {error:#}");
                rows.push(Row::missing(&group.name, &format!("{error:#}")));
            }
        }
        eprintln!("{}: {:.1} s", group.name, group_begun.elapsed().as_secs_f64());
        write_json(&rows)?;
    }
    let title = format!("Fleet: one server on one core, the nodes on another; {:.0} s", begun.elapsed().as_secs_f64());
    let columns = ["scenario", "figure", "pointsman", "beside it", "ratio", "target", "reached", "remark"];
    let mut table = Table::new(&title, columns);
    rows.iter().for_each(|row| table.row(row.cells()));
    table.print();
    Ok(())
}

fn is_time_up() -> bool {
    fleet::STOP.load(Ordering::Relaxed)
}

/// Keeps this process off the servers' core.
fn pin() -> Result<()> {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(CORE);
    rustix::thread::sched_setaffinity(None, &cores).context("the fleet benchmarks need two cores")
}

fn write_json(rows: &[Row]) -> Result<()> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/fleet.json");
    let rows: Vec<_> = rows.iter().map(Row::json).collect();
    std::fs::write(&file, serde_json::to_vec_pretty(&rows)?).with_context(|| format!("cannot write {}", file.display()))
}
