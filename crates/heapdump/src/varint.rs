//! Numbers of variable length: seven bits a byte, the lowest first; the highest bit of a byte says that another follows.

/// The maximum length of a number, bytes.
pub const MAX_LEN: usize = 10;

/// Maps small numbers of either sign to small numbers: 0, -1, 1, -2 become 0, 1, 2, 3.
#[inline]
pub const fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

/// Reverses [`zigzag`].
#[inline]
#[cfg(any(feature = "std", test))]
pub const fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

/// Writes a number into the beginning of a slice and returns its length. A slice that is too short is filled as far as it goes.
#[inline]
pub fn write(bytes: &mut [u8], mut number: u64) -> usize {
    let mut len = 0;
    while number >= 0x80 {
        if let Some(byte) = bytes.get_mut(len) {
            *byte = number.to_le_bytes()[0] | 0x80;
        }
        number >>= 7;
        len += 1;
    }
    if let Some(byte) = bytes.get_mut(len) {
        *byte = number.to_le_bytes()[0];
    }
    len + 1
}

/// Reads a number from the beginning of a slice. Returns it with its length, or `None` if it is cut off or exceeds 64 bits.
#[inline]
#[cfg(any(feature = "std", test))]
pub fn read(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    if first < 0x80 {
        return Some((u64::from(first), 1));
    }
    match bytes.first_chunk::<8>() {
        Some(start) => within(u64::from_le_bytes(*start)).or_else(|| by_byte(bytes)),
        None => by_byte(bytes),
    }
}

// A number of at most eight bytes, without a branch for each of them.
#[inline]
#[cfg(any(feature = "std", test))]
const fn within(bytes: u64) -> Option<(u64, usize)> {
    let ends = !bytes & 0x8080_8080_8080_8080;
    if ends == 0 {
        return None;
    }
    // All bits up to the first byte that is the last of a number.
    let bits = bytes & (ends ^ (ends - 1)) & 0x7f7f_7f7f_7f7f_7f7f;
    let pairs = bits & 0x007f_007f_007f_007f | (bits & 0x7f00_7f00_7f00_7f00) >> 1;
    let fours = pairs & 0x0000_3fff_0000_3fff | (pairs & 0x3fff_0000_3fff_0000) >> 2;
    let number = fours & 0x0fff_ffff | (fours & 0x0fff_ffff_0000_0000) >> 4;
    Some((number, ends.trailing_zeros() as usize / 8 + 1))
}

#[cold]
#[cfg(any(feature = "std", test))]
fn by_byte(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0;
    for (i, &byte) in bytes.iter().enumerate().take(MAX_LEN) {
        let bits = u64::from(byte & 0x7f);
        if i == MAX_LEN - 1 && byte > 1 {
            return None;
        }
        number |= bits << (7 * i);
        if byte < 0x80 {
            return Some((number, i + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_survives_the_round_trip() {
        let bits = (0..64).flat_map(|bits| [(1 << bits) - 1, 1 << bits]);
        for number in bits.chain([300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX]) {
            let mut bytes = [0; MAX_LEN];
            let len = write(&mut bytes, number);
            assert_eq!(read(&bytes[..len]), Some((number, len)));
            assert_eq!(read(&bytes[..len - 1]), None, "{number} cut off");
            let mut followed = [0xff; 2 * MAX_LEN];
            followed[..len].copy_from_slice(&bytes[..len]);
            assert_eq!(read(&followed), Some((number, len)), "whatever follows");
        }
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_refused() {
        assert_eq!(read(&[0xff; 11]), None);
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), None);
    }

    #[test]
    fn zigzag_keeps_every_sign() {
        for number in [0, -1, 1, i64::MIN, i64::MAX, -300] {
            assert_eq!(unzigzag(zigzag(number)), number);
        }
        assert_eq!([zigzag(0), zigzag(-1), zigzag(1), zigzag(-2)], [0, 1, 2, 3]);
    }
}
