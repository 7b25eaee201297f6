//! What is wanted and what is there: the vocabulary of Pointsman, and one indexed picture of it.
//!
//! Sources turn text or API objects into [`Change`]s; [`World::apply`] takes them in and answers with the
//! [`Key`]s that moved; the compiler reads the picture only through a [`Reader`], which notes every key that it
//! looked at. So what must be compiled again after a change follows from what was really read.
//!
//! This crate does no IO, reads no clock and draws no random numbers. It never fails on bad input: an object that
//! makes no sense becomes a [`Problem`] beside whatever still can be used.

pub mod api;
mod endpoint;
mod few;
mod hostname;
mod key_set;
mod object;
mod policies;
mod problem;
mod reader;
mod rule;
mod secret;
mod service;
mod submission;
mod text;
mod world;

pub use endpoint::{Address, Endpoint, Health, Locality};
pub use few::{Few, FewIter};
pub use hostname::Hostname;
pub use key_set::{Fetched, KeySet, KeySetError, KeySource};
pub use object::{Change, Kind, Labels, Location, Meta, Object, ObjectPathError, ObjectRef, Places, Spec};
pub use policies::{Policies, PolicyKind};
pub use problem::{Problem, Severity};
pub use reader::{Key, Reader, Scope};
pub use rule::{EffectiveRule, Subset};
pub use secret::{AUTHORITIES_SUFFIX, PairState, SecretList, SecretParts, SecretState};
pub use service::{Export, Protocol, Resolution, Service, ServicePort, TargetPort};
pub use submission::{Acceptance, Application, Deletion, Effect, Refusal, Submission, Taken};
pub use world::{Exposed, PeerPolicies, Place, Settings, Workload, World};
