//! The streams of a connection: from the first bytes of a call to its end.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http2::{Reason, StreamId};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Status;

use super::{ConnectionTask, Ending};
use crate::discovery::call::{Call, has_room};
use crate::discovery::method;
use crate::discovery::proof::Proof;
use crate::discovery::stream_task::{End, StreamTask};
use crate::discovery::woken::Mark;
use crate::grpc;
use crate::trust::{Tenure, Verdict, no_proof};

/// Requests that have come in part may together be so many times as long as one may be. A client has one or two on the
/// way; one that begins thousands and finishes none would fill the memory.
const PARTIAL_REQUESTS: usize = 4;
/// The one service that is there for those who prove nothing.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// What is behind a stream.
pub(super) enum Work {
    Discovery(Box<StreamTask>),
    /// With how long the caller's proof holds.
    Call(Box<Call>, Option<Box<Tenure>>),
}

/// A stream that is served.
pub(super) struct Stream {
    pub(super) work: Work,
    pub(super) mark: Arc<Mark>,
    pub(super) waker: Waker,
    /// It is in the line of those that have something to send and no room.
    pub(super) is_waiting: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ConnectionTask<S> {
    /// A client opened a stream: a discovery stream is served here, everything else by the other services.
    pub(super) fn open(&mut self, stream: StreamId, head: Request<()>) {
        self.connection.seat.has_spoken();
        if !grpc::is_grpc(&head) {
            // As gRPC's HTTP/2 mapping asks for.
            let text = "this port speaks gRPC: the content type must be application/grpc\n";
            self.http2.respond(
                stream,
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                &HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))]),
            );
            self.http2.send(stream, Bytes::from_static(text.as_bytes()));
            return self.http2.finish(stream, None);
        }
        let mark = self.woken.mark(stream);
        let waker = Waker::from(mark.clone());
        let work = match method::find(head.uri().path()) {
            None => match self.call(head, waker.clone()) {
                Ok((call, tenure)) => Work::Call(Box::new(call), tenure),
                Err(status) => return self.refuse(stream, &status),
            },
            Some((service, variant)) => {
                let proof = self.connection.channel.as_ref().map(|channel| Proof::of(channel, head.headers()));
                let unproved = proof.as_ref().is_some_and(Option::is_none).then(no_proof);
                if let Some(status) = unproved.or_else(|| self.discovery.refusal()) {
                    return self.refuse(stream, &status);
                }
                self.http2.respond(stream, StatusCode::OK, &grpc::headers());
                let (discovery, connection) = (self.discovery.clone(), self.connection.clone());
                let task = StreamTask::new(discovery, connection, service, variant, proof.flatten());
                Work::Discovery(Box::new(task))
            }
        };
        self.streams.insert(stream, Stream { work, mark, waker, is_waiting: false });
    }

    /// Begins a call of another service: over TLS with who calls, and how long the proof holds. What says whether the
    /// server is well is for everybody.
    fn call(&self, mut head: Request<()>, waker: Waker) -> Result<(Call, Option<Box<Tenure>>), Status> {
        let services = self.others.clone();
        let Some(channel) = &self.connection.channel else { return Ok((Call::new(services, head, waker), None)) };
        if head.uri().path().starts_with(HEALTH) {
            return Ok((Call::new(services, head, waker), None));
        }
        let verdict = channel.caller(head.headers());
        // Nobody else needs to know the token.
        head.headers_mut().remove(header::AUTHORIZATION);
        head.extensions_mut().insert(self.connection.peer);
        match verdict {
            Verdict::Known(caller) => {
                let caller = caller?;
                let tenure = Tenure::of(&caller);
                head.extensions_mut().insert(caller);
                Ok((Call::new(services, head, waker), tenure))
            }
            Verdict::Awaited(proving) => Ok((Call::unproved(services, head, proving, waker), None)),
        }
    }

    /// Ends a stream before anything is said on it.
    fn refuse(&mut self, stream: StreamId, status: &Status) {
        let peer = self.connection.peer;
        tracing::debug!(%peer, message = status.message(), "stream refused");
        self.discovery.metrics.stream_refused(status.code());
        self.http2.respond(stream, StatusCode::OK, &grpc::headers());
        self.http2.finish(stream, Some(&grpc::trailers(status)));
    }

    pub(super) fn receive(&mut self, stream: StreamId, data: &[u8]) {
        let Some(found) = self.streams.get_mut(&stream) else {
            return self.http2.release(stream, data.len());
        };
        found.mark.set();
        let next = match &mut found.work {
            Work::Discovery(task) => {
                self.http2.release(stream, data.len());
                let before = task.partial();
                let next = task.receive(data);
                self.partial = self.partial - before + task.partial();
                let most = self.discovery.config.limits.max_request_bytes.saturating_mul(PARTIAL_REQUESTS);
                if next.is_continue() && self.partial > most {
                    let message =
                        format!("requests that have come in part have {} bytes on this connection", self.partial);
                    ControlFlow::Break(End::Status(Status::resource_exhausted(message)))
                } else {
                    next
                }
            }
            Work::Call(call, _) => {
                call.receive(data);
                ControlFlow::Continue(())
            }
        };
        self.end_if(stream, next);
    }

    pub(super) fn half_close(&mut self, stream: StreamId) {
        let Some(found) = self.streams.get_mut(&stream) else { return };
        found.mark.set();
        let next = match &mut found.work {
            Work::Discovery(task) => task.half_close(),
            Work::Call(call, _) => {
                call.end(Ok(()));
                ControlFlow::Continue(())
            }
        };
        self.end_if(stream, next);
    }

    /// The client has given a stream up.
    pub(super) fn forget(&mut self, stream: StreamId) {
        let was_served = match self.take_out(stream) {
            None => return,
            Some(Work::Discovery(task)) => {
                let was_served = task.has_been_served();
                task.finish(&End::Gone);
                was_served
            }
            Some(Work::Call(call, _)) => call.is_answered(),
        };
        if !self.tolerance.bears(was_served) && !self.http2.is_over() {
            let peer = self.connection.peer;
            tracing::warn!(%peer, "closing the connection of a client that resets its streams before they are served");
            self.discovery.metrics.connection_closed("resets");
            self.http2.end(Reason::EnhanceYourCalm);
        }
    }

    /// A stream is served no more.
    fn take_out(&mut self, stream: StreamId) -> Option<Work> {
        let work = self.streams.remove(&stream)?.work;
        if let Work::Discovery(task) = &work {
            self.partial -= task.partial();
        }
        Some(work)
    }

    /// Looks at the streams that were woken.
    pub(super) fn poll_streams(&mut self) {
        let mut streams = std::mem::take(&mut self.looked_at);
        self.woken.take(&mut streams);
        for stream in streams.drain(..) {
            self.poll_stream(stream);
        }
        self.looked_at = streams;
    }

    fn poll_stream(&mut self, stream: StreamId) {
        let Some(found) = self.streams.get_mut(&stream) else { return };
        found.mark.clear();
        let cx = &mut Context::from_waker(&found.waker);
        let (next, wants_room, deadline) = match &mut found.work {
            Work::Discovery(task) => {
                let next = task.poll(cx, &mut self.http2, stream);
                (next, task.wants_room(&self.http2, stream), task.deadline())
            }
            Work::Call(call, tenure) => {
                match call.poll_caller(cx) {
                    Ok(None) => {}
                    Ok(proved) => *tenure = proved,
                    Err(status) => return self.end_if(stream, ControlFlow::Break(End::Status(status))),
                }
                if call.poll(cx, &mut self.http2, stream).is_ready() {
                    self.streams.remove(&stream);
                    return;
                }
                let over = tenure.as_mut().and_then(|tenure| tenure.poll(cx, Instant::now()));
                let next = over.map_or(ControlFlow::Continue(()), |status| ControlFlow::Break(End::Status(status)));
                (next, call.wants_room(&self.http2, stream), tenure.as_deref().map(Tenure::deadline))
            }
        };
        if wants_room && !std::mem::replace(&mut found.is_waiting, true) {
            self.waiting.push(stream);
        }
        if let Some(deadline) = deadline {
            self.timer_at = self.timer_at.min(deadline);
        }
        self.end_if(stream, next);
        if self.ending.is_some() {
            self.end_stream_if_served(stream);
        }
    }

    /// Lets streams that wait for room look again when there is some. True if any did.
    pub(super) fn give_room(&mut self) -> bool {
        let mut waiting = std::mem::take(&mut self.waiting);
        let before = waiting.len();
        waiting.retain(|stream| {
            let Some(found) = self.streams.get_mut(stream) else { return false };
            found.is_waiting = !has_room(&self.http2, *stream);
            if !found.is_waiting {
                found.mark.set();
            }
            found.is_waiting
        });
        let has_room = waiting.len() < before;
        self.waiting = waiting;
        has_room
    }

    /// Ends a stream from this side if it is to end.
    pub(super) fn end_if(&mut self, stream: StreamId, next: ControlFlow<End>) {
        let ControlFlow::Break(end) = next else { return };
        match self.take_out(stream) {
            Some(Work::Discovery(task)) => {
                match &end {
                    End::Gone => self.http2.reset(stream, Reason::Cancel),
                    End::Status(status) => self.http2.finish(stream, Some(&grpc::trailers(status))),
                }
                task.finish(&end);
            }
            Some(Work::Call(call, _)) => match &end {
                End::Gone => self.http2.reset(stream, Reason::Cancel),
                End::Status(status) => {
                    if !call.is_answered() {
                        self.http2.respond(stream, StatusCode::OK, &grpc::headers());
                    }
                    self.http2.finish(stream, Some(&grpc::trailers(status)));
                }
            },
            None => {}
        }
    }

    /// Ends a stream of a connection that is as old as it may be, once the client has something: gRPC takes the end of
    /// a stream that said nothing for an error.
    fn end_stream_if_served(&mut self, stream: StreamId) {
        let is_served = self.streams.get(&stream).is_some_and(|found| match &found.work {
            Work::Discovery(task) => task.has_been_served(),
            Work::Call(..) => false,
        });
        if is_served && self.ending == Some(Ending::Aged) {
            self.end_if(stream, ControlFlow::Break(End::Status(Ending::Aged.status())));
        }
    }
}
