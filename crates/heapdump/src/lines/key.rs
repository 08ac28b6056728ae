//! The keys that Ruby 3.1 to 4.0 write, one bit each. No flag has the name of a line's key.

pub const OTHER: u64 = 0;
pub const ADDRESS: u64 = 1 << 0;
pub const TYPE: u64 = 1 << 1;
pub const CLASS: u64 = 1 << 2;
pub const SUPERCLASS: u64 = 1 << 3;
pub const BYTESIZE: u64 = 1 << 4;
pub const VALUE: u64 = 1 << 5;
pub const REFERENCES: u64 = 1 << 6;
pub const FILE: u64 = 1 << 7;
pub const METHOD: u64 = 1 << 8;
pub const NAME: u64 = 1 << 9;
pub const REAL_CLASS_NAME: u64 = 1 << 10;
pub const STRUCT: u64 = 1 << 11;
pub const FLAGS: u64 = 1 << 13;
pub const MEMSIZE: u64 = 1 << 12;
pub const SLOT_SIZE: u64 = 1 << 14;
pub const ENCODING: u64 = 1 << 15;
pub const FROZEN: u64 = 1 << 17;
pub const IMEMO_TYPE: u64 = 1 << 18;
pub const EMBEDDED: u64 = 1 << 23;
pub const FSTRING: u64 = 1 << 24;
pub const CHILLED: u64 = 1 << 25;
pub const SHARED: u64 = 1 << 26;
pub const BROKEN: u64 = 1 << 28;
pub const SIZE: u64 = 1 << 29;
pub const DEFAULT: u64 = 1 << 30;
pub const LENGTH: u64 = 1 << 31;
pub const SINGLETON: u64 = 1 << 33;
pub const TOO_COMPLEX_SHAPE: u64 = 1 << 35;
pub const LINE: u64 = 1 << 37;
pub const GENERATION: u64 = 1 << 38;
pub const NODE_TYPE: u64 = 1 << 39;
pub const ROOT: u64 = 1 << 41;
pub const WB_PROTECTED: u64 = 1 << 48;
pub const OLD: u64 = 1 << 49;
pub const UNCOLLECTIBLE: u64 = 1 << 50;
pub const MARKING: u64 = 1 << 51;
pub const MARKED: u64 = 1 << 52;
pub const PINNED: u64 = 1 << 53;
pub const OBJECT_ID: u64 = 1 << 54;
pub const SHAREABLE: u64 = 1 << 55;
pub const REMEMBERED: u64 = 1 << 56;

const NAMES: [&str; 58] = [
    "address",
    "type",
    "class",
    "superclass",
    "bytesize",
    "value",
    "references",
    "file",
    "method",
    "name",
    "real_class_name",
    "struct",
    "memsize",
    "flags",
    "slot_size",
    "encoding",
    "shape_id",
    "frozen",
    "imemo_type",
    "mid",
    "called_id",
    "receiver_class",
    "capacity",
    "embedded",
    "fstring",
    "chilled",
    "shared",
    "coderange",
    "broken",
    "size",
    "default",
    "length",
    "variation_count",
    "singleton",
    "ivars",
    "too_complex_shape",
    "fd",
    "line",
    "generation",
    "node_type",
    "associated",
    "root",
    "id",
    "parent_id",
    "depth",
    "shape_type",
    "edge_name",
    "edges",
    "wb_protected",
    "old",
    "uncollectible",
    "marking",
    "marked",
    "pinned",
    "object_id",
    "shareable",
    "remembered",
    "age",
];

/// For each name, its first eight bytes, padded with zeros, and the last eight bytes if it is longer.
const ENDS: [(u64, u64); NAMES.len()] = ends();

/// A hash table of positions in `NAMES`, counted from 1; 0 marks an empty slot.
const TABLE: [u8; 256] = table();

const fn ends() -> [(u64, u64); NAMES.len()] {
    let mut ends = [(0, 0); NAMES.len()];
    let mut i = 0;
    while i < NAMES.len() {
        let name = NAMES[i].as_bytes();
        let mut k = 0;
        while k < 8 && k < name.len() {
            ends[i].0 |= (name[k] as u64) << (8 * k);
            if name.len() > 8 {
                ends[i].1 |= (name[name.len() - 8 + k] as u64) << (8 * k);
            }
            k += 1;
        }
        i += 1;
    }
    ends
}

const fn table() -> [u8; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < NAMES.len() {
        let mut slot = hash(ENDS[i].0);
        while table[slot] != 0 {
            slot = (slot + 1) % 256;
        }
        i += 1;
        table[slot] = i as u8;
    }
    table
}

const fn hash(head: u64) -> usize {
    (head.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize
}

/// Returns the bit of a key.
pub fn of(name: &[u8]) -> u64 {
    let mut head = [0; 8];
    let begin = &name[..name.len().min(8)];
    head[..begin.len()].copy_from_slice(begin);
    let tail = name.last_chunk::<8>().filter(|_| name.len() > 8).map_or(0, |tail| u64::from_le_bytes(*tail));
    let found = with_ends(u64::from_le_bytes(head), tail, name.len());
    if name.len() > 16 && !NAMES.iter().any(|known| known.as_bytes() == name) { OTHER } else { found }
}

/// Returns the bit of a key of at most sixteen bytes, given its first and last bytes.
#[inline]
pub fn with_ends(head: u64, tail: u64, length: usize) -> u64 {
    let mut slot = hash(head);
    loop {
        let Some(i) = usize::from(TABLE[slot]).checked_sub(1) else { return OTHER };
        if ENDS[i] == (head, tail) && NAMES[i].len() == length {
            return 1 << i;
        }
        slot = (slot + 1) % 256;
    }
}
