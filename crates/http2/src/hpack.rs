//! Header compression (RFC 7541).
//!
//! What comes in may use all of it. What goes out uses none of its memory: a response has two fields, and a stream is
//! opened once in the life of a connection.

mod decoder;
mod huffman;
mod integer;
mod table;

pub(crate) use decoder::Decoder;

use http::{HeaderMap, StatusCode};

/// The block of a response's head.
pub(crate) fn response(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut block = Vec::with_capacity(64);
    if status == StatusCode::OK {
        // Static table: ":status: 200".
        block.push(0x88);
    } else {
        // A literal whose name is the static table's ":status".
        block.push(0x08);
        text(status.as_str().as_bytes(), &mut block);
    }
    fields(headers, &mut block);
    block
}

/// The block of trailers.
pub(crate) fn trailers(headers: &HeaderMap) -> Vec<u8> {
    let mut block = Vec::with_capacity(64);
    fields(headers, &mut block);
    block
}

/// Literals without indexing.
fn fields(headers: &HeaderMap, block: &mut Vec<u8>) {
    for (name, value) in headers {
        block.push(0);
        text(name.as_str().as_bytes(), block);
        text(value.as_bytes(), block);
    }
}

fn text(text: &[u8], block: &mut Vec<u8>) {
    integer::encode(text.len(), 7, 0, block);
    block.extend_from_slice(text);
}
