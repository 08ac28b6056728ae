//! SipHash-1-3: a hash of a string that says nothing about the string to somebody without the key.
//!
//! Long strings are cut short first, which is five times as fast.

use diagctl_heapdump::checksum::{self, xxh64};

/// The length from which on a string is cut short, bytes.
const LONG: usize = 128;

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

    /// Returns the hash of a string: equal for equal ones, and for different ones as rarely as any 64 bits.
    #[inline]
    pub fn hash(self, bytes: &[u8]) -> u64 {
        if bytes.len() < LONG { self.sip(bytes) } else { self.long(bytes) }
    }

    /// Another key, which is as secret: the hashes under both have nothing in common.
    pub fn other(self) -> Self {
        Self(!self.0, self.1)
    }

    // The sum is never seen: SipHash hides it.
    fn long(self, bytes: &[u8]) -> u64 {
        let mut short = [0; 16];
        short[..8].copy_from_slice(&digest(bytes, self.1).to_le_bytes());
        short[8..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        Self(self.0, !self.1).sip(&short)
    }

    fn sip(self, bytes: &[u8]) -> u64 {
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
        compress(&mut state, (bytes.len() as u64) << 56 | end(bytes, rest));
        state[2] ^= 0xff;
        for _ in 0..3 {
            round(&mut state);
        }
        state[0] ^ state[1] ^ state[2] ^ state[3]
    }
}

// The lanes of XXH64.
fn digest(bytes: &[u8], seed: u64) -> u64 {
    let (stripes, rest) = bytes.as_chunks::<32>();
    let mut lanes = [seed, seed.rotate_left(16), seed.rotate_left(32), seed.rotate_left(48)];
    for stripe in stripes {
        for (lane, word) in lanes.iter_mut().zip(stripe.as_chunks::<8>().0) {
            *lane = checksum::round(*lane, u64::from_le_bytes(*word));
        }
    }
    lanes.into_iter().fold(xxh64(rest, seed), checksum::round)
}

// The last bytes, fewer than eight, as a number. Without a branch for each of them: their count is hard to predict.
#[inline]
fn end(bytes: &[u8], rest: &[u8]) -> u64 {
    match bytes.last_chunk::<8>() {
        Some(last) if !rest.is_empty() => u64::from_le_bytes(*last) >> (64 - 8 * rest.len()),
        Some(_) => 0,
        None => rest.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)),
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
        for length in 0..LONG {
            let mut hasher = std::collections::hash_map::DefaultHasher::new();
            hasher.write(&bytes[..length]);
            assert_eq!(Key::new(&[0; 16]).hash(&bytes[..length]), hasher.finish(), "{length} bytes");
        }
    }

    #[test]
    fn another_key_gives_another_hash() {
        for length in [6, LONG, 10 * LONG] {
            let secret = vec![b's'; length];
            assert_ne!(Key::new(&[1; 16]).hash(&secret), Key::new(&[2; 16]).hash(&secret), "{length} bytes");
        }
    }

    #[test]
    fn every_byte_and_the_length_of_a_long_string_count() {
        let key = Key::new(&[7; 16]);
        let mut bytes = vec![0; 3 * LONG + 5];
        let mut seen = std::collections::HashSet::new();
        for length in LONG..bytes.len() {
            assert!(seen.insert(key.hash(&bytes[..length])), "{length} zeros");
        }
        for place in 0..bytes.len() {
            bytes[place] = 1;
            assert!(seen.insert(key.hash(&bytes)), "byte {place}");
            bytes[place] = 0;
        }
        assert_eq!(key.hash(&bytes), key.hash(&bytes.clone()));
    }
}
