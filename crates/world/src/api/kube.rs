//! Kubernetes `core/v1` and `discovery.k8s.io/v1`, the parts that discovery needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::Labels;

/// A port by number or by the name that the pod gives it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// By number.
    Int(i64),
    /// By name.
    String(String),
}

/// `Service.spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ServiceSpec {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Box<[String]>,
    pub external_name: Option<String>,
    /// Shared with the service that it makes.
    pub selector: Arc<Labels>,
    pub ports: Box<[KubeServicePort]>,
    pub publish_not_ready_addresses: bool,
}

/// `Service.spec.ports[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct KubeServicePort {
    pub name: String,
    pub port: u16,
    pub target_port: Option<IntOrString>,
    /// `TCP`, `UDP` or `SCTP`; TCP when absent.
    pub protocol: Option<String>,
    pub app_protocol: Option<String>,
}

/// A whole `EndpointSlice`: its fields sit beside `metadata`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct EndpointSlice {
    pub address_type: String,
    pub endpoints: Box<[SliceEndpoint]>,
    pub ports: Box<[SlicePort]>,
}

/// `EndpointSlice.endpoints[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct SliceEndpoint {
    pub addresses: Box<[String]>,
    pub conditions: SliceConditions,
    pub hostname: Option<String>,
    pub target_ref: Option<Box<TargetRef>>,
    pub node_name: Option<String>,
    pub zone: Option<String>,
}

/// `EndpointSlice.endpoints[].conditions`; absent means ready.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct SliceConditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

/// The object behind an endpoint, usually a `Pod`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct TargetRef {
    pub kind: Option<String>,
    pub namespace: Option<String>,
    pub name: Option<String>,
}

/// `EndpointSlice.ports[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct SlicePort {
    pub name: Option<String>,
    pub port: Option<u16>,
    pub protocol: Option<String>,
    pub app_protocol: Option<String>,
}

/// The parts of a `Pod` that say where it is and whether it serves.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Pod {
    pub spec: PodSpec,
    pub status: PodStatus,
}

/// `Pod.spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PodSpec {
    pub service_account_name: Option<String>,
    pub node_name: Option<String>,
    pub host_network: bool,
    pub containers: Vec<Container>,
}

/// `Pod.spec.containers[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Container {
    pub name: String,
    pub ports: Vec<ContainerPort>,
}

/// `Pod.spec.containers[].ports[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ContainerPort {
    pub name: Option<String>,
    pub container_port: u16,
    pub protocol: Option<String>,
}

/// `Pod.status`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PodStatus {
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    pub phase: Option<String>,
    pub conditions: Vec<PodCondition>,
}

/// `Pod.status.conditions[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PodCondition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
}

impl Pod {
    /// Whether the pod's `Ready` condition is `True`; a pod without conditions counts as ready when its phase is
    /// `Running` or absent, so that hand-written pods work.
    pub fn is_ready(&self) -> bool {
        match self.status.conditions.iter().find(|c| c.kind == "Ready") {
            Some(condition) => condition.status == "True",
            None => self.status.phase.as_deref().is_none_or(|phase| phase == "Running"),
        }
    }

    /// Whether the pod has ended for good: its address may belong to another pod by now.
    pub fn is_finished(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// The number of the container port called `name`.
    pub fn named_port(&self, name: &str) -> Option<u16> {
        let ports = self.spec.containers.iter().flat_map(|c| &c.ports);
        ports.filter(|p| p.name.as_deref() == Some(name)).map(|p| p.container_port).next()
    }
}

/// A `Namespace`: its labels are in the object's metadata.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Not read; present so that `kubectl get -o yaml` output leaves no unknown fields.
    pub spec: BTreeMap<String, serde_json::Value>,
}
