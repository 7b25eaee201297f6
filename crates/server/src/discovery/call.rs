//! A call of another service than discovery, on a connection of ours.
//!
//! The services are tonic's. A call gives them the request as an HTTP body, and takes their answer piece by piece, when
//! the connection has room.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use http2::StreamId;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt;

use crate::trust::{Proving, Tenure};

/// What of an answer may wait to be written before more of it is asked for.
const ROOM: usize = 64 * 1024;

/// A call that is being answered.
pub(super) struct Call {
    inbox: Arc<Mutex<Inbox>>,
    answer: Answer,
}

enum Answer {
    /// It is not known yet who calls.
    Proving(Box<Unproved>),
    /// The service has not begun to answer.
    Awaited(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
    Body(Body),
}

/// A call of somebody who is being asked about.
struct Unproved {
    proving: Proving,
    services: Routes,
    request: Request<Body>,
}

/// What the client has sent and the service has not taken yet.
#[derive(Debug, Default)]
struct Inbox {
    data: VecDeque<Bytes>,
    end: Option<Result<(), Status>>,
    /// Bytes that need no room any more.
    taken: usize,
    /// The service wants nothing more.
    is_unwanted: bool,
    service: Option<Waker>,
    connection: Option<Waker>,
}

/// The request's body, as the service sees it.
#[derive(Debug)]
struct RequestBody {
    inbox: Arc<Mutex<Inbox>>,
}

/// What the service that is called answers.
fn answer(services: Routes, request: Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
    Box::pin(async move {
        match services.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    })
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("inbox", &self.inbox).finish_non_exhaustive()
    }
}

impl Call {
    /// Begins a call. `connection` wakes whoever is to poll it.
    pub(super) fn new(services: Routes, head: Request<()>, connection: Waker) -> Self {
        let inbox = Arc::new(Mutex::new(Inbox { connection: Some(connection), ..Inbox::default() }));
        let request = head.map(|()| Body::new(RequestBody { inbox: inbox.clone() }));
        Self { inbox, answer: Answer::Awaited(answer(services, request)) }
    }

    /// The same by somebody about whom somebody else is being asked. The service hears of it when that is answered.
    pub(super) fn unproved(services: Routes, head: Request<()>, proving: Proving, connection: Waker) -> Self {
        let inbox = Arc::new(Mutex::new(Inbox { connection: Some(connection), ..Inbox::default() }));
        let request = head.map(|()| Body::new(RequestBody { inbox: inbox.clone() }));
        Self { inbox, answer: Answer::Proving(Box::new(Unproved { proving, services, request })) }
    }

    /// Who calls, once, when that was not known at the beginning and is known now.
    ///
    /// # Errors
    /// What the call ends with instead.
    pub(super) fn poll_caller(&mut self, cx: &mut Context<'_>) -> Result<Option<Box<Tenure>>, Status> {
        let Answer::Proving(unproved) = &mut self.answer else { return Ok(None) };
        let Poll::Ready(caller) = unproved.proving.as_mut().poll(cx) else { return Ok(None) };
        let caller = caller?;
        let tenure = Tenure::of(&caller);
        let mut request = std::mem::take(&mut unproved.request);
        request.extensions_mut().insert(caller);
        self.answer = Answer::Awaited(answer(unproved.services.clone(), request));
        Ok(tenure)
    }

    /// The client sent data.
    pub(super) fn receive(&self, data: &[u8]) {
        let mut inbox = lock(&self.inbox);
        if inbox.is_unwanted {
            inbox.taken += data.len();
            return;
        }
        inbox.data.push_back(Bytes::copy_from_slice(data));
        wake(inbox.service.take());
    }

    /// The client sends nothing more: because it said so, or because it has gone.
    pub(super) fn end(&self, end: Result<(), Status>) {
        let mut inbox = lock(&self.inbox);
        inbox.end.get_or_insert(end);
        wake(inbox.service.take());
    }

    /// Moves the answer on. `Ready` when it is complete.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, http2: &mut http2::Connection, stream: StreamId) -> Poll<()> {
        let is_done = self.poll_answer(cx, http2, stream);
        let taken = std::mem::take(&mut lock(&self.inbox).taken);
        if taken > 0 {
            http2.release(stream, taken);
        }
        is_done
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>, http2: &mut http2::Connection, stream: StreamId) -> Poll<()> {
        if let Answer::Awaited(answer) = &mut self.answer {
            let Poll::Ready(response) = answer.as_mut().poll(cx) else { return Poll::Pending };
            let (head, body) = response.into_parts();
            if body.is_end_stream() {
                http2.respond_and_finish(stream, head.status, &head.headers);
                return Poll::Ready(());
            }
            http2.respond(stream, head.status, &head.headers);
            self.answer = Answer::Body(body);
        }
        let Answer::Body(body) = &mut self.answer else { return Poll::Pending };
        while has_room(http2, stream) {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => http2.send(stream, data),
                    Err(frame) => {
                        http2.finish(stream, frame.trailers_ref());
                        return Poll::Ready(());
                    }
                },
                Poll::Ready(Some(Err(status))) => {
                    http2.finish(stream, Some(&crate::grpc::trailers(&status)));
                    return Poll::Ready(());
                }
                Poll::Ready(None) => {
                    http2.finish(stream, None);
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }

    /// Whether the service has begun to answer.
    pub(super) fn is_answered(&self) -> bool {
        matches!(self.answer, Answer::Body(_))
    }

    /// Whether more of the answer could be taken if there were room.
    pub(super) fn wants_room(&self, http2: &http2::Connection, stream: StreamId) -> bool {
        matches!(self.answer, Answer::Body(_)) && !has_room(http2, stream)
    }
}

/// Whether the next message can be given.
pub(super) fn has_room(http2: &http2::Connection, stream: StreamId) -> bool {
    http2.is_sent(stream) && http2.pending_len() < ROOM
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut inbox = lock(&self.inbox);
        if let Some(data) = inbox.data.pop_front() {
            inbox.taken += data.len();
            wake(inbox.connection.clone());
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match &inbox.end {
            None => {
                inbox.service = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(status)) => Poll::Ready(Some(Err(status.clone()))),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let mut inbox = lock(&self.inbox);
        inbox.is_unwanted = true;
        inbox.taken += inbox.data.drain(..).map(|data| data.len()).sum::<usize>();
        wake(inbox.connection.take());
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // A service that has moved the request to a task of its own learns there that the client has gone.
        let mut inbox = lock(&self.inbox);
        inbox.connection = None;
        inbox.end.get_or_insert_with(|| Err(Status::cancelled("the client has gone")));
        wake(inbox.service.take());
    }
}

fn lock(inbox: &Mutex<Inbox>) -> std::sync::MutexGuard<'_, Inbox> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
