//! `ServiceEntry` and `WorkloadEntry`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Labels;

/// `ServiceEntry.spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ServiceEntry {
    pub hosts: Vec<String>,
    pub addresses: Vec<String>,
    pub ports: Vec<EntryPort>,
    /// `MESH_EXTERNAL` (default) or `MESH_INTERNAL`.
    pub location: Option<String>,
    pub resolution: Option<EntryResolution>,
    pub endpoints: Vec<WorkloadEntry>,
    pub workload_selector: Option<EntrySelector>,
    pub export_to: Vec<String>,
    pub subject_alt_names: Vec<String>,
}

/// `resolution`; `NONE` when absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum EntryResolution {
    None,
    Static,
    Dns,
    DnsRoundRobin,
}

/// `ports[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct EntryPort {
    pub number: u16,
    pub name: String,
    /// `HTTP`, `HTTPS`, `GRPC`, `HTTP2`, `MONGO`, `TCP`, `TLS`, …; derived from the name when absent.
    pub protocol: Option<String>,
    pub target_port: Option<u16>,
}

/// `workloadSelector.labels`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct EntrySelector {
    pub labels: Labels,
}

/// `WorkloadEntry.spec`, and one inline endpoint of a ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct WorkloadEntry {
    /// IP address, DNS name (with `resolution: DNS`), or `unix:///path`.
    pub address: String,
    /// Port name of the ServiceEntry to port number.
    pub ports: BTreeMap<String, u16>,
    pub labels: Labels,
    pub network: Option<String>,
    /// `region/zone/sub-zone`.
    pub locality: Option<String>,
    pub weight: Option<u32>,
    pub service_account: Option<String>,
}
