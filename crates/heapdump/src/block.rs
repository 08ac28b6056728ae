//! Constants of the format; `docs/heap-graph.md` explains them.

use crate::checksum::xxh64;
use crate::record::Type;

/// The first bytes of every graph. A zero byte and a byte above 0x7f keep it apart from text.
pub const MAGIC: [u8; 8] = *b"\x89RHEAP\n\0";

/// The version of the format. A reader refuses a later one.
pub const VERSION: u32 = 1;

/// Bytes before a block's payload: length, type, version needed, checksum.
pub const HEAD: usize = 16;

/// The maximum length of a payload, bytes.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// The maximum number of objects in a block.
pub const MAX_OBJECTS: usize = 4096;

/// The number of objects that a writer collects into a block.
pub(crate) const BLOCK_OBJECTS: usize = 2048;

/// The maximum number of edges in a block.
pub const MAX_EDGES: usize = 1 << 16;

/// The maximum length of a name, bytes. Longer ones are cut.
pub const MAX_NAME: usize = 4096;

/// The types of blocks.
pub mod kind {
    /// Facts about the graph. Always the first block.
    pub const HEADER: u16 = 1;
    /// Entries of the name table.
    pub const NAMES: u16 = 2;
    /// Entries of the class table.
    pub const CLASSES: u16 = 3;
    /// Entries of the site table.
    pub const SITES: u16 = 4;
    /// Objects with their edges.
    pub const OBJECTS: u16 = 5;
    /// Edges from roots.
    pub const ROOTS: u16 = 6;
    /// Runs of free slots.
    pub const FREE: u16 = 7;
    /// Pages of the heap.
    pub const PAGES: u16 = 8;
    /// Numbers about the process.
    pub const STATS: u16 = 9;
    /// Totals. Always the last block.
    pub const TRAILER: u16 = 255;
}

/// Keys of the header.
pub mod header {
    /// See `Producer`.
    pub const PRODUCER: u64 = 1;
    /// Text.
    pub const RUBY: u64 = 2;
    /// Text.
    pub const PLATFORM: u64 = 3;
    /// 4 or 8.
    pub const POINTER_SIZE: u64 = 4;
    /// Binary logarithm.
    pub const ADDRESS_SHIFT: u64 = 5;
    /// 4 to 8.
    pub const HASH_BYTES: u64 = 6;
}

/// Columns of a block of objects.
pub mod column {
    /// Zigzag, difference to the previous object, in units.
    pub const ADDRESS: u64 = 1;
    /// A byte each.
    pub const TYPE: u64 = 2;
    /// 0: none; 1: see `CLASS_ADDRESS`; otherwise the id in the class table plus 1.
    pub const CLASS: u64 = 3;
    /// Zigzag, difference to the object's address, in units. For objects with 1 under `CLASS`.
    pub const CLASS_ADDRESS: u64 = 4;
    /// Bytes.
    pub const SIZE: u64 = 5;
    /// Pairs: a number of objects, and the size of their slots.
    pub const SLOT_SIZE: u64 = 6;
    /// Bits.
    pub const FLAGS: u64 = 7;
    /// The number of edges in this block.
    pub const EDGE_COUNT: u64 = 8;
    /// Zigzag, in units, as predicted.
    pub const EDGES: u64 = 9;
    /// A name for each edge.
    pub const LABELS: u64 = 10;
    /// A name for each object.
    pub const NAME: u64 = 11;
    /// For objects with the flag `SIZED`.
    pub const LENGTH: u64 = 12;
    /// For objects with the flag `HASHED`: `hash_bytes` each.
    pub const HASH: u64 = 13;
    /// For each string.
    pub const ENCODING: u64 = 14;
    /// For each object.
    pub const SITE: u64 = 15;
    /// Zigzag, difference to the previous one. For objects with a site.
    pub const GENERATION: u64 = 16;
    /// The number of edges, then the objects of each type and class: their numbers and bytes, the young ones first.
    pub const COUNTS: u64 = 17;
    /// The CLASSes, MODULEs and ICLASSes with a name: their addresses (zigzag, difference to the previous one, in units) and names.
    pub const MODULES: u64 = 18;
}

/// Keys of the trailer. The number of objects of type T is under `BY_TYPE + T`.
pub mod trailer {
    /// 1 or 0.
    pub const COMPLETE: u64 = 1;
    /// Blocks before the trailer.
    pub const BLOCKS: u64 = 2;
    /// Bytes before the trailer.
    pub const BYTES: u64 = 3;
    /// Objects.
    pub const OBJECTS: u64 = 4;
    /// Edges.
    pub const EDGES: u64 = 5;
    /// Edges with a name.
    pub const NAMED_EDGES: u64 = 6;
    /// Edges from roots.
    pub const ROOTS: u64 = 7;
    /// Bytes of objects.
    pub const SIZE: u64 = 8;
    /// Free slots.
    pub const FREE_SLOTS: u64 = 9;
    /// Names.
    pub const NAMES: u64 = 10;
    /// Records lost.
    pub const LOST: u64 = 11;
    /// Records repaired.
    pub const REPAIRED: u64 = 12;
    /// Checksum of the checksums of all blocks before the trailer.
    pub const CHAIN: u64 = 13;
    /// First of the keys for types.
    pub const BY_TYPE: u64 = 64;
}

/// Number of edge predictions in a block of objects.
pub const PREDICTIONS: usize = 1024;

/// The place of the prediction for continued edges.
pub const CONTINUED: u16 = 15;

/// Returns true for types whose objects have a name in place of a class.
pub const fn is_internal(kind: u8) -> bool {
    matches!(Type(kind), Type::IMEMO | Type::NODE)
}

/// Returns the first prediction for the edges of an object, by its type and class (the value in column `CLASS`).
#[inline]
pub const fn predictor(kind: u8, class: u64) -> u16 {
    (class.wrapping_add(kind as u64).wrapping_mul(16) % PREDICTIONS as u64) as u16
}

/// Returns the place of the prediction for an edge, by the first one of its object and its position there.
#[inline]
pub const fn prediction(predictor: u16, position: u32) -> u16 {
    let position = if position < 15 { position as u16 } else { 15 };
    (predictor + position) % PREDICTIONS as u16
}

/// Returns the checksum of a block, given its head (of which only the first eight bytes count), its payload, and the number of blocks
/// before it.
pub(crate) fn checksum(head: &[u8], payload: &[u8], ordinal: u64) -> u64 {
    let start = head.first_chunk::<8>().map_or(0, |start| u64::from_le_bytes(*start));
    xxh64(payload, ordinal ^ start.rotate_left(32))
}
