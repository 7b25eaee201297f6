//! The bare fan-out: connections over the `h2` crate, and one frame for all of them.
//!
//! One thread. A connection is one task that drives HTTP/2 and reads what its stream says; nothing is known about a
//! client but where to send. Frames are shared, never copied by this code.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::recording::{Messages, Recording, Variant};

/// What is sent to whom.
#[derive(Debug)]
pub(super) struct FanOut {
    variant: Variant,
    recording: Recording,
    /// One for every open stream, in order of arrival.
    streams: RefCell<Vec<Rc<RefCell<SendStream<Bytes>>>>>,
}

/// What a steady fan-out came to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub(super) changes: u64,
    pub(super) deliveries: u64,
    /// Deliveries that were left out because the client had not taken the one before.
    pub(super) skipped: u64,
}

/// A stream that still holds so many bytes gets no further frame of a steady fan-out.
const MOST_BUFFERED: usize = 400 * 1024;

impl FanOut {
    pub(super) fn new(variant: Variant, recording: Recording) -> Rc<Self> {
        Rc::new(Self { variant, recording, streams: RefCell::default() })
    }

    /// Takes connections until dropped. Must run within a `LocalSet`.
    pub(super) async fn accept(self: Rc<Self>, listener: TcpListener) -> Result<()> {
        let mut connections = JoinSet::new();
        loop {
            let (socket, peer) = listener.accept().await.context("cannot accept")?;
            let this = self.clone();
            connections.spawn_local(async move {
                if let Err(error) = this.connection(socket).await {
                    tracing::debug!(%peer, error = format!("{error:#}"), "connection lost");
                }
            });
            while connections.try_join_next().is_some() {}
        }
    }

    /// Sends the change to every stream; how many there were.
    pub(super) fn send(&self, change: &str) -> usize {
        let Some(frame) = self.recording.changes.get(change) else { return 0 };
        let streams = self.streams.borrow();
        // A stream that has just broken is dropped by its connection.
        streams.iter().filter(|stream| stream.borrow_mut().send_data(frame.clone(), false).is_ok()).count()
    }

    /// Sends the change at a steady rate, each time to the next `width` streams.
    pub(super) async fn churn(&self, change: &str, rate: u32, lasting: Duration, width: usize) -> Sent {
        let Some(frame) = self.recording.changes.get(change) else { return Sent::default() };
        let due_in_all = u64::from(rate) * lasting.as_millis() as u64 / 1000;
        let mut sent = Sent::default();
        let mut next = 0;
        let begun = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        while sent.changes < due_in_all && begun.elapsed() < lasting + Duration::from_secs(2) {
            ticks.tick().await;
            let due = ((begun.elapsed().as_secs_f64() * f64::from(rate)) as u64).min(due_in_all);
            let streams = self.streams.borrow();
            for _ in sent.changes..due {
                for _ in 0..width.min(streams.len()) {
                    let mut stream = streams[next % streams.len()].borrow_mut();
                    next += 1;
                    stream.reserve_capacity(frame.len());
                    if stream.capacity() < frame.len() {
                        sent.skipped += 1;
                    } else if stream.send_data(frame.clone(), false).is_ok() {
                        sent.deliveries += 1;
                    }
                }
            }
            sent.changes = due;
        }
        sent
    }

    /// What the control can have sent, and how large it is.
    pub(super) fn changes(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.recording.changes.iter().map(|(name, frame)| (*name, frame.len()))
    }

    async fn connection(&self, socket: TcpStream) -> Result<()> {
        socket.set_nodelay(true)?;
        let mut builder = h2::server::Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 20);
        builder.max_send_buffer_size(MOST_BUFFERED);
        let mut connection: Connection<_, Bytes> = builder.handshake(socket).await?;
        let Some(opened) = connection.accept().await else { return Ok(()) };
        let (request, respond) = opened?;
        let stream = Rc::new(RefCell::new(head(respond)?));
        self.streams.borrow_mut().push(stream.clone());
        let ended = self.stream(&mut connection, request.into_body(), &stream).await;
        self.streams.borrow_mut().retain(|other| !Rc::ptr_eq(other, &stream));
        ended
    }

    /// Drives the connection and its one stream until the client goes.
    async fn stream(
        &self,
        connection: &mut Connection<TcpStream, Bytes>,
        mut requests: RecvStream,
        responses: &RefCell<SendStream<Bytes>>,
    ) -> Result<()> {
        let mut messages = Messages::default();
        let mut is_open = true;
        poll_fn(|cx| {
            loop {
                // Reads, writes, and takes no second stream.
                match connection.poll_accept(cx) {
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                    Poll::Ready(Some(Ok((_, mut respond)))) => respond.send_reset(h2::Reason::REFUSED_STREAM),
                    Poll::Pending if !is_open => return Poll::Pending,
                    Poll::Pending => match requests.poll_data(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Some(Ok(bytes))) => {
                            if let Err(error) = self.take_in(&bytes, &mut messages, &mut requests, responses) {
                                return Poll::Ready(Err(error));
                            }
                        }
                        Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                        Poll::Ready(None) => is_open = false,
                    },
                }
            }
        })
        .await
    }

    fn take_in(
        &self,
        bytes: &[u8],
        messages: &mut Messages,
        requests: &mut RecvStream,
        responses: &RefCell<SendStream<Bytes>>,
    ) -> Result<()> {
        requests.flow_control().release_capacity(bytes.len())?;
        messages.extend(bytes);
        while let Some(message) = messages.next() {
            let request = self.variant.request(&message)?;
            if !request.is_first {
                continue;
            }
            if let Some(frame) = self.recording.first.get(&request.type_url) {
                responses.borrow_mut().send_data(frame.clone(), false)?;
            }
        }
        Ok(())
    }
}

/// The head of a response whose body goes on for as long as the stream.
fn head(mut respond: SendResponse<Bytes>) -> Result<SendStream<Bytes>> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::OK;
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    *response.headers_mut() = headers;
    Ok(respond.send_response(response, false)?)
}
