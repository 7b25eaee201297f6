//! As much of header compression (RFC 7541) as a client needs that sends one request and wants to know its outcome.
//!
//! Requests are written as literals. Of responses, only fields that say how a call went are kept. Our settings give
//! the peer no dynamic table, so none is kept here and a connection needs no memory for it; a peer that refers to an
//! entry of one broke the protocol.

use super::huffman;

/// What a block of response headers or trailers says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// `:status`.
    pub(crate) http_status: Option<u16>,
    /// `grpc-status`.
    pub(crate) grpc_status: Option<u32>,
    /// `grpc-message`, with its percent-encoding undone.
    pub(crate) grpc_message: String,
}

/// Appends a header field as a literal that no table remembers.
pub(crate) fn put(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    put_text(out, name);
    put_text(out, value);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_integer(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// An integer with a prefix of seven bits, the eighth being zero (section 5.1).
fn put_integer(out: &mut Vec<u8>, mut value: usize) {
    const LARGEST: u8 = 0x7f;
    if value < usize::from(LARGEST) {
        out.push(value as u8);
        return;
    }
    out.push(LARGEST);
    value -= usize::from(LARGEST);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a block; `None` if it is malformed or refers to a dynamic table.
pub(crate) fn read(block: &[u8]) -> Option<Outcome> {
    let mut rest = block;
    let mut outcome = Outcome::default();
    while let Some(first) = rest.first().copied() {
        let prefix = match first {
            0x80.. => {
                let index = integer(&mut rest, 7)?;
                outcome.http_status = status_at(index)?.or(outcome.http_status);
                continue;
            }
            0x40.. => 6,
            0x20.. => {
                integer(&mut rest, 5)?;
                continue;
            }
            _ => 4,
        };
        let index = integer(&mut rest, prefix)?;
        let name = match index {
            0 => text(&mut rest)?,
            index => status_at(index)?.map(|_| b":status".to_vec()).unwrap_or_default(),
        };
        let value = text(&mut rest)?;
        let value = String::from_utf8_lossy(&value);
        match name.as_slice() {
            b":status" => outcome.http_status = value.parse().ok(),
            b"grpc-status" => outcome.grpc_status = value.parse().ok(),
            b"grpc-message" => outcome.grpc_message = percent_decoded(&value),
            _ => {}
        }
    }
    Some(outcome)
}

/// What the static table (appendix A) has at an index, as far as it is a status; `None` beyond it.
#[allow(clippy::option_option, reason = "no such entry is an error, an entry without a status is not")]
fn status_at(index: usize) -> Option<Option<u16>> {
    match index {
        8 => Some(Some(200)),
        9 => Some(Some(204)),
        10 => Some(Some(206)),
        11 => Some(Some(304)),
        12 => Some(Some(400)),
        13 => Some(Some(404)),
        14 => Some(Some(500)),
        1..=61 => Some(None),
        _ => None,
    }
}

fn integer(rest: &mut &[u8], prefix: u32) -> Option<usize> {
    let (first, mut tail) = rest.split_first()?;
    let largest = (1usize << prefix) - 1;
    let mut value = usize::from(*first) & largest;
    if value == largest {
        let mut shift = 0;
        loop {
            let (byte, next) = tail.split_first()?;
            tail = next;
            value = value.checked_add(usize::from(byte & 0x7f) << shift)?;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 21 {
                return None;
            }
        }
    }
    *rest = tail;
    Some(value)
}

fn text(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let compressed = rest.first()? & 0x80 != 0;
    let length = integer(rest, 7)?;
    let (bytes, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    if compressed { huffman::decode(bytes) } else { Some(bytes.to_vec()) }
}

/// Undoes the percent-encoding of gRPC messages; what is no valid code stays as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|code| std::str::from_utf8(code).ok())
            .and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut block = Vec::new();
        let long = "x".repeat(300);
        put(&mut block, "unknown", &long);
        put(&mut block, ":status", "200");
        put(&mut block, "grpc-status", "14");
        put(&mut block, "grpc-message", "not%20yet, 100% %zz");
        let expected =
            Outcome { http_status: Some(200), grpc_status: Some(14), grpc_message: "not yet, 100% %zz".to_owned() };
        assert_eq!(read(&block).unwrap(), expected);
    }

    #[test]
    fn indexed_fields_size_updates_and_compressed_text_are_understood() {
        // A table size of 0; `:status: 200` by index; `:status` by index with the literal "302" compressed.
        let outcome = read(&[0x20, 0x88]).unwrap();
        assert_eq!(outcome.http_status, Some(200));
        assert_eq!(read(&[0x48, 0x82, 0x64, 0x02]).unwrap().http_status, Some(302));
        // `content-type` by index, value compressed or not, is passed over.
        assert_eq!(read(&[0x5f, 0x01, b'a', 0x88]).unwrap().http_status, Some(200));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for block in [&[0xbe][..], &[0x40], &[0x00, 0x05, b'a'], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &[0x80]] {
            assert_eq!(read(block), None, "{block:x?}");
        }
    }
}
