//! Integers with a prefix (RFC 7541, 5.1).

use crate::Reason;

/// Takes an integer whose first byte leaves `prefix` bits to it.
///
/// # Errors
/// It is cut short, or larger than any length here may be.
pub(super) fn decode(bytes: &mut &[u8], prefix: u32) -> Result<usize, Reason> {
    let (first, mut rest) = bytes.split_first().ok_or(Reason::Compression)?;
    let most = (1usize << prefix) - 1;
    let mut value = usize::from(*first) & most;
    if value == most {
        let mut shift = 0;
        loop {
            let (next, later) = rest.split_first().ok_or(Reason::Compression)?;
            rest = later;
            // Four bytes more are 28 bits: far above every limit.
            if shift > 21 {
                return Err(Reason::Compression);
            }
            value += usize::from(next & 0x7f) << shift;
            shift += 7;
            if next & 0x80 == 0 {
                break;
            }
        }
    }
    *bytes = rest;
    Ok(value)
}

/// Adds an integer of `prefix` bits under the bits of `first`.
pub(super) fn encode(value: usize, prefix: u32, first: u8, block: &mut Vec<u8>) {
    let most = (1usize << prefix) - 1;
    if value < most {
        return block.push(first | value as u8);
    }
    block.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        block.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    block.push(rest as u8);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for value in (0..1_000).chain([16_383, 16_384, 1 << 20]) {
            for prefix in 4..=7 {
                let mut block = Vec::new();
                encode(value, prefix, 0, &mut block);
                let mut bytes = block.as_slice();
                assert_eq!((decode(&mut bytes, prefix), bytes), (Ok(value), &[][..]));
            }
        }
    }

    #[test]
    fn an_integer_without_an_end_is_refused() {
        assert_eq!(decode(&mut &[0x7f, 0xff][..], 7), Err(Reason::Compression));
        assert_eq!(decode(&mut &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..], 7), Err(Reason::Compression));
        assert_eq!(decode(&mut &[][..], 7), Err(Reason::Compression));
    }
}
