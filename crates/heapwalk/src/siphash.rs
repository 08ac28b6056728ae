//! SipHash-1-3: a hash of a string that says nothing about the string to somebody without the key.

/// A key. It is made when the walk begins and is gone with the process.
#[derive(Clone, Copy)]
pub struct Key(u64, u64);

impl Key {
    /// A key from random bytes.
    pub fn new(bytes: &[u8; 16]) -> Self {
        let whole = u128::from_le_bytes(*bytes);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        Self(whole as u64, (whole >> 64) as u64)
    }

    /// Returns the hash of the bytes.
    pub fn hash(self, bytes: &[u8]) -> u64 {
        let mut state = [
            self.0 ^ 0x736f_6d65_7073_6575,
            self.1 ^ 0x646f_7261_6e64_6f6d,
            self.0 ^ 0x6c79_6765_6e65_7261,
            self.1 ^ 0x7465_6462_7974_6573,
        ];
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            compress(&mut state, u64::from_le_bytes(*word));
        }
        let mut last = (bytes.len() as u64) << 56;
        for (place, byte) in rest.iter().enumerate() {
            last |= u64::from(*byte) << (8 * place);
        }
        compress(&mut state, last);
        state[2] ^= 0xff;
        for _ in 0..3 {
            round(&mut state);
        }
        state[0] ^ state[1] ^ state[2] ^ state[3]
    }
}

#[inline]
fn compress(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    state[0] ^= word;
}

#[inline]
fn round(state: &mut [u64; 4]) {
    let [a, b, c, d] = state;
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::Hasher;

    #[test]
    // DefaultHasher is SipHash-1-3 with a key of zeros.
    fn equals_the_hash_of_the_standard_library() {
        let bytes: Vec<u8> = (0..200u8).collect();
        for length in 0..bytes.len() {
            let mut hasher = std::collections::hash_map::DefaultHasher::new();
            hasher.write(&bytes[..length]);
            assert_eq!(Key::new(&[0; 16]).hash(&bytes[..length]), hasher.finish(), "{length} bytes");
        }
    }

    #[test]
    fn another_key_gives_another_hash() {
        assert_ne!(Key::new(&[1; 16]).hash(b"secret"), Key::new(&[2; 16]).hash(b"secret"));
    }
}
