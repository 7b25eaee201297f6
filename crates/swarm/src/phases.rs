//! Goes through a scenario.

use crate::error::Error;
use crate::report::Report;
use crate::scenario::{Phase, Scenario};
use crate::swarm::{Options, Progress, Swarm};

/// Goes through all phases of a scenario. `watch` learns of progress twice a second.
///
/// When somebody sets [`Options::stop`], the report ends with the phase that ran; what it says of that phase is what had
/// happened by then.
///
/// # Errors
/// If the scenario cannot be run: the server does not answer, a change cannot be made, the server's process is gone.
/// Nodes that fail are counted in the report.
pub fn run(scenario: &Scenario, options: Options, watch: impl FnMut(&Progress)) -> Result<Report, Error> {
    let mut report = Report::new(scenario, &options.server.to_string());
    let mut swarm = Swarm::start(scenario, options, watch)?;
    for phase in &scenario.phases {
        let done = match phase {
            Phase::Connect(connect) => swarm.connect(connect),
            Phase::Hold(hold) => swarm.hold(hold),
            Phase::Change(change) => swarm.change(change, |number| change.trigger.pull(number)),
            Phase::Stream(stream) => swarm.stream(stream, || stream.trigger.pull(0)),
            Phase::Reconnect(reconnect) => swarm.reconnect(reconnect),
        };
        report.phases.push(done?);
        report.is_interrupted = swarm.is_stopped();
        if report.is_interrupted {
            break;
        }
    }
    Ok(report)
}
