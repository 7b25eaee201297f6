//! Nodes that never read or refuse everything, and whether the others notice.

use anyhow::Result;
use swarm::scenario::{Scenario, Share};

use crate::fleet::{ROUNDS, scenario};
use crate::rounds::{Contender, change_of, last_acknowledged, rounds};
use crate::row::{Row, Target, Unit};
use crate::server::Server;

/// Two servers alike: one with unruly nodes beside the good ones, one with as many good ones only.
pub async fn unruly() -> Result<Vec<Row>> {
    let scenario = scenario("unruly")?;
    let odd = scenario.slow.of(scenario.nodes) + scenario.nack.of(scenario.nodes);
    let good = Scenario { nodes: scenario.nodes - odd, slow: Share::NONE, nack: Share::NONE, ..scenario.clone() };
    let title = format!("{odd} of {} nodes never read or refuse everything", scenario.nodes);
    let with = Server::mesh(1000).await?;
    let without = Server::mesh(1000).await?;
    let mut contenders = [Contender::connect(&with, &scenario)?, Contender::connect(&without, &good)?];
    rounds(&mut contenders, &change_of(&scenario)?, ROUNDS)?;
    let [with, without] = &contenders;
    let p99 =
        |contender: &Contender<'_>| contender.figures(|change| change.acknowledged.as_ref().map(|span| span.p99 / 1e3));
    Ok(vec![
        Row::new(&title, "change → ACK of the others, p99", Unit::Seconds, p99(with))
            .beside("without them", p99(without))
            .target(Target::TimesAtMost(1.2))
            .remark(with.remark()),
        Row::new(&title, "change → last ACK of the others", Unit::Seconds, with.figures(last_acknowledged))
            .beside("without them", without.figures(last_acknowledged)),
    ])
}
