//! A client of the state-of-the-world variant.

use std::time::Duration;

use proto::ResourceType;
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use proto::pb::google::rpc::Status;

use super::{Exchange, Memory, WireError};

/// A state-of-the-world stream and what its client remembers. The node goes out with the first request only.
#[derive(Debug)]
pub struct Sotw {
    exchange: Exchange<DiscoveryRequest, DiscoveryResponse>,
    node: Option<Node>,
    types: Memory<Type>,
}

#[derive(Debug, Default)]
struct Type {
    names: Vec<String>,
    /// The version that was acknowledged last.
    version: String,
    /// The nonce that was received last.
    nonce: String,
}

impl Sotw {
    pub(super) fn new(exchange: Exchange<DiscoveryRequest, DiscoveryResponse>, node: Node) -> Sotw {
        Sotw { exchange, node: Some(node), types: Memory::new() }
    }

    /// Asks for these resources of a type instead of those before; no names ask for all of a wildcard type, if it is
    /// the first request of that type.
    pub async fn subscribe(&mut self, kind: ResourceType, names: &[&str]) {
        let url = kind.type_url();
        self.types.entry(url.to_owned()).or_default().names = names.iter().map(|&name| name.to_owned()).collect();
        self.request(url, None).await;
    }

    /// Acknowledges a response.
    pub async fn ack(&mut self, response: &DiscoveryResponse) {
        self.types.entry(response.type_url.clone()).or_default().version.clone_from(&response.version_info);
        self.answer(response, None).await;
    }

    /// Refuses a response with these words.
    pub async fn nack(&mut self, response: &DiscoveryResponse, words: &str) {
        // 13 is INTERNAL, which is what Envoy sends.
        self.answer(response, Some(Status { code: 13, message: words.to_owned(), details: Vec::new() })).await;
    }

    async fn answer(&mut self, response: &DiscoveryResponse, refusal: Option<Status>) {
        self.types.entry(response.type_url.clone()).or_default().nonce.clone_from(&response.nonce);
        self.request(&response.type_url, refusal).await;
    }

    async fn request(&mut self, url: &str, error_detail: Option<Status>) {
        let known = self.types.entry(url.to_owned()).or_default();
        let request = DiscoveryRequest {
            version_info: known.version.clone(),
            node: self.node.take(),
            resource_names: known.names.clone(),
            type_url: url.to_owned(),
            response_nonce: known.nonce.clone(),
            error_detail,
            ..DiscoveryRequest::default()
        };
        self.exchange.send(request).await;
    }

    /// The next response, not yet answered.
    ///
    /// # Errors
    /// As for [`Exchange::next`].
    pub async fn next(&mut self, within: Duration) -> Result<DiscoveryResponse, WireError> {
        self.exchange.next(within).await
    }

    /// The bare stream, to send or receive anything else.
    pub fn exchange(&mut self) -> &mut Exchange<DiscoveryRequest, DiscoveryResponse> {
        &mut self.exchange
    }
}
