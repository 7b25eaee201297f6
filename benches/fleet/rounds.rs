//! The same change at several servers, in turn.

use anyhow::{Context, Result};
use swarm::Swarm;
use swarm::report::PhaseReport;
use swarm::scenario::{Change, Connect, Phase, Scenario};

use crate::figures::Figures;
use crate::server::{Server, committed};

/// A server with its nodes, and what they saw.
pub struct Contender<'a> {
    pub server: &'a Server,
    pub swarm: Swarm<'static>,
    pub connected: PhaseReport,
    /// One for each round.
    pub changes: Vec<PhaseReport>,
}

impl<'a> Contender<'a> {
    /// Connects the nodes of a scenario to a server.
    pub fn connect(server: &'a Server, scenario: &Scenario) -> Result<Self> {
        let mut swarm = server.swarm(scenario)?;
        let connected = swarm.connect(&connect_of(scenario))?;
        anyhow::ensure!(
            connected.reached == connected.wanted,
            "only {} of {} nodes of {} got everything: {:?}",
            connected.reached,
            connected.wanted,
            server.name,
            connected.ends
        );
        Ok(Self { server, swarm, connected, changes: Vec::new() })
    }

    /// Changes one VirtualService's weights, and watches until everybody has acknowledged that.
    pub fn change(&mut self, change: &Change) -> Result<PhaseReport> {
        let once = Change { repeat: 1, ..change.clone() };
        let server = self.server;
        let changed = self.swarm.change(&once, |_| {
            let answer = server.post("/weight?service=0").map_err(|error| format!("{error:#}"))?;
            committed(&answer)
        });
        changed.with_context(|| format!("cannot change a weight at {}", server.name))
    }

    /// A figure of every round.
    pub fn figures(&self, figure: impl Fn(&PhaseReport) -> Option<f64>) -> Figures {
        Figures::new(self.changes.iter().filter_map(figure))
    }

    /// What has to be said about its figures.
    pub fn remark(&self) -> String {
        let mut remarks = Vec::new();
        let is_bound = |change: &&PhaseReport| change.is_client_bound == Some(true);
        if self.changes.iter().filter(is_bound).count() * 2 > self.changes.len() {
            remarks.push(format!("client-bound at {}", self.server.name));
        }
        let late = self.changes.iter().filter(|change| change.reached < change.wanted).count();
        if late > 0 {
            remarks.push(format!("{late} rounds of {} incomplete", self.server.name));
        }
        remarks.join("; ")
    }
}

/// One change at each, unseen, to warm up; then so many rounds, in each of which another one is first.
pub fn rounds(contenders: &mut [Contender<'_>], change: &Change, rounds: usize) -> Result<()> {
    for contender in contenders.iter_mut() {
        contender.change(change)?;
    }
    let count = contenders.len();
    for round in 0..rounds {
        for turn in 0..count {
            let contender = &mut contenders[(round + turn) % count];
            let report = contender.change(change)?;
            contender.changes.push(report);
        }
    }
    Ok(())
}

/// How the nodes of a scenario connect.
pub fn connect_of(scenario: &Scenario) -> Connect {
    let found = scenario.phases.iter().find_map(|phase| match phase {
        Phase::Connect(connect) => Some(connect.clone()),
        _ => None,
    });
    found.unwrap_or_default()
}

/// The change of a scenario.
pub fn change_of(scenario: &Scenario) -> Result<Change> {
    let found = scenario.phases.iter().find_map(|phase| match phase {
        Phase::Change(change) => Some(change.clone()),
        _ => None,
    });
    found.with_context(|| format!("the scenario \"{}\" changes nothing", scenario.name))
}

/// CPU time of the server for each node, in seconds.
pub fn server_cpu(report: &PhaseReport) -> Option<f64> {
    report.server.map(|cost| cost.micros_per_node / 1e6)
}

/// From the change to the last acknowledgement, in seconds.
pub fn last_acknowledged(report: &PhaseReport) -> Option<f64> {
    report.acknowledged.as_ref().map(|span| span.last / 1e3)
}
