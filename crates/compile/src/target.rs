//! Where a route's destination leads.

mod suggestion;

use std::sync::Arc;

use world::api::istio::{ConsistentHash, Destination};
use world::{Hostname, Protocol};

use crate::division::Rollout;

pub(crate) use suggestion::{addition, suggestion};

/// The answer to "which cluster is this destination".
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// This cluster, which exists in the same layer.
    Cluster {
        /// Its name.
        name: Arc<str>,
        /// Consistent hashing of the destination's rule: the hash policy belongs to the route.
        hash: Option<ConsistentHash>,
        /// What the destination's port is declared to carry.
        protocol: Protocol,
        /// The rollout of the service, if there is one.
        rollout: Option<Rollout>,
    },
    /// None: a reference that cannot be followed.
    Missing(Missing),
}

/// Why a destination leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No service has this host.
    Service {
        /// The host, fully qualified.
        host: Hostname,
    },
    /// The service has no such port, or several ports and none was named.
    Port {
        /// The host, fully qualified.
        host: Hostname,
        /// The port asked for, or `None` when it had to be guessed and could not.
        port: Option<u16>,
        /// The ports that there are.
        known: Vec<u16>,
    },
    /// No DestinationRule defines the subset.
    Subset {
        /// The host, fully qualified.
        host: Hostname,
        /// The subset.
        subset: String,
        /// A DestinationRule that would define it and the route's other missing subsets of this host, ready to paste; or, if
        /// there is a rule for the host, what to add to that one.
        suggestion: String,
    },
}

/// Follows a destination that an object of `namespace` names, for a route of a listener on `port`. A destination
/// without a port means the service's only port, else the listener's port.
pub type Resolve<'a> = dyn Fn(&str, &Destination, u16) -> Target + 'a;
