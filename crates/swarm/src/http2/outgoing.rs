//! Frames what is to be sent, as far as the peer's windows go.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::frame::{self, DATA, DEFAULT_MAX_FRAME, DEFAULT_WINDOW, HEADERS, Head, STREAM};

/// Received bytes after which credit is given back; a multiple of what a busy connection receives in a run.
const REPLENISH: u32 = 256 << 20;

/// Bytes of the stream's body.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// Bytes of this message only.
    Own(Vec<u8>),
    /// A part of bytes that many connections send.
    Shared(Arc<[u8]>, Range<usize>),
}

impl Piece {
    /// All of some shared bytes.
    pub(crate) fn all(bytes: &Arc<[u8]>) -> Self {
        Self::Shared(Arc::clone(bytes), 0..bytes.len())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes, range) => &bytes[range.clone()],
        }
    }
}

/// The sending half of a connection.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Whole frames that no window holds back.
    control: Vec<u8>,
    body: VecDeque<Piece>,
    /// Bytes of the first piece that are sent.
    sent: usize,
    connection_window: i64,
    stream_window: i64,
    initial_window: i64,
    max_frame: u32,
    /// Received bytes for which no credit was given back yet.
    owed: u32,
    /// Whether a ping follows the body.
    ping: bool,
}

impl Outgoing {
    /// Begins a connection and its one stream; `headers` are those of the request, compressed.
    pub(crate) fn begin(headers: &[u8]) -> Self {
        let mut control = Vec::with_capacity(headers.len() + 128);
        control.extend_from_slice(frame::PREFACE);
        frame::put_settings(&mut control);
        frame::put_window_update(&mut control, 0, frame::LARGEST_WINDOW - DEFAULT_WINDOW);
        Head { length: headers.len() as u32, kind: HEADERS, flags: frame::END_HEADERS, stream: STREAM }
            .put(&mut control);
        control.extend_from_slice(headers);
        let window = i64::from(DEFAULT_WINDOW);
        Self {
            control,
            body: VecDeque::new(),
            sent: 0,
            connection_window: window,
            stream_window: window,
            initial_window: window,
            max_frame: DEFAULT_MAX_FRAME,
            owed: 0,
            ping: false,
        }
    }

    /// Sends more of the body.
    pub(crate) fn push(&mut self, piece: Piece) {
        if !piece.bytes().is_empty() {
            self.body.push_back(piece);
        }
    }

    /// Asks the server for a sign of life behind the body, so that its answer says that all of it was read.
    pub(crate) fn ping(&mut self) {
        self.ping = true;
    }

    /// The peer's settings.
    pub(crate) fn settings(&mut self, initial_window: Option<u32>, max_frame: Option<u32>) {
        if let Some(window) = initial_window {
            let window = i64::from(window.min(frame::LARGEST_WINDOW));
            self.stream_window += window - self.initial_window;
            self.initial_window = window;
        }
        if let Some(max) = max_frame {
            // Larger frames would only be copied in larger portions.
            self.max_frame = max.clamp(1, DEFAULT_MAX_FRAME);
        }
        frame::put_settings_ack(&mut self.control);
    }

    /// Gives a ping's payload back.
    pub(crate) fn pong(&mut self, payload: [u8; 8]) {
        frame::put_ping(&mut self.control, frame::ACK, payload);
    }

    /// More may be sent.
    pub(crate) fn window(&mut self, stream: u32, increment: u32) {
        match stream {
            0 => self.connection_window += i64::from(increment),
            STREAM => self.stream_window += i64::from(increment),
            _ => {}
        }
    }

    /// Bytes of the body were received.
    pub(crate) fn received(&mut self, counted: u32) {
        self.owed += counted;
        if self.owed >= REPLENISH {
            frame::put_window_update(&mut self.control, 0, self.owed);
            frame::put_window_update(&mut self.control, STREAM, self.owed);
            self.owed = 0;
        }
    }

    /// Whether everything was handed out.
    pub(crate) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.body.is_empty() && !self.ping
    }

    /// Appends frames to `out`, until it holds `limit` bytes or windows are used up.
    pub(crate) fn fill(&mut self, out: &mut Vec<u8>, limit: usize) {
        out.append(&mut self.control);
        // A connection in silence keeps no buffer.
        self.control = Vec::new();
        while out.len() < limit && !self.body.is_empty() {
            let room = self.connection_window.min(self.stream_window).min(i64::from(self.max_frame));
            let waiting: usize = self.body.iter().map(|piece| piece.bytes().len()).sum::<usize>() - self.sent;
            let length = usize::try_from(room).unwrap_or(0).min(waiting);
            if length == 0 {
                return;
            }
            Head { length: length as u32, kind: DATA, flags: 0, stream: STREAM }.put(out);
            self.put_body(out, length);
            self.connection_window -= length as i64;
            self.stream_window -= length as i64;
        }
        if self.ping && self.body.is_empty() {
            frame::put_ping(out, 0, *b"swarming");
            self.ping = false;
        }
    }

    fn put_body(&mut self, out: &mut Vec<u8>, mut length: usize) {
        while let Some(piece) = self.body.front().filter(|_| length > 0) {
            let rest = &piece.bytes()[self.sent..];
            let part = &rest[..rest.len().min(length)];
            out.extend_from_slice(part);
            length -= part.len();
            if part.len() == rest.len() {
                self.body.pop_front();
                self.sent = 0;
            } else {
                self.sent += part.len();
            }
        }
        if self.body.is_empty() {
            self.body = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: usize = 100_000;

    fn filled(outgoing: &mut Outgoing) -> Vec<u8> {
        let mut out = Vec::new();
        outgoing.fill(&mut out, usize::MAX);
        out
    }

    /// Bytes of bodies in frames.
    fn body(mut frames: &[u8]) -> usize {
        let mut bytes = 0;
        while let Some((head, rest)) = frames.split_first_chunk() {
            let head = Head::read(*head);
            assert!(head.length <= DEFAULT_MAX_FRAME);
            bytes += if head.kind == DATA { head.length as usize } else { 0 };
            frames = &rest[head.length as usize..];
        }
        bytes
    }

    #[test]
    fn the_body_stops_where_the_windows_end_and_goes_on_when_they_open() {
        let mut outgoing = Outgoing::begin(b"");
        filled(&mut outgoing);
        let shared: Arc<[u8]> = vec![1; MESSAGE - 5].into();
        outgoing.push(Piece::Own(vec![0; 5]));
        outgoing.push(Piece::all(&shared));
        assert_eq!(body(&filled(&mut outgoing)), DEFAULT_WINDOW as usize);
        assert!(filled(&mut outgoing).is_empty(), "both windows are used up");
        outgoing.window(STREAM, 1_000_000);
        assert!(filled(&mut outgoing).is_empty(), "the connection's window is used up");
        outgoing.window(0, 10_000);
        assert_eq!(body(&filled(&mut outgoing)), 10_000);
        outgoing.window(0, 1_000_000);
        assert_eq!(body(&filled(&mut outgoing)), MESSAGE - DEFAULT_WINDOW as usize - 10_000);
        assert!(outgoing.is_empty());
    }

    #[test]
    fn settings_may_shrink_a_window_below_zero() {
        let mut outgoing = Outgoing::begin(b"");
        filled(&mut outgoing);
        outgoing.push(Piece::Own(vec![0; MESSAGE]));
        filled(&mut outgoing);
        outgoing.settings(Some(0), None);
        outgoing.window(0, 1_000_000);
        outgoing.window(STREAM, DEFAULT_WINDOW);
        assert_eq!(body(&filled(&mut outgoing)), 0);
        outgoing.settings(Some(50), None);
        assert_eq!(body(&filled(&mut outgoing)), 50);
    }

    #[test]
    fn credit_is_given_back_now_and_then() {
        let mut outgoing = Outgoing::begin(b"");
        filled(&mut outgoing);
        outgoing.received(REPLENISH - 1);
        assert!(outgoing.is_empty());
        outgoing.received(1);
        assert_eq!(filled(&mut outgoing).len(), 2 * (frame::HEAD + 4));
    }
}
