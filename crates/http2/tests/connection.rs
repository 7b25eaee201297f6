//! One connection, against frames that are written by hand.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http2::{Connection, Event, Reason, Settings, StreamId};
use proptest::prelude::*;

#[allow(dead_code)]
#[path = "../../../tests/fuzz/drive/frames.rs"]
mod frames;

use frames::{END_HEADERS, END_STREAM, PADDED, PREFACE, frame, window_update};

fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(0, flags, stream, payload)
}

/// POST http /call, with these fields besides, none of them compressed.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x04, 5];
    block.extend_from_slice(b"/call");
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn request(stream: u32) -> Vec<u8> {
    frame(1, END_HEADERS, stream, &block(&[("te", "trailers")]))
}

fn initial_window(size: u32) -> Vec<u8> {
    frames::settings(&[(4, size)])
}

/// A connection, and what it said so far that nobody looked at.
struct Server {
    connection: Connection,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Request(u32, String),
    Data(u32, Vec<u8>),
    Ended(u32),
    Reset(u32, Reason),
    Pong,
}

fn id(stream: StreamId) -> u32 {
    stream.to_string().parse().unwrap()
}

impl Server {
    /// After the beginning of a connection, with what it said read.
    fn open() -> Server {
        let mut server = Server { connection: Connection::new(Settings { max_streams: 10, ..Settings::default() }) };
        assert_eq!(server.hear(PREFACE), []);
        assert_eq!(server.hear(&frame(4, 0, 0, &[])), []);
        let said = server.said();
        assert_eq!(said.iter().map(|(kind, ..)| *kind).collect::<Vec<_>>(), [4, 8, 4]);
        server
    }

    fn with_stream() -> (Server, StreamId) {
        let mut server = Server::open();
        let mut bytes = &request(1)[..];
        let Some(Event::Request { stream, .. }) = server.connection.receive(&mut bytes) else { panic!("a request") };
        server.connection.respond(stream, StatusCode::OK, &HeaderMap::new());
        assert_eq!(server.said(), [(1, END_HEADERS, 1, vec![0x88])]);
        (server, stream)
    }

    fn hear(&mut self, mut bytes: &[u8]) -> Vec<Heard> {
        let mut heard = Vec::new();
        while let Some(event) = self.connection.receive(&mut bytes) {
            heard.push(match event {
                Event::Request { stream, head } => Heard::Request(id(stream), head.uri().path().to_owned()),
                Event::Data { stream, data } => {
                    let heard = Heard::Data(id(stream), data.to_vec());
                    self.connection.release(stream, data.len());
                    heard
                }
                Event::Ended { stream } => Heard::Ended(id(stream)),
                Event::Reset { stream, reason } => Heard::Reset(id(stream), reason),
                Event::Pong(_) => Heard::Pong,
            });
        }
        assert!(bytes.is_empty());
        heard
    }

    /// Everything that is to be written, as frames: kind, flags, stream, payload.
    fn said(&mut self) -> Vec<(u8, u8, u32, Vec<u8>)> {
        let mut bytes = Vec::new();
        while self.connection.pump() || self.connection.pending_len() > 0 {
            let pending: Vec<u8> = self.connection.pending().flatten().copied().collect();
            self.connection.written(pending.len());
            bytes.extend(pending);
        }
        let mut frames = Vec::new();
        let mut rest = &bytes[..];
        while let Some((head, after)) = rest.split_first_chunk::<9>() {
            let [a, b, c, kind, flags, s0, s1, s2, s3] = *head;
            let (payload, after) = after.split_at(u32::from_be_bytes([0, a, b, c]) as usize);
            frames.push((kind, flags, u32::from_be_bytes([s0, s1, s2, s3]), payload.to_vec()));
            rest = after;
        }
        frames
    }

    /// The reason of the GOAWAY that ends the connection; `None` when it goes on.
    fn end(&mut self) -> Option<u32> {
        let goaway = self.said().into_iter().find(|(kind, ..)| *kind == 7);
        let code = goaway.map(|(.., payload)| u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        assert_eq!(code.is_some(), self.connection.is_over());
        code
    }
}

#[test]
fn a_request_its_data_and_its_end_are_told_in_order() {
    let mut server = Server::open();
    let padded = [&[3][..], b"hello", &[0; 3]].concat();
    let bytes = [request(1), data(1, PADDED, &padded), data(1, 0, b""), data(1, END_STREAM, b"bye")].concat();
    let heard = server.hear(&bytes);
    let expected = [
        Heard::Request(1, "/call".to_owned()),
        Heard::Data(1, b"hello".to_vec()),
        Heard::Data(1, b"bye".to_vec()),
        Heard::Ended(1),
    ];
    assert_eq!(heard, expected);
}

#[test]
fn a_header_block_may_come_in_parts_and_its_fields_are_there() {
    let mut server = Server::open();
    let block = block(&[("content-type", "application/grpc"), ("x-twice", "1"), ("x-twice", "2")]);
    // A priority, and padding.
    let first = [&[2, 0, 0, 0, 0, 7][..], &block[..10], &[0; 2]].concat();
    let bytes =
        [frame(1, PADDED | 32, 1, &first), frame(9, 0, 1, &block[10..20]), frame(9, END_HEADERS, 1, &block[20..])];
    let bytes = bytes.concat();
    let Some(Event::Request { head, .. }) = server.connection.receive(&mut &bytes[..]) else { panic!("a request") };
    assert_eq!(head.method(), "POST");
    assert_eq!(head.headers()["content-type"], "application/grpc");
    assert_eq!(head.headers().get_all("x-twice").iter().count(), 2);
}

#[test]
fn an_answer_is_head_data_and_trailers_and_then_the_stream_is_gone() {
    let (mut server, stream) = Server::with_stream();
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    server.connection.send(stream, Bytes::from_static(b"one"));
    server.connection.send(stream, Bytes::from(vec![7; 1_000]));
    server.connection.finish(stream, Some(&trailers));
    server.connection.send(stream, Bytes::from_static(b"too late"));
    let said = server.said();
    assert_eq!(said[0], (0, 0, 1, [&b"one"[..], &[7; 1_000]].concat()));
    assert_eq!(said[1], (1, END_HEADERS | END_STREAM, 1, b"\x00\x0bgrpc-status\x010".to_vec()));
    // The client had not ended its side.
    assert_eq!(said[2..], [(3, 0, 1, vec![0; 4])]);
    assert!(!server.connection.has_streams());
    assert_eq!(server.hear(&data(1, END_STREAM, b"on its way")), []);
    assert_eq!(server.end(), None);
}

#[test]
fn data_without_trailers_ends_with_its_last_frame_and_nothing_with_an_empty_one() {
    for (body, frames) in [(&b"all"[..], 1), (b"", 1)] {
        let (mut server, stream) = Server::with_stream();
        assert_eq!(server.hear(&data(1, END_STREAM, b"")), [Heard::Ended(1)]);
        server.connection.send(stream, Bytes::copy_from_slice(body));
        server.connection.finish(stream, None);
        let said = server.said();
        assert_eq!((said.len(), &said[0]), (frames, &(0, END_STREAM, 1, body.to_vec())));
    }
}

#[test]
fn no_more_is_sent_than_the_windows_allow() {
    let (mut server, stream) = Server::with_stream();
    server.connection.send(stream, Bytes::from(vec![0; 100_000]));
    let sent = |said: &[(u8, u8, u32, Vec<u8>)]| said.iter().map(|(.., payload)| payload.len()).collect::<Vec<_>>();
    // Both windows are 65,535 at first, and a frame is 16,384.
    assert_eq!(sent(&server.said()), [16_384, 16_384, 16_384, 16_383]);
    assert!(!server.connection.is_sent(stream));
    server.hear(&window_update(1, 10));
    assert_eq!(server.said(), []);
    server.hear(&window_update(0, 15));
    assert_eq!(sent(&server.said()), [10]);
    // Smaller windows than what is under way, then larger ones: 65,535 more than the first, five on the connection.
    server.hear(&initial_window(0));
    server.hear(&initial_window(131_070));
    assert_eq!(server.said().iter().filter(|(kind, ..)| *kind == 0).map(|(.., p)| p.len()).sum::<usize>(), 5);
    server.hear(&window_update(0, 1_000_000));
    let rest = 100_000 - 65_535 - 15;
    assert_eq!(sent(&server.said()).iter().sum::<usize>(), rest);
    assert!(server.connection.is_sent(stream));
}

#[test]
fn streams_share_the_way_and_one_whose_window_is_shut_holds_up_no_other() {
    let (mut server, first) = Server::with_stream();
    let mut bytes = &request(3)[..];
    let Some(Event::Request { stream: second, .. }) = server.connection.receive(&mut bytes) else { panic!() };
    server.hear(&window_update(0, 1_000_000));
    server.connection.send(first, Bytes::from(vec![1; 70_000]));
    server.connection.send(second, Bytes::from(vec![3; 30_000]));
    let said = server.said();
    let order: Vec<_> = said.iter().map(|(.., stream, payload)| (*stream, payload.len())).collect();
    let expected = [(1, 16_384), (3, 16_384), (1, 16_384), (3, 13_616), (1, 16_384), (1, 16_383)];
    assert_eq!(order, expected);
}

#[test]
fn what_is_received_opens_the_windows_again_and_too_much_ends_the_stream() {
    let (mut server, _) = Server::with_stream();
    // Released as it is heard: more than a window gets through.
    for _ in 0..10 {
        server.hear(&data(1, 0, &[0; 16_384]));
    }
    let opened: u32 = server
        .said()
        .iter()
        .filter(|(kind, _, stream, _)| (*kind, *stream) == (8, 1))
        .map(|(.., payload)| u32::from_be_bytes(payload[..].try_into().unwrap()))
        .sum();
    assert_eq!(opened, 10 * 16_384);
    let mut heard = Vec::new();
    for _ in 0..5 {
        let bytes = data(1, 0, &[0; 16_384]);
        let mut bytes = &bytes[..];
        while let Some(event) = server.connection.receive(&mut bytes) {
            heard.push(format!("{event:?}").starts_with("Reset"));
        }
    }
    assert_eq!(heard, [false, false, false, true], "the fourth is too much, and after it the stream is gone");
    assert_eq!(server.said(), [(3, 0, 1, 3u32.to_be_bytes().to_vec())]);
}

#[test]
fn pings_are_answered_however_often_and_not_read_on_when_nobody_takes_the_answers() {
    let mut server = Server::open();
    for _ in 0..1_000 {
        assert_eq!(server.hear(&frame(6, 0, 0, b"12345678")), []);
        assert_eq!(server.said(), [(6, 1, 0, b"12345678".to_vec())]);
    }
    server.connection.ping(*b"87654321");
    assert_eq!(server.said(), [(6, 0, 0, b"87654321".to_vec())]);
    assert_eq!(server.hear(&frame(6, 1, 0, b"87654321")), [Heard::Pong]);
    let mut count = 0;
    while server.connection.wants_more() {
        server.hear(&frame(6, 0, 0, b"12345678"));
        count += 1;
    }
    assert!(count < 10_000, "{count}");
    server.said();
    assert!(server.connection.wants_more());
}

#[test]
fn after_going_away_what_is_open_goes_on_and_what_is_new_is_not_heard() {
    let (mut server, stream) = Server::with_stream();
    server.connection.go_away();
    server.connection.go_away();
    assert_eq!(server.said(), [(7, 0, 0, [1u32.to_be_bytes(), [0; 4]].concat())]);
    assert_eq!(server.hear(&request(3)), []);
    assert_eq!(server.hear(&data(1, 0, b"more")), [Heard::Data(1, b"more".to_vec())]);
    assert!(!server.connection.is_over());
    server.connection.finish(stream, None);
    server.said();
    assert!(server.connection.is_over());
}

#[test]
fn a_client_that_goes_away_is_served_to_the_end_of_its_streams() {
    let (mut server, _) = Server::with_stream();
    assert_eq!(server.hear(&frame(7, 0, 0, &[0; 8])), []);
    assert!(!server.connection.is_over());
    assert_eq!(server.hear(&frame(3, 0, 1, &8u32.to_be_bytes())), [Heard::Reset(1, Reason::Cancel)]);
    assert!(server.connection.is_over());
}

#[test]
fn a_malformed_request_is_reset_and_the_next_one_is_heard() {
    let long = "x".repeat(255);
    let too_much: Vec<_> = (0..300).map(|_| ("x-long", long.as_str())).collect();
    let blocks = [
        (vec![0x83, 0x86], 1),                         // no path
        (vec![0x83, 0x84], 1),                         // no scheme
        (block(&[(":status", "200")]), 1),             // not a request's
        (block(&[("a", "b"), (":method", "GET")]), 1), // out of order
        (block(&[("Upper", "case")]), 1),
        (block(&[("connection", "close")]), 1),
        (block(&[("te", "gzip")]), 1),
        (block(&[("bad name", "x")]), 1),
        (block(&[("bad-value", "a\nb")]), 1),
        (block(&too_much), 11), // 64 KiB and more
    ];
    for (block, reason) in blocks {
        let mut server = Server::open();
        let (first, rest) = block.split_at(block.len().min(16_000));
        let mut bytes = frame(1, if rest.is_empty() { END_HEADERS } else { 0 }, 1, first);
        let chunks = rest.chunks(16_000).count();
        for (at, chunk) in rest.chunks(16_000).enumerate() {
            bytes.extend(frame(9, if at + 1 == chunks { END_HEADERS } else { 0 }, 1, chunk));
        }
        let is_too_much = bytes.len() > 64 * 1024;
        bytes.extend(request(3));
        let heard = server.hear(&bytes);
        if is_too_much {
            assert_eq!(server.end(), Some(reason));
            continue;
        }
        assert_eq!(heard, [Heard::Request(3, "/call".to_owned())], "{block:x?}");
        assert_eq!(server.said(), [(3, 0, 1, u32::to_be_bytes(reason).to_vec())]);
    }
}

#[test]
fn streams_beyond_the_limit_are_refused() {
    let mut server = Server::open();
    let all: Vec<u8> = (0..12).flat_map(|n| request(1 + 2 * n)).collect();
    assert_eq!(server.hear(&all).len(), 10);
    let refused = |stream| (3, 0, stream, 7u32.to_be_bytes().to_vec());
    assert_eq!(server.said(), [refused(21), refused(23)]);
}

#[test]
fn a_broken_rule_of_the_connection_ends_it_with_its_reason() {
    let (protocol, flow, size, compression, calm) = (1, 3, 6, 9, 11);
    let cases: Vec<(&str, Vec<u8>, u32)> = vec![
        ("data on no stream", data(0, 0, b"x"), protocol),
        ("data on a stream that was never begun", data(5, 0, b"x"), protocol),
        ("more padding than payload", data(1, PADDED, &[5, 0]), protocol),
        ("padding without a length", data(1, PADDED, &[]), size),
        ("a frame that is too long", data(1, 0, &[0; 16_385]), size),
        ("a stream of the server", request(2), protocol),
        ("a push", frame(5, 0, 1, &[0; 4]), protocol),
        ("settings on a stream", frame(4, 0, 1, &[]), protocol),
        ("settings cut short", frame(4, 0, 0, &[0; 5]), size),
        ("an acknowledgement with content", frame(4, 1, 0, &[0; 6]), size),
        ("a window that is too large", initial_window(0x8000_0000), flow),
        ("frames that are too short", frame(4, 0, 0, &[0, 5, 0, 0, 0, 1]), protocol),
        ("a push that is neither on nor off", frame(4, 0, 0, &[0, 2, 0, 0, 0, 2]), protocol),
        ("a short ping", frame(6, 0, 0, &[0; 7]), size),
        ("a ping on a stream", frame(6, 0, 1, &[0; 8]), protocol),
        ("no more window", window_update(0, 0), protocol),
        ("too much window", window_update(0, 0x7fff_ffff), flow),
        ("a window of a stream that was never begun", window_update(7, 1), protocol),
        ("a reset of a stream that was never begun", frame(3, 0, 7, &[0; 4]), protocol),
        ("a short reset", frame(3, 0, 1, &[0; 3]), size),
        ("a priority of no stream", frame(2, 0, 0, &[0; 5]), protocol),
        ("a block that cannot be decoded", frame(1, END_HEADERS, 3, &[0x80]), compression),
        ("something within a block", [frame(1, 0, 3, &[]), frame(6, 0, 0, &[0; 8])].concat(), protocol),
        ("another block within a block", [frame(1, 0, 3, &[]), frame(9, 4, 5, &[])].concat(), protocol),
        ("a continuation of nothing", frame(9, 4, 1, &[]), protocol),
        ("a block without an end", [frame(1, 0, 3, &[]), frame(9, 0, 3, &[])].concat(), calm),
    ];
    for (name, bytes, reason) in cases {
        let (mut server, _) = Server::with_stream();
        server.hear(&bytes);
        assert_eq!(server.end(), Some(reason), "{name}");
        assert_eq!(server.hear(&request(9)), [], "{name}: nothing is heard after it");
    }
}

#[test]
fn a_broken_rule_of_a_stream_ends_the_stream_only() {
    let cases: Vec<(&str, Vec<u8>, Reason)> = vec![
        ("no more window", window_update(1, 0), Reason::Protocol),
        ("too much window", window_update(1, 0x7fff_ffff), Reason::FlowControl),
        ("trailers without an end", request(1), Reason::Protocol),
        ("data after the end", [data(1, END_STREAM, b""), data(1, 0, b"x")].concat(), Reason::StreamClosed),
        ("a reset", frame(3, 0, 1, &2u32.to_be_bytes()), Reason::Internal),
    ];
    for (name, bytes, reason) in cases {
        let (mut server, _) = Server::with_stream();
        let heard = server.hear(&bytes);
        assert_eq!(heard.last(), Some(&Heard::Reset(1, reason)), "{name}");
        assert_eq!(server.end(), None, "{name}");
        assert_eq!(server.hear(&request(3)), [Heard::Request(3, "/call".to_owned())], "{name}");
    }
}

#[test]
fn trailers_end_the_clients_side() {
    let (mut server, _) = Server::with_stream();
    let trailers = frame(1, END_HEADERS | END_STREAM, 1, &[0, 1, b'a', 1, b'b']);
    assert_eq!(server.hear(&trailers), [Heard::Ended(1)]);
    assert!(server.connection.has_streams());
}

#[test]
fn what_is_no_http2_ends_at_once() {
    for hello in [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r"] {
        let mut connection = Connection::new(Settings::default());
        assert!(connection.receive(&mut { hello }).is_none());
        assert!(connection.is_over(), "{hello:?}");
    }
    // Frames of no known kind mean nothing, but settings come first.
    let mut connection = Connection::new(Settings::default());
    assert!(connection.receive(&mut &[PREFACE, &frame(77, 0, 0, b"?")].concat()[..]).is_none());
    assert!(connection.is_over());
    let mut server = Server::open();
    assert_eq!(server.hear(&[frame(77, 255, 1, b"?"), frame(2, 0, 1, &[0; 5])].concat()), []);
    assert_eq!(server.end(), None);
}

/// A conversation with everything in it.
fn conversation() -> Vec<u8> {
    let first = block(&[("x-part", "by part")]);
    [
        PREFACE.to_vec(),
        initial_window(100_000),
        request(1),
        data(1, PADDED, &[&[2][..], b"hello", &[0; 2]].concat()),
        frame(1, 0, 3, &first[..5]),
        frame(9, END_HEADERS, 3, &first[5..]),
        data(3, 0, &[9; 5_000]),
        window_update(0, 1_000),
        frame(6, 0, 0, b"12345678"),
        data(1, END_STREAM, b"bye"),
        frame(3, 0, 3, &8u32.to_be_bytes()),
    ]
    .concat()
}

proptest! {
    /// However the bytes are cut, the same is heard and said.
    #[test]
    fn where_reads_end_does_not_matter(cuts in proptest::collection::vec(1..200usize, 1..200)) {
        let talk = |cuts: &[usize]| {
            let mut server = Server { connection: Connection::new(Settings::default()) };
            let whole = conversation();
            let (mut rest, mut heard, mut cuts) = (&whole[..], Vec::new(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                for event in server.hear(now) {
                    match (heard.last_mut(), event) {
                        (Some(Heard::Data(a, before)), Heard::Data(b, more)) if *a == b => before.extend(more),
                        (_, event) => heard.push(event),
                    }
                }
                rest = later;
            }
            (heard, server.said())
        };
        prop_assert_eq!(talk(&cuts), talk(&[usize::MAX]));
    }

    /// Whatever a client sends, nothing panics, and what is kept for it is bounded.
    #[test]
    fn junk_is_survived(
        frames in proptest::collection::vec((0..11u8, any::<u8>(), 0..8u32, proptest::collection::vec(any::<u8>(), 0..60)), 0..60),
        flip in any::<Option<(proptest::sample::Index, u8)>>(),
    ) {
        let mut bytes = [PREFACE.to_vec(), frame(4, 0, 0, &[]), request(1)].concat();
        bytes.extend(frames.iter().flat_map(|(kind, flags, stream, payload)| frame(*kind, *flags, *stream, payload)));
        if let Some((at, bits)) = flip {
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
        }
        let mut connection = Connection::new(Settings { max_streams: 2, ..Settings::default() });
        let mut rest = &bytes[..];
        while let Some(event) = connection.receive(&mut rest) {
            if let Event::Request { stream, .. } = event {
                connection.respond(stream, StatusCode::OK, &HeaderMap::new());
                connection.send(stream, Bytes::from(vec![0; 600]));
            }
            connection.pump();
        }
        prop_assert!(connection.pending_len() < bytes.len() * 20 + 10_000);
        let pending = connection.pending_len();
        connection.written(pending);
    }
}
