//! Reads any bytes as what a peer says over one connection of HTTP/2 and what the application does meanwhile, and lets
//! the server's machine live through it.
//!
//! A peer that keeps to RFC 9113 must never lose its connection, and all that the application gives must reach it in
//! the end; one that breaks a rule must be told which; and of one that sends anything at all the machine must keep no
//! more than it says. [`peer::Peer`] looks at every frame.

#[path = "frames.rs"]
mod frames;
#[path = "input.rs"]
mod input;
#[path = "peer.rs"]
mod peer;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use http2::{Connection, Event, Reason, Settings, StreamId};

use self::frames::{END_HEADERS, END_STREAM, MAX_PAYLOAD, frame, padded, rst_stream, settings, window_update};
use self::input::Input;
use self::peer::Peer;

const MAX_STREAMS: u32 = 5;
const MAX_HEADER_BYTES: u32 = 1_000;
/// What a machine may hold: answers until it stops reading and frames until it stops making them, each in pieces that
/// grow by doubling; and what is small beside these.
const MAX_HELD: usize = 2 * (64 + 256) * 1024 + 64 * 1024;
/// So large may what the application has given and the machine has not sent become.
const MAX_GIVEN: u64 = 1 << 20;

/// Codes of errors.
const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const FRAME_SIZE: u32 = 6;
const COMPRESSION: u32 = 9;

struct Session {
    connection: Connection,
    peer: Peer,
    /// What the application was told of and has not released, in order.
    unreleased: Vec<(StreamId, u32, usize)>,
    /// The last stream that the peer has begun.
    last_begun: u32,
    /// The peer has added to the table of header fields.
    has_entry: bool,
    /// The peer has kept to the rules.
    is_honest: bool,
}

/// Lives through `data`, and panics when the machine breaks a promise.
pub fn live(data: &[u8]) {
    let mut input = Input::new(data);
    let connection_window = input.pick(&[65_535, 100_000, 1 << 20]);
    let begins = input.byte();
    let mut session = Session {
        connection: Connection::new(Settings {
            max_streams: MAX_STREAMS,
            connection_window,
            max_header_bytes: MAX_HEADER_BYTES,
        }),
        peer: Peer::new(),
        unreleased: Vec::new(),
        last_begun: 0,
        has_entry: false,
        is_honest: !begins.is_multiple_of(8),
    };
    session.peer.look(&session.connection);
    if session.is_honest {
        session.deliver(&[frames::PREFACE, &settings(&[])].concat(), 0);
    }
    while !input.is_empty() {
        session.step(&mut input);
        if !input.byte().is_multiple_of(4) {
            session.pump();
        }
        session.check();
    }
    if session.is_honest && !session.connection.is_over() {
        session.end_well();
    }
    session.take(usize::MAX);
    session.check();
}

impl Session {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 24 {
            0..=2 => self.begin_stream(input),
            3 | 4 => self.send_data(input),
            5 => self.send_trailers(input),
            6 | 7 => self.open_windows(input),
            8 => self.change_settings(input),
            9 => self.send_small(input),
            10 | 11 => {
                let count = usize::from(input.byte()) * input.pick(&[1, 10, 1_000]);
                self.take(count);
            }
            12..=15 => self.respond(input),
            16 => self.finish(input),
            17 => match input.byte() % 8 {
                0 => {
                    self.connection.go_away();
                    self.look();
                }
                1 => {
                    self.connection.ping(input.number().to_be_bytes());
                    self.look();
                }
                _ => {
                    if let Some((number, id)) = self.some_stream(input) {
                        self.connection.reset(id, Reason::Cancel);
                        self.look();
                        assert!(self.peer.streams[&number].is_over);
                    }
                }
            },
            18 | 19 => {
                let count = 1 + usize::from(input.byte() % 8);
                for (id, number, len) in self.unreleased.drain(..count.min(self.unreleased.len())) {
                    self.connection.release(id, len);
                    self.peer.streams.get_mut(&number).expect("it was told of").unreleased -= len;
                }
                self.look();
            }
            20 => self.break_a_rule_of_a_stream(input),
            21 => self.break_a_rule(input),
            22 => {
                self.is_honest = false;
                let (kind, flags, stream) = (input.byte() % 12, input.byte(), u32::from(input.byte() % 16));
                let payload = input.bytes();
                self.deliver(&frame(kind, flags, stream, &payload), input.byte());
            }
            _ => {
                self.is_honest = false;
                let bytes = input.bytes();
                self.deliver(&bytes, input.byte());
            }
        }
    }

    fn look(&mut self) {
        self.peer.look(&self.connection);
    }

    fn pump(&mut self) {
        let before = self.connection.pending_len();
        let has_changed = self.connection.pump();
        assert_eq!(has_changed, before != self.connection.pending_len());
        self.look();
    }

    fn take(&mut self, count: usize) {
        let count = count.min(self.connection.pending_len());
        self.connection.written(count);
        self.peer.took(count);
    }

    /// Gives bytes to the machine in pieces of this size, or whole.
    fn deliver(&mut self, bytes: &[u8], piece: u8) {
        for piece in bytes.chunks(if piece == 0 { usize::MAX } else { piece.into() }) {
            if !self.connection.wants_more() {
                self.take(usize::MAX);
            }
            let mut rest = piece;
            loop {
                let before = rest;
                let event = self.connection.receive(&mut rest);
                self.peer.said(&before[..before.len() - rest.len()]);
                let Some(event) = event else { break };
                match event {
                    Event::Request { stream, head } => {
                        assert!(head.uri().path().starts_with('/'));
                        self.peer.opened(number(stream), stream);
                        assert!(self.peer.open().count() <= MAX_STREAMS as usize, "more streams than there may be");
                    }
                    Event::Data { stream, data } => {
                        self.peer.data_was_told(number(stream), data.len());
                        self.unreleased.push((stream, number(stream), data.len()));
                    }
                    Event::Ended { stream } => self.peer.end_was_told(number(stream)),
                    Event::Reset { stream, .. } => self.peer.reset_was_told(number(stream)),
                    Event::Pong(_) => {}
                }
                self.peer.look(&self.connection);
            }
            assert!(rest.is_empty(), "bytes are left over");
            self.look();
        }
    }

    /// What must hold at any time.
    fn check(&mut self) {
        assert!(self.connection.held() <= MAX_HELD, "{} bytes are held", self.connection.held());
        let is_broken = self.peer.error.is_some();
        assert!(!is_broken || self.connection.is_over());
        assert!(self.peer.allowance >= 0 || is_broken, "the peer has sent more than its windows");
        if is_broken {
            return;
        }
        assert!(!self.is_honest || self.peer.is_answered(), "settings and pings are answered at once");
        assert_eq!(self.peer.open().next().is_some(), self.connection.has_streams());
        for stream in self.peer.streams.values() {
            assert!(stream.is_over || stream.given == stream.arrived || !self.connection.is_sent(stream.id));
            assert!(stream.is_over || stream.allowance >= 0, "stream {} has sent more than its window", stream.id);
        }
    }

    /// One of the streams that are open in the application's eyes, and that it has not finished.
    fn some_stream(&self, input: &mut Input<'_>) -> Option<(u32, StreamId)> {
        let streams: Vec<_> = self.peer.open().filter(|(_, stream)| !stream.is_finished).collect();
        let (number, stream) = streams.get(usize::from(input.byte()) % streams.len().max(1))?;
        Some((**number, stream.id))
    }

    fn begin_stream(&mut self, input: &mut Input<'_>) {
        let mut block = vec![0x83, 0x86, 0x44, 5];
        block.extend_from_slice(b"/call");
        for _ in 0..input.byte() % 4 {
            match input.byte() % 5 {
                // Into the table, by name of the static table; and whatever came last.
                0 => {
                    block.extend([0x7a, 3, b'o', b'n', b'e']);
                    self.has_entry = true;
                }
                1 if self.has_entry => block.push(0xbe),
                // A coded text, a long one, and another size of the table.
                2 => block.extend([0x0f, 0x2b, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
                3 => {
                    block.extend([0, 1, b'x', 100]);
                    block.extend([b'y'; 100]);
                }
                _ => {
                    block.splice(0..0, [0x3f, 0x45]);
                    self.has_entry &= !block.contains(&0x7a);
                }
            }
        }
        if block.iter().filter(|byte| **byte == 0xbe).count() > 0 && block[0] == 0x3f {
            // What the smaller table still has is not followed here.
            block = vec![0x83, 0x86, 0x84];
        }
        self.last_begun += 2;
        let stream = self.last_begun - 1;
        let bytes = self.header_block(stream, &block, input);
        self.deliver(&bytes, input.byte());
    }

    /// A block as HEADERS, perhaps with a priority and padding, and CONTINUATION.
    fn header_block(&mut self, stream: u32, block: &[u8], input: &mut Input<'_>) -> Vec<u8> {
        let form = input.byte();
        let ends = if form & 1 == 1 { END_STREAM } else { 0 };
        let padding = (form & 2 == 2).then_some(form);
        let (first, rest) = block.split_at(if form & 4 == 4 { block.len() / 2 } else { block.len() });
        let (priority, has_priority) =
            if form & 8 == 8 { (&[0, 0, 0, 1, 9][..], frames::HAS_PRIORITY) } else { (&[][..], 0) };
        let is_whole = if rest.is_empty() { END_HEADERS } else { 0 };
        let flags = ends | has_priority | is_whole;
        let mut bytes = padded(frames::HEADERS, flags, stream, &[priority, first].concat(), padding);
        if !rest.is_empty() {
            bytes.extend(frame(frames::CONTINUATION, END_HEADERS, stream, rest));
        }
        bytes
    }

    /// Data, on a stream that may be over on the other side, as far as the windows allow.
    fn send_data(&mut self, input: &mut Input<'_>) {
        let streams: Vec<_> = self.peer.streams.iter().filter(|(_, stream)| !stream.is_ended).collect();
        let at = usize::from(input.byte()) % streams.len().max(1);
        let wanted = i64::from(input.byte()) * input.pick(&[1, 1, 64, 256]);
        let (form, piece) = (input.byte(), input.byte());
        let Some((number, stream)) = streams.get(at) else { return };
        let padding = (form & 2 == 2).then_some(form / 4);
        let overhead = padding.map_or(0, |padding| 1 + i64::from(padding));
        let room = self.peer.allowance.min(stream.allowance).min(MAX_PAYLOAD as i64) - overhead;
        if room < 0 || self.peer.has_said_goaway && stream.is_over {
            return;
        }
        let ends = if form & 1 == 1 { END_STREAM } else { 0 };
        let data = vec![7; wanted.min(room) as usize];
        self.deliver(&padded(frames::DATA, ends, **number, &data, padding), piece);
    }

    fn send_trailers(&mut self, input: &mut Input<'_>) {
        let streams: Vec<u32> = self.peer.streams.iter().filter(|(_, s)| !s.is_ended).map(|(n, _)| *n).collect();
        let Some(number) = streams.get(usize::from(input.byte()) % streams.len().max(1)) else { return };
        let block = [0, 1, b'a', 1, b'b'];
        self.deliver(&frame(frames::HEADERS, END_STREAM | END_HEADERS, *number, &block), input.byte());
    }

    fn open_windows(&mut self, input: &mut Input<'_>) {
        let more = input.pick(&[1, 2, 100, 16_384, 100_000, 1 << 24]);
        let stream = if input.byte().is_multiple_of(2) { 0 } else { self.begun(input) };
        // The largest that there can be is never reached: streams begin with 2^24 at most.
        let window = self.peer.streams.get(&stream).map_or(self.peer.window, |stream| stream.credit);
        if window + i64::from(more) < 1 << 30 {
            self.deliver(&window_update(stream, more), 0);
        }
    }

    /// A stream that the peer has begun, over or not; 0 if there is none.
    fn begun(&self, input: &mut Input<'_>) -> u32 {
        let back = u32::from(input.byte()) % 8 * 2;
        self.last_begun.saturating_sub(1).saturating_sub(back)
    }

    fn change_settings(&mut self, input: &mut Input<'_>) {
        let entries: Vec<(u16, u32)> = (0..input.byte() % 4)
            .map(|_| match input.byte() % 4 {
                0 | 1 => (4, input.pick(&[0, 1, 100, 65_535, 1 << 24])),
                2 => (input.pick(&[1, 3, 6, 77]), input.byte().into()),
                _ => input.pick(&[(2, 0), (5, 16_384), (5, 16_777_215)]),
            })
            .collect();
        self.deliver(&settings(&entries), input.byte());
    }

    fn send_small(&mut self, input: &mut Input<'_>) {
        let (kind, piece) = (input.byte() % 8, input.byte());
        let bytes = match kind {
            0 => frame(frames::PING, 0, 0, &input.number().to_be_bytes()),
            1 => frame(frames::PING, frames::ACK, 0, b"12345678"),
            2 => frame(frames::SETTINGS, frames::ACK, 0, &[]),
            3 => frame(frames::PRIORITY, 0, 1 + u32::from(input.byte()), &[0, 0, 0, 0, 1]),
            4 => frame(200, 255, u32::from(input.byte()), &input.bytes()),
            5 => frame(frames::GOAWAY, 0, 0, &[0; 12]),
            _ => match self.begun(input) {
                0 => return,
                stream => rst_stream(stream, input.byte().into()),
            },
        };
        self.deliver(&bytes, piece);
    }

    /// The application answers, or gives data.
    fn respond(&mut self, input: &mut Input<'_>) {
        let (size, unit) = (u64::from(input.byte()), input.pick(&[1, 10, 300]));
        let Some((number, id)) = self.some_stream(input) else { return };
        let stream = self.peer.streams.get_mut(&number).expect("it is open");
        if !stream.has_answer {
            stream.has_answer = true;
            if size == 0 {
                stream.is_finished = true;
                self.connection.respond_and_finish(id, StatusCode::NOT_FOUND, &HeaderMap::new());
            } else {
                self.connection.respond(id, StatusCode::OK, &HeaderMap::new());
            }
        } else if stream.given - stream.arrived < MAX_GIVEN {
            let data: Vec<u8> =
                (stream.given..stream.given + size * unit).map(|at| peer::byte_at(number, at)).collect();
            stream.given += data.len() as u64;
            self.connection.send(id, Bytes::from(data));
        }
        self.look();
    }

    /// The application ends a stream that it has answered.
    fn finish(&mut self, input: &mut Input<'_>) {
        let Some((number, id)) = self.some_stream(input) else { return };
        let stream = self.peer.streams.get_mut(&number).expect("it is open");
        if !stream.has_answer {
            return;
        }
        stream.is_finished = true;
        let trailers = match input.byte() % 4 {
            0 => None,
            1 => Some(HeaderMap::from_iter([(http::header::VIA, HeaderValue::from_static("here"))])),
            2 => Some(HeaderMap::new()),
            // More than a frame.
            _ => {
                let long = HeaderValue::from_bytes(&[b'z'; 20_000]).expect("letters");
                Some(HeaderMap::from_iter([(http::header::VIA, long)]))
            }
        };
        self.connection.finish(id, trailers.as_ref());
        self.look();
    }

    /// What costs the stream and nothing else.
    fn break_a_rule_of_a_stream(&mut self, input: &mut Input<'_>) {
        let Some((number, _)) = self.some_stream(input) else { return };
        let stream = &self.peer.streams[&number];
        let bytes = match input.byte() % 5 {
            0 => window_update(number, 0),
            1 if stream.credit + self.peer.initial_window > 0 => window_update(number, 0x7fff_ffff),
            2 => frame(frames::HEADERS, END_HEADERS, number, &[0x83]),
            3 if stream.is_ended && self.peer.allowance > 0 => frame(frames::DATA, 0, number, b"x"),
            _ => {
                let len = stream.allowance + 1;
                if len > self.peer.allowance || len > MAX_PAYLOAD as i64 {
                    return;
                }
                frame(frames::DATA, 0, number, &vec![0; len as usize])
            }
        };
        self.deliver(&bytes, input.byte());
        assert!(!self.is_honest || self.peer.streams[&number].is_over);
    }

    /// What costs the connection.
    fn break_a_rule(&mut self, input: &mut Input<'_>) {
        let (kind, n) = (input.byte(), u32::from(input.byte()));
        let idle = self.last_begun + 1 + 2 * n;
        let known = self.begun(input);
        let (bytes, code) = match kind % 24 {
            0 => (frame(frames::DATA, 0, 0, b"x"), PROTOCOL),
            1 => (frame(frames::DATA, 0, idle, b"x"), PROTOCOL),
            2 if known > 0 && self.peer.allowance >= 2 => {
                (frame(frames::DATA, frames::PADDED, known, &[9, 0]), PROTOCOL)
            }
            3 => (frame(kind, 0, known, &vec![0; MAX_PAYLOAD + 1]), FRAME_SIZE),
            4 => (frame(frames::HEADERS, END_HEADERS, 2 * n, &[0x83]), PROTOCOL),
            5 => (frame(frames::PUSH_PROMISE, END_HEADERS, known, &[0; 8]), PROTOCOL),
            6 => (frame(frames::SETTINGS, 0, 1 + n, &[]), PROTOCOL),
            7 => (frame(frames::SETTINGS, 0, 0, &[0; 7]), FRAME_SIZE),
            8 => (frame(frames::SETTINGS, frames::ACK, 0, &[0; 6]), FRAME_SIZE),
            9 => (settings(&[(4, 0x8000_0000 + n)]), FLOW_CONTROL),
            10 => (settings(&[(5, n)]), PROTOCOL),
            11 => (settings(&[(2, 2 + n)]), PROTOCOL),
            12 => (frame(frames::PING, 0, 0, &[0; 9]), FRAME_SIZE),
            13 => (frame(frames::PING, 0, 1 + n, &[0; 8]), PROTOCOL),
            14 => (window_update(0, 0), PROTOCOL),
            15 if self.peer.window > 0 => (window_update(0, 0x7fff_ffff), FLOW_CONTROL),
            16 => (window_update(idle, 1), PROTOCOL),
            17 => (rst_stream(idle, n), PROTOCOL),
            18 => (frame(frames::RST_STREAM, 0, known, &[0; 3]), FRAME_SIZE),
            19 => (frame(frames::HEADERS, END_HEADERS, idle, &[0x80]), COMPRESSION),
            20 => ([frame(frames::HEADERS, 0, idle, &[0x83]), settings(&[])].concat(), PROTOCOL),
            21 => (frame(frames::CONTINUATION, END_HEADERS, known, &[0x83]), PROTOCOL),
            22 if self.peer.allowance < MAX_PAYLOAD as i64 && known > 0 => {
                (frame(frames::DATA, 0, known, &[0; MAX_PAYLOAD]), FLOW_CONTROL)
            }
            _ => (rst_stream(0, n), PROTOCOL),
        };
        let must_tell = self.is_honest && self.peer.error.is_none() && !self.peer.is_within_frame();
        self.deliver(&bytes, input.byte());
        assert!(!must_tell || self.peer.error == Some(code), "{:?} and not {code}", self.peer.error);
        self.is_honest = false;
    }

    /// The application finishes and the peer opens its windows: all that was given arrives.
    fn end_well(&mut self) {
        assert!(self.peer.error.is_none(), "a peer that keeps to the rules loses its connection");
        self.deliver(&settings(&[(4, 1 << 20)]), 0);
        self.deliver(&window_update(0, 1 << 29), 0);
        let open: Vec<(u32, StreamId)> = self.peer.open().map(|(number, stream)| (*number, stream.id)).collect();
        for (number, id) in open {
            let stream = self.peer.streams.get_mut(&number).expect("it is open");
            if !std::mem::replace(&mut stream.has_answer, true) {
                self.connection.respond(id, StatusCode::OK, &HeaderMap::new());
            }
            if !std::mem::replace(&mut stream.is_finished, true) {
                self.connection.finish(id, None);
            }
            self.look();
            self.deliver(&window_update(number, 1 << 29), 0);
        }
        while self.connection.pump() || self.connection.pending_len() > 0 {
            self.look();
            self.take(usize::MAX);
        }
        assert!(self.peer.error.is_none());
        let open: Vec<_> = self.peer.open().collect();
        assert!(open.is_empty(), "finished and not over: {open:?}");
        assert!(!self.connection.has_streams() && self.connection.pending_len() == 0);
        assert!(self.connection.held() <= 8 * 1024, "{} bytes are held at rest", self.connection.held());
    }
}

fn number(stream: StreamId) -> u32 {
    stream.to_string().parse().expect("a stream has a number")
}
