//! Reads discovery responses off a gRPC stream without decoding resources.
//!
//! Of every message, the version, the nonce, the type and the number of resources are kept; resources are skipped by their
//! length, across any cut. A connection between two messages holds no buffer. Small delta messages are kept as well,
//! because a node may have to look at clusters that are added; with [`Scanner::keeping`] all are.

use proto::ResourceType;

use crate::stamp::{Stamp, StampFinder};

/// Versions, nonces and type URLs longer than this are refused. Nonces and versions are short in every known server.
const MAX_TEXT: u64 = 64 << 10;
/// Delta messages up to this are kept. Larger ones are first answers, whose names the scout has learned.
const SMALL: u64 = 16 << 10;

/// A whole discovery response, in either variant of the protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// `None` for a type that is not among [`ResourceType::ALL`].
    pub(crate) kind: Option<ResourceType>,
    /// `version_info` or `system_version_info`.
    pub(crate) version: Vec<u8>,
    pub(crate) nonce: Vec<u8>,
    pub(crate) resources: u32,
    /// `removed_resources` and `removed_resource_names`; none in state-of-the-world.
    pub(crate) removed: u32,
    /// Length of the message, without the prefix of gRPC.
    pub(crate) bytes: u64,
    /// The stamps in its resources, if they were to be looked for.
    pub(crate) stamps: Vec<Stamp>,
    /// The message itself, if it was kept.
    pub(crate) message: Option<Vec<u8>>,
}

/// Why bytes are no stream of discovery responses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScanError {
    /// We said that we take no compressed messages.
    #[error("the server sent a compressed message without being asked for one")]
    Compressed,
    /// Not protobuf.
    #[error("the server sent something that is no discovery response")]
    Malformed,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Within the prefix of a message: whether compressed, and its length.
    Prefix { have: u8, length: u32 },
    /// Within a field's tag.
    Tag(Varint),
    /// Within a field's length.
    Length { field: u32, varint: Varint },
    /// Within a number that is of no interest.
    Number(Varint),
    /// Within bytes that are kept.
    Text { field: u32, left: u64 },
    /// Within bytes that are of no interest.
    Skip { left: u64 },
}

#[derive(Clone, Copy, Debug, Default)]
struct Varint {
    value: u64,
    shift: u8,
}

impl Varint {
    /// Adds a byte; the value when it is whole.
    fn add(&mut self, byte: u8) -> Result<Option<u64>, ScanError> {
        if self.shift > 63 {
            return Err(ScanError::Malformed);
        }
        self.value |= u64::from(byte & 0x7f) << self.shift;
        self.shift += 7;
        Ok((byte & 0x80 == 0).then_some(self.value))
    }
}

const PREFIX: State = State::Prefix { have: 0, length: 0 };
const PREFIX_BYTES: u8 = 5;

// The fields of both messages: envoy/service/discovery/v3/discovery.proto.
const VERSION: u32 = 1;
const RESOURCES: u32 = 2;
const TYPE_URL: u32 = 4;
const NONCE: u32 = 5;
/// Of a delta response only; the same number is the control plane's name in the other variant.
const REMOVED: u32 = 6;
const REMOVED_NAMES: u32 = 8;

/// Reads one stream.
#[derive(Debug)]
pub(crate) struct Scanner {
    state: State,
    /// Bytes of the message that are still to come.
    left: u64,
    delta: bool,
    keep: bool,
    stamps: Option<Box<StampFinder>>,
    type_url: Vec<u8>,
    message: Received,
}

impl Scanner {
    /// For a stream of `DeltaDiscoveryResponse`s or of `DiscoveryResponse`s.
    pub(crate) fn new(delta: bool) -> Self {
        Self {
            state: PREFIX,
            left: 0,
            delta,
            keep: false,
            stamps: None,
            type_url: Vec::new(),
            message: Received::default(),
        }
    }

    /// The same, looking for stamps.
    pub(crate) fn finding_stamps(delta: bool) -> Self {
        Self { stamps: Some(Box::default()), ..Self::new(delta) }
    }

    /// The same, keeping whole messages.
    pub(crate) fn keeping(delta: bool) -> Self {
        Self { keep: true, ..Self::new(delta) }
    }

    /// The next message that ends in `input`, which is shortened by what was read; `None` when it is used up.
    ///
    /// # Errors
    /// If it is no such stream. Nothing can be read after that.
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Received>, ScanError> {
        while let Some((first, rest)) = input.split_first() {
            if let State::Prefix { have, length } = &mut self.state {
                if *have == 0 && *first != 0 {
                    return Err(ScanError::Compressed);
                }
                *length = *length << 8 | u32::from(*first);
                *have += 1;
                *input = rest;
                if *have == PREFIX_BYTES {
                    self.left = u64::from(*length);
                    self.message.bytes = self.left;
                    let kept = self.keep || (self.delta && self.left <= SMALL);
                    self.message.message = kept.then(Vec::new);
                    self.state = State::Tag(Varint::default());
                }
            } else {
                let here = input.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                let read = self.fields(&input[..here])?;
                if let Some(message) = &mut self.message.message {
                    message.extend_from_slice(&input[..read]);
                }
                self.left -= read as u64;
                *input = &input[read..];
            }
            if self.left == 0 && !matches!(self.state, State::Prefix { .. }) {
                return self.finish().map(Some);
            }
        }
        Ok(None)
    }

    fn finish(&mut self) -> Result<Received, ScanError> {
        if !matches!(self.state, State::Tag(Varint { shift: 0, .. })) {
            return Err(ScanError::Malformed);
        }
        self.state = PREFIX;
        let type_url = std::mem::take(&mut self.type_url);
        let mut message = std::mem::take(&mut self.message);
        message.kind = std::str::from_utf8(&type_url).ok().and_then(ResourceType::from_type_url);
        Ok(message)
    }

    /// Reads bytes of the message, all of them or up to its last one; how many there were.
    fn fields(&mut self, input: &[u8]) -> Result<usize, ScanError> {
        let mut at = 0;
        while at < input.len() {
            match &mut self.state {
                State::Prefix { .. } => break,
                State::Tag(varint) => {
                    if let Some(tag) = varint.add(input[at])? {
                        self.state = self.after_tag(tag)?;
                    }
                    at += 1;
                }
                State::Number(varint) => {
                    if varint.add(input[at])?.is_some() {
                        self.state = State::Tag(Varint::default());
                    }
                    at += 1;
                }
                State::Length { field, varint } => {
                    let field = *field;
                    if let Some(length) = varint.add(input[at])? {
                        // What is longer than the rest of the message cannot end in it.
                        if length > self.left {
                            return Err(ScanError::Malformed);
                        }
                        self.state = self.after_length(field, length)?;
                    }
                    at += 1;
                }
                State::Text { field, left } => {
                    let part = &input[at..][..(input.len() - at).min(*left as usize)];
                    at += part.len();
                    *left -= part.len() as u64;
                    let (field, whole) = (*field, *left == 0);
                    match field {
                        VERSION => self.message.version.extend_from_slice(part),
                        NONCE => self.message.nonce.extend_from_slice(part),
                        _ => self.type_url.extend_from_slice(part),
                    }
                    if whole {
                        self.state = State::Tag(Varint::default());
                    }
                }
                State::Skip { left } => {
                    let part = (input.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    if let Some(finder) = &mut self.stamps {
                        let found = &mut self.message.stamps;
                        finder.look(&input[at..at + part], |stamp| found.push(stamp));
                    }
                    at += part;
                    *left -= part as u64;
                    if *left == 0 {
                        self.state = State::Tag(Varint::default());
                    }
                }
            }
        }
        Ok(at)
    }

    fn after_tag(&mut self, tag: u64) -> Result<State, ScanError> {
        let field = u32::try_from(tag >> 3).map_err(|_| ScanError::Malformed)?;
        Ok(match tag & 7 {
            0 => State::Number(Varint::default()),
            1 => State::Skip { left: 8 },
            2 => State::Length { field, varint: Varint::default() },
            5 => State::Skip { left: 4 },
            _ => return Err(ScanError::Malformed),
        })
    }

    fn after_length(&mut self, field: u32, length: u64) -> Result<State, ScanError> {
        match field {
            RESOURCES => self.message.resources += 1,
            REMOVED | REMOVED_NAMES if self.delta => self.message.removed += 1,
            VERSION => self.message.version.clear(),
            NONCE => self.message.nonce.clear(),
            TYPE_URL => self.type_url.clear(),
            _ => {}
        }
        let kept = matches!(field, VERSION | NONCE | TYPE_URL);
        if kept && length > MAX_TEXT {
            return Err(ScanError::Malformed);
        }
        Ok(match length {
            0 => State::Tag(Varint::default()),
            left if kept => State::Text { field, left },
            left => State::Skip { left },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use prost::Message;
    use proto::pb::envoy::config::core::v3::ControlPlane;
    use proto::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse, Resource};
    use proto::pb::google::protobuf::Any;

    use super::*;

    fn packed(bytes: usize) -> Any {
        Any { type_url: ResourceType::Route.type_url().to_owned(), value: vec![0xff; bytes] }
    }

    fn framed(message: &impl Message) -> Vec<u8> {
        let bytes = message.encode_to_vec();
        [&[0][..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat()
    }

    fn sotw() -> DiscoveryResponse {
        DiscoveryResponse {
            version_info: "v1".to_owned(),
            resources: vec![packed(3), packed(0), packed(70_000)],
            canary: true,
            type_url: ResourceType::Route.type_url().to_owned(),
            nonce: "n1".to_owned(),
            control_plane: Some(ControlPlane { identifier: "us".to_owned() }),
            ..DiscoveryResponse::default()
        }
    }

    fn delta() -> DeltaDiscoveryResponse {
        let resource = Resource { name: "a".to_owned(), resource: Some(packed(300)), ..Resource::default() };
        DeltaDiscoveryResponse {
            system_version_info: String::new(),
            resources: vec![resource; 2],
            type_url: ResourceType::Endpoints.type_url().to_owned(),
            nonce: "n2".to_owned(),
            removed_resources: vec!["b".to_owned(), String::new()],
            ..DeltaDiscoveryResponse::default()
        }
    }

    fn scan(mut scanner: Scanner, pieces: &[&[u8]]) -> Result<Vec<Received>, ScanError> {
        let mut received = Vec::new();
        for piece in pieces {
            let mut input = *piece;
            while let Some(message) = scanner.next(&mut input)? {
                received.push(message);
            }
        }
        Ok(received)
    }

    fn expected_sotw() -> Received {
        Received {
            kind: Some(ResourceType::Route),
            version: b"v1".to_vec(),
            nonce: b"n1".to_vec(),
            resources: 3,
            removed: 0,
            bytes: sotw().encoded_len() as u64,
            stamps: Vec::new(),
            message: None,
        }
    }

    #[test]
    fn what_is_kept_of_each_variant_is_right() {
        let state_of_the_world = framed(&sotw());
        assert_eq!(scan(Scanner::new(false), &[&state_of_the_world]).unwrap(), [expected_sotw()]);
        let expected = Received {
            kind: Some(ResourceType::Endpoints),
            version: Vec::new(),
            nonce: b"n2".to_vec(),
            resources: 2,
            removed: 2,
            bytes: delta().encoded_len() as u64,
            stamps: Vec::new(),
            message: None,
        };
        let mut received = scan(Scanner::new(true), &[&framed(&delta())]).unwrap();
        assert_eq!(received[0].message.take(), Some(delta().encode_to_vec()), "small ones are kept");
        assert_eq!(received, [expected]);
    }

    #[test]
    fn an_empty_message_is_a_message() {
        let empty = framed(&DiscoveryResponse::default());
        assert_eq!(scan(Scanner::new(false), &[&empty, &empty]).unwrap(), vec![Received::default(); 2]);
    }

    #[test]
    fn a_kept_message_is_whole() {
        let bytes = framed(&delta());
        let pieces: Vec<_> = bytes.chunks(7).collect();
        let received = scan(Scanner::keeping(true), &pieces).unwrap();
        assert_eq!(DeltaDiscoveryResponse::decode(&**received[0].message.as_ref().unwrap()).unwrap(), delta());
    }

    proptest! {
        #[test]
        fn messages_may_be_cut_anywhere(mut cuts in prop::collection::vec(0usize..80_000, 0..20)) {
            let empty = framed(&DiscoveryResponse::default());
            let bytes = [framed(&sotw()), empty, framed(&sotw())].concat();
            cuts.extend([0, bytes.len()]);
            cuts.iter_mut().for_each(|cut| *cut = (*cut).min(bytes.len()));
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let expected = [expected_sotw(), Received::default(), expected_sotw()];
            prop_assert_eq!(scan(Scanner::new(false), &pieces).unwrap(), expected);
        }

        #[test]
        fn whatever_comes_ends_in_messages_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let framed = [&[0][..], &(bytes.len() as u32).to_be_bytes(), &bytes].concat();
            let _ = scan(Scanner::new(true), &[&framed]);
            let _ = scan(Scanner::keeping(false), &[&bytes]);
        }
    }

    #[test]
    fn what_is_no_response_is_refused() {
        assert_eq!(scan(Scanner::new(false), &[&[1, 0]]), Err(ScanError::Compressed));
        // A resource that is longer than its message; a field cut short by the message's end; a group.
        for message in [&[0x12, 0x7f, 0][..], &[0x12], &[0x13, 0x14]] {
            let bytes = [&[0, 0, 0, 0, message.len() as u8], message].concat();
            assert_eq!(scan(Scanner::new(false), &[&bytes]), Err(ScanError::Malformed), "{message:x?}");
        }
    }
}
