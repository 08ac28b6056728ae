//! Object addresses in four bytes, and the way back from an address to the index of an object.
//!
//! A Ruby heap consists of pages of 16 KiB (before Ruby 3.2) or 64 KiB. An address is packed as the ordinal of its page of 16 KiB, in
//! the order in which pages are first seen, and its offset within the page in units of eight bytes. [`Index`] then finds an object by the rank of its bit in
//! a bitmap of its page, without a hash table of all objects. Both take memory in proportion to the objects, whatever the
//! addresses are.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// The index of an object: objects are numbered in the order in which they were added.
pub type ObjectIndex = u32;

/// The absence of an object.
pub const NONE: ObjectIndex = u32::MAX;

const PAGE_BITS: u32 = 14;
const OFFSET_BITS: u32 = PAGE_BITS - 3;
const OFFSET_MASK: u32 = (1 << OFFSET_BITS) - 1;
/// Pages that fit into a packed address: 32 GiB of heap.
const MAX_PAGES: usize = (1 << (32 - OFFSET_BITS)) - 1;
const CACHED: usize = 1 << 14;

/// A packed address. Comparable only with those of the same [`Pages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packed(u32);

impl Packed {
    fn page(self) -> usize {
        (self.0 >> OFFSET_BITS) as usize
    }

    fn offset(self) -> u32 {
        self.0 & OFFSET_MASK
    }

    /// The [`Word`] of the address, with its page.
    fn word(self) -> u32 {
        self.0 >> 6
    }

    /// The bit of the address in its word.
    fn bit(self) -> u64 {
        1 << (self.0 & 63)
    }
}

/// The pages that addresses lie on.
#[derive(Debug)]
pub struct Pages {
    keys: Vec<u64>,
    ordinals: HashMap<u64, u32, RandomState>,
    /// The ordinals of pages seen lately, by the low bits of their keys.
    cache: Vec<(u64, u32)>,
}

impl Default for Pages {
    fn default() -> Self {
        Self { keys: Vec::new(), ordinals: HashMap::default(), cache: vec![(u64::MAX, 0); CACHED] }
    }
}

impl Pages {
    /// Returns true for an address that an object can have.
    pub fn is_possible(address: u64) -> bool {
        address & 3 == 0
    }

    /// Packs an address. Returns none for an address that no object can have, and if there are more pages than fit.
    #[inline]
    pub fn pack(&mut self, address: u64) -> Option<Packed> {
        if !Self::is_possible(address) {
            return None;
        }
        // Slots of a 32-bit Ruby are aligned to four bytes: the two halves of such a page count as two pages.
        let key = (address >> PAGE_BITS) << 1 | (address >> 2 & 1);
        let at = key as usize & (CACHED - 1);
        let ordinal = if self.cache[at].0 == key {
            self.cache[at].1
        } else {
            let ordinal = self.ordinal(key)?;
            self.cache[at] = (key, ordinal);
            ordinal
        };
        Some(Packed(ordinal << OFFSET_BITS | (address as u32 >> 3) & OFFSET_MASK))
    }

    fn ordinal(&mut self, key: u64) -> Option<u32> {
        if let Some(ordinal) = self.ordinals.get(&key) {
            return Some(*ordinal);
        }
        let next = u32::try_from(self.keys.len()).ok().filter(|next| (*next as usize) < MAX_PAGES)?;
        self.keys.push(key);
        self.ordinals.insert(key, next);
        Some(next)
    }

    /// Packs an address on a page that is already known.
    pub fn find(&self, address: u64) -> Option<Packed> {
        let key = (address >> PAGE_BITS) << 1 | (address >> 2 & 1);
        let ordinal = self.ordinals.get(&key).filter(|_| address & 3 == 0)?;
        Some(Packed(ordinal << OFFSET_BITS | (address as u32 >> 3) & OFFSET_MASK))
    }

    /// Returns the address that was packed.
    pub fn unpack(&self, packed: Packed) -> u64 {
        let key = self.keys[packed.page()];
        (key >> 1) << PAGE_BITS | u64::from(packed.offset()) << 3 | (key & 1) << 2
    }
}

/// 64 slots of a page that hold at least one object.
#[derive(Clone, Copy, Debug, Default)]
struct Word {
    bits: u64,
    /// Objects on the page before this word.
    rank: u32,
}

/// The part of a page that holds objects.
#[derive(Clone, Copy, Debug, Default)]
struct Page {
    /// The words that hold objects.
    present: u32,
    first_word: u32,
    /// Objects before this page.
    base: u32,
}

/// Finds objects by their packed addresses.
#[derive(Debug, Default)]
pub struct Index {
    pages: Vec<Page>,
    words: Vec<Word>,
    /// The objects by rank, if they were not added in the order of their addresses within each page.
    by_rank: Option<Vec<ObjectIndex>>,
}

impl Index {
    /// Indexes objects by their addresses. Of several objects at one address, the first is found.
    pub fn new(objects: &[Packed]) -> Self {
        let mut index = Self::default();
        let mut last = None;
        for (at, packed) in objects.iter().enumerate() {
            let is_ordered = match last {
                Some(last) if packed.page() == Packed::page(last) => last < *packed,
                _ => index.pages.get(packed.page()).is_none_or(|page| page.present == 0),
            };
            if !is_ordered {
                return Self::scattered(objects);
            }
            match index.words.last_mut() {
                Some(word) if last.is_some_and(|last| last.word() == packed.word()) => word.bits |= packed.bit(),
                _ => index.add(*packed, at as u32),
            }
            last = Some(*packed);
        }
        index
    }

    fn scattered(objects: &[Packed]) -> Self {
        // Sorted by address, then by index; at most u32::MAX objects exist.
        let mut by_rank: Vec<ObjectIndex> = (0..objects.len() as u32).collect();
        by_rank.sort_unstable_by_key(|at| (objects[*at as usize], *at));
        by_rank.dedup_by_key(|at| objects[*at as usize]);
        let mut index = Self::default();
        for (rank, at) in by_rank.iter().enumerate() {
            index.add(objects[*at as usize], rank as u32);
        }
        index.by_rank = Some(by_rank);
        index
    }

    // Adds the next object of a page that is not finished.
    fn add(&mut self, packed: Packed, rank: u32) {
        let at = packed.page();
        if self.pages.len() <= at {
            self.pages.resize(at + 1, Page::default());
        }
        let page = &mut self.pages[at];
        if page.present == 0 {
            *page = Page { present: 0, first_word: self.words.len() as u32, base: rank };
        }
        let word = 1u32 << (packed.offset() >> 6);
        if page.present & word == 0 {
            page.present |= word;
            self.words.push(Word { bits: 0, rank: rank - page.base });
        }
        if let Some(last) = self.words.last_mut() {
            last.bits |= packed.bit();
        }
    }

    /// The number of objects that can be found.
    pub fn objects(&self) -> usize {
        self.words.iter().map(|word| word.bits.count_ones() as usize).sum()
    }

    /// Replaces packed addresses by the objects at them, or by [`NONE`].
    pub fn resolve(&self, packed: Vec<Packed>) -> Vec<ObjectIndex> {
        // The same allocation is used again.
        packed.into_iter().map(|packed| self.find_or_none(packed)).collect()
    }

    /// Returns the object at an address.
    pub fn find(&self, packed: Packed) -> Option<ObjectIndex> {
        Some(self.find_or_none(packed)).filter(|object| *object != NONE)
    }

    #[inline]
    fn find_or_none(&self, packed: Packed) -> ObjectIndex {
        let Some(page) = self.pages.get(packed.page()) else { return NONE };
        let word = packed.offset() >> 6;
        if page.present >> word & 1 == 0 {
            return NONE;
        }
        let all = (1u32 << word) - 1;
        let before = page.present & all;
        // Most often there is no gap, and counting bits takes a dozen instructions.
        let before = if before == all { word } else { before.count_ones() };
        let word = self.words[(page.first_word + before) as usize];
        if word.bits & packed.bit() == 0 {
            return NONE;
        }
        let rank = page.base + word.rank + (word.bits & (packed.bit() - 1)).count_ones();
        self.by_rank.as_ref().map_or(rank, |by_rank| by_rank[rank as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn index(addresses: &[u64]) -> (Pages, Index) {
        let mut pages = Pages::default();
        let packed: Vec<Packed> = addresses.iter().map(|a| pages.pack(*a).unwrap()).collect();
        let index = Index::new(&packed);
        (pages, index)
    }

    #[test]
    fn finds_each_object_and_nothing_else_in_any_order() {
        let ascending: Vec<u64> = (0..5000u64).map(|i| 0x7f00_0000_1000 + i * 40).collect();
        let mut shuffled = ascending.clone();
        for i in 1..shuffled.len() {
            shuffled.swap(i, i * 7919 % (i + 1));
        }
        let two_word_slots: Vec<u64> = (0..5000u64).map(|i| 0x1_0000 + i * 20).collect();
        let far: Vec<u64> = (0..300u64).map(|i| i << 40 | (i % 3) << 3).collect();
        for addresses in [ascending, shuffled, two_word_slots, far] {
            let (mut pages, index) = index(&addresses);
            let taken: HashSet<u64> = addresses.iter().copied().collect();
            for (at, address) in addresses.iter().enumerate() {
                let packed = pages.find(*address).unwrap();
                assert_eq!((index.find(packed), pages.unpack(packed)), (Some(at as u32), *address));
                for beside in [address + 4, address + 8, address + (1 << 33)] {
                    if !taken.contains(&beside) {
                        assert_eq!(pages.pack(beside).map(|packed| index.find(packed)), Some(None), "{beside:x}");
                    }
                }
            }
        }
    }

    #[test]
    fn of_two_objects_at_one_address_the_first_is_found() {
        let (pages, index) = index(&[0x1000, 0x1028, 0x1000]);
        let find = |address| index.find(pages.find(address).unwrap());
        assert_eq!((find(0x1000), find(0x1028)), (Some(0), Some(1)));
    }

    #[test]
    fn an_address_that_no_object_can_have_is_refused_and_so_are_too_many_pages() {
        let mut pages = Pages::default();
        assert_eq!((pages.pack(0x1001), pages.find(0x1000)), (None, None));
        let packed = (0..MAX_PAGES as u64).filter_map(|page| pages.pack(page << PAGE_BITS)).count();
        assert_eq!((packed, pages.pack(1 << 60)), (MAX_PAGES, None));
        assert!(pages.pack(1 << PAGE_BITS).is_some());
    }
}
