//! Discovery requests, written without prost: a head of a few bytes, and parts that nodes share.

use proto::ResourceType;

use crate::entries::{Entries, Window};
use crate::http2::Piece;
use crate::identity::Identity;
use crate::scenario::Variant;

/// The field with names: `resource_names`, and in a delta request `resource_names_subscribe`.
pub(crate) const NAMES: u32 = 3;
/// The field `initial_resource_versions` of a delta request.
pub(crate) const HELD: u32 = 5;

/// A request of either variant. Empty fields are not written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) variant: Variant,
    pub(crate) kind: ResourceType,
    /// Who asks; only in the first request of a stream.
    pub(crate) node: Option<&'a Identity>,
    /// The version that is in use; of state-of-the-world only.
    pub(crate) version: &'a [u8],
    /// The response that is answered.
    pub(crate) nonce: &'a [u8],
    /// Why it is refused.
    pub(crate) refusal: Option<&'a str>,
    pub(crate) names: Option<(&'a Entries, Window)>,
    /// Names and versions that the node has; of delta only.
    pub(crate) held: Option<(&'a Entries, Window)>,
}

impl<'a> Request<'a> {
    /// One that says nothing but its type.
    pub(crate) fn of(variant: Variant, kind: ResourceType) -> Self {
        Self { variant, kind, node: None, version: b"", nonce: b"", refusal: None, names: None, held: None }
    }

    /// Encodes it as a message of gRPC.
    pub(crate) fn send(self, send: &mut dyn FnMut(Piece)) {
        // envoy/service/discovery/v3/discovery.proto; fields may come in any order.
        let (node, type_url, nonce, error) = match self.variant {
            Variant::Sotw => (2, 4, 5, 6),
            Variant::Delta => (1, 2, 6, 7),
        };
        let mut head = vec![0; 5];
        if !self.version.is_empty() {
            put_bytes(&mut head, 1, self.version);
        }
        put_bytes(&mut head, type_url, self.kind.type_url().as_bytes());
        if !self.nonce.is_empty() {
            put_bytes(&mut head, nonce, self.nonce);
        }
        if let Some(words) = self.refusal {
            put_status(&mut head, error, words);
        }
        let mut shared = Vec::new();
        if let Some(identity) = self.node {
            put_length(&mut head, node, identity.own.len() + identity.shared.len());
            head.extend_from_slice(&identity.own);
            shared.push(Piece::all(&identity.shared));
        }
        shared.extend(self.names.into_iter().flat_map(|(names, window)| names.pieces(window)));
        shared.extend(self.held.into_iter().flat_map(|(held, window)| held.pieces(window)));
        let length = head.len() - 5 + shared.iter().map(|piece| piece.bytes().len()).sum::<usize>();
        head[1..5].copy_from_slice(&(length as u32).to_be_bytes());
        send(Piece::Own(head));
        shared.into_iter().for_each(send);
    }
}

/// A `google.rpc.Status` with the code that Envoy gives, INTERNAL.
fn put_status(out: &mut Vec<u8>, field: u32, words: &str) {
    const INTERNAL: u8 = 13;
    let mut status = vec![1 << 3, INTERNAL];
    put_bytes(&mut status, 2, words.as_bytes());
    put_bytes(out, field, &status);
}

/// A field of bytes, text or a message.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_length(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// The head of such a field.
pub(crate) fn put_length(out: &mut Vec<u8>, field: u32, length: usize) {
    prost::encoding::encode_varint(u64::from(field << 3 | 2), out);
    prost::encoding::encode_varint(length as u64, out);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use prost::Message;
    use proto::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};

    use super::*;
    use crate::scenario::Scenario;

    fn encoded(request: Request<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        request.send(&mut |piece| bytes.extend_from_slice(piece.bytes()));
        let (prefix, message) = bytes.split_at(5);
        assert_eq!(prefix, [&[0][..], &(message.len() as u32).to_be_bytes()].concat());
        message.to_vec()
    }

    #[test]
    fn every_field_is_where_the_protocol_has_it() {
        let identity = Identity::of(&Scenario::default(), 7);
        let id = "sidecar~10.0.0.8~pod-7.default~default.svc.cluster.local";
        let names = Entries::texts(NAMES, ["a", "b"]);
        let held = Entries::pairs(HELD, [("a", "1")]);
        let request = Request {
            node: Some(&identity),
            version: b"v",
            nonce: b"n",
            refusal: Some("no"),
            names: Some((&names, names.all())),
            ..Request::of(Variant::Sotw, ResourceType::Endpoints)
        };
        let decoded = DiscoveryRequest::decode(&*encoded(request)).unwrap();
        assert_eq!(decoded.node.unwrap().id, id);
        assert_eq!((&*decoded.version_info, &*decoded.response_nonce), ("v", "n"));
        assert_eq!(decoded.type_url, ResourceType::Endpoints.type_url());
        assert_eq!(decoded.resource_names, ["a", "b"]);
        let status = decoded.error_detail.unwrap();
        assert_eq!((status.code, &*status.message), (13, "no"));

        let request = Request { variant: Variant::Delta, version: b"", held: Some((&held, held.all())), ..request };
        let decoded = DeltaDiscoveryRequest::decode(&*encoded(request)).unwrap();
        assert_eq!(decoded.node.unwrap().id, id);
        assert_eq!(decoded.response_nonce, "n");
        assert_eq!(decoded.type_url, ResourceType::Endpoints.type_url());
        assert_eq!(decoded.resource_names_subscribe, ["a", "b"]);
        assert_eq!(decoded.initial_resource_versions, [("a".to_owned(), "1".to_owned())].into());
        assert_eq!(decoded.error_detail.unwrap().message, "no");
    }
}
