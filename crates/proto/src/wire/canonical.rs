//! Brings the entries of maps into order.
//!
//! Reordering entries changes no length, so it is done within the bytes, from the inside out.

use std::ops::Range;

use super::check::any_parts;
use super::reader::{Encoding, MAX_DEPTH, Malformed, TOO_DEEP, record_at};
use super::table::{Kind, MessageTable, Sort, Tables};

/// Whether all maps in `bytes` are in order.
///
/// # Errors
/// When the bytes are no such message, as far as they have to be read for the answer.
pub(super) fn is_sorted(tables: &Tables, table: &MessageTable, bytes: &[u8], depth: u32) -> Result<bool, Malformed> {
    if table.sort == Sort::Any {
        return Ok(!any_needs_sorting(tables, bytes, depth)?);
    }
    if depth == 0 {
        return Err(TOO_DEEP);
    }
    let mut at = 0;
    // The map that was met last, and its last key.
    let mut last: Option<(u32, &[u8])> = None;
    while let Some(record) = record_at(bytes, at)? {
        at = record.end;
        if record.encoding != Encoding::Delimited {
            continue;
        }
        let Some(inner) = inner(tables, table, record.number) else { continue };
        let payload = &bytes[record.payload()];
        if inner.sort == Sort::Entry {
            let key = entry_key(payload)?;
            match last {
                Some((number, before)) if number == record.number && before > key => return Ok(false),
                // The entries of one map are scattered among those of others: no encoder does that, so sort to be sure.
                Some((number, _)) if number != record.number && was_met(bytes, record.key, record.number) => {
                    return Ok(false);
                }
                _ => last = Some((record.number, key)),
            }
        }
        if inner.sorts && !is_sorted(tables, inner, payload, depth - 1)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Puts the entries of all maps in `bytes` into the order of their keys' bytes. Entries with equal keys stay as they are: the last
/// one counts. An `Any` of unknown type, or whose value is malformed, stays as it is.
///
/// # Errors
/// When the bytes are no such message; they may then be changed in part.
pub(super) fn sort(tables: &Tables, table: &MessageTable, bytes: &mut [u8], depth: u32) -> Result<(), Malformed> {
    if table.sort == Sort::Any {
        return sort_any(tables, bytes, depth);
    }
    if depth == 0 {
        return Err(TOO_DEEP);
    }
    let mut at = 0;
    while let Some(record) = record_at(bytes, at)? {
        at = record.end;
        if record.encoding != Encoding::Delimited {
            continue;
        }
        if let Some(inner) = inner(tables, table, record.number).filter(|inner| inner.sorts) {
            sort(tables, inner, &mut bytes[record.payload()], depth - 1)?;
        }
    }
    for &map in &table.maps {
        sort_map(bytes, map)?;
    }
    Ok(())
}

/// The message that a field of this number holds.
#[inline]
fn inner<'t>(tables: &'t Tables, table: &MessageTable, number: u32) -> Option<&'t MessageTable> {
    match table.field(number)?.kind {
        Kind::Message(inner) => Some(tables.at(inner)),
        _ => None,
    }
}

fn sort_any(tables: &Tables, bytes: &mut [u8], depth: u32) -> Result<(), Malformed> {
    if !any_needs_sorting(tables, bytes, depth)? {
        return Ok(());
    }
    let Some(index) = tables.find_type_url(any_parts(bytes)?.0) else { return Ok(()) };
    let mut at = 0;
    while let Some(record) = record_at(bytes, at)? {
        at = record.end;
        if record.number == 2 {
            // In a copy: if it turns out to be malformed, nothing of it shall have moved, and the rest shall still be sorted.
            let mut value = bytes[record.payload()].to_vec();
            if sort(tables, tables.at(index), &mut value, depth - 1).is_ok() {
                bytes[record.payload()].copy_from_slice(&value);
            }
        }
    }
    Ok(())
}

/// Whether an `Any` holds a message that is known and out of order, and not malformed before that.
fn any_needs_sorting(tables: &Tables, any: &[u8], depth: u32) -> Result<bool, Malformed> {
    let (type_url, value) = any_parts(any)?;
    let Some(index) = tables.find_type_url(type_url) else { return Ok(false) };
    let table = tables.at(index);
    Ok(depth > 0 && table.sorts && is_sorted(tables, table, value, depth - 1) == Ok(false))
}

/// Orders the entries of one map. What lies between them (in no known encoding) comes after them.
fn sort_map(bytes: &mut [u8], map: u32) -> Result<(), Malformed> {
    // Where each entry is, and where its key.
    let mut entries: Vec<(Range<usize>, Range<usize>)> = Vec::new();
    let mut others: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while let Some(record) = record_at(bytes, at)? {
        at = record.end;
        if record.number == map && record.encoding == Encoding::Delimited {
            let key = entry_key_range(&bytes[record.payload()])?;
            entries.push((record.key..record.end, record.start + key.start..record.start + key.end));
        } else if !entries.is_empty() {
            others.push(record.key..record.end);
        }
    }
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(()) };
    let region = first.0.start..last.0.end;
    others.retain(|other| other.end <= region.end);
    if others.is_empty() && entries.is_sorted_by(|a, b| bytes[a.1.clone()] <= bytes[b.1.clone()]) {
        return Ok(());
    }
    entries.sort_by(|a, b| bytes[a.1.clone()].cmp(&bytes[b.1.clone()]));
    let mut ordered = Vec::with_capacity(region.len());
    for range in entries.iter().map(|e| &e.0).chain(&others) {
        ordered.extend_from_slice(&bytes[range.clone()]);
    }
    bytes[region].copy_from_slice(&ordered);
    Ok(())
}

/// Whether a field of this number lies before `end`.
#[cold]
fn was_met(bytes: &[u8], end: usize, number: u32) -> bool {
    let mut at = 0;
    while let Ok(Some(record)) = record_at(bytes, at) {
        if record.key >= end {
            break;
        }
        if record.number == number {
            return true;
        }
        at = record.end;
    }
    false
}

/// The key of a map's entry, as it is encoded; empty for the default key.
fn entry_key(entry: &[u8]) -> Result<&[u8], Malformed> {
    Ok(&entry[entry_key_range(entry)?])
}

fn entry_key_range(entry: &[u8]) -> Result<Range<usize>, Malformed> {
    let mut key = 0..0;
    let mut at = 0;
    while let Some(record) = record_at(entry, at)? {
        if record.number == 1 {
            key = record.payload();
        }
        at = record.end;
    }
    Ok(key)
}

/// The depth to begin with.
pub(super) const DEPTH: u32 = MAX_DEPTH;
