//! A client of the incremental variant.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proto::ResourceType;
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use proto::pb::google::rpc::Status;

use super::{Exchange, Memory, WireError};

/// An incremental stream and what its client remembers. The node goes out with the first request only.
#[derive(Debug)]
pub struct Delta {
    exchange: Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse>,
    node: Option<Node>,
    /// Per type: the versions of the resources in acknowledged responses, by name.
    held: Memory<BTreeMap<String, String>>,
}

impl Delta {
    pub(super) fn new(exchange: Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse>, node: Node) -> Delta {
        Delta { exchange, node: Some(node), held: Memory::new() }
    }

    /// Asks for more resources of a type; none in the first request of a wildcard type ask for all.
    pub async fn subscribe(&mut self, kind: ResourceType, names: &[&str]) {
        self.request(DeltaDiscoveryRequest { resource_names_subscribe: owned(names), ..empty(kind.type_url()) }).await;
    }

    /// Asks for no more of these.
    pub async fn unsubscribe(&mut self, kind: ResourceType, names: &[&str]) {
        let request = DeltaDiscoveryRequest { resource_names_unsubscribe: owned(names), ..empty(kind.type_url()) };
        self.request(request).await;
    }

    /// The first request of a type after a reconnection: asks for resources, and tells which versions are there already.
    pub async fn resume(&mut self, kind: ResourceType, names: &[&str], versions: &BTreeMap<String, String>) {
        let initial_resource_versions: HashMap<_, _> = versions.clone().into_iter().collect();
        self.held.insert(kind.type_url().to_owned(), versions.clone());
        let resource_names_subscribe = owned(names);
        let request =
            DeltaDiscoveryRequest { resource_names_subscribe, initial_resource_versions, ..empty(kind.type_url()) };
        self.request(request).await;
    }

    /// Acknowledges a response.
    pub async fn ack(&mut self, response: &DeltaDiscoveryResponse) {
        let held = self.held.entry(response.type_url.clone()).or_default();
        for resource in &response.resources {
            held.insert(resource.name.clone(), resource.version.clone());
        }
        for name in &response.removed_resources {
            held.remove(name);
        }
        let response_nonce = response.nonce.clone();
        self.request(DeltaDiscoveryRequest { response_nonce, ..empty(&response.type_url) }).await;
    }

    /// Refuses a response with these words.
    pub async fn nack(&mut self, response: &DeltaDiscoveryResponse, words: &str) {
        // 13 is INTERNAL, which is what Envoy sends.
        let refusal = Status { code: 13, message: words.to_owned(), details: Vec::new() };
        let (response_nonce, error_detail) = (response.nonce.clone(), Some(refusal));
        self.request(DeltaDiscoveryRequest { response_nonce, error_detail, ..empty(&response.type_url) }).await;
    }

    async fn request(&mut self, request: DeltaDiscoveryRequest) {
        self.exchange.send(DeltaDiscoveryRequest { node: self.node.take(), ..request }).await;
    }

    /// The versions of the resources that were acknowledged and not removed since, by name: what a client would tell
    /// after a reconnection.
    pub fn held(&self, kind: ResourceType) -> BTreeMap<String, String> {
        self.held.get(kind.type_url()).cloned().unwrap_or_default()
    }

    /// The next response, not yet answered.
    ///
    /// # Errors
    /// As for [`Exchange::next`].
    pub async fn next(&mut self, within: Duration) -> Result<DeltaDiscoveryResponse, WireError> {
        self.exchange.next(within).await
    }

    /// The bare stream, to send or receive anything else.
    pub fn exchange(&mut self) -> &mut Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
        &mut self.exchange
    }
}

fn empty(url: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: url.to_owned(), ..DeltaDiscoveryRequest::default() }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}
