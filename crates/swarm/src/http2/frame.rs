//! Frames of HTTP/2 (RFC 9113, section 6): their heads, and the few that a client writes.

/// Bytes of a frame's head.
pub(crate) const HEAD: usize = 9;
/// What every connection begins with.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The one stream of a connection.
pub(crate) const STREAM: u32 = 1;
/// The largest frame that both sides take unless they say otherwise.
pub(crate) const DEFAULT_MAX_FRAME: u32 = 16_384;
/// The window of a stream, and of a connection, unless a side says otherwise.
pub(crate) const DEFAULT_WINDOW: u32 = 65_535;
/// The largest window there is.
pub(crate) const LARGEST_WINDOW: u32 = 0x7fff_ffff;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITY: u8 = 0x20;

pub(crate) const SETTINGS_HEADER_TABLE_SIZE: u16 = 1;
pub(crate) const SETTINGS_ENABLE_PUSH: u16 = 2;
pub(crate) const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;
pub(crate) const SETTINGS_MAX_FRAME_SIZE: u16 = 5;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes that follow.
    pub(crate) length: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Head {
    pub(crate) fn read(bytes: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = bytes;
        let length = u32::from_be_bytes([0, a, b, c]);
        Self { length, kind, flags, stream: u32::from_be_bytes(stream) & LARGEST_WINDOW }
    }

    pub(crate) fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.length.to_be_bytes()[1..]);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
    }
}

/// Settings of a client that takes whatever comes: no push, no header table, the largest window.
pub(crate) fn put_settings(out: &mut Vec<u8>) {
    let settings =
        [(SETTINGS_HEADER_TABLE_SIZE, 0), (SETTINGS_ENABLE_PUSH, 0), (SETTINGS_INITIAL_WINDOW_SIZE, LARGEST_WINDOW)];
    Head { length: 6 * settings.len() as u32, kind: SETTINGS, flags: 0, stream: 0 }.put(out);
    for (name, value) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(crate) fn put_settings_ack(out: &mut Vec<u8>) {
    Head { length: 0, kind: SETTINGS, flags: ACK, stream: 0 }.put(out);
}

pub(crate) fn put_ping(out: &mut Vec<u8>, flags: u8, payload: [u8; 8]) {
    Head { length: 8, kind: PING, flags, stream: 0 }.put(out);
    out.extend_from_slice(&payload);
}

/// Credit for `increment` more bytes: of the connection (stream 0) or of a stream.
pub(crate) fn put_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    Head { length: 4, kind: WINDOW_UPDATE, flags: 0, stream }.put(out);
    out.extend_from_slice(&increment.to_be_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let head = Head { length: 0x0001_0203, kind: DATA, flags: END_STREAM, stream: STREAM };
        let mut bytes = Vec::new();
        head.put(&mut bytes);
        assert_eq!(bytes, [1, 2, 3, 0, 1, 0, 0, 0, 1]);
        assert_eq!(Head::read(bytes.try_into().unwrap()), head);
    }
}
