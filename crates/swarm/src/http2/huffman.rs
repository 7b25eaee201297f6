//! The Huffman code of header compression (RFC 7541, appendix B), for decoding only.
//!
//! The code is canonical: the codes of one length are consecutive, in the order of their symbols, and follow from the
//! lengths alone.

use std::sync::LazyLock;

/// The symbol that ends a string; it never occurs in one.
const END: usize = 256;
const LONGEST: usize = 30;

/// The length of each symbol's code in bits.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28,
    28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23,
    23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19,
    22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27,
    27, 27, 27, 26, 30,
];

/// The codes of one length: the first of them, and where their symbols begin in [`Code::symbols`].
#[derive(Clone, Copy, Default)]
struct Row {
    first: u32,
    count: u32,
    symbols: usize,
}

struct Code {
    rows: [Row; LONGEST + 1],
    /// All symbols by the length of their code, then by value.
    symbols: Vec<u16>,
}

static CODE: LazyLock<Code> = LazyLock::new(|| {
    let mut rows = [Row::default(); LONGEST + 1];
    let mut symbols = Vec::with_capacity(LENGTHS.len());
    let mut next = 0u32;
    for (length, row) in rows.iter_mut().enumerate() {
        next <<= 1;
        *row = Row { first: next, count: 0, symbols: symbols.len() };
        let of_length = (0u16..).zip(LENGTHS).filter(|(_, l)| usize::from(*l) == length);
        symbols.extend(of_length.map(|(symbol, _)| symbol));
        row.count = u32::try_from(symbols.len() - row.symbols).unwrap_or_default();
        next += row.count;
    }
    Code { rows, symbols }
});

/// Decodes a string; `None` if it is no Huffman code: a symbol cut short by more than seven ones, or the end symbol.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(bytes.len() * 8 / 5);
    let (mut code, mut length) = (0u32, 0usize);
    for byte in bytes {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            length += 1;
            let row = CODE.rows.get(length)?;
            let offset = code.wrapping_sub(row.first);
            if offset < row.count {
                let symbol = usize::from(CODE.symbols[row.symbols + offset as usize]);
                if symbol == END {
                    return None;
                }
                decoded.push(u8::try_from(symbol).ok()?);
                (code, length) = (0, 0);
            }
        }
    }
    // Padding is the most significant bits of the end symbol, which are ones, and less than a byte.
    (length < 8 && code == (1 << length) - 1).then_some(decoded)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn the_examples_of_the_specification_are_decoded() {
        // RFC 7541, C.4 and C.6.
        for (hex, text) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("6402", "302"),
            ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("", ""),
        ] {
            assert_eq!(decode(&bytes(hex)).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff]), None, "the end symbol");
        assert_eq!(decode(&bytes("f1e3c2e5f23a6ba0ab90f400")), None, "zeros as padding");
        assert_eq!(decode(&bytes("6402ff")), None, "a whole byte of padding");
    }

    #[test]
    fn the_code_is_complete() {
        let covered: u64 = LENGTHS.iter().map(|length| 1u64 << (LONGEST - usize::from(*length))).sum();
        assert_eq!(covered, 1 << LONGEST);
    }
}
