//! Why a stream or a connection ends.

/// The error codes of RFC 9113, 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// Nothing is wrong.
    NoError = 0,
    /// The peer broke a rule of the protocol.
    Protocol = 1,
    /// This side failed.
    Internal = 2,
    /// The peer sent more than its window allows.
    FlowControl = 3,
    /// A frame came on a stream that its sender had ended.
    StreamClosed = 5,
    /// A frame has a length that it may not have.
    FrameSize = 6,
    /// The stream was not begun: it may be tried again.
    RefusedStream = 7,
    /// The stream is not wanted any more.
    Cancel = 8,
    /// A header block cannot be decoded, so that none after it can.
    Compression = 9,
    /// The peer asks too much.
    EnhanceYourCalm = 11,
}

impl Reason {
    /// The reason of this code. Codes that are not listed count as [`Reason::Internal`], as RFC 9113 allows.
    pub(crate) fn from_code(code: u32) -> Self {
        match code {
            0 => Reason::NoError,
            1 => Reason::Protocol,
            3 => Reason::FlowControl,
            5 => Reason::StreamClosed,
            6 => Reason::FrameSize,
            7 => Reason::RefusedStream,
            8 => Reason::Cancel,
            9 => Reason::Compression,
            11 => Reason::EnhanceYourCalm,
            _ => Reason::Internal,
        }
    }
}
