//! The task of one connection.
//!
//! It serves all streams of the connection by itself: nothing is handed from task to task on the way from a snapshot
//! to the socket, and a connection that rests costs one future. Whoever wakes it says for which stream ([`Woken`]).

mod streams;

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use http2::{Event, StreamId};
use streams::{Stream, Work};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tonic::Status;
use tonic::service::Routes;

use super::stream_task::End;
use super::tolerance::Tolerance;
use super::woken::Woken;
use super::{Connection, Discovery};
use crate::listen::{Peer, Seat};
use crate::trust::{Channel, Tenure, expired, look_at};

/// Bytes that are read at one time: as much as a frame holds. They are on the stack while they are looked at.
const READ: usize = 16 * 1024;
/// Reads, and writes, of one connection before others have their turn.
const TURNS: usize = 16;
/// Pieces that are written at one time.
const SLICES: usize = 64;
/// Bytes that are joined before they are written: a message about one resource, with its frames.
const JOINED: usize = 2048;
/// What a client may have on the way to us on all streams of a connection. Requests are small and acted on at once, so
/// little is enough for full speed; a large one just takes a few more round trips.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Serves a connection until the client leaves, is cut off, has said nothing for too long, or the server's end is
/// reached.
pub(crate) async fn serve_connection<S>(
    discovery: Arc<Discovery>,
    others: Routes,
    socket: S,
    peer: Peer,
    seat: Seat,
    channel: Option<Channel>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let metrics = discovery.metrics.clone();
    let connection = Arc::new(Connection { peer, seat, opened: SystemTime::now(), channel });
    metrics.connection_opened();
    tracing::debug!(%peer, connection = connection.seat.number(), "connection opened");

    let draining = discovery.draining.child_token();
    let task = ConnectionTask::new(discovery, others, connection.clone(), socket);
    let number = connection.seat.number();
    match task.run(connection.seat.cut_off(), &draining).await {
        Closed::Over => tracing::debug!(%peer, connection = number, "connection closed"),
        Closed::Lost(error) => tracing::debug!(%peer, connection = number, %error, "connection lost"),
        Closed::By { reason } => {
            tracing::debug!(%peer, connection = number, reason, "connection closed from this side");
            metrics.connection_closed(reason);
        }
    }
    metrics.connection_ended();
}

/// How a connection ended.
enum Closed {
    /// Everything was said, or the client left.
    Over,
    Lost(io::Error),
    /// This side did not want it any more; the reason is a label of the metrics.
    By {
        reason: &'static str,
    },
}

struct ConnectionTask<S> {
    discovery: Arc<Discovery>,
    others: Routes,
    connection: Arc<Connection>,
    socket: S,
    http2: http2::Connection,
    streams: BTreeMap<StreamId, Stream>,
    woken: Arc<Woken>,
    /// Room for the streams that are looked at.
    looked_at: Vec<StreamId>,
    /// Streams that have something to send and no room.
    waiting: Vec<StreamId>,
    /// Bytes of requests that have come in part.
    partial: usize,
    tolerance: Tolerance,
    /// Set to the earliest thing that happens by itself, or earlier: it is not set back when that moves on, so that
    /// the timer need not be touched for every message.
    timer: Pin<Box<Sleep>>,
    timer_at: Instant,
    opened: Instant,
    /// When the client was heard last, and since when it has been asked whether it is there.
    heard: Instant,
    asked: Option<Instant>,
    /// Since when the client has taken no byte of what is to be sent; `None` while nothing is.
    stalled: Option<Instant>,
    /// When to look whether the client's certificate is over.
    proof_over: Option<Instant>,
    /// No new streams are wanted, and discovery streams end.
    ending: Option<Ending>,
}

/// Why a connection takes no new streams.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The server ends.
    Draining,
    /// The connection is as old as it may be (rule P-78).
    Aged,
    /// The client's certificate is over: no stream can begin on the connection any more.
    Expired,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ConnectionTask<S> {
    fn new(discovery: Arc<Discovery>, others: Routes, connection: Arc<Connection>, socket: S) -> Self {
        let limits = &discovery.config.limits;
        let http2 = http2::Connection::new(http2::Settings {
            max_streams: limits.max_streams_per_connection,
            connection_window: CONNECTION_WINDOW,
            ..http2::Settings::default()
        });
        let now = Instant::now();
        let proof_over = connection.channel.as_ref().and_then(Channel::until).map(look_at);
        let mut this = Self {
            discovery,
            others,
            connection,
            socket,
            http2,
            streams: BTreeMap::new(),
            woken: Arc::default(),
            looked_at: Vec::new(),
            waiting: Vec::new(),
            partial: 0,
            tolerance: Tolerance::new(),
            timer: Box::pin(tokio::time::sleep_until(now.into())),
            timer_at: now,
            opened: now,
            heard: now,
            asked: None,
            stalled: None,
            proof_over,
            ending: None,
        };
        this.timer_at = this.next_deadline(now);
        this.timer.as_mut().reset(this.timer_at.into());
        this
    }

    /// Serves to the end. Neither token is given up before.
    async fn run(
        mut self,
        cut_off: &tokio_util::sync::CancellationToken,
        draining: &tokio_util::sync::CancellationToken,
    ) -> Closed {
        let (mut when_cut_off, mut when_draining) = (pin!(cut_off.cancelled()), pin!(draining.cancelled()));
        let mut is_first = true;
        let closed = std::future::poll_fn(|cx| {
            if std::mem::take(&mut is_first) {
                self.woken.served_by(cx.waker());
                // The tokens are asked once, and again when they have called.
                let waker = self.woken.call();
                let _ = when_cut_off.as_mut().poll(&mut Context::from_waker(&waker));
                let _ = when_draining.as_mut().poll(&mut Context::from_waker(&waker));
            }
            if self.woken.was_called() {
                if cut_off.is_cancelled() {
                    return Poll::Ready(Closed::By { reason: "cut_off" });
                }
                if draining.is_cancelled() && self.ending != Some(Ending::Draining) {
                    self.drain();
                }
            }
            self.poll(cx)
        })
        .await;
        for (_, stream) in std::mem::take(&mut self.streams) {
            if let Work::Discovery(task) = stream.work {
                task.finish(&End::Gone);
            }
        }
        closed
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        let is_due = self.timer.as_mut().poll(cx).is_ready();
        let was_stuck = self.http2.pending_len() > 0;
        let mut is_taking = false;
        for turn in 0.. {
            let mut is_moving = match self.read(cx) {
                Ok(has_read) => has_read,
                Err(closed) => return Poll::Ready(closed),
            };
            self.poll_streams();
            // That a ping was written says nothing about a client whose windows are shut.
            is_taking |= self.http2.pump();
            match self.write(cx) {
                Ok(has_written) => {
                    (is_moving, is_taking) = (is_moving | has_written, is_taking | was_stuck & has_written)
                }
                Err(error) => return Poll::Ready(Closed::Lost(error)),
            }
            is_moving |= self.give_room();
            if self.http2.is_over() && self.http2.pending_len() == 0 {
                // Whether the client hears it is up to the client.
                return Pin::new(&mut self.socket).poll_shutdown(cx).map(|_| Closed::Over);
            }
            if !is_moving {
                break;
            }
            if turn == TURNS {
                cx.waker().wake_by_ref();
                break;
            }
        }
        self.watch_for_stalling(is_taking);
        if is_due {
            // Only now: what a client has said in time must count even if it was not heard in time, as when a whole
            // fleet comes at once.
            if let ControlFlow::Break(closed) = self.pass_time(Instant::now()) {
                return Poll::Ready(closed);
            }
            cx.waker().wake_by_ref();
        }
        self.set_timer(cx);
        Poll::Pending
    }

    /// Reads once, and takes in what came. False when there was nothing.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Closed> {
        if !self.http2.wants_more() {
            return Ok(false);
        }
        let mut space = [MaybeUninit::uninit(); READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        match Pin::new(&mut self.socket).poll_read(cx, &mut buffer) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Err(error)) => return Err(Closed::Lost(error)),
            Poll::Ready(Ok(())) => {}
        }
        let mut bytes = buffer.filled();
        if bytes.is_empty() {
            return Err(Closed::Over);
        }
        self.heard = Instant::now();
        self.asked = None;
        while let Some(event) = self.http2.receive(&mut bytes) {
            match event {
                Event::Request { stream, head } => self.open(stream, *head),
                Event::Data { stream, data } => self.receive(stream, data),
                Event::Ended { stream } => self.half_close(stream),
                Event::Reset { stream, .. } => self.forget(stream),
                Event::Pong(_) => {}
            }
        }
        Ok(true)
    }

    /// Writes until there is nothing left or the socket takes no more. True if it took something.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut has_written = false;
        while self.http2.pending_len() > 0 {
            let written = match self.write_once(cx) {
                Poll::Pending => return Ok(has_written),
                Poll::Ready(written) => written?,
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.http2.written(written);
            has_written = true;
        }
        match Pin::new(&mut self.socket).poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(has_written),
        }
    }

    /// Writes as much as one call takes. Little is joined first: sending a few bytes from one place costs the kernel less
    /// than gathering them.
    fn write_once(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let socket = Pin::new(&mut self.socket);
        let len = self.http2.pending_len();
        if len <= JOINED {
            let mut joined = [0; JOINED];
            let mut rest = &mut joined[..len];
            for piece in self.http2.pending() {
                let (to, behind) = rest.split_at_mut(piece.len());
                to.copy_from_slice(piece);
                rest = behind;
            }
            return socket.poll_write(cx, &joined[..len]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(self.http2.pending()) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        socket.poll_write_vectored(cx, &slices[..count])
    }

    /// The server ends: discovery streams do so now, other calls by themselves.
    fn drain(&mut self) {
        self.ending = Some(Ending::Draining);
        self.http2.go_away();
        let is_discovery = |found: &Stream| matches!(found.work, Work::Discovery(_));
        let streams = self.streams.iter().filter(|(_, found)| is_discovery(found));
        let streams: Vec<_> = streams.map(|(stream, _)| *stream).collect();
        for stream in streams {
            self.end_if(stream, ControlFlow::Break(End::Status(Ending::Draining.status())));
        }
    }

    /// Ends everything on the connection if the client's certificate is over: it has another one for the next connection,
    /// or it is not who it was.
    fn end_if_expired(&mut self) {
        let Some(until) = self.connection.channel.as_ref().and_then(Channel::until) else { return };
        if SystemTime::now() < until {
            self.proof_over = Some(look_at(until));
            return;
        }
        self.proof_over = None;
        tracing::info!(peer = %self.connection.peer, "the certificate of a client is over: its connection ends");
        self.ending = Some(Ending::Expired);
        self.http2.go_away();
        let streams: Vec<_> = self.streams.keys().copied().collect();
        for stream in streams {
            self.end_if(stream, ControlFlow::Break(End::Status(Ending::Expired.status())));
        }
    }

    /// Notes since when the client has taken nothing.
    fn watch_for_stalling(&mut self, is_taking: bool) {
        let has_more = self.http2.pending_len() > 0 || !self.waiting.is_empty();
        if !has_more {
            self.stalled = None;
        } else if is_taking || self.stalled.is_none() {
            let now = Instant::now();
            self.stalled = Some(now);
            self.timer_at = self.timer_at.min(now + self.discovery.config.deadlines.send);
        }
    }

    /// What happens because of the time.
    fn pass_time(&mut self, now: Instant) -> ControlFlow<Closed> {
        let deadlines = self.discovery.config.deadlines.clone();
        if now >= self.opened + deadlines.first_request && self.connection.seat.is_silent() {
            return ControlFlow::Break(Closed::By { reason: "silent" });
        }
        if self.stalled.is_some_and(|since| now >= since + deadlines.send) {
            // A status would have to wait behind what the client does not take, so the connection goes.
            let (peer, seconds) = (self.connection.peer, deadlines.send.as_secs());
            tracing::warn!(%peer, seconds, "closing the connection of a client that takes no responses");
            return ControlFlow::Break(Closed::By { reason: "cut_off" });
        }
        match self.asked {
            Some(asked) if now >= asked + deadlines.keepalive_timeout => {
                return ControlFlow::Break(Closed::By { reason: "unanswered" });
            }
            None if now >= self.heard + deadlines.keepalive_interval => {
                self.asked = Some(now);
                self.http2.ping(*b"are you?");
            }
            Some(_) | None => {}
        }
        if self.proof_over.is_some_and(|at| now >= at) {
            self.end_if_expired();
        }
        if self.ending.is_none() && self.age_limit().is_some_and(|limit| now >= limit) {
            self.ending = Some(Ending::Aged);
            self.http2.go_away();
        }
        let streams: Vec<_> = self.streams.keys().copied().collect();
        for stream in streams {
            let Some(found) = self.streams.get_mut(&stream) else { continue };
            found.mark.set();
            if let Work::Discovery(task) = &mut found.work
                && task.deadline().is_some_and(|deadline| now >= deadline)
            {
                let next = task.pass_time(now);
                self.end_if(stream, next);
            }
        }
        self.timer_at = self.next_deadline(now);
        ControlFlow::Continue(())
    }

    /// The earliest of all that happens by itself.
    fn next_deadline(&self, now: Instant) -> Instant {
        let deadlines = &self.discovery.config.deadlines;
        let keepalive = match self.asked {
            Some(asked) => asked + deadlines.keepalive_timeout,
            None => self.heard + deadlines.keepalive_interval,
        };
        let silence = (now < self.opened + deadlines.first_request).then(|| self.opened + deadlines.first_request);
        let send = self.stalled.map(|since| since + deadlines.send);
        let age = self.age_limit().filter(|_| self.ending.is_none());
        let streams = self.streams.values().filter_map(|stream| match &stream.work {
            Work::Discovery(task) => task.deadline(),
            Work::Call(_, tenure) => tenure.as_deref().map(Tenure::deadline),
        });
        [silence, send, age, self.proof_over].into_iter().flatten().chain(streams).fold(keepalive, Instant::min)
    }

    /// When the connection is as old as it may be: up to a tenth earlier or later than asked, so that those who came
    /// together do not leave together. Connections have consecutive numbers, which are spread evenly by the fraction
    /// of the golden ratio.
    fn age_limit(&self) -> Option<Instant> {
        let age = self.discovery.config.deadlines.connection_age?;
        let fraction = self.connection.seat.number().wrapping_mul(0x9e37_79b9_7f4a_7c15) as f64 / u64::MAX as f64;
        Some(self.opened + age.mul_f64(0.9 + 0.2 * fraction))
    }

    /// Sets the timer if something happens earlier than it is set for.
    fn set_timer(&mut self, cx: &mut Context<'_>) {
        let is_later = self.timer.deadline().into_std() > self.timer_at;
        if is_later || self.timer.is_elapsed() {
            self.timer.as_mut().reset(self.timer_at.into());
            if self.timer.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
    }
}

impl Ending {
    fn status(self) -> Status {
        match self {
            Ending::Draining => Status::unavailable("shutting down"),
            Ending::Aged => Status::unavailable("the connection is as old as it may be; connect again"),
            Ending::Expired => expired(),
        }
    }
}
