//! What a peer knows of a connection. It reads the frames of both sides and holds the server to RFC 9113: no more data
//! than the windows allow, what was given and in its order, nothing on a stream that is over.

use std::collections::BTreeMap;

use http2::{Connection, StreamId};

use super::frames::{self, Frame, MAX_PAYLOAD, MAX_WINDOW, Scanner};

const INITIAL_WINDOW: i64 = 65_535;

/// A stream that the server has told its application of.
#[derive(Debug)]
pub struct Stream {
    pub id: StreamId,
    /// What the server may send, less what its settings began with.
    pub credit: i64,
    /// What this side may send on it.
    pub allowance: i64,
    /// Data that the application gave, and that arrived.
    pub given: u64,
    pub arrived: u64,
    /// The application has answered with a head.
    pub has_answer: bool,
    /// It has ended its side.
    pub is_finished: bool,
    /// This side said that it ends.
    pub is_ended: bool,
    /// The application was told that it has ended.
    pub end_was_told: bool,
    /// Told to the application, and not released.
    pub unreleased: usize,
    has_head: bool,
    server_ended: bool,
    /// Neither side may say anything more on it.
    pub is_over: bool,
}

/// The peer's side of one connection.
#[derive(Debug)]
pub struct Peer {
    said: Said,
    pub streams: BTreeMap<u32, Stream>,
    /// The last stream that the server has told of.
    pub last_heard: u32,
    /// What the server may send on all streams together, and what its windows begin with.
    pub window: i64,
    pub initial_window: i64,
    /// What this side may send on all streams together.
    pub allowance: i64,
    /// The code of a GOAWAY that tells of an error.
    pub error: Option<u32>,
    pub has_said_goaway: bool,
    /// Settings and pings of this side that were not answered yet, and the server's own pings.
    unanswered: [u64; 2],
    has_settings: bool,
    /// The stream of the header block that came last from this side, and whether it ends with it.
    block: (u32, bool),
    /// A header block of the server is not complete.
    continued: Option<u32>,
    /// How much of what is pending was looked at.
    seen: usize,
}

/// What this side has said, as the server reads it.
#[derive(Debug)]
enum Said {
    Preface(usize),
    Frames(Scanner),
}

/// The byte that the application sends at a place of a stream.
pub fn byte_at(stream: u32, at: u64) -> u8 {
    (at.wrapping_mul(31) ^ u64::from(stream)) as u8
}

impl Peer {
    pub fn new() -> Self {
        Self {
            said: Said::Preface(0),
            streams: BTreeMap::new(),
            last_heard: 0,
            window: INITIAL_WINDOW,
            initial_window: INITIAL_WINDOW,
            allowance: INITIAL_WINDOW,
            error: None,
            has_said_goaway: false,
            unanswered: [0; 2],
            has_settings: false,
            block: (0, false),
            continued: None,
            seen: 0,
        }
    }

    /// Streams that are open in the application's eyes.
    pub fn open(&self) -> impl Iterator<Item = (&u32, &Stream)> {
        self.streams.iter().filter(|(_, stream)| !stream.is_over)
    }

    pub fn opened(&mut self, number: u32, id: StreamId) {
        assert!(number > self.last_heard && number % 2 == 1, "stream {number} is told of after {}", self.last_heard);
        self.last_heard = number;
        let stream = Stream {
            id,
            credit: 0,
            allowance: INITIAL_WINDOW,
            given: 0,
            arrived: 0,
            has_answer: false,
            is_finished: false,
            is_ended: self.block == (number, true),
            end_was_told: false,
            unreleased: 0,
            has_head: false,
            server_ended: false,
            is_over: false,
        };
        self.streams.insert(number, stream);
    }

    /// The application was told of data.
    pub fn data_was_told(&mut self, number: u32, len: usize) {
        assert!(len > 0);
        let stream = self.streams.get_mut(&number).expect("data comes on a stream that was told of");
        assert!(!stream.is_over && !stream.end_was_told, "data of stream {number} after its end");
        stream.unreleased += len;
        assert!(stream.unreleased as i64 <= INITIAL_WINDOW, "stream {number} has sent more than its window");
    }

    pub fn end_was_told(&mut self, number: u32) {
        let stream = self.streams.get_mut(&number).expect("a stream that was told of ends");
        assert!(!stream.is_over && !stream.end_was_told, "stream {number} ends after its end");
        (stream.is_ended, stream.end_was_told) = (true, true);
    }

    pub fn reset_was_told(&mut self, number: u32) {
        let stream = self.streams.get_mut(&number).expect("a stream that was told of is reset");
        assert!(!stream.is_over, "stream {number} is reset after its end");
        stream.is_over = true;
    }

    /// The server has taken these bytes of this side in.
    pub fn said(&mut self, mut bytes: &[u8]) {
        if let Said::Preface(count) = &mut self.said {
            let (now, later) = bytes.split_at(bytes.len().min(frames::PREFACE.len() - *count));
            *count += now.len();
            if *count < frames::PREFACE.len() {
                return;
            }
            bytes = later;
            self.said = Said::Frames(Scanner::default());
        }
        let Said::Frames(scanner) = &mut self.said else { return };
        scanner.add(bytes);
        while let Said::Frames(scanner) = &mut self.said
            && let Some(frame) = scanner.next()
        {
            self.grant(&frame);
        }
    }

    /// Whether this side is in the middle of a frame.
    pub fn is_within_frame(&self) -> bool {
        match &self.said {
            Said::Preface(_) => true,
            Said::Frames(scanner) => scanner.is_within(),
        }
    }

    /// What a frame of this side lets the server do.
    fn grant(&mut self, frame: &Frame) {
        match frame.kind {
            frames::SETTINGS if !frame.has(frames::ACK) => {
                self.unanswered[0] += 1;
                for entry in frame.payload.as_chunks::<6>().0 {
                    let [0, 4, value @ ..] = entry else { continue };
                    self.initial_window = u32::from_be_bytes(*value).into();
                }
            }
            frames::PING if !frame.has(frames::ACK) => self.unanswered[1] += 1,
            frames::WINDOW_UPDATE => {
                let more = i64::from(frame.number().unwrap_or(0) & 0x7fff_ffff);
                match self.streams.get_mut(&frame.stream) {
                    Some(stream) => stream.credit += more,
                    None if frame.stream == 0 => self.window += more,
                    None => {}
                }
            }
            frames::DATA => {
                self.allowance -= frame.payload.len() as i64;
                if let Some(stream) = self.streams.get_mut(&frame.stream) {
                    stream.allowance -= frame.payload.len() as i64;
                }
                if frame.has(frames::END_STREAM) {
                    self.ends(frame.stream);
                }
            }
            frames::HEADERS | frames::CONTINUATION => {
                if frame.kind == frames::HEADERS {
                    self.block = (frame.stream, frame.has(frames::END_STREAM));
                }
                if frame.has(frames::END_HEADERS) && self.block.1 {
                    self.ends(frame.stream);
                }
            }
            _ => {}
        }
    }

    /// This side says no more on a stream.
    fn ends(&mut self, number: u32) {
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.is_ended = true;
            stream.is_over |= stream.server_ended;
        }
    }

    /// The first `count` bytes of what is pending have been taken.
    pub fn took(&mut self, count: usize) {
        self.seen -= count;
    }

    /// Looks at what the server has made ready since the last time.
    pub fn look(&mut self, connection: &Connection) {
        let mut scanner = Scanner::default();
        let mut skip = self.seen;
        for piece in connection.pending() {
            let now = skip.min(piece.len());
            skip -= now;
            scanner.add(&piece[now..]);
        }
        self.seen = connection.pending_len();
        while let Some(frame) = scanner.next() {
            self.hear(&frame);
        }
        assert!(!scanner.is_within(), "half a frame is to be written");
    }

    fn hear(&mut self, frame: &Frame) {
        assert!(frame.payload.len() <= MAX_PAYLOAD);
        assert!(self.error.is_none(), "{frame:?} comes after the end of the connection");
        assert!(self.has_settings || frame.kind == frames::SETTINGS, "{frame:?} comes before the settings");
        if let Some(stream) = self.continued {
            assert!((frame.kind, frame.stream) == (frames::CONTINUATION, stream), "{frame:?} within a block");
        }
        match frame.kind {
            frames::SETTINGS if frame.has(frames::ACK) => self.answered(0),
            frames::SETTINGS => assert!(!std::mem::replace(&mut self.has_settings, true)),
            frames::PING if frame.has(frames::ACK) => self.answered(1),
            frames::PING => {}
            frames::GOAWAY => {
                let code = u32::from_be_bytes(frame.payload[4..8].try_into().expect("a GOAWAY has a code"));
                self.has_said_goaway = true;
                self.error = (code != 0).then_some(code);
                if self.error.is_some() {
                    self.streams.values_mut().for_each(|stream| stream.is_over = true);
                }
            }
            frames::WINDOW_UPDATE => {
                let more = i64::from(frame.number().expect("a window has four bytes"));
                let window = match self.streams.get_mut(&frame.stream) {
                    Some(stream) => {
                        assert!(!stream.is_over, "room on stream {}, which is over", frame.stream);
                        &mut stream.allowance
                    }
                    None => {
                        assert_eq!(frame.stream, 0, "room on a stream that was not told of");
                        &mut self.allowance
                    }
                };
                *window += more;
                assert!(more > 0 && *window <= MAX_WINDOW);
            }
            frames::DATA => self.hear_data(frame),
            frames::HEADERS => {
                let stream = self.streams.get_mut(&frame.stream).expect("heads answer streams that were told of");
                assert!(!stream.is_over && !stream.server_ended, "{frame:?} on a stream that is over");
                let ends = frame.has(frames::END_STREAM);
                if std::mem::replace(&mut stream.has_head, true) {
                    assert!(ends && stream.is_finished && stream.arrived == stream.given, "trailers too early");
                }
                stream.server_ended = ends;
                stream.is_over |= ends && stream.is_ended;
                self.continued = (!frame.has(frames::END_HEADERS)).then_some(frame.stream);
            }
            frames::CONTINUATION => {
                assert!(self.continued.is_some());
                self.continued = (!frame.has(frames::END_HEADERS)).then_some(frame.stream);
            }
            frames::RST_STREAM => {
                if let Some(stream) = self.streams.get_mut(&frame.stream) {
                    let is_rest = stream.server_ended && !stream.is_ended && frame.number() == Some(0);
                    assert!(is_rest || !stream.server_ended, "{frame:?} on a stream that is over");
                    (stream.server_ended, stream.is_over) = (true, true);
                }
            }
            kind => panic!("a server does not send frames of kind {kind}"),
        }
    }

    fn hear_data(&mut self, frame: &Frame) {
        let stream = self.streams.get_mut(&frame.stream).expect("data answers streams that were told of");
        assert!(stream.has_head && !stream.is_over && !stream.server_ended, "{frame:?} on a stream that is over");
        let len = frame.payload.len() as i64;
        stream.credit -= len;
        self.window -= len;
        let room = (self.initial_window + stream.credit).min(self.window);
        assert!(len == 0 || room >= 0, "stream {}: {len} bytes, {room} too many", frame.stream);
        for byte in &frame.payload {
            assert_eq!(*byte, byte_at(frame.stream, stream.arrived), "what arrives is what was given");
            stream.arrived += 1;
        }
        assert!(stream.arrived <= stream.given);
        if frame.has(frames::END_STREAM) {
            assert!(stream.is_finished && stream.arrived == stream.given, "the end comes too early");
            stream.server_ended = true;
            stream.is_over |= stream.is_ended;
        }
    }

    fn answered(&mut self, what: usize) {
        assert!(self.unanswered[what] > 0, "an answer to nothing");
        self.unanswered[what] -= 1;
    }

    /// Whether all that must be answered was.
    pub fn is_answered(&self) -> bool {
        self.unanswered == [0, 0]
    }
}
