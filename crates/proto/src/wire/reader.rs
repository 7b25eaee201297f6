//! Reads the records of an encoded message, one after the other, without copying.

use std::ops::Range;

/// How many messages may lie inside each other; the limit of Envoy's and prost's own decoders.
pub(super) const MAX_DEPTH: u32 = 100;

/// The bytes are not a message; says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// The encoding of one value, as its key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Varint,
    Fixed64,
    Delimited,
    Group,
    Fixed32,
}

/// One field as it lies in the bytes. Positions count from the beginning of the message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// The field's number, never 0.
    pub(super) number: u32,
    pub(super) encoding: Encoding,
    /// Where its key begins.
    pub(super) key: usize,
    /// Where its payload begins: after the key, and after the length if there is one.
    pub(super) start: usize,
    /// Where the payload ends and the next record begins.
    pub(super) end: usize,
    /// The value of a varint or of a fixed number; 0 otherwise.
    pub(super) bits: u64,
}

impl Record {
    /// The payload's place.
    pub(super) fn payload(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// Reads the record that begins at `at`; `None` at the end of the message.
#[inline(always)]
pub(super) fn record_at(bytes: &[u8], at: usize) -> Result<Option<Record>, Malformed> {
    if at >= bytes.len() {
        return Ok(None);
    }
    let (number, wire_type, mut start) = key_at(bytes, at)?;
    let mut bits = 0;
    let (encoding, end) = match wire_type {
        0 => {
            let (value, end) = varint_at(bytes, start)?;
            bits = value;
            (Encoding::Varint, end)
        }
        1 => {
            let value: [u8; 8] = bytes.get(start..).and_then(|b| b.first_chunk()).copied().ok_or(CUT_SHORT)?;
            bits = u64::from_le_bytes(value);
            (Encoding::Fixed64, start + 8)
        }
        2 => {
            let (length, after) = varint_at(bytes, start)?;
            start = after;
            if length > (bytes.len() - start) as u64 {
                return Err(CUT_SHORT);
            }
            (Encoding::Delimited, start + length as usize)
        }
        3 => (Encoding::Group, group_end(bytes, start, number, MAX_DEPTH)?),
        5 => {
            let value: [u8; 4] = bytes.get(start..).and_then(|b| b.first_chunk()).copied().ok_or(CUT_SHORT)?;
            bits = u64::from(u32::from_le_bytes(value));
            (Encoding::Fixed32, start + 4)
        }
        _ => return Err(Malformed("a field has an unknown encoding")),
    };
    Ok(Some(Record { number, encoding, key: at, start, end, bits }))
}

const CUT_SHORT: Malformed = Malformed("the message is cut short");

/// The field number and wire type at `at`, and where the payload (or its length) begins.
#[inline(always)]
fn key_at(bytes: &[u8], at: usize) -> Result<(u32, u8, usize), Malformed> {
    let (key, start) = varint_at(bytes, at)?;
    let number = key >> 3;
    if number == 0 || number > (1 << 29) - 1 {
        return Err(Malformed("a field has an impossible number"));
    }
    Ok((number as u32, (key & 7) as u8, start))
}

/// The varint at `at`, and where it ends.
#[inline(always)]
pub(super) fn varint_at(bytes: &[u8], at: usize) -> Result<(u64, usize), Malformed> {
    match bytes.get(at) {
        Some(&byte) if byte < 0x80 => Ok((u64::from(byte), at + 1)),
        Some(_) => long_varint_at(bytes, at),
        None => Err(CUT_SHORT),
    }
}

#[inline(never)]
fn long_varint_at(bytes: &[u8], at: usize) -> Result<(u64, usize), Malformed> {
    let mut value = 0;
    for (index, &byte) in bytes[at..].iter().take(10).enumerate() {
        // Of a tenth byte only one bit fits into 64.
        if index == 9 && byte > 1 {
            return Err(Malformed("a number is too long"));
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok((value, at + index + 1));
        }
    }
    Err(CUT_SHORT)
}

/// Where the group that began before `at` ends, its end marker included. Envoy's API has no groups: they are unknown fields.
fn group_end(bytes: &[u8], mut at: usize, number: u32, depth: u32) -> Result<usize, Malformed> {
    if depth == 0 {
        return Err(TOO_DEEP);
    }
    loop {
        let (inner, wire_type, start) = key_at(bytes, at)?;
        at = match wire_type {
            3 => group_end(bytes, start, inner, depth - 1)?,
            4 if inner == number => return Ok(start),
            4 => return Err(Malformed("a group ends that was not begun")),
            _ => record_at(bytes, at)?.ok_or(CUT_SHORT)?.end,
        };
    }
}

/// More than `MAX_DEPTH` messages inside each other.
pub(super) const TOO_DEEP: Malformed = Malformed("messages are nested too deeply");
