//! Header blocks that come in (RFC 7541, 6).

use std::borrow::Cow;

use super::table::Table;
use super::{huffman, integer};
use crate::Reason;

/// The table's size, where nothing else was agreed (RFC 9113, 6.5.2).
const TABLE: usize = 4096;

/// A name or a value: as it stands somewhere, or decoded.
type Text<'a> = Cow<'a, [u8]>;

/// Decodes the blocks of one connection, one after the other.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: Table,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { table: Table::new(TABLE) }
    }

    /// Bytes of its table, about.
    pub(crate) fn held(&self) -> usize {
        self.table.size()
    }

    /// Gives each field of a block to `take`.
    ///
    /// # Errors
    /// The block cannot be decoded, or `take` wants no more of it, so that none after it can be decoded.
    pub(crate) fn decode(
        &mut self,
        mut block: &[u8],
        mut take: impl FnMut(&[u8], &[u8]) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        let mut may_resize = true;
        while let Some(first) = block.first() {
            let is_resize = first & 0xe0 == 0x20;
            if first & 0x80 != 0 {
                let index = integer::decode(&mut block, 7)?;
                let (name, value) = self.table.get(index).ok_or(Reason::Compression)?;
                take(name, value)?;
            } else if first & 0x40 != 0 {
                let (name, value) = self.literal(&mut block, 6)?;
                take(&name, &value)?;
                let name = name.into_owned();
                self.table.add(&name, &value);
            } else if is_resize {
                let max = integer::decode(&mut block, 5)?;
                if max > TABLE || !may_resize {
                    return Err(Reason::Compression);
                }
                self.table.set_max(max);
            } else {
                let (name, value) = self.literal(&mut block, 4)?;
                take(&name, &value)?;
            }
            // Sizes change at the beginning of a block (RFC 7541, 4.2).
            may_resize = is_resize && may_resize;
        }
        Ok(())
    }

    fn literal<'s, 'b: 's>(&'s self, block: &mut &'b [u8], prefix: u32) -> Result<(Text<'s>, Text<'b>), Reason> {
        let name = match integer::decode(block, prefix)? {
            0 => text(block)?,
            index => Cow::Borrowed(self.table.get(index).ok_or(Reason::Compression)?.0),
        };
        Ok((name, text(block)?))
    }
}

fn text<'a>(block: &mut &'a [u8]) -> Result<Text<'a>, Reason> {
    let is_coded = block.first().is_some_and(|first| first & 0x80 != 0);
    let len = integer::decode(block, 7)?;
    let (bytes, rest) = block.split_at_checked(len).ok_or(Reason::Compression)?;
    *block = rest;
    Ok(if is_coded { Cow::Owned(huffman::decode(bytes)?) } else { Cow::Borrowed(bytes) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Reason> {
        let mut fields = Vec::new();
        decoder.decode(block, |name, value| {
            fields.push(format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
            Ok(())
        })?;
        Ok(fields)
    }

    /// RFC 7541, C.4: three requests on one connection.
    #[test]
    fn the_examples_of_the_rfc_are_decoded() {
        let mut decoder = Decoder::new();
        let first =
            [0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        let common = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
        assert_eq!(fields(&mut decoder, &first).unwrap(), common);
        let second = [0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
        assert_eq!(fields(&mut decoder, &second).unwrap(), [&common[..], &["cache-control: no-cache"]].concat());
        let third = [
            0x82, 0x87, 0x85, 0xbf, 0x40, 0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f, 0x89, 0x25, 0xa8, 0x49,
            0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf,
        ];
        let expected = [
            ":method: GET",
            ":scheme: https",
            ":path: /index.html",
            ":authority: www.example.com",
            "custom-key: custom-value",
        ];
        assert_eq!(fields(&mut decoder, &third).unwrap(), expected);
    }

    #[test]
    fn old_entries_make_room_and_are_gone() {
        let mut decoder = Decoder::new();
        // A table of 64 bytes holds one entry of "a: 1".
        assert!(fields(&mut decoder, &[0x3f, 0x21, 0x40, 1, b'a', 1, b'1', 0x40, 1, b'b', 1, b'2']).is_ok());
        assert_eq!(fields(&mut decoder, &[0xbe]).unwrap(), ["b: 2"]);
        assert_eq!(fields(&mut decoder, &[0xbf]), Err(Reason::Compression));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let blocks: [&[u8]; 6] = [
            &[0x80],                   // index 0
            &[0xff, 0x80, 0x80, 0x01], // an index that nothing has
            &[0x40, 5, b'a'],          // a text cut short
            &[0x3f, 0xe2, 0x1f],       // a table larger than allowed
            &[0x82, 0x20],             // a size in the middle
            &[0x00, 0x81, 0x00],       // a code that stands for nothing
        ];
        for block in blocks {
            assert_eq!(fields(&mut Decoder::new(), block), Err(Reason::Compression), "{block:x?}");
        }
    }
}
