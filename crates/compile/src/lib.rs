//! From the world to layers of encoded resources: pure, and incremental.
//!
//! [`Compiler`] keeps one layer per distinct audience. Each resource is built by a function of one input value that
//! holds all that the function may read; inputs are gathered through a [`world::Reader`], which notes what was
//! looked at, so a change recompiles what depends on it and nothing else. Bad input never stops other input from
//! compiling: every builder returns a value and problems, not a `Result`.

mod attachment;
mod audience;
mod built;
pub mod cluster;
mod compiler;
mod control_plane;
mod division;
pub mod endpoints;
mod flat;
mod gateway;
pub mod intents;
mod layers;
mod listener;
pub mod names;
mod options;
mod pack;
pub mod policy;
pub mod rate_limit;
mod raw;
pub mod route;
mod security;
mod slots;
mod target;

pub use attachment::is_attached;
pub use audience::{Audience, HostDelivery, Interception, Proxy, Secrets};
pub use built::Built;
pub use compiler::{AudienceId, Compiler, Loss, Update, Work};
pub use control_plane::ControlPlane;
pub use division::{Copies, Directed, Division, Plan, Rollout};
pub use layers::{LayerId, Turn};
pub use listener::Served;
pub use options::{MissingDestination, Options, OutboundPolicy};
pub use proto::{Extension, Extensions};
pub use security::{MutualTls, Peers};
pub use target::{Missing, Resolve, Target};
