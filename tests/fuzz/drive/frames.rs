//! Frames of HTTP/2, made and taken apart.

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Of SETTINGS and PING.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const HAS_PRIORITY: u8 = 32;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const MAX_PAYLOAD: usize = 16_384;
pub const MAX_WINDOW: i64 = 0x7fff_ffff;

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The number that the payload of a WINDOW_UPDATE or RST_STREAM is.
    pub fn number(&self) -> Option<u32> {
        self.payload[..].try_into().ok().map(u32::from_be_bytes)
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

pub fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let bytes: Vec<u8> =
        entries.iter().flat_map(|(id, v)| [&id.to_be_bytes()[..], &v.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &bytes)
}

pub fn window_update(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

pub fn rst_stream(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// With so much padding, if any.
pub fn padded(kind: u8, flags: u8, stream: u32, payload: &[u8], padding: Option<u8>) -> Vec<u8> {
    match padding {
        None => frame(kind, flags, stream, payload),
        Some(padding) => {
            let payload = [&[padding][..], payload, &vec![0; padding.into()]].concat();
            frame(kind, flags | PADDED, stream, &payload)
        }
    }
}

/// Takes apart what comes in pieces.
#[derive(Debug, Default)]
pub struct Scanner(Vec<u8>);

impl Scanner {
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next frame that has come whole.
    pub fn next(&mut self) -> Option<Frame> {
        let (head, rest) = self.0.split_first_chunk::<9>()?;
        let [a, b, c, kind, flags, s0, s1, s2, s3] = *head;
        let payload = rest.get(..u32::from_be_bytes([0, a, b, c]) as usize)?.to_vec();
        let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
        self.0.drain(..9 + payload.len());
        Some(Frame { kind, flags, stream, payload })
    }

    /// Whether part of a frame has come.
    pub fn is_within(&self) -> bool {
        !self.0.is_empty()
    }
}
