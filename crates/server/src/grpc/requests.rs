//! The messages that a client sends.

use std::marker::PhantomData;

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use prost::Message;
use tonic::Status;

use super::FRAME_HEAD;

/// Request messages of one stream, decoded one at a time. What has not been asked for waits in HTTP/2's window, so a
/// client cannot send faster than its stream takes requests.
#[derive(Debug)]
pub(crate) struct Requests<B, M> {
    body: B,
    buffer: BytesMut,
    max_bytes: usize,
    message: PhantomData<fn() -> M>,
}

impl<B, M> Requests<B, M>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
    M: Message + Default,
{
    /// The messages in `body`, none longer than `max_bytes`.
    pub(crate) fn new(body: B, max_bytes: usize) -> Self {
        Self { body, buffer: BytesMut::new(), max_bytes, message: PhantomData }
    }

    /// The next message; `None` when the client has said that there are no more. May be dropped while it waits
    /// without losing anything.
    ///
    /// # Errors
    /// The status with which the stream should end; nothing more can be read then.
    pub(crate) async fn next(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.take_message()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(Status::cancelled(format!("the client has gone: {error}"))),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Status::invalid_argument("the last request message is incomplete")),
            }
        }
    }

    fn take_message(&mut self) -> Result<Option<M>, Status> {
        let Some(head) = self.buffer.first_chunk::<FRAME_HEAD>() else { return Ok(None) };
        let [flag, a, b, c, d] = *head;
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
        if self.buffer.len() < FRAME_HEAD + len {
            return Ok(None);
        }
        self.buffer.advance(FRAME_HEAD);
        let message = M::decode(self.buffer.split_to(len))
            .map_err(|error| Status::invalid_argument(format!("the request message cannot be decoded: {error}")))?;
        if self.buffer.is_empty() {
            // A first request with 61 KB of node would otherwise keep its memory as long as the stream lives.
            self.buffer = BytesMut::new();
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http_body_util::StreamBody;
    use proto::pb::envoy::service::discovery::v3::DiscoveryRequest;
    use tonic::Code;

    use super::*;

    type Chunk = Result<http_body::Frame<Bytes>, std::io::Error>;

    fn requests(
        chunks: Vec<Vec<u8>>,
        max_bytes: usize,
    ) -> Requests<impl Body<Data = Bytes, Error = std::io::Error> + Unpin, DiscoveryRequest> {
        let frames: Vec<Chunk> = chunks.into_iter().map(|chunk| Ok(http_body::Frame::data(chunk.into()))).collect();
        Requests::new(StreamBody::new(tokio_stream::iter(frames)), max_bytes)
    }

    fn framed(type_url: &str) -> Vec<u8> {
        let message = DiscoveryRequest { type_url: type_url.to_owned(), ..Default::default() }.encode_to_vec();
        let mut bytes = vec![0];
        bytes.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(&message);
        bytes
    }

    #[tokio::test]
    async fn messages_come_whole_however_the_bytes_are_cut() {
        let bytes = [framed("first"), framed("second")].concat();
        for size in 1..bytes.len() {
            let mut requests = requests(bytes.chunks(size).map(<[u8]>::to_vec).collect(), 100);
            assert_eq!(requests.next().await.unwrap().unwrap().type_url, "first");
            assert_eq!(requests.next().await.unwrap().unwrap().type_url, "second");
            assert!(requests.next().await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_is_refused_before_it_is_stored() {
        let mut requests = requests(vec![vec![0, 0xff, 0xff, 0xff, 0xff]], 100);
        let status = requests.next().await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "the request message has 4294967295 bytes; at most 100 are taken");
    }

    #[tokio::test]
    async fn junk_compression_and_a_cut_end_have_statuses_of_their_own() {
        let junk = vec![vec![0, 0, 0, 0, 2, 0xff, 0xff]];
        assert_eq!(requests(junk, 100).next().await.unwrap_err().code(), Code::InvalidArgument);
        let compressed = vec![vec![1, 0, 0, 0, 0]];
        assert_eq!(requests(compressed, 100).next().await.unwrap_err().code(), Code::Unimplemented);
        let cut = vec![framed("first")[..8].to_vec()];
        assert_eq!(requests(cut, 100).next().await.unwrap_err().code(), Code::InvalidArgument);
    }
}
