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
    let mut number = u64::from(first & 0x7f);
    for (i, &byte) in bytes.iter().enumerate().take(MAX_LEN).skip(1) {
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
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = [0; MAX_LEN];
            let len = write(&mut bytes, number);
            assert_eq!(read(&bytes[..len]), Some((number, len)));
            assert_eq!(read(&bytes[..len - 1]), None, "{number} cut off");
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
