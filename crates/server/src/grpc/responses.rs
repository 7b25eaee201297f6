//! The messages that are sent, and the way from a stream's task to the connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::Frame;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::{FRAME_HEAD, trailers};

/// A message below this size is copied into one chunk. HTTP/2 sends every chunk as a DATA frame of its own, at most
/// 16 KiB long, so a copy of so little costs less than a second frame.
const ONE_CHUNK_BELOW: usize = 16 * 1024;

/// One message, as the chunks that HTTP/2 is to send.
pub(crate) struct Outgoing {
    chunks: VecDeque<Bytes>,
    when_taken: Option<Box<dyn FnOnce() + Send>>,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("chunks", &self.chunks.len()).finish_non_exhaustive()
    }
}

impl Outgoing {
    /// A message of `head` and then `body`; `when_taken` runs when HTTP/2 has taken the last chunk. The pieces of a
    /// large body are shared, not copied.
    ///
    /// # Errors
    /// The message is longer than gRPC can say (4 GiB).
    pub(crate) fn new(
        head: &[u8],
        body: &snapshot::Body,
        when_taken: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Status> {
        let len = u32::try_from(head.len() + body.len())
            .map_err(|_| Status::resource_exhausted("the response is longer than 4 GiB"))?;
        let is_small = head.len() + body.len() < ONE_CHUNK_BELOW;
        let mut first = BytesMut::with_capacity(FRAME_HEAD + head.len() + if is_small { body.len() } else { 0 });
        first.put_u8(0);
        first.put_u32(len);
        first.put_slice(head);
        let mut chunks = VecDeque::with_capacity(1 + if is_small { 0 } else { body.pieces().len() });
        if is_small {
            body.pieces().iter().for_each(|piece| first.put_slice(piece));
            chunks.push_back(first.freeze());
        } else {
            chunks.push_back(first.freeze());
            chunks.extend(body.pieces().iter().filter(|piece| !piece.is_empty()).cloned());
        }
        Ok(Self { chunks, when_taken: Some(Box::new(when_taken)) })
    }
}

/// The task's end. It holds one message at most: the next one is made when there is room, from what is newest then.
#[derive(Debug)]
pub(crate) struct Responses {
    messages: mpsc::Sender<Outgoing>,
    end: oneshot::Sender<Status>,
}

/// The connection's end.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    messages: mpsc::Receiver<Outgoing>,
    end: Option<oneshot::Receiver<Status>>,
    current: Option<Outgoing>,
}

impl Responses {
    /// Both ends.
    pub(crate) fn channel() -> (Self, ResponseBody) {
        let (messages, received) = mpsc::channel(1);
        let (end, ended) = oneshot::channel();
        (Self { messages, end }, ResponseBody { messages: received, end: Some(ended), current: None })
    }

    /// Whether a message can be given now.
    pub(crate) fn has_room(&self) -> bool {
        self.messages.capacity() > 0
    }

    /// Gives a message. Without room, or when the client has gone, it is dropped; ask [`Responses::has_room`] first.
    pub(crate) fn give(&self, message: Outgoing) {
        // A client that has gone is noticed through `gone`.
        let _ = self.messages.try_send(message);
    }

    /// Waits for room. Never returns once the client has gone.
    pub(crate) async fn room(&self) {
        if self.messages.reserve().await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until the client has gone.
    pub(crate) async fn gone(&self) {
        self.messages.closed().await;
    }

    /// Ends the stream with this status once what was given has been sent.
    pub(crate) fn end(self, status: Status) {
        // An error means that the client has gone.
        let _ = self.end.send(status);
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        loop {
            if let Some(current) = &mut self.current {
                let chunk = current.chunks.pop_front();
                if current.chunks.is_empty() {
                    if let Some(when_taken) = current.when_taken.take() {
                        when_taken();
                    }
                    self.current = None;
                }
                if let Some(chunk) = chunk {
                    return Poll::Ready(Some(Ok(Frame::data(chunk))));
                }
            }
            if self.end.is_none() {
                return Poll::Ready(None);
            }
            if let Some(message) = ready!(self.messages.poll_recv(cx)) {
                self.current = Some(message);
                continue;
            }
            let Some(mut end) = self.end.take() else { return Poll::Ready(None) };
            // The task says how it ends before it lets go of the messages. When it was cut off, it has said nothing.
            let status = end.try_recv().unwrap_or_else(|_| Status::unavailable("the stream was cut off"));
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_none() && self.current.is_none()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn body(sizes: &[usize]) -> snapshot::Body {
        let entries: Vec<Bytes> = sizes.iter().enumerate().map(|(i, size)| vec![i as u8; *size].into()).collect();
        snapshot::Body::join(&entries)
    }

    #[tokio::test]
    async fn a_small_message_is_one_chunk_with_the_length_before_it() {
        let (responses, mut received) = Responses::channel();
        responses.give(Outgoing::new(b"head", &body(&[3, 2]), || {}).unwrap());
        let chunk = received.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(&chunk[..], [&[0, 0, 0, 0, 9][..], b"head", &[0, 0, 0, 1, 1]].concat());
    }

    #[tokio::test]
    async fn the_pieces_of_a_large_message_are_sent_without_a_copy() {
        let (responses, mut received) = Responses::channel();
        let shared = body(&[20_000, 30_000]);
        let taken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flag = taken.clone();
        let when_taken = move || flag.store(true, std::sync::atomic::Ordering::Relaxed);
        responses.give(Outgoing::new(b"head", &shared, when_taken).unwrap());
        assert!(!responses.has_room());
        received.frame().await.unwrap().unwrap();
        for piece in shared.pieces() {
            assert!(!taken.load(std::sync::atomic::Ordering::Relaxed));
            let chunk = received.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(chunk.as_ptr(), piece.as_ptr());
        }
        assert!(taken.load(std::sync::atomic::Ordering::Relaxed));
        assert!(responses.has_room());
    }

    #[tokio::test]
    async fn the_status_comes_after_what_was_given() {
        let (responses, mut received) = Responses::channel();
        responses.give(Outgoing::new(b"last words", &snapshot::Body::default(), || {}).unwrap());
        responses.end(Status::unavailable("shutting down"));
        assert!(received.frame().await.unwrap().unwrap().is_data());
        let trailers = received.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "14");
        assert_eq!(trailers["grpc-message"], "shutting%20down");
        assert!(received.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_whose_task_was_cut_off_ends_as_unavailable() {
        let (responses, mut received) = Responses::channel();
        drop(responses);
        let trailers = received.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "14");
    }
}
