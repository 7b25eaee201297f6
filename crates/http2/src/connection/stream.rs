//! One stream, as far as the connection knows it.

use std::collections::VecDeque;

use bytes::Bytes;

/// A stream that is open from this side.
#[derive(Debug)]
pub(super) struct Stream {
    /// What the client gave to this stream's window beyond what all begin with, less what was sent.
    pub(super) credit: i64,
    /// What the client may send.
    pub(super) receive_window: i64,
    /// Released, but not given back to the client yet.
    pub(super) released: usize,
    pub(super) unsent: VecDeque<Bytes>,
    pub(super) unsent_bytes: usize,
    /// How it ends after what is unsent.
    pub(super) ending: Option<Ending>,
    /// The client has ended its side.
    pub(super) is_remote_done: bool,
    /// It stands in the line of those that can send data.
    pub(super) is_ready: bool,
}

/// How this side ends a stream.
#[derive(Debug)]
pub(super) enum Ending {
    /// With the last data.
    Plain,
    /// With this header block.
    Trailers(Vec<u8>),
}

impl Stream {
    pub(super) fn new(receive_window: i64) -> Self {
        Self {
            credit: 0,
            receive_window,
            released: 0,
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            ending: None,
            is_remote_done: false,
            is_ready: false,
        }
    }

    /// What may be sent when windows begin with `initial`; below zero after the client has made them smaller.
    pub(super) fn send_window(&self, initial: i64) -> i64 {
        initial + self.credit
    }

    /// Whether it has data to send that its own window lets it.
    pub(super) fn can_send(&self, initial: i64) -> bool {
        !self.unsent.is_empty() && self.send_window(initial) > 0
    }

    /// Takes the first `len` bytes of what is unsent.
    pub(super) fn take(&mut self, mut len: usize, mut each: impl FnMut(Bytes)) {
        self.unsent_bytes -= len;
        while len > 0 {
            let Some(first) = self.unsent.front_mut() else { break };
            let now = first.len().min(len);
            each(first.split_to(now));
            len -= now;
            if first.is_empty() {
                self.unsent.pop_front();
            }
        }
        if self.unsent.is_empty() {
            self.unsent = VecDeque::new();
        }
    }
}
