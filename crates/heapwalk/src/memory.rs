//! Memory that the walker takes from the kernel, never from the allocator of the process: a vector and a hash table.

#![expect(unsafe_code, reason = "mappings are used as slices")]

use core::marker::PhantomData;
use core::{mem, ptr, slice};

use crate::sys;

const FIRST_BYTES: usize = 64 << 10;

/// A type of which any bytes, and so zeros, are a value.
///
/// # Safety
///
/// Every pattern of bits is a value, and nothing has to be dropped.
pub unsafe trait Plain: Copy {}

// SAFETY: numbers.
unsafe impl Plain for u64 {}
// SAFETY: two numbers.
unsafe impl Plain for (u64, u64) {}
// SAFETY: three numbers.
unsafe impl Plain for (u64, (u64, u64)) {}

/// A vector of plain values. What does not fit, because the kernel has no memory, is dropped.
#[derive(Debug)]
pub struct Vector<T: Plain> {
    start: *mut u8,
    bytes: usize,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Plain> Default for Vector<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Plain> Vector<T> {
    /// An empty vector.
    pub const fn new() -> Self {
        Self { start: ptr::null_mut(), bytes: 0, len: 0, of: PhantomData }
    }

    /// Adds a value at the end.
    #[inline]
    pub fn push(&mut self, value: T) {
        if (self.len + 1) * mem::size_of::<T>() > self.bytes && !self.grow() {
            return;
        }
        // SAFETY: `grow` made room for one more value, and a mapping is aligned to pages.
        unsafe { self.start.cast::<T>().add(self.len).write(value) };
        self.len += 1;
    }

    /// Forgets the values. The memory stays.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The values.
    #[inline]
    pub fn as_slice(&self) -> &[T] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: `push` wrote the first `len` values.
        unsafe { slice::from_raw_parts(self.start.cast::<T>(), self.len) }
    }

    /// The values.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: as for `as_slice`, and nothing else refers to them.
        unsafe { slice::from_raw_parts_mut(self.start.cast::<T>(), self.len) }
    }

    #[cold]
    fn grow(&mut self) -> bool {
        let larger = (self.bytes * 2).max(FIRST_BYTES);
        let start = if self.start.is_null() {
            sys::map(larger)
        } else {
            // SAFETY: the mapping is this vector's, and no slice of it is borrowed while it is borrowed mutably.
            unsafe { sys::remap(self.start, self.bytes, larger) }
        };
        if start.is_null() {
            return false;
        }
        (self.start, self.bytes) = (start, larger);
        true
    }
}

impl<T: Plain> Drop for Vector<T> {
    fn drop(&mut self) {
        if !self.start.is_null() {
            // SAFETY: the mapping is this vector's.
            unsafe { sys::unmap(self.start, self.bytes) };
        }
    }
}

/// A hash table from numbers other than 0 to numbers. What does not fit is dropped.
#[derive(Debug)]
pub struct Table {
    places: Vector<(u64, u64)>,
    used: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    /// An empty table.
    pub const fn new() -> Self {
        Self { places: Vector::new(), used: 0 }
    }

    /// The number of keys.
    pub(crate) const fn len(&self) -> usize {
        self.used
    }

    /// Returns the value of a key.
    #[inline]
    pub fn get(&self, key: u64) -> Option<u64> {
        let places = self.places.as_slice();
        let mask = places.len().checked_sub(1)?;
        let mut place = spread(key) & mask;
        loop {
            let (known, value) = *places.get(place)?;
            if known == key {
                return Some(value);
            }
            if known == 0 {
                return None;
            }
            place = (place + 1) & mask;
        }
    }

    /// Sets the value of a key. Returns false if the kernel has no memory for it.
    pub fn set(&mut self, key: u64, value: u64) -> bool {
        if (self.used + 1) * 2 > self.places.as_slice().len() {
            self.grow();
        }
        if (self.used + 1) * 4 > self.places.as_slice().len() * 3 {
            return false;
        }
        if put(self.places.as_mut_slice(), key, value) {
            self.used += 1;
        }
        true
    }

    /// Forgets everything. The memory stays.
    pub fn clear(&mut self) {
        if self.used > 0 {
            self.places.as_mut_slice().fill((0, 0));
            self.used = 0;
        }
    }

    /// Yields all keys with their values, in no order.
    pub fn pairs(&self) -> impl Iterator<Item = (u64, u64)> {
        self.places.as_slice().iter().copied().filter(|(key, _)| *key != 0)
    }

    fn grow(&mut self) {
        let size = (self.places.as_slice().len() * 2).max(256);
        let mut larger = Vector::new();
        for _ in 0..size {
            larger.push((0, 0));
        }
        // Out of memory: the old table goes on until it is full.
        if larger.as_slice().len() < size {
            return;
        }
        for (key, value) in self.pairs() {
            put(larger.as_mut_slice(), key, value);
        }
        self.places = larger;
    }
}

// Returns true if the key is new. There is at least one free place.
fn put(places: &mut [(u64, u64)], key: u64, value: u64) -> bool {
    let mask = places.len() - 1;
    let mut place = spread(key) & mask;
    loop {
        if places[place].0 == key {
            places[place].1 = value;
            return false;
        }
        if places[place].0 == 0 {
            places[place] = (key, value);
            return true;
        }
        place = (place + 1) & mask;
    }
}

fn spread(key: u64) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

/// Borrows fresh memory for the rest of the process's life, filled with zeros.
pub fn zeroed<T>() -> Option<&'static mut mem::MaybeUninit<T>> {
    let start = sys::map(mem::size_of::<T>());
    // SAFETY: a mapping is aligned to pages, as large as asked for, and nobody else's.
    unsafe { start.cast::<mem::MaybeUninit<T>>().as_mut() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_finds_what_it_was_given_through_all_its_sizes() {
        let mut table = Table::new();
        assert_eq!(table.get(1), None);
        for key in 1..100_000u64 {
            table.set(key * 40, key);
        }
        table.set(40, 7);
        assert_eq!(table.get(40), Some(7));
        assert!((2..100_000u64).all(|key| table.get(key * 40) == Some(key)));
        assert_eq!(table.get(41), None);
        assert_eq!((table.pairs().count(), table.len()), (99_999, 99_999));
        table.clear();
        assert_eq!((table.get(80), table.pairs().count()), (None, 0));
    }

    #[test]
    fn a_vector_keeps_its_values_when_it_grows() {
        let mut vector = Vector::new();
        (0..100_000u64).for_each(|number| vector.push(number));
        assert!(vector.as_slice().iter().copied().eq(0..100_000));
        vector.clear();
        assert!(vector.as_slice().is_empty());
    }
}
