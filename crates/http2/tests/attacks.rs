//! Attacks on servers of HTTP/2 that are known by name, and what each may cost at most.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http2::{Connection, Event, Reason, Settings, StreamId};

#[allow(dead_code)]
#[path = "../../../tests/fuzz/drive/frames.rs"]
mod frames;

use frames::{END_HEADERS, PREFACE, frame, rst_stream, window_update};

const ENHANCE_YOUR_CALM: u32 = 11;
const KIB: usize = 1024;

fn request(stream: u32) -> Vec<u8> {
    frame(1, END_HEADERS, stream, &[0x83, 0x86, 0x84])
}

fn reset(stream: u32) -> Vec<u8> {
    rst_stream(stream, 8)
}

fn initial_window(size: u32) -> Vec<u8> {
    frames::settings(&[(4, size)])
}

/// A connection whose client takes all answers, unless said otherwise, with an application that answers each request
/// with a head and so much data.
struct Server {
    connection: Connection,
    answer: usize,
    /// Most of the memory that was ever held.
    most: usize,
    requests: usize,
}

impl Server {
    fn new(answer: usize) -> Server {
        let mut server = Server { connection: Connection::new(Settings::default()), answer, most: 0, requests: 0 };
        server.hear(&[PREFACE, &frame(4, 0, 0, &[])].concat());
        server.taken();
        server.most = 0;
        server
    }

    /// Hears bytes, as a server that stops reading when it should; returns how many it read.
    fn hear(&mut self, bytes: &[u8]) -> usize {
        let mut heard = 0;
        for mut piece in bytes.chunks(16 * KIB) {
            if !self.connection.wants_more() {
                break;
            }
            heard += piece.len();
            while let Some(event) = self.connection.receive(&mut piece) {
                match event {
                    Event::Request { stream, .. } => self.respond(stream),
                    Event::Data { stream, data } => self.connection.release(stream, data.len()),
                    Event::Ended { .. } | Event::Reset { .. } | Event::Pong(_) => {}
                }
            }
            self.connection.pump();
            self.most = self.most.max(self.connection.held());
        }
        heard
    }

    fn respond(&mut self, stream: StreamId) {
        self.requests += 1;
        self.connection.respond(stream, StatusCode::OK, &HeaderMap::new());
        self.connection.send(stream, Bytes::from(vec![0; self.answer]));
    }

    /// The client takes everything; returns it.
    fn taken(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while self.connection.pump() || self.connection.pending_len() > 0 {
            all.extend(self.connection.pending().flatten());
            self.connection.written(self.connection.pending_len());
        }
        all
    }

    /// The code that the connection ended with.
    fn end(&mut self) -> Option<u32> {
        let said = self.taken();
        let goaway = said.windows(17).rfind(|bytes| bytes[..9] == [0, 0, 8, 7, 0, 0, 0, 0, 0])?;
        self.connection.is_over().then(|| u32::from_be_bytes(goaway[13..].try_into().unwrap()))
    }
}

/// CVE-2023-44487. What a stream costs beyond this machine is for its user to bound.
#[test]
fn rapid_reset_leaves_nothing_behind() {
    let mut server = Server::new(100);
    for round in 0..1_000 {
        let attack: Vec<u8> = (0..100)
            .flat_map(|n| [request(200 * round + 2 * n + 1), reset(200 * round + 2 * n + 1)].concat())
            .collect();
        server.hear(&attack);
        server.taken();
    }
    assert_eq!(server.requests, 100_000);
    assert!(!server.connection.has_streams());
    assert!(server.most <= 32 * KIB, "{}", server.most);
    assert!(server.connection.held() <= KIB, "{}", server.connection.held());
}

/// The same by a client that makes the server reset (CVE-2025-8671).
#[test]
fn streams_that_a_client_has_reset_by_its_faults_leave_nothing_behind() {
    let mut server = Server::new(100);
    for round in 0..1_000 {
        let attack: Vec<u8> = (0..100)
            .flat_map(|n| [request(200 * round + 2 * n + 1), window_update(200 * round + 2 * n + 1, 0)].concat())
            .collect();
        server.hear(&attack);
        server.taken();
    }
    assert!(!server.connection.has_streams());
    assert!(server.most <= 32 * KIB, "{}", server.most);
    assert!(server.connection.held() <= KIB, "{}", server.connection.held());
}

#[test]
fn streams_that_are_reset_while_all_windows_are_shut_leave_nothing_behind() {
    let mut server = Server::new(1_000);
    // The first answers take all of the connection's window; those that come later have to wait in line.
    let first: Vec<u8> = (0..100).flat_map(|n| request(2 * n + 1)).collect();
    server.hear(&first);
    server.taken();
    let before = server.connection.held();
    for n in 100..100_000 {
        server.hear(&[request(2 * n + 1), reset(2 * n + 1)].concat());
        server.taken();
    }
    assert!(server.connection.held() <= before + 2 * KIB, "{before}, then {}", server.connection.held());
}

/// CVE-2024-27316.
#[test]
fn a_flood_of_continuations_ends_at_the_limit_of_a_header_block() {
    for size in [1, 100, 16 * KIB] {
        let mut server = Server::new(0);
        server.hear(&frame(1, 0, 1, &[]));
        let mut sent = 0;
        while !server.connection.is_over() {
            sent += server.hear(&frame(9, 0, 1, &vec![0; size]));
            assert!(sent <= 11 * 65 * KIB, "still open after {sent} bytes");
        }
        assert!(server.most <= 160 * KIB, "{}", server.most);
        assert_eq!(server.end(), Some(ENHANCE_YOUR_CALM));
    }
    let mut server = Server::new(0);
    server.hear(&[frame(1, 0, 1, &[]), frame(9, 0, 1, &[])].concat());
    assert_eq!(server.end(), Some(ENHANCE_YOUR_CALM), "frames that say nothing would never reach it");
}

/// CVE-2019-9512 and CVE-2019-9515.
#[test]
fn floods_of_pings_and_settings_are_read_no_further_than_their_answers_are_taken() {
    for one in [frame(6, 0, 0, b"12345678"), frame(4, 0, 0, &[]), initial_window(7)] {
        let mut server = Server::new(0);
        let flood = one.repeat(100_000);
        let heard = server.hear(&flood);
        assert!(heard <= 160 * KIB && !server.connection.wants_more(), "{heard}");
        assert!(server.most <= 200 * KIB, "{}", server.most);
        // None of it is forbidden (rule P-75): a client that takes the answers is heard on.
        server.taken();
        assert!(server.connection.wants_more() && !server.connection.is_over());
        assert!(server.connection.held() <= KIB);
    }
}

/// Each changes the windows of all streams; that the streams are not walked for each shows in how long this takes.
#[test]
fn a_flood_of_window_sizes_costs_no_more_with_many_streams() {
    let mut server = Server::new(1);
    server.hear(&initial_window(0));
    for n in 0..50_000 {
        server.hear(&request(2 * n + 1));
        server.taken();
    }
    for round in 0..20 {
        let sizes: Vec<u8> =
            (0..1_000).flat_map(|n| initial_window(if n == 999 { 0 } else { round * 1_000 + n })).collect();
        server.hear(&sizes);
        assert!(server.taken().len() <= 9 * 1_000 + 50_000 * 10, "each stream has one byte to send");
    }
}

/// CVE-2016-6581 and its like: a few bytes that stand for kilobytes.
#[test]
fn a_bomb_of_header_fields_is_not_blown_up() {
    // A field of 4 KiB for the table, then its number over and over; and the same as the name of fields that are new.
    let field = |name: &[u8]| [&[0x40, 1, b'a', 0x7f, 0xdf, 0x1e][..], &vec![b'x'; 4062 - name.len()], name].concat();
    for (again, name) in [(&[0xbe][..], &b""[..]), (&[0x7e, 0][..], b"")] {
        let bomb = again.repeat(30_000 / again.len());
        let mut server = Server::new(0);
        server.hear(&frame(1, END_HEADERS, 1, &[&[0x83, 0x86, 0x84][..], &field(name)].concat()));
        assert_eq!(server.requests, 1);
        let mut bytes = frame(1, 0, 3, &[0x83, 0x86, 0x84]);
        let mut chunks = bomb.chunks(15_000).peekable();
        while let Some(chunk) = chunks.next() {
            bytes.extend(frame(9, if chunks.peek().is_none() { END_HEADERS } else { 0 }, 3, chunk));
        }
        server.hear(&bytes);
        assert_eq!((server.requests, server.end()), (1, Some(ENHANCE_YOUR_CALM)));
        assert!(server.most <= 160 * KIB, "{}", server.most);
    }
}

#[test]
fn a_request_that_is_a_little_too_large_costs_only_itself() {
    let mut server = Server::new(0);
    let fields = [&[0, 1, b'a', 100][..], &[b'x'; 100]].concat().repeat(500);
    let (first, rest) = fields.split_at(16_000);
    let mut bytes = frame(1, 0, 1, &[&[0x83, 0x86, 0x84][..], first].concat());
    let mut chunks = rest.chunks(16_000).peekable();
    while let Some(chunk) = chunks.next() {
        bytes.extend(frame(9, if chunks.peek().is_none() { END_HEADERS } else { 0 }, 1, chunk));
    }
    server.hear(&[bytes, request(3)].concat());
    assert_eq!(server.requests, 1);
    assert_eq!(server.end(), None);
}

/// CVE-2019-9517 and its like. The data itself is the application's, which asks [`Connection::is_sent`].
#[test]
fn a_client_that_shuts_its_windows_makes_nothing_be_held_for_it_and_still_hears_how_streams_end() {
    let mut server = Server::new(1 << 20);
    server.hear(&initial_window(0));
    let (first, second) = (request(1), request(3));
    server.hear(&[first, second].concat());
    let said = server.taken();
    assert!(said.len() < 200, "{} bytes", said.len());
    assert!(server.connection.held() <= 2 * KIB, "{}", server.connection.held());
    // Then no window of a stream is shut, but the connection's is.
    server.hear(&initial_window(1 << 20));
    assert!((65_535..66_000).contains(&server.taken().len()));
    let mut bytes = &request(5)[..];
    let Some(Event::Request { stream, .. }) = server.connection.receive(&mut bytes) else { panic!("a request") };
    server.connection.respond(stream, StatusCode::OK, &HeaderMap::new());
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "14".parse().unwrap())]);
    server.connection.finish(stream, Some(&trailers));
    let said = server.taken();
    assert!(said.windows(11).any(|bytes| bytes == b"grpc-status"), "an end needs no window");
}

/// CVE-2019-9511.
#[test]
fn a_client_that_opens_its_windows_byte_by_byte_gets_frames_of_a_byte_and_no_queue_of_them() {
    let mut server = Server::new(100_000);
    server.hear(&[initial_window(0), request(1)].concat());
    server.taken();
    for _ in 0..10_000 {
        server.hear(&window_update(1, 1));
        assert_eq!(server.taken().len(), 10);
    }
    assert!(server.most <= 2 * KIB, "{}", server.most);
    // All at once by a client that takes none of it: what waits is bounded however small the frames are.
    let dribble = window_update(1, 1).repeat(50_000);
    for chunk in dribble.chunks(13) {
        server.hear(chunk);
    }
    assert!(server.connection.pending_len() <= 512 * KIB, "{}", server.connection.pending_len());
    assert!(server.most <= 1024 * KIB, "{}", server.most);
}

/// CVE-2019-9518: such frames cost nothing, so they are let be.
#[test]
fn frames_that_say_nothing_are_read_and_forgotten() {
    let mut server = Server::new(0);
    server.hear(&request(1));
    server.taken();
    let nothing = [frame(0, 0, 1, &[]), frame(0, 8, 1, &[0]), frame(2, 0, 1, &[0; 5]), frame(99, 0, 1, &[])].concat();
    for _ in 0..10_000 {
        server.hear(&nothing);
        server.taken();
    }
    assert!(server.most <= 64 * KIB, "{}", server.most);
    assert!(!server.connection.is_over());
}

#[test]
fn a_client_that_takes_a_little_at_a_time_makes_no_piece_grow() {
    let mut server = Server::new(0);
    server.hear(&[request(1), window_update(0, 1 << 30), window_update(1, 1 << 30)].concat());
    let mut stream = None;
    let bytes = request(3);
    if let Some(Event::Request { stream: opened, .. }) = server.connection.receive(&mut &bytes[..]) {
        server.connection.respond(opened, StatusCode::OK, &HeaderMap::new());
        stream = Some(opened);
    }
    server.hear(&window_update(3, 1 << 30));
    // There is always something left to write, and always something more to say.
    for _ in 0..10_000 {
        server.connection.send(stream.unwrap(), Bytes::from_static(&[7; 91]));
        server.connection.pump();
        let left = server.connection.pending_len().saturating_sub(1_000);
        server.connection.written(left.min(100));
    }
    assert!(server.connection.held() <= 64 * KIB, "{}", server.connection.held());
}

#[test]
fn what_the_user_ends_is_told_why_and_hears_no_more() {
    let mut server = Server::new(10);
    server.hear(&request(1));
    server.taken();
    server.connection.end(Reason::EnhanceYourCalm);
    server.connection.ping([0; 8]);
    assert_eq!(server.end(), Some(ENHANCE_YOUR_CALM));
    assert_eq!(server.hear(&request(3)), 0);
    assert_eq!(server.requests, 1);
}
