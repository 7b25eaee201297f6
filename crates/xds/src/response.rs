//! What goes out.

use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use proto::ResourceType;
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

/// Numbers of the fields that both variants have, as far as they are the same: `version_info` or
/// `system_version_info`, `type_url`, `nonce`.
const VERSION: u32 = 1;
const TYPE_URL: u32 = 4;
const NONCE: u32 = 5;
/// `ControlPlane.identifier`.
const IDENTIFIER: u32 = 1;

impl Head<'_> {
    /// What every response has is written field by field: this is done for each response of each stream, and as a
    /// message it would take four copies of texts before the first byte is encoded. What is rare follows as a message;
    /// protobuf joins the two.
    pub(crate) fn encode(&self) -> Bytes {
        let version = self.version.to_string();
        let texts = [(VERSION, &*version), (TYPE_URL, self.resource_type.type_url()), (NONCE, self.nonce)];
        let identifier_len = text_len(IDENTIFIER, self.control_plane);
        let control_plane = match self.variant {
            Variant::StateOfTheWorld => 6,
            Variant::Delta => 7,
        };
        let len: usize = texts.iter().map(|(number, text)| text_len(*number, text)).sum();
        let mut head = Vec::with_capacity(len + 1 + encoded_len_varint(identifier_len as u64) + identifier_len);
        for (number, text) in texts {
            put_text(number, text, &mut head);
        }
        encode_key(control_plane, WireType::LengthDelimited, &mut head);
        encode_varint(identifier_len as u64, &mut head);
        put_text(IDENTIFIER, self.control_plane, &mut head);
        if !self.removed.is_empty() || !self.missing.is_empty() {
            self.put_names(&mut head);
        }
        head.into()
    }

    fn put_names(&self, head: &mut Vec<u8>) {
        match self.variant {
            Variant::StateOfTheWorld => {
                let resource_errors = self.missing.iter().map(|name| not_found(name)).collect();
                head.extend(DiscoveryResponse { resource_errors, ..DiscoveryResponse::default() }.encode_to_vec());
            }
            Variant::Delta => {
                let names = DeltaDiscoveryResponse {
                    removed_resources: self.removed.iter().map(|name| name.to_string()).collect(),
                    resources: self.missing.iter().map(|name| without_body(name)).collect(),
                    ..DeltaDiscoveryResponse::default()
                };
                head.extend(names.encode_to_vec());
            }
        }
    }
}

fn text_len(number: u32, text: &str) -> usize {
    key_len(number) + encoded_len_varint(text.len() as u64) + text.len()
}

fn put_text(number: u32, text: &str, head: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, head);
    encode_varint(text.len() as u64, head);
    head.extend_from_slice(text.as_bytes());
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proto::pb::envoy::config::core::v3::ControlPlane;

    use super::*;

    #[test]
    fn a_head_is_the_message_that_it_stands_for() {
        let (removed, missing) = ([Name::from("gone"), Name::from("too")], [Name::from("never")]);
        for (removed, missing) in [(&removed[..], &missing[..]), (&[], &[])] {
            let head = Head {
                variant: Variant::Delta,
                resource_type: ResourceType::Cluster,
                version: Version::of(b"content"),
                nonce: "17",
                control_plane: "pointsman/replica-1",
                removed,
                missing,
            };
            let control_plane = Some(ControlPlane { identifier: "pointsman/replica-1".to_owned() });
            let type_url = ResourceType::Cluster.type_url().to_owned();
            let version = head.version.to_string();
            let delta = DeltaDiscoveryResponse::decode(head.encode()).unwrap();
            assert_eq!(
                delta,
                DeltaDiscoveryResponse {
                    system_version_info: version.clone(),
                    type_url: type_url.clone(),
                    nonce: "17".to_owned(),
                    control_plane: control_plane.clone(),
                    removed_resources: removed.iter().map(|name| name.to_string()).collect(),
                    resources: missing.iter().map(|name| without_body(name)).collect(),
                    ..DeltaDiscoveryResponse::default()
                }
            );
            let head = Head { variant: Variant::StateOfTheWorld, ..head };
            let sotw = DiscoveryResponse::decode(head.encode()).unwrap();
            assert_eq!(
                sotw,
                DiscoveryResponse {
                    version_info: version,
                    type_url,
                    nonce: "17".to_owned(),
                    control_plane,
                    resource_errors: missing.iter().map(|name| not_found(name)).collect(),
                    ..DiscoveryResponse::default()
                }
            );
        }
    }
}
