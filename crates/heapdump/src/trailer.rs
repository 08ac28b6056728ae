//! The trailer as pairs of keys and numbers.

use crate::block::trailer as key;
use crate::record::Trailer;

/// Passes the pairs of a trailer to `pair`.
pub(crate) fn write(trailer: &Trailer, chain: u64, mut pair: impl FnMut(u64, u64)) {
    pair(key::COMPLETE, u64::from(trailer.complete));
    pair(key::BLOCKS, trailer.blocks);
    pair(key::BYTES, trailer.bytes);
    pair(key::OBJECTS, trailer.objects);
    pair(key::EDGES, trailer.edges);
    pair(key::NAMED_EDGES, trailer.named_edges);
    pair(key::ROOTS, trailer.roots);
    pair(key::SIZE, trailer.size);
    pair(key::FREE_SLOTS, trailer.free_slots);
    pair(key::NAMES, trailer.names);
    pair(key::LOST, trailer.lost);
    pair(key::REPAIRED, trailer.repaired);
    pair(key::CHAIN, chain);
    for (kind, count) in (0..).zip(trailer.by_type) {
        if count > 0 {
            pair(key::BY_TYPE + kind, count);
        }
    }
}

/// Applies one pair to a trailer and to the checksum of all blocks. Ignores unknown keys.
#[cfg(feature = "std")]
pub(crate) fn apply(trailer: &mut Trailer, chain: &mut u64, key: u64, value: u64) {
    match key {
        key::COMPLETE => trailer.complete = value == 1,
        key::BLOCKS => trailer.blocks = value,
        key::BYTES => trailer.bytes = value,
        key::OBJECTS => trailer.objects = value,
        key::EDGES => trailer.edges = value,
        key::NAMED_EDGES => trailer.named_edges = value,
        key::ROOTS => trailer.roots = value,
        key::SIZE => trailer.size = value,
        key::FREE_SLOTS => trailer.free_slots = value,
        key::NAMES => trailer.names = value,
        key::LOST => trailer.lost = value,
        key::REPAIRED => trailer.repaired = value,
        key::CHAIN => *chain = value,
        _ => {
            let kind = key.checked_sub(key::BY_TYPE).and_then(|kind| usize::try_from(kind).ok());
            if let Some(count) = kind.and_then(|kind| trailer.by_type.get_mut(kind)) {
                *count = value;
            }
        }
    }
}
