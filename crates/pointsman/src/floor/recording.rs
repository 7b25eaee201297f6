//! What a real server sent, to be sent again.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

/// The two forms of a discovery stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Variant {
    /// Changes only.
    Delta,
    /// The state of the world.
    Sotw,
}

impl Variant {
    /// What a request asks for.
    ///
    /// # Errors
    /// It is not a discovery request.
    pub(super) fn request(self, message: &[u8]) -> Result<Request, prost::DecodeError> {
        Ok(match self {
            Variant::Delta => {
                let DeltaRequest { type_url, nonce } = DeltaRequest::decode(message)?;
                Request { type_url, is_first: nonce.is_empty() }
            }
            Variant::Sotw => {
                let SotwRequest { type_url, nonce } = SotwRequest::decode(message)?;
                Request { type_url, is_first: nonce.is_empty() }
            }
        })
    }
}

/// As little of a request as replaying needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) type_url: String,
    /// It answers no response, so it is a subscription.
    pub(super) is_first: bool,
}

/// `DeltaDiscoveryRequest` without what is skipped.
#[derive(Clone, PartialEq, prost::Message)]
struct DeltaRequest {
    #[prost(string, tag = "2")]
    type_url: String,
    #[prost(string, tag = "6")]
    nonce: String,
}

/// `DiscoveryRequest` without what is skipped.
#[derive(Clone, PartialEq, prost::Message)]
struct SotwRequest {
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
}

/// The messages that a server sent to one client, framed for gRPC.
#[derive(Clone, Debug, Default)]
pub(super) struct Recording {
    /// By type URL: what answers the first request.
    pub(super) first: HashMap<String, Bytes>,
    /// By the name that the control gives it: what is sent on request.
    pub(super) changes: HashMap<&'static str, Bytes>,
}

/// The message as it lies in an HTTP/2 stream: uncompressed, with its length.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a message of gRPC is shorter than 4 GiB"));
    frame.put_slice(message);
    frame.freeze()
}

/// Cuts the messages out of the bytes of a stream, however these arrive.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: BytesMut,
}

impl Messages {
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, without its frame.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let length = u32::from_be_bytes(*self.bytes.get(1..)?.first_chunk()?) as usize;
        if self.bytes.len() < 5 + length {
            return None;
        }
        let message = self.bytes.split_to(5 + length).freeze().slice(5..);
        if self.bytes.is_empty() {
            // Nothing of a large first message is kept.
            self.bytes = BytesMut::new();
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proto::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};

    use super::*;

    #[test]
    fn messages_are_found_wherever_the_bytes_are_cut() {
        let all = [framed(b"one"), framed(b""), framed(b"three")].concat();
        for cut in 0..all.len() {
            let mut messages = Messages::default();
            let mut found = Vec::new();
            for piece in [&all[..cut], &all[cut..]] {
                messages.extend(piece);
                found.extend(std::iter::from_fn(|| messages.next()));
            }
            assert_eq!(found, [&b"one"[..], b"", b"three"], "cut at {cut}");
        }
    }

    #[test]
    fn requests_and_acknowledgements_are_told_apart() {
        let delta = |nonce: &str| DeltaDiscoveryRequest {
            type_url: "t".to_owned(),
            response_nonce: nonce.to_owned(),
            ..Default::default()
        };
        let sotw = |nonce: &str| DiscoveryRequest {
            type_url: "t".to_owned(),
            response_nonce: nonce.to_owned(),
            ..Default::default()
        };
        for nonce in ["", "n"] {
            let expected = Request { type_url: "t".to_owned(), is_first: nonce.is_empty() };
            assert_eq!(Variant::Delta.request(&delta(nonce).encode_to_vec()).unwrap(), expected);
            assert_eq!(Variant::Sotw.request(&sotw(nonce).encode_to_vec()).unwrap(), expected);
        }
        assert!(Variant::Delta.request(b"\xff").is_err());
    }
}
