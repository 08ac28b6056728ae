//! Reads lines that the fast path does not know: unusual ones, and those that Ruby wrote damaged in a way that is understood.
//!
//! Ruby writes file names, names of `T_DATA` types and some class names without escapes. Up to 3.3 it also writes a byte above 0x7f in
//! a method's name as `\u00ff`, a zero byte, and five bytes of what its buffer held before, which may be anything.

use memchr::{memchr, memchr2};

use super::line::{Kind, Line};
use crate::lines::glance::{self, Fields};
use crate::lines::{hex, key};

/// The beginning of a damaged character in a name.
pub(super) const STALE: &[u8] = b"\\u00ff\0";

/// The length of a damaged character in a name.
pub(super) const STALE_LEN: usize = STALE.len() + 5;

const LOOSE: u64 = key::FILE | key::METHOD | key::NAME | key::REAL_CLASS_NAME | key::STRUCT;
const ESCAPED: u64 = key::METHOD | key::NAME;
const ADDRESSES: u64 = key::ADDRESS | key::CLASS | key::SUPERCLASS | key::DEFAULT;

/// The maximum nesting of unknown values.
const DEEPEST: u32 = 8;

/// The reason why a line cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// The data ends inside of the value that begins at this position, whose key has this bit.
    Cut { key: u64, at: usize },
    /// It makes no sense.
    Malformed,
}

/// Reads a line, which ends in a newline. Returns true if all its keys are known.
pub(super) fn read<'a>(data: &'a [u8], line: &mut Line<'a>) -> Result<bool, Bad> {
    let mut at = expect(data, 0, b"{")?;
    let mut seen = 0u64;
    let mut known = true;
    loop {
        at = expect(data, at, b"\"")?;
        let end = at + memchr(b'"', data.get(at..).unwrap_or_default()).ok_or(Bad::Malformed)?;
        let key = key::of(&data[at..end]);
        known &= key != key::OTHER;
        if seen & key != 0 {
            return Err(Bad::Malformed);
        }
        seen |= key;
        at = value(data, expect(data, end + 1, b":")?, key, &mut seen, line)?;
        match data.get(at) {
            // Ruby leaves one space out, in lines of shapes.
            Some(b',') => at = expect(data, at + 1, b" ").unwrap_or(at + 1),
            Some(b'}') if data.get(at + 1..) == Some(b"\n") => break,
            _ => return Err(Bad::Malformed),
        }
    }
    let mismatch = line.value.zip(line.bytesize).is_some_and(|((_, length), size)| length as u64 != size);
    let incomplete = match line.kind {
        Kind::Object(_) | Kind::Shape => seen & key::ADDRESS == 0,
        Kind::Root => false,
        Kind::Missing => true,
    };
    if mismatch || incomplete { Err(Bad::Malformed) } else { Ok(known) }
}

fn expect(data: &[u8], at: usize, wanted: &[u8]) -> Result<usize, Bad> {
    if data.get(at..).is_some_and(|rest| rest.starts_with(wanted)) {
        Ok(at + wanted.len())
    } else {
        Err(Bad::Malformed)
    }
}

// Reads the value at `at`, and returns the position after it.
fn value<'a>(data: &'a [u8], at: usize, key: u64, seen: &mut u64, line: &mut Line<'a>) -> Result<usize, Bad> {
    match data.get(at) {
        Some(b'"') if key & LOOSE != 0 => {
            let end = loose_end(data, at + 1, key, line).ok_or(Bad::Cut { key, at })?;
            line.text(key, &data[at + 1..end], end - at - 1);
            Ok(end + 1)
        }
        Some(b'"') => {
            let (end, length) = glance::text(data, at + 1).ok_or(Bad::Cut { key, at })?;
            let raw = &data[at + 1..end - 1];
            if key & ADDRESSES != 0 {
                line.address(key, hex::read_any(raw).ok_or(Bad::Malformed)?);
            } else {
                line.text(key, raw, length);
            }
            Ok(end)
        }
        Some(b'[') if key == key::REFERENCES => references(data, at, line),
        Some(b'{') if key == key::FLAGS => flags(data, at + 1, seen, line),
        Some(b'{' | b'[') => skip(data, at),
        Some(_) => {
            let (end, number) = word(data, at)?;
            if let Some(number) = number {
                line.number(key, number);
            }
            Ok(end)
        }
        None => Err(Bad::Cut { key, at }),
    }
}

fn references(data: &[u8], at: usize, line: &mut Line<'_>) -> Result<usize, Bad> {
    let cut = Bad::Cut { key: key::REFERENCES, at };
    if data.get(at + 1) == Some(&b']') {
        return Ok(at + 2);
    }
    let mut at = at + 1;
    loop {
        let (address, end) = reference(data, at).ok_or(cut)??;
        line.reference(address);
        at = match data.get(end) {
            Some(b',') => end + 2,
            Some(b']') => return Ok(end + 1),
            Some(_) => return Err(Bad::Malformed),
            None => return Err(cut),
        };
    }
}

/// Reads one element of a list of references, and returns it with the position after it, or `None` if the data ends before.
pub(super) fn reference(data: &[u8], at: usize) -> Option<Result<(u64, usize), Bad>> {
    let window = data.get(at + 1..(at + 2 + hex::LONGEST).min(data.len()))?;
    let Some(length) = memchr(b'"', window) else {
        return (window.len() > hex::LONGEST).then_some(Err(Bad::Malformed));
    };
    let address = window.get(..length).and_then(hex::read_any).filter(|_| data.get(at) == Some(&b'"'));
    Some(address.map(|address| (address, at + length + 2)).ok_or(Bad::Malformed))
}

fn flags<'a>(data: &'a [u8], mut at: usize, seen: &mut u64, line: &mut Line<'a>) -> Result<usize, Bad> {
    loop {
        at = expect(data, at, b"\"")?;
        let end = at + memchr(b'"', data.get(at..).unwrap_or_default()).ok_or(Bad::Malformed)?;
        let key = key::of(&data[at..end]);
        if *seen & key != 0 {
            return Err(Bad::Malformed);
        }
        *seen |= key;
        let start = expect(data, end + 1, b":")?;
        at = match data.get(start) {
            Some(b'{' | b'[' | b'"') => skip(data, start)?,
            _ => {
                let (end, number) = word(data, start)?;
                if let Some(number) = number {
                    line.number(key, number);
                }
                end
            }
        };
        match data.get(at) {
            Some(b',') => at = expect(data, at + 1, b" ")?,
            Some(b'}') => return Ok(at + 1),
            _ => return Err(Bad::Malformed),
        }
    }
}

// Reads `true` as 1, `false` and `null` as 0, and a number if it is a natural one.
fn word(data: &[u8], at: usize) -> Result<(usize, Option<u64>), Bad> {
    let rest = data.get(at..).unwrap_or_default();
    let length = rest.iter().position(|byte| matches!(byte, b',' | b'}' | b']' | b'\n')).ok_or(Bad::Malformed)?;
    let number = match &rest[..length] {
        b"true" => Some(1),
        b"false" | b"null" => Some(0),
        word if !word.is_empty() && word.iter().all(u8::is_ascii_digit) => {
            Some(std::str::from_utf8(word).ok().and_then(|digits| digits.parse().ok()).ok_or(Bad::Malformed)?)
        }
        word if !word.is_empty() && word.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e')) => {
            None
        }
        _ => return Err(Bad::Malformed),
    };
    Ok((at + length, number))
}

// Skips a value of any kind.
fn skip(data: &[u8], start: usize) -> Result<usize, Bad> {
    let mut depth = 0;
    let mut at = start;
    loop {
        match data.get(at).ok_or(Bad::Malformed)? {
            b'"' => at = glance::text(data, at + 1).ok_or(Bad::Malformed)?.0,
            b'{' | b'[' if depth == DEEPEST => return Err(Bad::Malformed),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            b'\n' => return Err(Bad::Malformed),
            _ => at += 1,
        }
        if depth == 0 {
            return Ok(at);
        }
    }
}

// Returns the position of the quote that ends a name. A quote ends it only where another key or the end of the line follows.
fn loose_end(data: &[u8], start: usize, key: u64, line: &mut Line<'_>) -> Option<usize> {
    let mut at = start;
    loop {
        at += memchr2(b'"', b'\\', data.get(at..)?)?;
        if data[at] == b'"' {
            if ends_value(data, at + 1) {
                line.repaired |= data[start..at].iter().any(|byte| *byte < 0x20);
                return Some(at);
            }
            line.repaired = true;
            at += 1;
        } else if key & ESCAPED == 0 {
            line.repaired = true;
            at += 1;
        } else if data[at..].starts_with(STALE) {
            line.repaired = true;
            at += STALE_LEN;
        } else {
            at += 2;
        }
    }
}

fn ends_value(data: &[u8], at: usize) -> bool {
    let rest = data.get(at..).unwrap_or_default();
    match rest {
        b"}\n" => true,
        [b',', b' ', b'"', key @ ..] => {
            let end = memchr(b'"', key.get(..20).unwrap_or(key));
            end.is_some_and(|end| key.get(end + 1) == Some(&b':') && key::of(&key[..end]) != key::OTHER)
        }
        _ => false,
    }
}

/// Removes the escapes of a text, and replaces damaged characters by question marks.
pub(super) fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut rest = raw;
    while let Some(at) = memchr(b'\\', rest) {
        let (before, escape) = rest.split_at(at);
        out.extend_from_slice(before);
        let (bytes, len) = character(escape);
        out.extend_from_slice(&bytes.to_le_bytes()[..usize::from(len.0)]);
        rest = escape.get(len.1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

// Returns the bytes of an escape, their number, and its length.
fn character(escape: &[u8]) -> (u32, (u8, usize)) {
    if escape.starts_with(STALE) {
        return (u32::from(b'?'), (1, STALE_LEN));
    }
    let byte = match escape.get(1) {
        Some(b'u') => {
            let digits = escape.get(2..6).and_then(|digits| std::str::from_utf8(digits).ok());
            let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0);
            // Ruby escapes nothing above 0x7f; a newer one may.
            let mut utf8 = [0; 4];
            let len = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut utf8).len();
            return (u32::from_le_bytes(utf8), (u8::try_from(len).unwrap_or(0), 6));
        }
        Some(b'b') => 8,
        Some(b'f') => 12,
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(&byte) => byte,
        None => b'\\',
    };
    (u32::from(byte), (1, 2))
}
