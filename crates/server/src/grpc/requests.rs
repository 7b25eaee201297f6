//! The messages that a client sends.

use prost::Message;
use tonic::Status;

use super::FRAME_HEAD;

/// So much is made room for at once for a message that has come in part. More follows as more comes: what a client
/// says of a length costs nothing.
const ROOM: usize = 64 * 1024;

/// Puts the messages of one stream together. Holds memory only while a message has come in part: a first request with
/// 61 KB of node would otherwise keep it as long as the stream lives.
#[derive(Debug)]
pub(crate) struct Requests {
    /// The part that has come, with gRPC's head.
    held: Vec<u8>,
    max_bytes: usize,
}

impl Requests {
    /// Messages that are no longer than `max_bytes`.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { held: Vec::new(), max_bytes }
    }

    /// Whether a message has come in part.
    pub(crate) fn is_in_message(&self) -> bool {
        !self.held.is_empty()
    }

    /// Bytes of a message that has come in part.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// The next message, of what is held and then `data`, of which the rest remains. `None` when all of it was taken.
    ///
    /// # Errors
    /// The status with which the stream should end; nothing more can be read then.
    pub(crate) fn next<M: Message + Default>(&mut self, data: &mut &[u8]) -> Result<Option<M>, Status> {
        // Nearly always a message comes alone and whole.
        if self.held.is_empty()
            && let Some((head, rest)) = data.split_first_chunk()
            && let Some((message, rest)) = rest.split_at_checked(self.len(*head)?)
        {
            *data = rest;
            return decode(message).map(Some);
        }
        self.hold(data, FRAME_HEAD);
        let Some(head) = self.held.first_chunk() else { return Ok(None) };
        let whole = FRAME_HEAD + self.len(*head)?;
        self.hold(data, whole);
        if self.held.len() < whole {
            return Ok(None);
        }
        let held = std::mem::take(&mut self.held);
        decode(&held[FRAME_HEAD..]).map(Some)
    }

    /// Takes of `data` until `whole` bytes are held.
    fn hold(&mut self, data: &mut &[u8], whole: usize) {
        let missing = whole.saturating_sub(self.held.len());
        let (now, later) = data.split_at(missing.min(data.len()));
        if self.held.capacity() - self.held.len() < now.len() {
            self.held.reserve_exact(missing.min(ROOM.max(self.held.len())).max(now.len()));
        }
        self.held.extend_from_slice(now);
        *data = later;
    }

    /// The length of a message, of its head.
    fn len(&self, [flag, a, b, c, d]: [u8; FRAME_HEAD]) -> Result<usize, Status> {
        if flag != 0 {
            return Err(Status::unimplemented("compressed requests are not supported"));
        }
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if len > self.max_bytes {
            return Err(Status::resource_exhausted(format!(
                "the request message has {len} bytes; at most {} are taken",
                self.max_bytes
            )));
        }
        Ok(len)
    }
}

fn decode<M: Message + Default>(message: &[u8]) -> Result<M, Status> {
    M::decode(message)
        .map_err(|error| Status::invalid_argument(format!("the request message cannot be decoded: {error}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proto::pb::envoy::service::discovery::v3::DiscoveryRequest;
    use tonic::Code;

    use super::*;

    /// The type URLs of all messages in these chunks.
    fn types(chunks: &[&[u8]]) -> Result<Vec<String>, Status> {
        let (mut requests, mut types) = (Requests::new(100_000), Vec::new());
        for chunk in chunks {
            let mut data = *chunk;
            while let Some(message) = requests.next::<DiscoveryRequest>(&mut data)? {
                types.push(message.type_url);
            }
            assert!(data.is_empty());
        }
        assert!(!requests.is_in_message());
        assert_eq!(requests.held.capacity(), 0);
        Ok(types)
    }

    fn framed(type_url: &str) -> Vec<u8> {
        let message = DiscoveryRequest { type_url: type_url.to_owned(), ..Default::default() }.encode_to_vec();
        let mut bytes = vec![0];
        bytes.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(&message);
        bytes
    }

    #[test]
    fn messages_come_whole_however_the_bytes_are_cut() {
        let bytes = [framed("first"), framed("second"), framed("")].concat();
        for size in 1..=bytes.len() {
            let chunks: Vec<_> = bytes.chunks(size).collect();
            assert_eq!(types(&chunks).unwrap(), ["first", "second", ""]);
        }
    }

    #[test]
    fn a_long_message_takes_the_memory_that_it_needs() {
        let long = "x".repeat(80_000);
        let bytes = framed(&long);
        let mut requests = Requests::new(100_000);
        for chunk in bytes[..70_000].chunks(4_096) {
            assert!(requests.next::<DiscoveryRequest>(&mut { chunk }).unwrap().is_none());
            assert!(requests.held.capacity() <= bytes.len());
        }
        assert_eq!(types(&bytes.chunks(4_096).collect::<Vec<_>>()).unwrap(), [long]);
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_before_it_is_stored() {
        let status = types(&[&[0, 0xff, 0xff, 0xff, 0xff]]).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "the request message has 4294967295 bytes; at most 100000 are taken");
    }

    #[test]
    fn junk_and_compression_have_statuses_of_their_own() {
        assert_eq!(types(&[&[0, 0, 0, 0, 2, 0xff, 0xff]]).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(types(&[&[1, 0, 0, 0, 0]]).unwrap_err().code(), Code::Unimplemented);
    }
}
