//! The `resources` section of a response, in pieces that are shared and never copied again.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// Entries below this size are joined: every piece is one slice more to write, and a frame of HTTP/2 holds 16 KiB.
const JOIN_BELOW: usize = 16 * 1024;
/// Joined pieces are closed at this size.
const CLOSE_AT: usize = 64 * 1024;

/// Encoded fields of a response message, as shared pieces. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Body {
    /// `None` when there are none, so that a body of nothing costs nothing.
    pieces: Option<Arc<[Bytes]>>,
    len: usize,
}

/// Shows no content: it may be secret.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pieces = self.pieces.as_ref().map_or(0, |pieces| pieces.len());
        f.debug_struct("Body").field("pieces", &pieces).field("len", &self.len).finish()
    }
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
        Self { pieces: (!pieces.is_empty()).then(|| pieces.into()), len }
    }

    /// The pieces, in order.
    pub fn pieces(&self) -> &[Bytes] {
        self.pieces.as_deref().unwrap_or_default()
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
        let pieces = self.pieces().iter().chain(next.pieces()).cloned().collect();
        Body { pieces: Some(pieces), len: self.len + next.len }
    }
}
