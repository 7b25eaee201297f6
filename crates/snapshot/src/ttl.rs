//! Resources that a client keeps only for a while after it has heard of them last.
//!
//! A client that does not know of this takes the ordinary entries of a [`Cell`] and keeps the resource for ever. The
//! entries here are made when they are first asked for, and kept with the cell.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use proto::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse, Resource};
use proto::pb::google::protobuf;

use crate::Cell;

/// The wrapper of a resource in a state-of-the-world response.
const WRAPPER: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// How long a resource is kept, with the entries that say so.
#[derive(Debug)]
pub(crate) struct Ttl {
    pub(crate) duration: Duration,
    delta: OnceLock<Bytes>,
    sotw: OnceLock<Bytes>,
}

impl Ttl {
    pub(crate) fn new(duration: Duration) -> Self {
        Self { duration, delta: OnceLock::new(), sotw: OnceLock::new() }
    }

    /// The `resources` entry of a delta response.
    pub(crate) fn delta_entry(&self, cell: &Cell) -> Bytes {
        let entry = || delta(Resource { resource: Some(any(cell)), ..self.heartbeat(cell) });
        self.delta.get_or_init(entry).clone()
    }

    /// The `resources` entry of a state-of-the-world response: the resource in a wrapper (rule P-63).
    pub(crate) fn sotw_entry(&self, cell: &Cell) -> Bytes {
        let entry = || {
            let wrapped = Resource { resource: Some(any(cell)), ..self.heartbeat(cell) };
            let any = protobuf::Any { type_url: WRAPPER.to_owned(), value: wrapped.encode_to_vec() };
            DiscoveryResponse { resources: vec![any], ..DiscoveryResponse::default() }.encode_to_vec().into()
        };
        self.sotw.get_or_init(entry).clone()
    }

    /// The `resources` entry of a delta response that says only that the resource is still there (rule P-64).
    pub(crate) fn heartbeat_entry(&self, cell: &Cell) -> Bytes {
        delta(self.heartbeat(cell))
    }

    fn heartbeat(&self, cell: &Cell) -> Resource {
        let ttl = protobuf::Duration {
            seconds: i64::try_from(self.duration.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(self.duration.subsec_nanos()).unwrap_or(0),
        };
        Resource {
            name: cell.name().to_string(),
            version: cell.version().to_string(),
            ttl: Some(ttl),
            ..Resource::default()
        }
    }
}

fn any(cell: &Cell) -> protobuf::Any {
    protobuf::Any { type_url: cell.resource_type().type_url().to_owned(), value: cell.value().to_vec() }
}

fn delta(resource: Resource) -> Bytes {
    DeltaDiscoveryResponse { resources: vec![resource], ..DeltaDiscoveryResponse::default() }.encode_to_vec().into()
}
