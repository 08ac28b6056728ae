//! A fast path for complete, ordinary lines, which nearly all are: it checks a line as a whole in a tenth of the time. Every
//! line that passes here would also pass the state machine.

use memchr::memchr3;

use super::step::is_digit;
use super::{hex, key};

const ONES: u64 = 0x0101_0101_0101_0101;

/// Takes the content of a line while it is checked. A line that turns out to be odd has been passed in part.
pub trait Fields<'a> {
    /// A number, or `true` as 1.
    fn number(&mut self, key: u64, number: u64);
    /// An address other than a reference.
    fn address(&mut self, key: u64, address: u64);
    /// A string as it is in the line, between the quotes, and its length without escapes.
    fn text(&mut self, key: u64, raw: &'a [u8], length: usize);
    /// An element of the list of references.
    fn reference(&mut self, address: u64);
}

/// Checks only.
impl Fields<'_> for () {
    fn number(&mut self, _: u64, _: u64) {}
    fn address(&mut self, _: u64, _: u64) {}
    fn text(&mut self, _: u64, _: &[u8], _: usize) {}
    fn reference(&mut self, _: u64) {}
}

/// Returns the length, with the newline, of a good line at the start of `data` whose addresses have `address` bytes. `None`
/// means only that the state machine has to decide.
#[inline]
pub fn good_line<'a>(data: &'a [u8], address: usize, fields: &mut impl Fields<'a>) -> Option<usize> {
    let mut at = expect(data, 0, b"{\"address\":\"")?;
    fields.address(key::ADDRESS, hex::read(data.get(at..)?, address)?);
    at += address + 1;
    let mut seen = key::ADDRESS;
    let mut bytesize = None;
    while let Some(next) = expect(data, at, b", \"") {
        let (key, value) = key(data, next)?;
        if seen & key != 0 {
            return None;
        }
        seen |= key;
        at = match (key, *data.get(value)?) {
            (key::OTHER, _) => return None,
            (key::REFERENCES, b'[') => references(data, value + 1, address, fields)?,
            (_, b'0'..=b'9') => {
                let (end, number) = number(data, value)?;
                if key == key::BYTESIZE {
                    bytesize = Some(number);
                }
                fields.number(key, number);
                end
            }
            (_, b't') => {
                fields.number(key, 1);
                expect(data, value, b"true")?
            }
            (_, b'f') => expect(data, value, b"false")?,
            (_, b'{') => flags(data, value + 1, &mut seen, fields)?,
            (key::CLASS | key::SUPERCLASS | key::DEFAULT, b'"') => {
                // The class may be odd, as in an internal object: the state machine decides.
                fields.address(key, hex::read(&data[value + 1..], address)?);
                value + address + 2
            }
            (key::CLASS | key::SUPERCLASS | key::DEFAULT, _) => return None,
            (key::FILE | key::METHOD | key::NAME | key::REAL_CLASS_NAME | key::STRUCT, b'"') => {
                let (end, length) = text(data, value + 1)?;
                // The state machine handles strings with escapes or quotes.
                if end - value - 2 != length || !matches!(data.get(end), Some(b',' | b'}')) {
                    return None;
                }
                fields.text(key, &data[value + 1..end - 1], length);
                end
            }
            (_, b'"') => {
                let (end, length) = text(data, value + 1)?;
                if key == key::VALUE && bytesize.is_some_and(|size| size != length as u64) {
                    return None;
                }
                fields.text(key, &data[value + 1..end - 1], length);
                end
            }
            _ => return None,
        };
    }
    (seen & key::TYPE != 0).then_some(expect(data, at, b"}\n")?)
}

#[inline]
fn expect<const N: usize>(data: &[u8], at: usize, wanted: &[u8; N]) -> Option<usize> {
    (data.get(at..at + N)? == wanted).then_some(at + N)
}

// Returns the bit of the key that starts at `at`, and the position of its value.
#[inline]
fn key(data: &[u8], at: usize) -> Option<(u64, usize)> {
    let window = data.get(at..at + 18)?;
    let head = u64::from_le_bytes(*window.first_chunk()?);
    let mut length = (zero_bytes(head ^ (u64::from(b'"') * ONES)).trailing_zeros() / 8) as usize;
    if length == 8 {
        let more = u64::from_le_bytes(*window[8..].first_chunk()?);
        length += (zero_bytes(more ^ (u64::from(b'"') * ONES)).trailing_zeros() / 8) as usize;
    }
    if window[length..length + 2] != *b"\":" {
        return None;
    }
    let (head, tail) = match length {
        0 => return None,
        1..8 => (head & (u64::MAX >> (64 - 8 * length)), 0),
        8 => (head, 0),
        _ => (head, u64::from_le_bytes(*window[..length].last_chunk()?)),
    };
    Some((key::with_ends(head, tail, length), at + length + 2))
}

// Returns the position after the closing bracket.
#[inline]
fn references<'a>(data: &'a [u8], at: usize, address: usize, fields: &mut impl Fields<'a>) -> Option<usize> {
    let mut at = expect(data, at, b"\"")?;
    loop {
        fields.reference(hex::read(data.get(at..)?, address)?);
        at += address + 1;
        match expect(data, at, b", \"") {
            Some(next) => at = next,
            None => return expect(data, at, b"]"),
        }
    }
}

fn number(data: &[u8], at: usize) -> Option<(usize, u64)> {
    let mut end = at;
    let mut number = 0u64;
    while let Some(digit @ b'0'..=b'9') = data.get(end) {
        number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        end += 1;
    }
    Some((end, number))
}

// Returns the position after the closing brace. Every flag must be true.
fn flags<'a>(data: &'a [u8], at: usize, seen: &mut u64, fields: &mut impl Fields<'a>) -> Option<usize> {
    // Most objects of an application are old. Comparing all of their flags at once is faster.
    const OLD: &[u8; 69] = b"\"wb_protected\":true, \"old\":true, \"uncollectible\":true, \"marked\":true}";
    const KEYS: [u64; 4] = [key::WB_PROTECTED, key::OLD, key::UNCOLLECTIBLE, key::MARKED];
    if let Some(end) = expect(data, at, OLD) {
        let all = KEYS[0] | KEYS[1] | KEYS[2] | KEYS[3];
        if *seen & all != 0 {
            return None;
        }
        *seen |= all;
        KEYS.into_iter().for_each(|key| fields.number(key, 1));
        return Some(end);
    }
    let mut at = expect(data, at, b"\"")?;
    loop {
        let (key, value) = key(data, at)?;
        if key == key::OTHER || *seen & key != 0 {
            return None;
        }
        *seen |= key;
        fields.number(key, 1);
        at = expect(data, value, b"true")?;
        match expect(data, at, b", \"") {
            Some(next) => at = next,
            None => return expect(data, at, b"}"),
        }
    }
}

// Returns the position after the closing quote, and the string's length in unescaped bytes.
#[inline]
pub(crate) fn text(data: &[u8], begin: usize) -> Option<(usize, usize)> {
    let mut at = begin;
    let mut escaped = 0;
    loop {
        at += special(data.get(at..)?)?;
        match (data[at], data.get(at + 1)) {
            (b'"', _) => return Some((at + 1, at - begin - escaped)),
            (b'\\', Some(b'u')) if data.get(at + 2..at + 6)?.iter().all(|&byte| is_digit(byte)) => {
                at += 6;
                escaped += 5;
            }
            (b'\\', Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => {
                at += 2;
                escaped += 1;
            }
            _ => return None,
        }
    }
}

// Finds the next quote, backslash or newline. Most are near.
#[inline]
fn special(data: &[u8]) -> Option<usize> {
    for step in [0, 8] {
        let Some(chunk) = data.get(step..).and_then(<[u8]>::first_chunk::<8>) else { break };
        let bytes = u64::from_le_bytes(*chunk);
        let found = [b'"', b'\\', b'\n'].map(|byte| zero_bytes(bytes ^ (u64::from(byte) * ONES)));
        let found = found[0] | found[1] | found[2];
        if found != 0 {
            return Some(step + (found.trailing_zeros() / 8) as usize);
        }
    }
    memchr3(b'"', b'\\', b'\n', data)
}

// Sets the highest bit of every zero byte. Exact up to the first zero byte, counted from the lowest.
#[inline]
pub(super) fn zero_bytes(bytes: u64) -> u64 {
    bytes.wrapping_sub(ONES) & !bytes & (0x80 * ONES)
}
