//! Addresses as Ruby writes them: `0x`, hexadecimal digits, and a quote that ends them.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x80 * ONES;

/// The length of the longest address, with `0x`.
pub const LONGEST: usize = 18;

/// Reads an address of this length, at least ten bytes, if `data` begins with it and a quote. Objects are aligned to at least
/// four bytes.
#[inline]
pub fn read(data: &[u8], length: usize) -> Option<u64> {
    if !(10..=LONGEST).contains(&length) || data.get(length) != Some(&b'"') || !data.starts_with(b"0x") {
        return None;
    }
    let digits = data.get(2..length)?;
    let (head, tail) = (eight(*digits.first_chunk()?)?, eight(*digits.last_chunk()?)?);
    let address = (head << (4 * (length - 10))) | tail;
    (address & 3 == 0).then_some(address)
}

/// Reads an address of any length and alignment.
pub fn read_any(text: &[u8]) -> Option<u64> {
    let digits = text.strip_prefix(b"0x")?;
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

// Reads eight digits at once. If 0x7f minus a limit is added to a byte below 0x80, its highest bit stays clear exactly when the byte
// is at most the limit.
#[inline]
fn eight(digits: [u8; 8]) -> Option<u64> {
    let bytes = u64::from_le_bytes(digits);
    if bytes & HIGH != 0 {
        return None;
    }
    let no_decimal = (bytes ^ (0x30 * ONES)) + 0x76 * ONES;
    let letter = bytes ^ (0x60 * ONES);
    let no_letter = (letter + 0x79 * ONES) | (HIGH - letter);
    if no_decimal & no_letter & HIGH != 0 {
        return None;
    }
    // Letters have bit 6 set: 'a' is 0x61.
    let nibbles = (bytes & (0x0f * ONES)) + 9 * ((bytes >> 6) & ONES);
    let pairs = ((nibbles << 4) | (nibbles >> 8)) & 0x00ff_00ff_00ff_00ff;
    let quads = (pairs | (pairs >> 8)) & 0x0000_ffff_0000_ffff;
    let low = (quads | (quads >> 16)) & 0xffff_ffff;
    Some(low.swap_bytes() >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_its_number() {
        for address in [0x7f70_a172_3cb0u64, 0xffff_ffff_ffff_fffc, 0x1234_5678, 0xa_bcde_f010, 0x9999_0000_aaa4] {
            let text = format!("{address:#x}");
            assert_eq!(read(format!("{text}\", ").as_bytes(), text.len()), Some(address), "{text}");
            assert_eq!(read_any(text.as_bytes()), Some(address));
            assert_eq!(read(format!("{text}0\"").as_bytes(), text.len()), None);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "0x7f70a1723cbg\"",
            "0x7f70A1723cb0\"",
            "0x7f70a1723cb2\"",
            "0x7f70a\u{e9}723cb0\"",
            "1x7f70a1723cb0\"",
            "0x7f70a1723cb0",
        ] {
            assert_eq!(read(text.as_bytes(), 14), None, "{text}");
        }
        assert_eq!(read_any(b"0x"), None);
    }
}
