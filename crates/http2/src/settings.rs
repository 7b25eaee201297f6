//! Bounds of one connection.

/// What a client may do on a connection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Streams that may be open at one time; more are refused.
    pub max_streams: u32,
    /// Bytes that may be on the way to us on all streams together. On one stream it is 65,535, the protocol's own.
    pub connection_window: u32,
    /// Bytes of one header block, compressed, and of its fields with 32 for each, not compressed.
    pub max_header_bytes: u32,
}

impl Default for Settings {
    /// 100,000 streams, windows of 1 MiB, header fields of 64 KiB.
    fn default() -> Self {
        Self { max_streams: 100_000, connection_window: 1024 * 1024, max_header_bytes: 64 * 1024 }
    }
}
