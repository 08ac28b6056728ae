//! Hashes of strings by their content.
//!
//! Short strings are hashed whole. Of a long one only a sample is read. When an earlier string has the same sample and the same
//! length, the two are compared, which a heap that does not change allows. A web application has hundreds of megabytes of long
//! strings, and hardly any of them twice, so most of its memory is never read.

use crate::memory::Table;
use crate::siphash::Key;

/// The length from which on a string is sampled, bytes.
const LONG: usize = 1024;
/// The length of a sample, bytes. It is in one place, because most of its cost is that of memory that is in no cache.
const SAMPLE: usize = 128;
/// The number of strings of which samples are noted, so that the table takes 32 MiB at most. Others are hashed whole.
const MOST: usize = 1 << 20;

/// What is known of the strings so far.
pub struct Hashes {
    key: Key,
    /// The first object with a sample, by the hash of the sample.
    firsts: Table,
    /// No other one can be noted.
    full: bool,
}

impl Hashes {
    /// Hashes under a key.
    pub const fn new(key: Key) -> Self {
        Self { key, firsts: Table::new(), full: false }
    }

    /// Returns the hash of an object's bytes: equal for equal ones, and for different ones as rarely as any 64 bits.
    ///
    /// `content` returns the bytes of an object that was passed here before.
    #[inline]
    pub fn hash<'a>(&mut self, object: u64, bytes: &[u8], content: impl FnOnce(u64) -> &'a [u8]) -> u64 {
        if bytes.len() < LONG { self.key.hash(bytes) } else { self.long(object, bytes, content) }
    }

    fn long<'a>(&mut self, object: u64, bytes: &[u8], content: impl FnOnce(u64) -> &'a [u8]) -> u64 {
        let sampled = self.key.other().hash(&sample(bytes));
        let stands_for_all = match self.firsts.get(sampled) {
            Some(first) => same(content(first), bytes),
            None => {
                // Once one is not noted, none is: the next string with its sample could not be compared with it. 0 is no key.
                self.full = self.full || sampled == 0 || self.firsts.len() >= MOST || !self.firsts.set(sampled, object);
                !self.full
            }
        };
        if stands_for_all { sampled } else { self.key.hash(bytes) }
    }
}

// The length, and bytes from the middle: different strings often begin and end alike.
fn sample(bytes: &[u8]) -> [u8; SAMPLE + 8] {
    let mut sample = [0; SAMPLE + 8];
    let (part, length) = sample.split_at_mut(SAMPLE);
    part.copy_from_slice(&bytes[bytes.len() / 2..][..SAMPLE]);
    length.copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    sample
}

// Strings often share their bytes.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && (one.as_ptr() == other.as_ptr() || one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A heap that is walked: the address of an object is its number.
    fn hashes(heap: &[&[u8]], full: bool) -> Vec<u64> {
        let mut hashes = Hashes { full, ..Hashes::new(Key::new(&[7; 16])) };
        let content = |object: u64| heap[usize::try_from(object).unwrap() - 1];
        (1..).zip(heap).map(|(object, bytes)| hashes.hash(object, bytes, content)).collect()
    }

    #[test]
    fn two_strings_have_the_same_hash_if_and_only_if_they_are_equal() {
        for length in [1, 100, LONG - 1, LONG, LONG + 1, 10 * LONG] {
            let plain = vec![b'a'; length];
            let changed = |place: usize| {
                let mut bytes = plain.clone();
                bytes[place] = b'b';
                bytes
            };
            let (first, middle, last) = (changed(0), changed(length / 2), changed(length - 1));
            let longer = vec![b'a'; length + 1];
            let heap: [&[u8]; 9] =
                [&plain, &first, &middle, &last, &longer, &plain.clone(), &first.clone(), &last.clone(), &plain];
            for full in [false, true] {
                let hashes = hashes(&heap, full);
                for (one, other) in (0..heap.len()).flat_map(|one| (0..heap.len()).map(move |other| (one, other))) {
                    let equal = (heap[one] == heap[other], hashes[one] == hashes[other]);
                    assert_eq!(equal.0, equal.1, "{length} bytes, strings {one} and {other}, full: {full}");
                }
            }
        }
    }

    #[test]
    fn what_could_not_be_noted_is_not_mistaken_for_another_string() {
        let mut hashes = Hashes::new(Key::new(&[7; 16]));
        let (noted, one, other) = (vec![1; LONG], [vec![0; LONG - 1], vec![1]].concat(), vec![0; LONG]);
        let content = |_: u64| -> &[u8] { &noted };
        let before = hashes.hash(1, &noted, content);
        hashes.full = true;
        assert_ne!(hashes.hash(2, &one, content), hashes.hash(3, &other, content), "one sample");
        assert_eq!(hashes.hash(4, &one, content), hashes.hash(5, &one, content), "equal strings");
        assert_eq!(hashes.hash(6, &noted, content), before, "it is known since before");
    }

    #[test]
    fn another_key_gives_another_hash() {
        let secret = vec![b's'; LONG];
        let hash = |key| Hashes::new(Key::new(&[key; 16])).hash(1, &secret, |_| unreachable!("there is no other"));
        assert_ne!(hash(1), hash(2));
    }
}
