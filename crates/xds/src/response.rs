//! What goes out.

use bytes::Bytes;
use prost::Message;
use proto::ResourceType;
use proto::pb::envoy::config::core::v3::ControlPlane;
use proto::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryResponse, DiscoveryResponse, Resource, ResourceError, ResourceName,
};
use proto::pb::google::rpc::Status;
use snapshot::{Body, Name, Version};

use crate::Variant;

/// One message for the client: the bytes of `head`, then the pieces of `body`, are an encoded `DiscoveryResponse` or
/// `DeltaDiscoveryResponse`. The order of fields is free in protobuf, so the resources can follow as a section that
/// all streams share.
#[derive(Clone, Debug)]
pub struct Response {
    /// The type of its resources.
    pub resource_type: ResourceType,
    /// Its nonce, unique in the stream (rule P-11).
    pub nonce: String,
    /// Its version: of the content, not of the stream (rules P-23 to P-25).
    pub version: Version,
    /// Everything but the resources.
    pub head: Bytes,
    /// The resources, shared.
    pub body: Body,
}

impl Response {
    /// Bytes of the whole message.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Never: a response has at least a nonce.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// The fields of a head.
pub(crate) struct Head<'a> {
    pub(crate) variant: Variant,
    pub(crate) resource_type: ResourceType,
    pub(crate) version: Version,
    pub(crate) nonce: &'a str,
    pub(crate) control_plane: &'a str,
    /// Delta only.
    pub(crate) removed: &'a [Name],
    /// Names that were asked for and do not exist, where the protocol has no `removed` for it: told to gRPC as
    /// resource errors in state-of-the-world, and to Envoy as virtual hosts without a body.
    pub(crate) missing: &'a [Name],
}

impl Head<'_> {
    pub(crate) fn encode(&self) -> Bytes {
        let version = self.version.to_string();
        let type_url = self.resource_type.type_url().to_owned();
        let nonce = self.nonce.to_owned();
        let control_plane = Some(ControlPlane { identifier: self.control_plane.to_owned() });
        match self.variant {
            Variant::StateOfTheWorld => DiscoveryResponse {
                version_info: version,
                type_url,
                nonce,
                control_plane,
                resource_errors: self.missing.iter().map(|name| not_found(name)).collect(),
                ..DiscoveryResponse::default()
            }
            .encode_to_vec()
            .into(),
            Variant::Delta => DeltaDiscoveryResponse {
                system_version_info: version,
                type_url,
                nonce,
                control_plane,
                removed_resources: self.removed.iter().map(|name| name.to_string()).collect(),
                resources: self.missing.iter().map(|name| without_body(name)).collect(),
                ..DeltaDiscoveryResponse::default()
            }
            .encode_to_vec()
            .into(),
        }
    }
}

/// Rule P-38: the error that says that a name does not exist (gRPC proposal A88).
fn not_found(name: &str) -> ResourceError {
    const NOT_FOUND: i32 = 5;
    let status = Status { code: NOT_FOUND, message: format!("\"{name}\" does not exist"), details: Vec::new() };
    ResourceError {
        resource_name: Some(ResourceName { name: name.to_owned(), ..ResourceName::default() }),
        error_detail: Some(status),
    }
}

/// Rule P-39: a virtual host that cannot be resolved is answered with its alias and no body. A mere removal leaves
/// the request that asked for it hanging.
fn without_body(name: &str) -> Resource {
    Resource { name: name.to_owned(), aliases: vec![name.to_owned()], ..Resource::default() }
}
