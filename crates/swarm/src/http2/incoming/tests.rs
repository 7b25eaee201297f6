#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn framed(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Head { length: payload.len() as u32, kind, flags, stream }.put(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

/// Everything that a server may send, and what it means, bodies joined.
fn session() -> (Vec<u8>, Vec<String>) {
    let mut block = Vec::new();
    hpack::put(&mut block, ":status", "200");
    let mut trailers = Vec::new();
    hpack::put(&mut trailers, "grpc-status", "14");
    hpack::put(&mut trailers, "grpc-message", "later");
    let (first, second) = trailers.split_at(7);
    let bytes = [
        framed(SETTINGS, 0, 0, &[0, 4, 0, 0, 1, 0, 0, 5, 0, 0, 0x40, 0]),
        framed(SETTINGS, ACK, 0, &[]),
        framed(WINDOW_UPDATE, 0, 0, &9u32.to_be_bytes()),
        framed(PING, 0, 0, b"12345678"),
        framed(PING, ACK, 0, b"12345678"),
        framed(HEADERS, END_HEADERS | PADDED | PRIORITY, 1, &[&[2][..], &[0; 5], &block, &[0, 0]].concat()),
        framed(DATA, 0, 1, b"hello"),
        framed(DATA, 0, 1, b""),
        framed(DATA, PADDED, 1, &[&[3][..], b" world", &[0; 3]].concat()),
        framed(0xbe, 0, 0, b"unknown"),
        framed(DATA, 0, 3, b"another stream"),
        framed(HEADERS, END_STREAM, 1, first),
        framed(CONTINUATION, END_HEADERS, 1, second),
        framed(RST_STREAM, 0, 1, &8u32.to_be_bytes()),
        framed(GOAWAY, 0, 0, &[&1u32.to_be_bytes()[..], &2u32.to_be_bytes(), b"enough"].concat()),
    ];
    let outcome = |http_status, grpc_status, message: &str| Outcome {
        http_status,
        grpc_status,
        grpc_message: message.to_owned(),
    };
    let events = [
        Event::Settings { initial_window: Some(256), max_frame: Some(16_384) },
        Event::Window { stream: 0, increment: 9 },
        Event::Ping(*b"12345678"),
        Event::Pong,
        Event::Headers { outcome: outcome(Some(200), None, ""), end_stream: false },
        Event::Data(b"hello"),
        Event::DataEnd { counted: 5, end_stream: false },
        Event::DataEnd { counted: 0, end_stream: false },
        Event::Data(b" world"),
        Event::DataEnd { counted: 10, end_stream: false },
        Event::Headers { outcome: outcome(None, Some(14), "later"), end_stream: true },
        Event::Reset(8),
        Event::GoAway { code: 2, last_stream: 1, text: "enough".to_owned() },
    ];
    (bytes.concat(), events.iter().map(|event| format!("{event:?}")).collect())
}

/// Reads pieces; data that was cut is joined again.
fn read(pieces: &[&[u8]]) -> Result<Vec<String>, ProtocolError> {
    let mut incoming = Incoming::default();
    let mut events = Vec::new();
    let mut data = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        while let Some(event) = incoming.next(&mut input)? {
            if let Event::Data(part) = event {
                data.extend_from_slice(part);
                continue;
            }
            if !data.is_empty() {
                events.push(format!("{:?}", Event::Data(&std::mem::take(&mut data))));
            }
            events.push(format!("{event:?}"));
        }
        assert!(input.is_empty(), "everything is used up");
    }
    Ok(events)
}

#[test]
fn every_kind_of_frame_is_understood() {
    let (bytes, events) = session();
    assert_eq!(read(&[&bytes]).unwrap(), events);
}

#[test]
fn bytes_may_come_one_by_one() {
    let (bytes, events) = session();
    let pieces: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(read(&pieces).unwrap(), events);
}

proptest! {
    #[test]
    fn bytes_may_be_cut_anywhere(mut cuts in prop::collection::vec(0usize..400, 0..12)) {
        let (bytes, events) = session();
        cuts.extend([0, bytes.len()]);
        cuts.iter_mut().for_each(|cut| *cut = (*cut).min(bytes.len()));
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
        prop_assert_eq!(read(&pieces).unwrap(), events);
    }

    #[test]
    fn whatever_comes_ends_in_an_event_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let settings = framed(SETTINGS, 0, 0, &[]);
        let _ = read(&[&settings, &bytes]);
        let _ = read(&[&bytes]);
    }
}

#[test]
fn another_protocol_is_named() {
    let error = read(&[b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n"]).unwrap_err();
    assert_eq!(error, ProtocolError::NotHttp2("HTTP/1.1 400 Bad Request".to_owned()));
    assert!(matches!(read(&[b"+OK"]), Ok(events) if events.is_empty()), "too little to judge");
}

#[test]
fn frames_larger_than_allowed_are_refused() {
    let (head, settings) = (framed(DATA, 0, 1, &vec![0; 16_385]), framed(SETTINGS, 0, 0, &[]));
    assert_eq!(read(&[&settings, &head]).unwrap_err(), ProtocolError::Size { kind: DATA, length: 16_385 });
    let ping = framed(PING, 0, 0, b"short");
    assert_eq!(read(&[&settings, &ping]).unwrap_err(), ProtocolError::Size { kind: PING, length: 5 });
}
