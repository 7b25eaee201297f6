//! What a swarm does: how many nodes, of which manners, and the phases they go through.
//!
//! A scenario is a YAML file:
//!
//! ```yaml
//! nodes: 1000
//! variant: delta
//! node: full
//! slow: 10%
//! phases:
//!   - connect: { rate: 500 }
//!   - hold: { seconds: 5 }
//!   - change:
//!       trigger: { rename: { file: mesh/reviews.yaml, from: [even.yaml, odd.yaml] } }
//!       repeat: 10
//!       expect: [rds]
//!   - reconnect: { versions: true }
//! ```
//!
//! Paths of files that changes rename or copy are taken from the directory that the process runs in.

mod file;
mod share;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use proto::ResourceType;
use serde::{Deserialize, Serialize};

pub use file::ScenarioError;
pub use share::Share;

/// What a swarm does.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// What it shows; printed above the report.
    pub name: String,
    /// How many nodes.
    pub nodes: usize,
    /// The variant of the protocol that they speak.
    pub variant: Variant,
    /// How large their `Node` is.
    pub node: NodeSize,
    /// Their namespaces, in turn.
    pub namespaces: Vec<String>,
    /// Labels that all of them have.
    pub labels: BTreeMap<String, String>,
    /// The DNS domain of the mesh, which is part of their ids.
    pub domain: String,
    /// Which endpoint assignments each asks for.
    pub endpoints: Endpoints,
    /// Nodes that connect, ask, and never read an answer. Over TLS they never get past the handshake.
    pub slow: Share,
    /// Nodes that refuse every response.
    pub nack: Share,
    /// Nodes that connect and say nothing.
    pub silent: Share,
    /// Whether resources carry a [`Stamp`](crate::Stamp), from which the age of what arrives is told. Looking for them costs
    /// the swarm a little.
    pub stamps: bool,
    /// Threads that play nodes. One is enough unless the server has more cores than that.
    pub threads: usize,
    /// Where random choices begin: the jitter of connects, and which nodes are slow, silent or refuse.
    pub seed: u64,
    /// What happens, in this order.
    pub phases: Vec<Phase>,
}

impl Default for Scenario {
    /// 100 well-behaved sidecars that connect.
    fn default() -> Self {
        Self {
            name: String::new(),
            nodes: 100,
            variant: Variant::Delta,
            node: NodeSize::Small,
            namespaces: vec!["default".to_owned()],
            labels: BTreeMap::new(),
            domain: "cluster.local".to_owned(),
            endpoints: Endpoints::default(),
            slow: Share::NONE,
            nack: Share::NONE,
            silent: Share::NONE,
            stamps: false,
            threads: 1,
            seed: 1,
            phases: vec![Phase::Connect(Connect::default())],
        }
    }
}

/// A variant of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// Incremental.
    Delta,
    /// State of the world.
    Sotw,
}

/// How large a `Node` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeSize {
    /// Without a list of extensions, about half a kilobyte.
    Small,
    /// With as many extensions as an Envoy 1.40 has, about 61 KB.
    Full,
}

/// Which endpoint assignments a node asks for, of those that there are. A real sidecar asks for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Endpoints {
    /// How many; neighbouring nodes ask for neighbouring ones. All when absent.
    pub each: Option<usize>,
    /// Only these. All when empty.
    pub only: Vec<String>,
}

impl Endpoints {
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == name)
    }
}

/// A step.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Phase {
    /// All nodes connect, and receive everything for the first time.
    Connect(Connect),
    /// Nothing happens.
    Hold(Hold),
    /// Something changes, and the nodes learn of it.
    Change(Change),
    /// Changes go on for some time.
    Stream(Stream),
    /// Nodes lose their connection and come back.
    Reconnect(Reconnect),
}

impl Phase {
    /// `connect`, `hold`, ...
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Hold(_) => "hold",
            Self::Change(_) => "change",
            Self::Stream(_) => "stream",
            Self::Reconnect(_) => "reconnect",
        }
    }
}

/// All nodes connect.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Connect {
    /// New connections a second; all at once when absent.
    pub rate: Option<f64>,
    /// How much the time between two connects varies: by up to this share of it, either way.
    pub jitter: Share,
    /// When to give up.
    pub timeout_seconds: f64,
}

impl Default for Connect {
    fn default() -> Self {
        Self { rate: None, jitter: Share::NONE, timeout_seconds: 120.0 }
    }
}

/// Nothing happens, for so long.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// How long.
    pub seconds: f64,
}

/// Something changes.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// How it is made.
    pub trigger: Trigger,
    /// How often, one after the other.
    #[serde(default = "once")]
    pub repeat: u32,
    /// Only responses of these types count: `cds`, `eds`, `lds`, `rds`, `vhds`. Any when empty.
    #[serde(default)]
    pub expect: Vec<Type>,
    /// How many nodes learn of it. All well-behaved ones when absent.
    #[serde(default)]
    pub nodes: Option<usize>,
    /// When to give up.
    #[serde(default = "half_a_minute")]
    pub timeout_seconds: f64,
    /// A change is over when all nodes have it and nothing has arrived for so long.
    #[serde(default = "a_moment")]
    pub quiet_seconds: f64,
    /// How long to wait between two of them.
    #[serde(default)]
    pub pause_seconds: f64,
}

impl Change {
    /// One change that all nodes learn of.
    pub fn by(trigger: Trigger) -> Self {
        Self {
            trigger,
            repeat: once(),
            expect: Vec::new(),
            nodes: None,
            timeout_seconds: half_a_minute(),
            quiet_seconds: a_moment(),
            pause_seconds: 0.0,
        }
    }
}

/// Changes go on for some time; made by whoever the trigger starts.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// What starts them.
    pub trigger: Trigger,
    /// How long to watch.
    pub seconds: f64,
    /// How long nothing must arrive after that, at most half a minute, for everything to have arrived.
    #[serde(default = "a_moment")]
    pub quiet_seconds: f64,
}

/// Nodes lose their connection and come back with what they have.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reconnect {
    /// How many of them.
    pub share: Share,
    /// Whether they say which versions they have. Without, they begin anew, as a restarted Envoy does.
    pub versions: bool,
    /// Reconnects a second; all at once when absent.
    pub rate: Option<f64>,
    /// How much the time between two reconnects varies.
    pub jitter: Share,
    /// How often, one after the other.
    pub repeat: u32,
    /// When to give up.
    pub timeout_seconds: f64,
    /// It is over when all are back and nothing has arrived for so long.
    pub quiet_seconds: f64,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            share: Share::ALL,
            versions: true,
            rate: None,
            jitter: Share::NONE,
            repeat: 1,
            timeout_seconds: 120.0,
            quiet_seconds: 0.5,
        }
    }
}

/// How a change is made. The clock starts just before the last step of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Trigger {
    /// A file is replaced by a copy of another one, by renaming.
    Rename {
        /// The file that is replaced.
        file: PathBuf,
        /// What it is replaced by, in turn.
        from: Vec<PathBuf>,
    },
    /// A shell command is run; `CHANGE` counts from 0 in its environment.
    Run(String),
    /// An HTTP request is made; `{}` in the URL and in the body becomes the number of the change, from 0.
    Post {
        /// `http://HOST:PORT/PATH`.
        url: String,
        /// What is sent.
        #[serde(default)]
        body: String,
    },
}

/// A type by its short name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type(pub ResourceType);

impl std::str::FromStr for Type {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = crate::catalogue::TYPES.into_iter().find(|kind| kind.short() == name);
        found.map(Self).ok_or_else(|| format!("there is no type \"{name}\"; known are cds, eds, lds, rds and vhds"))
    }
}

impl<'de> Deserialize<'de> for Type {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Type {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.short())
    }
}

fn once() -> u32 {
    1
}

fn half_a_minute() -> f64 {
    30.0
}

fn a_moment() -> f64 {
    0.05
}

/// A number of seconds as a duration; nothing that is no time gets past [`Scenario::check`].
pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests;
