//! What clients report about the traffic they send: the load reporting protocol (rule P-70) and the sums over all
//! reports.
//!
//! - [`Policy`] says what is asked of clients; it may change at any time, and open streams follow at once.
//! - [`Stream`] is the server's end of one reporting stream, without IO.
//! - [`Table`] sums up what was reported, per cluster, locality, endpoint and client.
//!
//! What real clients do, as recorded with Envoy 1.40: reports come at exactly the interval that was asked for; a status
//! of 500 or more and a failed connection are errors, 4xx is success; a failed connection counts as an error that was
//! never issued; a cluster without traffic in the interval comes with the interval only. Requests before the first
//! response of the server, or in the interval in which a cluster first appears, are never reported.
//!
//! Nothing here decides anything by the numbers.

mod policy;
mod report;
mod stream;
mod table;

pub use policy::{Ask, Clusters, Focus, Policy};
pub use report::{ClusterReport, Counts, EndpointReport, Locality, LocalityReport, Report};
pub use stream::{Refusal, Stream};
pub use table::{ClusterLoad, NodeLoad, PlaceLoad, StreamId, Table};
