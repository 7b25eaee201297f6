//! The code that texts may be written in (RFC 7541, appendix B).
//!
//! The code is canonical: with the lengths given, codes of one length follow each other in the order of their bytes,
//! after all shorter ones. So the lengths are all that is needed.

use crate::Reason;

/// How many bits each byte takes. The end of text, which must not occur, would be the last code of 30.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
const LONGEST: usize = 30;

/// All codes, in order.
struct Codes {
    /// The first code of each length, how many there are, and where their bytes begin in `bytes`.
    by_length: [(u32, u32, usize); LONGEST + 1],
    bytes: [u8; 256],
}

const CODES: Codes = codes();

const fn codes() -> Codes {
    let mut codes = Codes { by_length: [(0, 0, 0); LONGEST + 1], bytes: [0; 256] };
    let (mut length, mut code, mut filled) = (1, 0, 0);
    while length <= LONGEST {
        code <<= 1;
        let begin = filled;
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] as usize == length {
                codes.bytes[filled] = byte as u8;
                filled += 1;
            }
            byte += 1;
        }
        let count = (filled - begin) as u32;
        codes.by_length[length] = (code, count, begin);
        code += count;
        length += 1;
    }
    codes
}

/// The text that `bits` stand for. The rest of the last byte must be ones, and less than a byte.
///
/// # Errors
/// They stand for none.
pub(super) fn decode(bits: &[u8]) -> Result<Vec<u8>, Reason> {
    // Most texts are letters of five and six bits.
    let mut text = Vec::with_capacity(bits.len() * 4 / 3);
    let (mut code, mut length, mut is_ones) = (0u32, 0usize, true);
    for byte in bits {
        for shift in (0..8).rev() {
            let bit = u32::from(byte >> shift & 1);
            code = code << 1 | bit;
            length += 1;
            is_ones &= bit == 1;
            if length > LONGEST {
                return Err(Reason::Compression);
            }
            let (first, count, begin) = CODES.by_length[length];
            if code >= first && code - first < count {
                text.push(CODES.bytes[begin + (code - first) as usize]);
                (code, length, is_ones) = (0, 0, true);
            }
        }
    }
    if length < 8 && is_ones { Ok(text) } else { Err(Reason::Compression) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541, C.4 and C.6.
    #[test]
    fn the_examples_of_the_rfc_are_decoded() {
        let examples: [(&[u8], &str); 3] = [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff], "www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (
                &[
                    0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66,
                    0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff,
                ],
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
        ];
        for (bits, text) in examples {
            assert_eq!(decode(bits), Ok(text.as_bytes().to_vec()));
        }
    }

    #[test]
    fn codes_fill_their_space_but_for_the_end_of_text() {
        let (first, count, _) = CODES.by_length[LONGEST];
        assert_eq!(first + count, 0x3fff_ffff);
    }

    #[test]
    fn padding_must_be_ones_and_short() {
        assert_eq!(decode(&[0x07]), Ok(b"0".to_vec()));
        assert_eq!(decode(&[0x00]), Err(Reason::Compression));
        assert_eq!(decode(&[0x07, 0xff]), Err(Reason::Compression));
        assert_eq!(decode(&[0xff; 4]), Err(Reason::Compression));
    }
}
