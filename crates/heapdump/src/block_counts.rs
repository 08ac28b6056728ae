//! The objects of one block by type and class, counted while they are written. A summary needs nothing else of the block.

use crate::block::{self, BLOCK_OBJECTS};

/// Places in the table of groups: twice as many as there can be groups.
const PLACES: usize = 2 * BLOCK_OBJECTS;

/// The counts of a block. Zeros are an empty one.
#[derive(Debug)]
pub struct BlockCounts {
    places: [Place; PLACES],
    groups: [Group; BLOCK_OBJECTS],
    len: usize,
    /// The number of blocks before, which tells the places of this one from those of earlier ones.
    epoch: u32,
    /// A class has no number, so the counts would not tell it.
    is_incomplete: bool,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    key: u64,
    /// One more than the epoch in which it was taken.
    taken: u32,
    group: u32,
}

/// Objects of one type and class.
#[derive(Clone, Copy, Debug)]
struct Group {
    kind: u8,
    of: u32,
    /// The number and bytes of the young ones, then of the old ones.
    amounts: [(u64, u64); 2],
}

impl BlockCounts {
    /// No counts.
    pub const EMPTY: Self = Self {
        places: [Place { key: 0, taken: 0, group: 0 }; PLACES],
        groups: [Group { kind: 0, of: 0, amounts: [(0, 0); 2] }; BLOCK_OBJECTS],
        len: 0,
        epoch: 0,
        is_incomplete: false,
    };

    /// BlockCounts an object by its type and the number of its class, as in the column CLASS, or of its name.
    #[inline]
    pub(crate) fn add(&mut self, kind: u8, class: u64, name: u32, size: u64, is_old: bool) {
        let of = if block::is_internal(kind) { name } else { u32::try_from(class).unwrap_or(1) };
        self.is_incomplete |= of == 1 && !block::is_internal(kind);
        let key = u64::from(kind) << 32 | u64::from(of);
        let mut place = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PLACES.trailing_zeros());
        loop {
            let Some(found) = self.places.get_mut(usize::try_from(place).unwrap_or(0) % PLACES) else { return };
            if found.taken != self.epoch.wrapping_add(1) {
                let Some(group) = self.groups.get_mut(self.len) else { return };
                *found = Place { key, taken: self.epoch.wrapping_add(1), group: u32::try_from(self.len).unwrap_or(0) };
                *group = Group { kind, of, amounts: [(0, 0); 2] };
                self.len += 1;
            } else if found.key != key {
                place += 1;
                continue;
            }
            if let Some(group) = self.groups.get_mut(found.group as usize) {
                let [young, old] = &mut group.amounts;
                let (count, bytes) = if is_old { old } else { young };
                *count += 1;
                *bytes = bytes.saturating_add(size);
            }
            return;
        }
    }

    /// Writes the numbers of the column, unless the counts are incomplete, and forgets them.
    pub(crate) fn write(&mut self, edges: u64, mut number: impl FnMut(u64)) {
        if !self.is_incomplete {
            number(edges);
            for Group { kind, of, amounts: [young, old] } in self.groups.get(..self.len).unwrap_or_default() {
                // A type takes one byte as a number, too.
                for part in [u64::from(*kind), u64::from(*of), young.0, young.1, old.0, old.1] {
                    number(part);
                }
            }
        }
        (self.len, self.is_incomplete) = (0, false);
        self.epoch = self.epoch.wrapping_add(1);
    }
}
