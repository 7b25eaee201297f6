//! A raw discovery client: it sends what it is told, also what no well-behaved client would, and shows what comes back.
//!
//! [`Exchange`] is the bare stream of messages. [`Sotw`] and [`Delta`] keep what a client of that variant has to
//! remember between messages (names, versions, nonces) so that a test can say `subscribe`, `ack` and `nack`; they do
//! nothing by themselves, and in particular never acknowledge unasked.

mod delta;
mod exchange;
mod node;
mod services;
mod sotw;
mod tls;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

pub use delta::Delta;
pub use exchange::{Exchange, WireError};
pub use node::{node, node_of};
/// What there is to ask for.
pub use proto::ResourceType;
pub use sotw::Sotw;
pub use tls::Credentials;

use anyhow::{Context, Result};
use proto::pb::envoy::config::core::v3::Node;
use proto::pb::google::protobuf::Any;
use tonic::Status;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// A connection to a discovery server; streams share it.
#[derive(Clone, Debug)]
pub struct Wire {
    channel: Channel,
    token: Option<AsciiMetadataValue>,
}

impl Wire {
    /// Connects to `http://IP:PORT` or `unix:/path`.
    ///
    /// # Errors
    /// If it is no address, or nobody listens there.
    pub async fn connect(address: impl Into<String>) -> Result<Wire> {
        let address = address.into();
        let endpoint =
            Endpoint::from_shared(address.clone()).with_context(|| format!("\"{address}\" is no address"))?;
        let channel = endpoint.connect().await.with_context(|| format!("could not connect to \"{address}\""))?;
        Ok(Wire { channel, token: None })
    }

    /// Connects to `IP:PORT` by TLS.
    ///
    /// # Errors
    /// If the credentials cannot be used, nobody listens there, or one side does not take the other's certificate.
    pub async fn connect_tls(address: SocketAddr, credentials: &Credentials) -> Result<Wire> {
        let channel = tls::connect(address, None, credentials).await?;
        Ok(Wire { channel, token: None })
    }

    /// The same from this address of the machine.
    ///
    /// # Errors
    /// As [`Wire::connect_tls`], and if the machine does not have the address.
    pub async fn connect_tls_from(source: IpAddr, address: SocketAddr, credentials: &Credentials) -> Result<Wire> {
        let channel = tls::connect(address, Some(source), credentials).await?;
        Ok(Wire { channel, token: None })
    }

    /// The same connection, on which streams bring this bearer token.
    ///
    /// # Errors
    /// If it cannot stand in a header.
    pub fn with_token(&self, token: &str) -> Result<Wire> {
        let token = format!("Bearer {token}").parse().context("the token cannot stand in a header")?;
        Ok(Wire { channel: self.channel.clone(), token: Some(token) })
    }

    /// Asks once, and waits for the one answer: for instance `/istio.v1.auth.IstioCertificateService/CreateCertificate`.
    ///
    /// # Errors
    /// The status that the server ends the call with.
    ///
    /// # Panics
    /// If `method` is not a path.
    pub async fn call<Request, Response>(&self, method: &str, request: Request) -> Result<Response, Status>
    where
        Request: prost::Message + Send + Sync + 'static,
        Response: prost::Message + Default + Send + 'static,
    {
        let mut client = Grpc::new(self.channel.clone());
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = tonic::Request::new(request);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        let path = method.parse().expect("the method is a path");
        let answer = client.unary(request, path, ProstCodec::<Request, Response>::default()).await?;
        Ok(answer.into_inner())
    }

    /// Opens a stream of any method with these messages, for instance `/envoy.service.load_stats.v3.LoadReportingService/
    /// StreamLoadStats`.
    ///
    /// # Panics
    /// If `method` is not a path.
    pub fn open<Request, Response>(&self, method: &str) -> Exchange<Request, Response>
    where
        Request: prost::Message + Send + Sync + 'static,
        Response: prost::Message + Default + std::fmt::Debug + Send + 'static,
    {
        Exchange::open(self.channel.clone(), self.token.clone(), method)
    }

    /// Opens an aggregated state-of-the-world stream for a node.
    pub fn sotw(&self, node: Node) -> Sotw {
        Sotw::new(self.open(services::AGGREGATED.0), node)
    }

    /// Opens an aggregated incremental stream for a node.
    pub fn delta(&self, node: Node) -> Delta {
        Delta::new(self.open(services::AGGREGATED.1), node)
    }

    /// Opens a state-of-the-world stream of one type's own service (CDS, EDS, ...).
    ///
    /// # Panics
    /// For virtual hosts, whose service has only the incremental variant.
    pub fn sotw_of(&self, kind: ResourceType, node: Node) -> Sotw {
        let method = services::methods(kind).0.unwrap_or_else(|| panic!("{kind} has no state-of-the-world variant"));
        Sotw::new(self.open(method), node)
    }

    /// Opens an incremental stream of one type's own service (CDS, EDS, ...).
    pub fn delta_of(&self, kind: ResourceType, node: Node) -> Delta {
        Delta::new(self.open(services::methods(kind).1), node)
    }
}

/// Decodes packed messages of one type.
///
/// # Errors
/// If one is of another type, or its bytes are not a message of it.
pub fn unpack<'a, M: prost::Message + prost::Name + Default>(
    packed: impl IntoIterator<Item = &'a Any>,
) -> Result<Vec<M>> {
    let one = |any: &Any| {
        anyhow::ensure!(any.type_url == M::type_url(), "a \"{}\" is not a \"{}\"", any.type_url, M::type_url());
        M::decode(any.value.as_slice()).with_context(|| format!("could not decode a \"{}\"", any.type_url))
    };
    packed.into_iter().map(one).collect()
}

/// What a stream remembers of each type, by type URL.
type Memory<State> = HashMap<String, State>;

#[cfg(test)]
mod tests;
