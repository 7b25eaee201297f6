//! One changed weight: small for delta nodes, a whole route table in the state of the world, and in meshes of any size.

use std::path::Path;

use anyhow::Result;
use swarm::scenario::{Change, Scenario, Variant};

use crate::figures::{Figures, bytes};
use crate::fleet::{ROUNDS, scenario};
use crate::rounds::{Contender, change_of, last_acknowledged, rounds, server_cpu};
use crate::row::{Row, Target, Unit};
use crate::server::{Server, Snapshots};

/// Beside the floor, delta.
pub async fn floor(nodes: usize, services: u32) -> Result<Vec<Row>> {
    let scenario = Scenario { nodes, ..scenario("weight-change")? };
    let title = format!("one weight, {nodes} delta nodes, {services} services");
    let ours = Server::mesh(services).await?;
    let floor = Server::floor(&ours, Variant::Delta).await?;
    let mut contenders = [Contender::connect(&ours, &scenario)?, Contender::connect(&floor, &scenario)?];
    rounds(&mut contenders, &change_of(&scenario)?, ROUNDS)?;
    let [ours, floor] = &contenders;
    let remark = [ours.remark(), floor.remark()].join(" ");
    Ok(vec![
        Row::new(&title, "bytes per node", Unit::Bytes, ours.figures(|change| Some(change.bytes_per_node)))
            .beside("h2 floor", floor.figures(|change| Some(change.bytes_per_node)))
            .target(Target::AtMost(1500.0)),
        Row::new(&title, "server CPU per node", Unit::Seconds, ours.figures(server_cpu))
            .beside("h2 floor", floor.figures(server_cpu))
            .target(Target::TimesAtMost(1.2)),
        Row::new(&title, "change → last ACK", Unit::Seconds, ours.figures(last_acknowledged))
            .beside("h2 floor", floor.figures(last_acknowledged))
            .target(Target::TimesAtMost(1.5))
            .remark(remark.trim()),
    ])
}

/// Beside go-control-plane, delta.
pub async fn peer(binary: &Path, nodes: usize, services: u32, snapshots: Snapshots, times: usize) -> Result<Vec<Row>> {
    let scenario = Scenario { nodes, ..scenario("weight-change")? };
    let title = format!("one weight, {nodes} delta nodes, {services} services");
    let change = Change { timeout_seconds: 100.0, ..change_of(&scenario)? };
    let ours = Server::mesh(services).await?;
    let peer = Server::peer(binary, services, snapshots).await?;
    let name = peer.name.clone();
    let about = peer.output().lines().next().unwrap_or_default().to_owned();
    let mut contenders = [Contender::connect(&ours, &scenario)?, Contender::connect(&peer, &scenario)?];
    rounds(&mut contenders, &change, times)?;
    let resident =
        |contender: &Contender<'_>| contender.figures(|change| change.server.map(|cost| cost.rss_bytes_after as f64));
    let [ours, peer] = &contenders;
    Ok(vec![
        Row::new(&title, "bytes per node", Unit::Bytes, ours.figures(|change| Some(change.bytes_per_node)))
            .beside(&name, peer.figures(|change| Some(change.bytes_per_node))),
        Row::new(&title, "server CPU per node", Unit::Seconds, ours.figures(server_cpu))
            .beside(&name, peer.figures(server_cpu))
            .remark(about),
        Row::new(&title, "change → last ACK", Unit::Seconds, ours.figures(last_acknowledged))
            .beside(&name, peer.figures(last_acknowledged))
            .remark(ours.remark())
            .remark(peer.remark()),
        Row::new(&title, "RSS of the server", Unit::Bytes, resident(ours)).beside(&name, resident(peer)),
    ])
}

/// The whole table of routes, state-of-the-world, beside the floor.
pub async fn table() -> Result<Vec<Row>> {
    let scenario = scenario("route-table")?;
    let nodes = scenario.nodes;
    let title = format!("one weight in a 300 KB table, {nodes} state-of-the-world nodes");
    let ours = Server::mesh(480).await?;
    let floor = Server::floor(&ours, Variant::Sotw).await?;
    let before = [ours.resident()?, floor.resident()?];
    let mut contenders = [Contender::connect(&ours, &scenario)?, Contender::connect(&floor, &scenario)?];
    rounds(&mut contenders, &change_of(&scenario)?, ROUNDS)?;
    let remark = contenders.each_ref().map(Contender::remark).join(" ");
    let per_node = |at: usize, resident: f64| Figures::new([(resident - before[at]) / nodes as f64]);
    let mut connected = Vec::new();
    let mut changed = Vec::new();
    for (at, contender) in contenders.iter().enumerate() {
        let after = contender.connected.server.map_or(f64::NAN, |cost| cost.rss_bytes_after as f64);
        connected.push(per_node(at, after));
        changed.push(per_node(at, contender.server.resident()?));
    }
    let [ours, floor] = &contenders;
    let size = ours.figures(|change| Some(change.bytes_per_node));
    let grown = changed[0].median() - connected[0].median();
    Ok(vec![
        Row::new(&title, "bytes per node", Unit::Bytes, size)
            .beside("h2 floor", floor.figures(|change| Some(change.bytes_per_node))),
        Row::new(&title, "server CPU per node", Unit::Seconds, ours.figures(server_cpu))
            .beside("h2 floor", floor.figures(server_cpu))
            .target(Target::TimesAtMost(1.5))
            .remark(remark.trim()),
        Row::new(&title, "change → last ACK", Unit::Seconds, ours.figures(last_acknowledged))
            .beside("h2 floor", floor.figures(last_acknowledged)),
        Row::new(&title, "RSS per node, connected", Unit::Bytes, connected[0].clone())
            .beside("h2 floor", connected[1].clone()),
        Row::new(&title, "RSS per node, after the changes", Unit::Bytes, changed[0].clone())
            .beside("h2 floor", changed[1].clone())
            .remark(format!("{} more than when connected", bytes(grown.max(0.0)))),
    ])
}

/// In meshes of different sizes, side by side.
pub async fn growth() -> Result<Vec<Row>> {
    const SIZES: [u32; 4] = [100, 1_000, 10_000, 100_000];
    let scenario = scenario("growth")?;
    let mut servers = Vec::new();
    for services in SIZES {
        servers.push(Server::mesh(services).await?);
    }
    let mut contenders = Vec::new();
    for server in &servers {
        contenders.push(Contender::connect(server, &scenario)?);
    }
    rounds(&mut contenders, &change_of(&scenario)?, ROUNDS)?;
    let first_arrived =
        |contender: &Contender<'_>| contender.figures(|change| change.arrived.as_ref().map(|span| span.first / 1e3));
    let last_arrived =
        |contender: &Contender<'_>| contender.figures(|change| change.arrived.as_ref().map(|span| span.last / 1e3));
    let cpu = |contender: &Contender<'_>| contender.figures(|change| change.server.map(|cost| cost.cpu_seconds));
    let mut rows = Vec::new();
    for (services, contender) in SIZES.iter().zip(&contenders) {
        let title = format!("one weight, {} delta nodes, {services} services", scenario.nodes);
        let smallest = &contenders[0];
        let target = if *services == 100_000 { Target::TimesAtMost(1.5) } else { Target::None };
        let rest = [
            Row::new(&title, "commit → first on the wire", Unit::Seconds, first_arrived(contender))
                .beside("100 services", first_arrived(smallest))
                .target(target),
            Row::new(&title, "commit → last on the wire", Unit::Seconds, last_arrived(contender))
                .beside("100 services", last_arrived(smallest))
                .target(target),
            Row::new(&title, "server CPU per change", Unit::Seconds, cpu(contender))
                .beside("100 services", cpu(smallest))
                .target(target)
                .remark(contender.remark()),
        ];
        rows.extend(rest);
    }
    Ok(rows)
}
