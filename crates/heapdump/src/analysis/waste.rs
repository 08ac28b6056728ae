//! The contents of the heap's pages: objects, garbage and free slots, by the size of slots.
//!
//! Ruby gives a page back only when no slot of it is taken, so a page that holds a few objects keeps all its memory.

use std::collections::BTreeMap;

use super::memory::Graph;
use super::reach::Reach;

/// The size of a page as a power of two: before Ruby 3.2 (`HEAP_PAGE_ALIGN_LOG` in gc.c of 3.1), and since then.
const OLD_PAGE_BITS: u32 = 14;
const PAGE_BITS: u32 = 16;
/// The first Ruby with the larger pages.
const LARGER_PAGES: (u32, u32) = (3, 2);

/// The slot size of Rubies that do not tell it: five words.
const OLD_SLOT: u32 = 40;

/// A page is sparse if at most one in this many of its slots is reachable.
const SPARSE: u64 = 10;

/// The slots of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotSize {
    /// Bytes of a slot.
    pub slot: u32,
    /// Pages with slots of this size.
    pub pages: u64,
    /// Slots that hold what the roots hold.
    pub live: u64,
    /// Slots that hold garbage.
    pub garbage: u64,
    /// Free slots.
    pub free: u64,
    /// Pages of which at most a tenth of the slots is live.
    pub sparse_pages: u64,
    /// The slots on those pages that are not live.
    pub sparse_slots: u64,
}

impl SlotSize {
    /// The bytes of the free slots.
    pub fn free_bytes(&self) -> u64 {
        self.free.saturating_mul(self.slot.into())
    }

    /// The bytes that sparse pages keep beside their live objects.
    pub fn sparse_bytes(&self) -> u64 {
        self.sparse_slots.saturating_mul(self.slot.into())
    }
}

#[derive(Default)]
struct Page {
    slot: u32,
    live: u64,
    garbage: u64,
    free: u64,
}

// The walker knows its Ruby. `dump_all` does not say which one it is of. No slot reaches over the end of a page, and each page begins with
// a header, so a slot at the end of a smaller page is one inside a larger page.
fn page_bits(graph: &Graph, ruby: &str) -> u32 {
    let mut numbers = ruby.split('.').map_while(|number| number.parse::<u32>().ok());
    let has_larger = match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= LARGER_PAGES,
        _ => {
            let columns = graph.columns();
            let is_over_an_end = |address: u64, bytes: u64| {
                let small_page = 1_u64 << OLD_PAGE_BITS;
                (address % small_page).saturating_add(bytes) > small_page || address.is_multiple_of(small_page)
            };
            graph.all().any(|object| {
                is_over_an_end(graph.address(object), slot_of(columns.slots[object as usize].into()).into())
            }) || columns
                .free
                .iter()
                .any(|run| is_over_an_end(run.address, u64::from(slot_of(run.slot_size)).saturating_mul(run.count)))
        }
    };
    if has_larger { PAGE_BITS } else { OLD_PAGE_BITS }
}

fn slot_of(slot: u32) -> u32 {
    if slot == 0 { OLD_SLOT } else { slot }
}

/// Adds up the pages by the size of their slots, the smallest first. `ruby` is the version, or empty if unknown.
pub fn slot_sizes(graph: &Graph, reach: &Reach, ruby: &str) -> Vec<SlotSize> {
    let columns = graph.columns();
    let bits = page_bits(graph, ruby);
    let mut pages: BTreeMap<u64, Page> = BTreeMap::new();
    for object in graph.all() {
        let page = pages.entry(graph.address(object) >> bits).or_default();
        page.slot = slot_of(columns.slots[object as usize].into());
        match reach.number(object) {
            Some(_) => page.live += 1,
            None => page.garbage += 1,
        }
    }
    for run in &columns.free {
        let page = pages.entry(run.address >> bits).or_default();
        page.slot = slot_of(run.slot_size);
        page.free = page.free.saturating_add(run.count);
    }
    let mut sizes: BTreeMap<u32, SlotSize> = BTreeMap::new();
    for page in pages.values() {
        let size = sizes.entry(page.slot).or_insert_with(|| SlotSize { slot: page.slot, ..SlotSize::default() });
        size.pages += 1;
        size.live += page.live;
        size.garbage += page.garbage;
        size.free = size.free.saturating_add(page.free);
        let others = page.garbage.saturating_add(page.free);
        if page.live <= page.live.saturating_add(others) / SPARSE {
            size.sparse_pages += 1;
            size.sparse_slots = size.sparse_slots.saturating_add(others);
        }
    }
    sizes.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::{Heap, object};
    use crate::record::{FreeSlots, Object, Type};

    #[test]
    fn pages_are_counted_by_slot_size_and_sparse_ones_are_found() {
        let mut heap = Heap::new();
        let slot = |address, slot_size| Object { slot_size, ..object(address, Type::OBJECT, 0) };
        // A full page, one with a single live object, and one of larger slots.
        (0..100).for_each(|at| {
            heap.root("vm", 0x10_0000 + at * 40).add(slot(0x10_0000 + at * 40, 40), &[]);
        });
        heap.root("vm", 0x20_0000).add(slot(0x20_0000, 40), &[]).add(slot(0x20_0028, 40), &[]);
        heap.free(FreeSlots { address: 0x20_0050, slot_size: 40, count: 1000 });
        heap.add(slot(0x30_0000, 160), &[]);
        let graph = heap.finish();
        let sizes = slot_sizes(&graph, &graph.reach(), "");
        let small =
            SlotSize { slot: 40, pages: 2, live: 101, garbage: 1, free: 1000, sparse_pages: 1, sparse_slots: 1001 };
        assert_eq!(sizes[0], small);
        assert_eq!((sizes[0].free_bytes(), sizes[1].slot, sizes[1].pages, sizes[1].sparse_pages), (40_000, 160, 1, 1));
    }

    #[test]
    fn pages_are_as_large_as_in_that_ruby() {
        // Objects in two pages of 16 KiB, which are one of 64 KiB. The last of an object tells which, if the Ruby is unknown.
        let pages = |last: u64, ruby| {
            let mut heap = Heap::new();
            for address in [0x10_0028, 0x10_4028, last] {
                heap.root("vm", address).add(Object { slot_size: 40, ..object(address, Type::OBJECT, 0) }, &[]);
            }
            let graph = heap.finish();
            slot_sizes(&graph, &graph.reach(), ruby)[0].pages
        };
        let inside = 0x10_4028 + 40;
        assert_eq!(["3.0.6", "3.1.2", "3.2.0", "3.4.1", "4.0.0"].map(|ruby| pages(inside, ruby)), [2, 2, 1, 1, 1]);
        // A run that lies about its length.
        let mut heap = Heap::new();
        heap.root("vm", 0x10_0028).add(object(0x10_0028, Type::OBJECT, 0), &[]);
        heap.free(FreeSlots { address: 0x10_3ff8, slot_size: 40, count: u64::MAX });
        let graph = heap.finish();
        assert_eq!(slot_sizes(&graph, &graph.reach(), "")[0].pages, 1);
        for (last, expected) in [(inside, 2), (0x10_4000, 1), (0x10_3ff0, 1), (0x10_3fd8, 2)] {
            assert_eq!([pages(last, ""), pages(last, "head")], [expected; 2], "{last:x}");
        }
    }
}
