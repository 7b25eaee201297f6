//! The messages that are sent.

use bytes::Bytes;
use tonic::Status;

use super::FRAME_HEAD;

/// A message below this size is copied into one piece: that costs less than more slices to write.
const ONE_PIECE_BELOW: usize = 16 * 1024;

/// Hands on the pieces of a message of `head` and then `body`, with gRPC's head before it. Those of a large body are
/// shared, not copied.
///
/// # Errors
/// The message is longer than gRPC can say (4 GiB).
pub(crate) fn message(head: &[u8], body: &snapshot::Body, mut each: impl FnMut(Bytes)) -> Result<(), Status> {
    let len = u32::try_from(head.len() + body.len())
        .map_err(|_| Status::resource_exhausted("the response is longer than 4 GiB"))?;
    let is_small = head.len() + body.len() < ONE_PIECE_BELOW;
    let mut first = Vec::with_capacity(FRAME_HEAD + head.len() + if is_small { body.len() } else { 0 });
    first.push(0);
    first.extend_from_slice(&len.to_be_bytes());
    first.extend_from_slice(head);
    if is_small {
        body.pieces().iter().for_each(|piece| first.extend_from_slice(piece));
        each(first.into());
    } else {
        each(first.into());
        body.pieces().iter().cloned().for_each(each);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn body(sizes: &[usize]) -> snapshot::Body {
        let entries: Vec<Bytes> = sizes.iter().enumerate().map(|(i, size)| vec![i as u8; *size].into()).collect();
        snapshot::Body::join(&entries)
    }

    fn pieces(body: &snapshot::Body) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        message(b"head", body, |piece| pieces.push(piece)).unwrap();
        pieces
    }

    #[test]
    fn a_small_message_is_one_piece_with_the_length_before_it() {
        let pieces = pieces(&body(&[3, 2]));
        assert_eq!(pieces, [[&[0, 0, 0, 0, 9][..], b"head", &[0, 0, 0, 1, 1]].concat()]);
    }

    #[test]
    fn the_pieces_of_a_large_message_are_shared() {
        let shared = body(&[20_000, 30_000]);
        let pieces = pieces(&shared);
        assert_eq!(pieces[0], [&[0, 0, 0, 0xc3, 0x54][..], b"head"].concat());
        let same = |(ours, theirs): (&Bytes, &Bytes)| ours.as_ptr() == theirs.as_ptr() && ours.len() == theirs.len();
        assert!(pieces[1..].iter().zip(shared.pieces()).all(same));
        assert_eq!(pieces.len(), 1 + shared.pieces().len());
    }
}
