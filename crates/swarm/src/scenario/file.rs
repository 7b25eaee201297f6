//! Scenarios from files.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Change, Phase, Scenario, Trigger};

/// Why a scenario cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("could not read the scenario \"{}\"", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        error: std::io::Error,
    },
    /// It is no scenario.
    #[error("\"{origin}\" is no scenario: {field}{words}")]
    Parse {
        /// The file.
        origin: String,
        /// Where, such as `phases[1].change: `; empty for the whole.
        field: String,
        /// What is wrong, with line and column.
        words: String,
    },
    /// A value that cannot be meant.
    #[error("{field}: {words}")]
    Value {
        /// Where, such as `phases[1].change.repeat`.
        field: String,
        /// What is wrong.
        words: String,
    },
}

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read or is no scenario; the error names file, line and field.
    pub fn from_file(path: &Path) -> Result<Self, ScenarioError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| ScenarioError::Read { path: path.to_owned(), error })?;
        Self::from_yaml(&text, &path.display().to_string())
    }

    /// Reads YAML that came from `origin`.
    ///
    /// # Errors
    /// If it is no scenario.
    pub fn from_yaml(text: &str, origin: &str) -> Result<Self, ScenarioError> {
        let parse = |path: String, error: String| {
            let field = if path == "." { String::new() } else { format!("{path}: ") };
            // The library shows the lines around the mistake below the first line.
            let words = error.lines().next().unwrap_or_default().to_owned();
            ScenarioError::Parse { origin: origin.to_owned(), field, words }
        };
        let mut track = serde_path_to_error::Track::new();
        let read = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
            Self::deserialize(serde_path_to_error::Deserializer::new(deserializer, &mut track))
        });
        let scenario = read.map_err(|error| parse(track.path().to_string(), error.to_string()))?;
        scenario.check().map_err(|error| parse(".".to_owned(), error.to_string()))?;
        Ok(scenario)
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// The first value that cannot be meant.
    pub fn check(&self) -> Result<(), ScenarioError> {
        ensure(self.nodes > 0, "nodes", "there must be at least one")?;
        ensure(self.threads > 0, "threads", "there must be at least one")?;
        ensure(!self.namespaces.is_empty(), "namespaces", "there must be at least one")?;
        let odd = self.slow.of(self.nodes) + self.nack.of(self.nodes) + self.silent.of(self.nodes);
        ensure(odd < self.nodes, "slow, nack, silent", "together they leave no well-behaved node")?;
        ensure(self.endpoints.each != Some(0), "endpoints.each", "there must be at least one")?;
        for (at, phase) in self.phases.iter().enumerate() {
            let field = |name: &str| format!("phases[{at}].{}.{name}", phase.name());
            ensure(
                (at == 0) == matches!(phase, Phase::Connect(_)),
                &format!("phases[{at}]"),
                "the first phase, and no \
                other, is connect",
            )?;
            match phase {
                Phase::Connect(connect) => {
                    positive(connect.rate.unwrap_or(1.0), &field("rate"))?;
                    positive(connect.timeout_seconds, &field("timeout_seconds"))?;
                }
                Phase::Hold(hold) => positive(hold.seconds, &field("seconds"))?,
                Phase::Change(change) => check_change(change, self.nodes, field)?,
                Phase::Stream(stream) => {
                    positive(stream.seconds, &field("seconds"))?;
                    positive(stream.quiet_seconds, &field("quiet_seconds"))?;
                    check_trigger(&stream.trigger, &field("trigger"))?;
                }
                Phase::Reconnect(reconnect) => {
                    ensure(reconnect.repeat > 0, &field("repeat"), "there must be at least one")?;
                    positive(reconnect.rate.unwrap_or(1.0), &field("rate"))?;
                    positive(reconnect.timeout_seconds, &field("timeout_seconds"))?;
                    positive(reconnect.quiet_seconds, &field("quiet_seconds"))?;
                }
            }
        }
        Ok(())
    }
}

fn check_change(change: &Change, nodes: usize, field: impl Fn(&str) -> String) -> Result<(), ScenarioError> {
    ensure(change.repeat > 0, &field("repeat"), "there must be at least one")?;
    ensure(change.nodes.is_none_or(|n| n <= nodes), &field("nodes"), "there are not so many")?;
    positive(change.timeout_seconds, &field("timeout_seconds"))?;
    positive(change.quiet_seconds, &field("quiet_seconds"))?;
    let pause = change.pause_seconds;
    ensure(pause == 0.0 || is_time(pause), &field("pause_seconds"), "it is a number of seconds, 0 or more")?;
    check_trigger(&change.trigger, &field("trigger"))
}

fn check_trigger(trigger: &Trigger, field: &str) -> Result<(), ScenarioError> {
    match trigger {
        Trigger::Rename { from, .. } => ensure(!from.is_empty(), &format!("{field}.rename.from"), "it names no file"),
        Trigger::Run(command) => ensure(!command.trim().is_empty(), &format!("{field}.run"), "it is empty"),
        Trigger::Post { url, .. } => {
            ensure(url.starts_with("http://"), &format!("{field}.post.url"), "it must begin with http://")
        }
    }
}

fn ensure(holds: bool, field: &str, words: &str) -> Result<(), ScenarioError> {
    if holds { Ok(()) } else { Err(ScenarioError::Value { field: field.to_owned(), words: words.to_owned() }) }
}

fn positive(number: f64, field: &str) -> Result<(), ScenarioError> {
    ensure(is_time(number), field, "it must be a number above 0, and below a million")
}

fn is_time(number: f64) -> bool {
    number > 0.0 && number < 1e6
}
