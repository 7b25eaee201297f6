//! What is to be written to the socket.

use std::collections::VecDeque;

use bytes::Bytes;

/// Data below this size is copied beside the head of its frame: that costs less than another slice to write.
const COPY_BELOW: usize = 512;

/// A piece that is not shared grows to about this size. It is kept until all of it is written, and when there is
/// always something more to write, only the next piece can be let go of.
const PIECE: usize = 16 * 1024;

/// Bytes in order, some of them shared. Holds no memory while there are none.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pieces: VecDeque<Piece>,
    /// How much of the first piece has been written.
    begun: usize,
    len: usize,
    /// Bytes that are not shared.
    own: usize,
}

#[derive(Debug)]
enum Piece {
    Own(Vec<u8>),
    Shared(Bytes),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Own(bytes) => bytes,
            Piece::Shared(bytes) => bytes,
        }
    }
}

impl Output {
    /// Adds a copy.
    pub(crate) fn copy(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        self.own += bytes.len();
        match self.pieces.back_mut() {
            Some(Piece::Own(last)) if last.len() < PIECE => last.extend_from_slice(bytes),
            Some(_) | None => self.pieces.push_back(Piece::Own(bytes.to_vec())),
        }
    }

    /// Adds a piece.
    pub(crate) fn share(&mut self, bytes: Bytes) {
        if bytes.len() < COPY_BELOW {
            return self.copy(&bytes);
        }
        self.len += bytes.len();
        self.pieces.push_back(Piece::Shared(bytes));
    }

    /// Bytes in all.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that are not shared, among them some that were written already.
    pub(crate) fn own(&self) -> usize {
        self.own
    }

    /// Bytes of memory, without what is shared.
    pub(crate) fn held(&self) -> usize {
        let own = self.pieces.iter().map(|piece| match piece {
            Piece::Own(bytes) => bytes.capacity(),
            Piece::Shared(_) => 0,
        });
        own.sum::<usize>() + self.pieces.capacity() * size_of::<Piece>()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let pieces = self.pieces.iter().map(Piece::bytes);
        pieces.enumerate().map(|(at, bytes)| if at == 0 { &bytes[self.begun..] } else { bytes })
    }

    /// Forgets the first `count` bytes.
    pub(crate) fn advance(&mut self, count: usize) {
        debug_assert!(count <= self.len, "more was written than there is");
        self.len -= count.min(self.len);
        self.begun += count;
        while let Some(first) = self.pieces.front() {
            let len = first.bytes().len();
            if self.begun < len {
                return;
            }
            self.begun -= len;
            if matches!(first, Piece::Own(_)) {
                self.own -= len;
            }
            self.pieces.pop_front();
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_however_they_are_taken() {
        let whole: Vec<u8> = (0..3_000u32).map(|n| n as u8).collect();
        for step in [1, 7, 600, 2_999, 3_000] {
            let mut output = Output::default();
            output.copy(&whole[..10]);
            output.copy(&whole[10..20]);
            output.share(Bytes::copy_from_slice(&whole[20..1_020]));
            output.share(Bytes::copy_from_slice(&whole[1_020..1_030]));
            output.share(Bytes::copy_from_slice(&whole[1_030..]));
            assert_eq!(output.own(), 30);
            let mut taken = Vec::new();
            while output.len() > 0 {
                let all: Vec<u8> = output.iter().flatten().copied().collect();
                assert_eq!(all.len(), output.len());
                let now = step.min(all.len());
                taken.extend_from_slice(&all[..now]);
                output.advance(now);
            }
            assert_eq!(taken, whole);
            assert_eq!((output.own(), output.pieces.capacity()), (0, 0));
        }
    }
}
