//! The memory that a writer works in. The caller provides it, so that the writer needs no allocator.

use crate::block::BLOCK_OBJECTS;
use crate::block_counts::BlockCounts;
use crate::varint;

/// The number of places in the table of known classes. Classes that find none are written by address.
pub const CLASS_SLOTS: usize = 1 << 14;

const NUMBER: usize = varint::MAX_LEN;
/// The maximum length of a number below 2^32, bytes.
const SMALL: usize = 5;

pub(crate) const EDGES: usize = 96 << 10;
pub(crate) const LABELS: usize = 160 << 10;
pub(crate) const NAMES: usize = 32 << 10;
pub(crate) const LISTS: usize = 16 << 10;
pub(crate) const OUT: usize = 600 << 10;

/// Bytes of the counts of a class: its type and number, and four amounts.
pub(crate) const COUNTED: usize = 1 + SMALL + 2 * (SMALL + NUMBER);

/// Bytes per object: six columns of numbers of any size, nine of small ones, types, hashes and counts.
const PER_OBJECT: usize = 6 * NUMBER + 9 * SMALL + 1 + 8 + COUNTED;

/// The number of bytes that a writer needs.
pub const BYTES: usize =
    BLOCK_OBJECTS * PER_OBJECT + NUMBER + EDGES + LABELS + NAMES + 4 * LISTS + BLOCK_OBJECTS * NUMBER + OUT;

/// A known class and its id.
#[derive(Clone, Copy, Debug)]
pub struct ClassSlot {
    pub(crate) address: u64,
    pub(crate) id: u32,
}

impl ClassSlot {
    /// An empty place.
    pub const EMPTY: Self = Self { address: 0, id: 0 };
}

/// Memory for one writer. Its content does not matter, but the classes and counts have to be empty.
#[derive(Debug)]
pub struct Memory<'m> {
    /// Buffers.
    pub bytes: &'m mut [u8; BYTES],
    /// Known classes.
    pub classes: &'m mut [ClassSlot; CLASS_SLOTS],
    /// The objects of a block by class.
    pub counts: &'m mut BlockCounts,
}

/// Memory on the heap.
#[cfg(feature = "std")]
#[derive(Debug)]
pub struct OwnedMemory {
    bytes: Box<[u8]>,
    classes: Box<[ClassSlot]>,
    counts: Box<BlockCounts>,
}

#[cfg(feature = "std")]
impl OwnedMemory {
    /// Allocates memory for a writer.
    pub fn new() -> Self {
        let classes = vec![ClassSlot::EMPTY; CLASS_SLOTS].into_boxed_slice();
        Self { bytes: vec![0; BYTES].into_boxed_slice(), classes, counts: Box::new(BlockCounts::EMPTY) }
    }

    /// Lends the memory to a writer.
    pub fn lend(&mut self) -> Memory<'_> {
        self.classes.fill(ClassSlot::EMPTY);
        #[expect(clippy::expect_used, reason = "`new` made them with these lengths")]
        let (bytes, classes) =
            (self.bytes.as_mut().try_into().expect("BYTES"), self.classes.as_mut().try_into().expect("CLASS_SLOTS"));
        *self.counts = BlockCounts::EMPTY;
        Memory { bytes, classes, counts: &mut self.counts }
    }
}

#[cfg(feature = "std")]
impl Default for OwnedMemory {
    fn default() -> Self {
        Self::new()
    }
}

/// A buffer of fixed capacity. What exceeds it is dropped, so the writer makes room first.
#[derive(Debug)]
pub(crate) struct Column<'m> {
    bytes: &'m mut [u8],
    len: usize,
}

impl<'m> Column<'m> {
    /// Cuts a column off the beginning of `rest`.
    pub fn cut(rest: &mut &'m mut [u8], len: usize) -> Self {
        let whole = core::mem::take(rest);
        let (bytes, after) = match whole.split_at_mut_checked(len) {
            Some(parts) => parts,
            None => (&mut [][..], &mut [][..]),
        };
        *rest = after;
        Self { bytes, len: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn room(&self) -> usize {
        self.bytes.len() - self.len
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }

    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    #[inline]
    pub fn byte(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    #[inline]
    pub fn number(&mut self, number: u64) {
        if number < 0x80 {
            return self.byte(number.to_le_bytes()[0]);
        }
        if let Some(rest) = self.bytes.get_mut(self.len..) {
            self.len = (self.len + varint::write(rest, number)).min(self.bytes.len());
        }
    }

    #[inline]
    pub fn slice(&mut self, data: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + data.len()) {
            place.copy_from_slice(data);
            self.len += data.len();
        }
    }

    /// Appends zeros.
    pub fn zeros(&mut self, count: usize) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + count) {
            place.fill(0);
            self.len += count;
        }
    }

    /// Overwrites bytes at the beginning.
    pub fn patch(&mut self, at: usize, data: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + data.len()) {
            place.copy_from_slice(data);
        }
    }
}
