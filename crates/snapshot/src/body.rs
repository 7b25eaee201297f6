//! The `resources` section of a response, in pieces that are shared and never copied again.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// Entries below this size are joined: HTTP/2 sends each piece as a DATA frame of its own, and a frame holds 16 KiB.
const JOIN_BELOW: usize = 16 * 1024;
/// Joined pieces are closed at this size.
const CLOSE_AT: usize = 64 * 1024;

/// Encoded fields of a response message, as shared pieces. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Body {
    pieces: Arc<[Bytes]>,
    len: usize,
}

impl Body {
    /// Joins entries in order; small ones are copied together once, large ones are taken as they are.
    pub fn join<'a>(entries: impl IntoIterator<Item = &'a Bytes>) -> Self {
        let mut pieces = Vec::new();
        let mut open = BytesMut::new();
        let mut len = 0;
        for entry in entries {
            len += entry.len();
            if entry.len() >= JOIN_BELOW {
                if !open.is_empty() {
                    pieces.push(open.split().freeze());
                }
                pieces.push(entry.clone());
                continue;
            }
            open.extend_from_slice(entry);
            if open.len() >= CLOSE_AT {
                pieces.push(open.split().freeze());
            }
        }
        if !open.is_empty() {
            pieces.push(open.freeze());
        }
        Self { pieces: pieces.into(), len }
    }

    /// The pieces, in order.
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One body after another.
    #[must_use]
    pub fn chain(&self, next: &Body) -> Body {
        if next.is_empty() {
            return self.clone();
        }
        if self.is_empty() {
            return next.clone();
        }
        Body { pieces: self.pieces.iter().chain(next.pieces.iter()).cloned().collect(), len: self.len + next.len }
    }
}
