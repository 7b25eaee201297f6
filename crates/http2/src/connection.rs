//! The state machine of one connection.

mod incoming;
mod request;
mod stream;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use self::incoming::{Block, Reading};
use self::stream::{Ending, Stream};
use crate::frame::{self, Head, MAX_PAYLOAD};
use crate::output::Output;
use crate::{Reason, Settings, StreamId, hpack};

/// What both sides begin with (RFC 9113, 6.9.2).
const INITIAL_WINDOW: i64 = 65_535;
const MAX_WINDOW: i64 = 0x7fff_ffff;
/// Frames are made until so much waits to be written. They refer to data and do not hold it; this bounds how much of
/// the windows is spoken for by what could still be overtaken by another stream.
const PUMP_UNTIL: usize = 256 * 1024;
/// So much of answers and heads may wait until nothing more should be read: a client that pings and does not read
/// would otherwise fill the memory.
const OWN_UNTIL: usize = 64 * 1024;

/// The server's end of one connection.
#[derive(Debug)]
pub struct Connection {
    settings: Settings,
    /// Where in the client's bytes reading stands.
    reading: Reading,
    head: [u8; frame::HEAD],
    held: u8,
    /// The client's settings have come.
    has_begun: bool,
    decoder: hpack::Decoder,
    /// A header block that has come in part.
    block: Option<Box<Block>>,
    /// The client has ended this stream; to be told next.
    ended: Option<u32>,
    streams: BTreeMap<u32, Box<Stream>>,
    /// The last stream that the client has begun.
    last_stream: u32,
    /// Streams that have data to send and room in their own window, and some that are gone since.
    ready: VecDeque<u32>,
    output: Output,
    /// What may be sent, and what the client may send, on all streams together.
    send_window: i64,
    receive_window: i64,
    /// Received and released, but not given back to the client yet.
    released: usize,
    /// What the windows of streams begin with, of which the client may change its mind at any time.
    initial_window: i64,
    /// It has become larger, and the streams have not been looked at since.
    is_initial_window_larger: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// One side has said that no new streams are wanted.
    Draining,
    /// The client broke the protocol; all that is left is to tell it.
    Broken,
}

impl Connection {
    /// A connection on which nothing was said yet.
    pub fn new(settings: Settings) -> Self {
        let receive_window = i64::from(settings.connection_window).clamp(INITIAL_WINDOW, MAX_WINDOW);
        let mut this = Self {
            reading: Reading::Preface(0),
            head: [0; frame::HEAD],
            held: 0,
            has_begun: false,
            decoder: hpack::Decoder::new(),
            block: None,
            ended: None,
            streams: BTreeMap::new(),
            last_stream: 0,
            ready: VecDeque::new(),
            output: Output::default(),
            send_window: INITIAL_WINDOW,
            receive_window,
            released: 0,
            initial_window: INITIAL_WINDOW,
            is_initial_window_larger: false,
            phase: Phase::Open,
            settings,
        };
        let mut payload = Vec::with_capacity(12);
        // SETTINGS_MAX_CONCURRENT_STREAMS and SETTINGS_MAX_HEADER_LIST_SIZE.
        for (id, value) in [(3u16, this.settings.max_streams), (6, this.settings.max_header_bytes)] {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        this.control(frame::SETTINGS, 0, 0, &payload);
        if receive_window > INITIAL_WINDOW {
            this.control(frame::WINDOW_UPDATE, 0, 0, &((receive_window - INITIAL_WINDOW) as u32).to_be_bytes());
        }
        this
    }

    /// Begins the answer on a stream. Nothing happens if the stream is gone.
    pub fn respond(&mut self, stream: StreamId, status: StatusCode, headers: &HeaderMap) {
        if self.streams.contains_key(&stream.0) {
            self.headers(stream.0, &hpack::response(status, headers), 0);
        }
    }

    /// Answers with a head and nothing else. Nothing happens if the stream is gone.
    pub fn respond_and_finish(&mut self, stream: StreamId, status: StatusCode, headers: &HeaderMap) {
        if self.streams.contains_key(&stream.0) {
            self.headers(stream.0, &hpack::response(status, headers), frame::END_STREAM);
            self.forget(stream.0);
        }
    }

    /// Gives data to be sent after the answer's head. Large pieces are shared until they are written. Nothing happens
    /// if the stream is gone or was finished.
    pub fn send(&mut self, stream: StreamId, data: Bytes) {
        if let Some(found) = self.streams.get_mut(&stream.0)
            && found.ending.is_none()
            && !data.is_empty()
        {
            found.unsent_bytes += data.len();
            found.unsent.push_back(data);
            self.make_ready(stream.0);
        }
    }

    /// Ends this side of a stream after all that was given, with trailers if there are any. Then the stream is gone:
    /// what the client still wanted to say on it is not heard.
    pub fn finish(&mut self, stream: StreamId, trailers: Option<&HeaderMap>) {
        if let Some(found) = self.streams.get_mut(&stream.0)
            && found.ending.is_none()
        {
            let ending = match trailers {
                Some(trailers) => Ending::Trailers(hpack::trailers(trailers)),
                None => Ending::Plain,
            };
            if found.unsent.is_empty() {
                // An end needs no room in any window.
                self.end_stream(stream.0, ending);
            } else {
                found.ending = Some(ending);
            }
        }
    }

    /// Gives a stream up at once.
    pub fn reset(&mut self, stream: StreamId, reason: Reason) {
        if self.streams.remove(&stream.0).is_some() {
            self.control(frame::RST_STREAM, 0, stream.0, &(reason as u32).to_be_bytes());
        }
    }

    /// Whether all that was given to [`Connection::send`] on this stream has become frames. True if it is gone.
    pub fn is_sent(&self, stream: StreamId) -> bool {
        self.streams.get(&stream.0).is_none_or(|stream| stream.unsent.is_empty())
    }

    /// Lets the client send so much more on the stream, and on the connection. For data of streams that are gone, too.
    pub fn release(&mut self, stream: StreamId, count: usize) {
        self.release_on_connection(count);
        if let Some(found) = self.streams.get_mut(&stream.0).filter(|stream| !stream.is_remote_done) {
            found.released += count;
            if found.released as i64 >= INITIAL_WINDOW / 2 {
                let increment = std::mem::take(&mut found.released);
                found.receive_window += increment as i64;
                self.control(frame::WINDOW_UPDATE, 0, stream.0, &(increment as u32).to_be_bytes());
            }
        }
    }

    /// Asks the client whether it is there; [`Event::Pong`](crate::Event::Pong) is its answer.
    pub fn ping(&mut self, payload: [u8; 8]) {
        self.control(frame::PING, 0, 0, &payload);
    }

    /// Tells the client to begin no more streams here. Those that are open go on; those that come all the same are
    /// not heard, and the client knows that it may try them elsewhere.
    pub fn go_away(&mut self) {
        if self.phase == Phase::Open {
            self.say_go_away(Reason::NoError);
        }
        self.phase = self.phase.max(Phase::Draining);
    }

    /// Ends the connection at once, because the client asks too much.
    pub fn end(&mut self, reason: Reason) {
        self.fail(reason);
    }

    /// Whether any stream is open.
    pub fn has_streams(&self) -> bool {
        !self.streams.is_empty()
    }

    /// Whether nothing more will happen: once all that is pending is written the connection should be closed.
    pub fn is_over(&self) -> bool {
        match self.phase {
            Phase::Open => false,
            Phase::Draining => self.streams.is_empty(),
            Phase::Broken => true,
        }
    }

    /// Whether more should be read: not while a client leaves our answers lying.
    pub fn wants_more(&self) -> bool {
        self.output.own() < OWN_UNTIL && self.phase != Phase::Broken
    }

    /// Bytes of memory that it holds for the client, about: all but the data that was given to be sent.
    pub fn held(&self) -> usize {
        let payload = match &self.reading {
            Reading::Payload { held, .. } => held.capacity(),
            _ => 0,
        };
        let block = self.block.as_ref().map_or(0, |block| block.len());
        let lines = self.ready.capacity() * size_of::<u32>();
        let streams = self.streams.len() * (size_of::<Stream>() + size_of::<(u32, Box<Stream>)>());
        payload + block + lines + streams + self.decoder.held() + self.output.held()
    }

    /// Makes frames of what was given, as far as the client's windows have room. True if that changed something.
    pub fn pump(&mut self) -> bool {
        if std::mem::take(&mut self.is_initial_window_larger)
            && let Err(reason) = self.widen_windows()
        {
            self.fail(reason);
        }
        let before = self.output.len();
        while self.output.len() < PUMP_UNTIL && self.send_window > 0 {
            let Some(id) = self.ready.pop_front() else { break };
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.is_ready = false;
            if self.send_frame(id) {
                self.make_ready(id);
            }
        }
        if self.ready.is_empty() {
            self.ready = VecDeque::new();
        }
        self.output.len() != before
    }

    /// What is to be written, in order.
    pub fn pending(&self) -> impl Iterator<Item = &[u8]> {
        self.output.iter()
    }

    /// Bytes that are to be written.
    pub fn pending_len(&self) -> usize {
        self.output.len()
    }

    /// The first `count` bytes of what is pending were written.
    pub fn written(&mut self, count: usize) {
        self.output.advance(count);
    }

    /// Makes one frame of data. True if the stream has more for which its window has room.
    fn send_frame(&mut self, id: u32) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        let room = stream.send_window(self.initial_window).min(self.send_window).clamp(0, MAX_PAYLOAD as i64) as usize;
        let len = stream.unsent_bytes.min(room);
        if len == 0 {
            return false;
        }
        stream.credit -= len as i64;
        self.send_window -= len as i64;
        let ending = stream.ending.take_if(|_| len == stream.unsent_bytes);
        let flags = if matches!(ending, Some(Ending::Plain)) { frame::END_STREAM } else { 0 };
        self.output.copy(&Head { len, kind: frame::DATA, flags, stream: id }.encode());
        stream.take(len, |piece| self.output.share(piece));
        match ending {
            Some(Ending::Plain) => self.forget(id),
            Some(ending) => self.end_stream(id, ending),
            None => return stream.can_send(self.initial_window),
        }
        false
    }

    /// Ends this side of a stream all of whose data was sent.
    fn end_stream(&mut self, id: u32, ending: Ending) {
        match ending {
            Ending::Plain => self.control(frame::DATA, frame::END_STREAM, id, &[]),
            Ending::Trailers(block) => self.headers(id, &block, frame::END_STREAM),
        }
        self.forget(id);
    }

    /// The answer is complete, and the rest of the request is not wanted (RFC 9113, 8.1).
    fn forget(&mut self, id: u32) {
        if let Some(stream) = self.streams.remove(&id)
            && !stream.is_remote_done
        {
            self.control(frame::RST_STREAM, 0, id, &(Reason::NoError as u32).to_be_bytes());
        }
    }

    /// Puts a stream in line if it has data to send and its window lets it.
    fn make_ready(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.is_ready
            && stream.can_send(self.initial_window)
        {
            stream.is_ready = true;
            if self.ready.len() > 2 * self.streams.len() {
                // A client that resets its streams and keeps its windows shut would make the line grow without end.
                self.ready.retain(|id| self.streams.contains_key(id));
            }
            self.ready.push_back(id);
        }
    }

    /// The windows of all streams are larger than they were. Not done for each setting: a client may change it in
    /// every fifteen bytes and have very many streams.
    ///
    /// # Errors
    /// The window of one is too large.
    fn widen_windows(&mut self) -> Result<(), Reason> {
        for (id, stream) in &mut self.streams {
            if stream.send_window(self.initial_window) > MAX_WINDOW {
                return Err(Reason::FlowControl);
            }
            if !stream.is_ready && stream.can_send(self.initial_window) {
                stream.is_ready = true;
                self.ready.push_back(*id);
            }
        }
        Ok(())
    }

    fn release_on_connection(&mut self, count: usize) {
        self.released += count;
        if self.released as i64 >= INITIAL_WINDOW.max(self.settings.connection_window.into()) / 2 {
            let increment = std::mem::take(&mut self.released);
            self.receive_window += increment as i64;
            self.control(frame::WINDOW_UPDATE, 0, 0, &(increment as u32).to_be_bytes());
        }
    }

    /// A header block, in as many frames as it takes.
    fn headers(&mut self, stream: u32, block: &[u8], flags: u8) {
        let mut kind = frame::HEADERS;
        let mut chunks = block.chunks(MAX_PAYLOAD).peekable();
        let mut flags = flags;
        loop {
            let chunk = chunks.next().unwrap_or_default();
            let end = if chunks.peek().is_none() { frame::END_HEADERS } else { 0 };
            self.control(kind, flags | end, stream, chunk);
            if end != 0 {
                return;
            }
            (kind, flags) = (frame::CONTINUATION, 0);
        }
    }

    fn control(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        if self.phase == Phase::Broken {
            // GOAWAY was the last word.
            return;
        }
        self.output.copy(&Head { len: payload.len(), kind, flags, stream }.encode());
        self.output.copy(payload);
    }

    fn say_go_away(&mut self, reason: Reason) {
        let mut payload = [0; 8];
        payload[..4].copy_from_slice(&self.last_stream.to_be_bytes());
        payload[4..].copy_from_slice(&(reason as u32).to_be_bytes());
        self.control(frame::GOAWAY, 0, 0, &payload);
    }

    /// The client broke a rule of the connection.
    fn fail(&mut self, reason: Reason) {
        if self.phase != Phase::Broken {
            self.say_go_away(reason);
            self.phase = Phase::Broken;
            self.streams.clear();
            self.ready = VecDeque::new();
            self.block = None;
        }
    }
}

impl Phase {
    fn max(self, other: Phase) -> Phase {
        if self as u8 > other as u8 { self } else { other }
    }
}
