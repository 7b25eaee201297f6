//! What a resource waits for, in words.

use std::fmt;
use std::time::{Duration, Instant};

use proto::ResourceType;
use snapshot::Name;

use crate::Settings;

/// Why a resource is not sent yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It uses a cluster that was not sent yet in its newest form (rule P-61).
    ClusterNotSent {
        /// The cluster.
        cluster: Name,
    },
    /// It uses a new cluster that the client has not accepted yet, which also means: not warm yet (rules P-18, P-59).
    ClusterNotAccepted {
        /// The cluster.
        cluster: Name,
    },
    /// It, or a part of it, uses a new cluster that the client refuses, and has an older form that does without.
    ClusterRefused {
        /// The cluster.
        cluster: Name,
    },
    /// It is an assignment with endpoints that the client's cluster does not admit: one that does was not sent yet, or not
    /// accepted.
    PeersNotAdmitted {
        /// The cluster.
        cluster: Name,
    },
    /// It is a cluster that admits fewer peers than before, and the assignment without those that it refuses was not sent
    /// yet.
    AssignmentNotSent {
        /// The assignment.
        assignment: Name,
    },
    /// It is to be removed, but the client may still hold a resource that refers to it (rule P-53).
    StillReferred {
        /// The type of that resource.
        by_type: ResourceType,
        /// Its name.
        by: Name,
    },
    /// It is to be removed, but the client keeps an older form of a resource that refers to it, because it refused the
    /// newer one, or a new cluster that the newer one uses.
    KeptByHeldBack {
        /// The type of that resource.
        by_type: ResourceType,
        /// Its name.
        by: Name,
    },
    /// It was removed while the client was away, and what the client holds of another type is not known yet.
    NotYetAsked {
        /// That type.
        resource_type: ResourceType,
    },
}

impl Wait {
    /// How long it lasts at most. What is held back is kept alive until it is mended or removed, which always ends the
    /// wait; `None` stands for that.
    pub(crate) fn bound(&self, settings: &Settings) -> Option<Duration> {
        match self {
            Wait::ClusterNotSent { .. }
            | Wait::ClusterNotAccepted { .. }
            | Wait::PeersNotAdmitted { .. }
            | Wait::AssignmentNotSent { .. }
            | Wait::NotYetAsked { .. } => Some(settings.order_wait),
            Wait::KeptByHeldBack { .. } | Wait::ClusterRefused { .. } => None,
            // What refers to it may wait itself, as long as it may, before it can give it up. If both ended at once,
            // the removal would come first.
            Wait::StillReferred { .. } => Some(2 * settings.order_wait),
        }
    }
}

/// A resource that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its type.
    pub resource_type: ResourceType,
    /// Its name.
    pub name: Name,
    /// Since when.
    pub since: Instant,
    /// What for.
    pub wait: Wait,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.resource_type.short().to_uppercase();
        let name = &self.name;
        match &self.wait {
            Wait::ClusterNotSent { cluster } => {
                write!(f, "waiting for CDS to be sent before {own} \"{name}\" that uses cluster \"{cluster}\"")
            }
            Wait::ClusterNotAccepted { cluster } => {
                write!(f, "waiting for CDS to be accepted before {own} \"{name}\" that uses new cluster \"{cluster}\"")
            }
            Wait::ClusterRefused { cluster } => {
                write!(f, "keeping an older form of {own} \"{name}\": the client refuses new cluster \"{cluster}\"")
            }
            Wait::PeersNotAdmitted { cluster } => {
                write!(
                    f,
                    "waiting for CDS \"{cluster}\" to be accepted before {own} \"{name}\" with peers that it admits only then"
                )
            }
            Wait::AssignmentNotSent { assignment } => {
                write!(f, "waiting for EDS \"{assignment}\" to be sent before {own} \"{name}\" that admits fewer peers")
            }
            Wait::StillReferred { by_type, by } => {
                let by_type = by_type.short().to_uppercase();
                write!(f, "waiting for {by_type} \"{by}\" to be given up before {own} \"{name}\" is removed")
            }
            Wait::KeptByHeldBack { by_type, by } => {
                let by_type = by_type.short().to_uppercase();
                write!(
                    f,
                    "keeping {own} \"{name}\" for {by_type} \"{by}\", which stays in an older form while something is refused"
                )
            }
            Wait::NotYetAsked { resource_type } => {
                let other = resource_type.short().to_uppercase();
                write!(f, "waiting for {other} to be brought up to date before {own} \"{name}\" is removed")
            }
        }
    }
}
