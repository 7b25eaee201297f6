//! Protobuf written straight into a buffer, for the resources of which there are most.
//!
//! prost asks every message for its length again at every level above it; here a length is put in front of its
//! content once the content is written. Fields must be written in the order of their numbers (a `oneof` where its
//! smallest number would be) and defaults left out, which gives the bytes that prost gives.

use std::time::Duration;

/// Wire type of lengths, strings, bytes and messages.
const LENGTH_DELIMITED: u32 = 2;

/// A number of seven bits per byte, the lowest first.
pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes [`varint`] writes.
pub(crate) fn varint_len(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// A string or bytes, also when empty.
pub(crate) fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    varint(out, u64::from(field << 3 | LENGTH_DELIMITED));
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A string of a plain proto3 field: left out when empty.
pub(crate) fn text(out: &mut Vec<u8>, field: u32, value: &str) {
    if !value.is_empty() {
        bytes(out, field, value.as_bytes());
    }
}

/// A string that consists of `pieces`, also when empty.
pub(crate) fn pieces(out: &mut Vec<u8>, field: u32, pieces: &[&str]) {
    varint(out, u64::from(field << 3 | LENGTH_DELIMITED));
    varint(out, pieces.iter().map(|piece| piece.len() as u64).sum());
    for piece in pieces {
        out.extend_from_slice(piece.as_bytes());
    }
}

/// An integer, also when 0.
pub(crate) fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(field << 3));
    varint(out, value);
}

/// A `double`, also when 0.
pub(crate) fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    varint(out, u64::from(field << 3 | 1));
    out.extend_from_slice(&value.to_le_bytes());
}

/// `true`; `false` of a plain proto3 field is left out.
pub(crate) fn flag(out: &mut Vec<u8>, field: u32, value: bool) {
    if value {
        number(out, field, 1);
    }
}

/// A number or truth value in its wrapper (`UInt32Value`, `BoolValue`), which is there also when the value is 0.
pub(crate) fn wrapped(out: &mut Vec<u8>, field: u32, value: u64) {
    message(out, field, |out| {
        if value != 0 {
            number(out, 1, value);
        }
    });
}

/// A `google.protobuf.Duration`: seconds 1, nanoseconds 2.
pub(crate) fn duration(out: &mut Vec<u8>, field: u32, value: Duration) {
    message(out, field, |out| {
        for (field, value) in [(1, value.as_secs()), (2, value.subsec_nanos().into())] {
            if value != 0 {
                number(out, field, value);
            }
        }
    });
}

/// A message of prost's, for what is too rare to be written by hand.
pub(crate) fn built(out: &mut Vec<u8>, field: u32, value: &impl prost::Message) {
    prost::encoding::message::encode(field, value, out);
}

/// A message, whose fields `content` writes.
pub(crate) fn message(out: &mut Vec<u8>, field: u32, content: impl FnOnce(&mut Vec<u8>)) {
    varint(out, u64::from(field << 3 | LENGTH_DELIMITED));
    let length_at = out.len();
    out.push(0);
    content(out);
    let len = out.len() - length_at - 1;
    // One byte was kept for the length; longer content moves up to make room for the rest of it.
    let more = varint_len(len as u64) - 1;
    if more > 0 {
        out.resize(out.len() + more, 0);
        out.copy_within(length_at + 1..length_at + 1 + len, length_at + 1 + more);
    }
    let mut rest = len;
    for byte in &mut out[length_at..length_at + more] {
        *byte = rest as u8 | 0x80;
        rest >>= 7;
    }
    out[length_at + more] = rest as u8;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use proto::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
    use proto::pb::google::protobuf::Any;

    use super::*;

    #[test]
    fn lengths_at_the_edges_of_their_varints_are_right() {
        for len in [0, 1, 126, 127, 128, 129, 16_383, 16_384, 2_097_151, 2_097_152] {
            let inner = vec![b'x'; len];
            let mut ours = Vec::new();
            message(&mut ours, 2, |out| out.extend_from_slice(&inner));
            let expected = Any { type_url: String::new(), value: inner };
            // prost leaves an empty field out, which a message written on purpose is not.
            if len > 0 {
                assert!(ours == expected.encode_to_vec(), "length {len}");
            } else {
                assert_eq!(ours, [0x12, 0]);
            }
        }
    }

    proptest! {
        #[test]
        fn varints_are_those_of_prost(value: u64) {
            let mut ours = Vec::new();
            varint(&mut ours, value);
            let mut theirs = Vec::new();
            prost::encoding::encode_varint(value, &mut theirs);
            prop_assert_eq!(&ours, &theirs);
            prop_assert_eq!(varint_len(value), ours.len());
        }

        #[test]
        fn strings_are_those_of_prost(name in ".*", field in 1u32..1000) {
            let mut ours = Vec::new();
            text(&mut ours, field, &name);
            let mut theirs = Vec::new();
            if !name.is_empty() {
                prost::encoding::string::encode(field, &name, &mut theirs);
            }
            prop_assert_eq!(ours, theirs);
            let nested = DataSource { specifier: Some(Specifier::Filename(name.clone())), watched_directory: None };
            let mut ours = Vec::new();
            message(&mut ours, field, |out| bytes(out, 1, name.as_bytes()));
            let mut theirs = Vec::new();
            prost::encoding::message::encode(field, &nested, &mut theirs);
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn strings_may_consist_of_pieces(first in ".*", second in ".*", field in 1u32..1000) {
            let (mut ours, mut whole) = (Vec::new(), Vec::new());
            pieces(&mut ours, field, &[&first, &second]);
            bytes(&mut whole, field, format!("{first}{second}").as_bytes());
            prop_assert_eq!(ours, whole);
        }

        #[test]
        fn wrapped_values_and_durations_are_those_of_prost(
            seconds in prop_oneof![Just(0), 0..i64::MAX as u64],
            nanos in prop_oneof![Just(0), 0..1_000_000_000u32],
            number in prop_oneof![Just(0), any::<u32>()],
            field in 1u32..1000,
        ) {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            let value = Duration::new(seconds, nanos);
            duration(&mut ours, field, value);
            wrapped(&mut ours, field, number.into());
            built(&mut theirs, field, &crate::pack::duration(value));
            built(&mut theirs, field, &crate::pack::uint32(number));
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn numbers_are_those_of_prost(value: u64, float: f64, field in 1u32..1000) {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            number(&mut ours, field, value);
            double(&mut ours, field, float);
            prost::encoding::uint64::encode(field, &value, &mut theirs);
            prost::encoding::double::encode(field, &float, &mut theirs);
            prop_assert_eq!(ours, theirs);
        }
    }
}
