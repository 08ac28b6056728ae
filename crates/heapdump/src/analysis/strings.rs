//! Equal strings, found by hash and length. The graph does not have their content.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::address::ObjectIndex;
use super::held::Amount;
use super::memory::Graph;
use super::reach::Reach;

/// Stands for the hash of strings without content: a dump has none for them.
pub const HASH_OF_EMPTY: u64 = 0;

/// Strings of the same content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Equal {
    /// The hash of their content, under a key that died with the process, or [`HASH_OF_EMPTY`].
    pub hash: u64,
    /// The length of each, bytes.
    pub length: u64,
    /// All of them.
    pub amount: Amount,
    /// The first of them.
    pub example: ObjectIndex,
}

impl Equal {
    /// The bytes that would be free if there were only one of them.
    pub fn wasted(&self) -> u64 {
        self.amount.bytes - self.amount.bytes / self.amount.objects.max(1)
    }
}

/// The total cost of equal strings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strings {
    /// Strings with a hash, and empty ones.
    pub hashed: Amount,
    /// Strings whose content is unknown: shared ones in JSON, and those of a dump that has no hashes.
    pub unknown: Amount,
    /// Groups of more than one string, the most wasteful first.
    pub equal: Vec<Equal>,
}

impl Strings {
    /// Finds the equal ones among the reachable strings.
    pub fn new(graph: &Graph, reach: &Reach) -> Self {
        let mut strings = Self::default();
        let mut groups: HashMap<(u64, u64), Equal, RandomState> = HashMap::default();
        let mut lengths = graph.columns().lengths.iter().copied().peekable();
        let mut hashes = graph.columns().hashes.iter().copied().peekable();
        for object in graph.all() {
            let of =
                |column: &mut std::iter::Peekable<_>| column.next_if(|(at, _)| *at == object).map(|(_, value)| value);
            let (length, hash): (Option<u64>, Option<u64>) = (of(&mut lengths), of(&mut hashes));
            if graph.kind(object) != crate::record::Type::STRING || reach.number(object).is_none() {
                continue;
            }
            let size = graph.size(object);
            let hash = if length == Some(0) { Some(HASH_OF_EMPTY) } else { hash };
            let Some(hash) = hash else {
                strings.unknown.add(size);
                continue;
            };
            strings.hashed.add(size);
            let length = length.unwrap_or_default();
            let new = Equal { hash, length, amount: Amount::default(), example: object };
            groups.entry((hash, length)).or_insert(new).amount.add(size);
        }
        strings.equal = groups.into_values().filter(|group| group.amount.objects > 1).collect();
        strings.equal.sort_unstable_by_key(|group| (std::cmp::Reverse(group.wasted()), group.example));
        strings
    }

    /// The bytes that would be free if there were only one string of each content.
    pub fn wasted(&self) -> u64 {
        self.equal.iter().fold(0, |sum, group| sum.saturating_add(group.wasted()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::builder::Wanted;
    use crate::analysis::load;
    use crate::analysis::testing::{Heap, application, object};
    use crate::record::{Object, Type};

    #[test]
    fn equal_strings_are_grouped_and_garbage_is_not_counted() {
        let graph = application(10);
        let strings = Strings::new(&graph, &graph.reach());
        let groups: Vec<_> =
            strings.equal.iter().map(|group| (group.hash, group.amount.objects, group.wasted())).collect();
        assert_eq!(groups, [(0, 4, 120), (1, 3, 80), (2, 3, 80)]);
        assert_eq!((strings.wasted(), strings.hashed.objects, strings.unknown.objects), (280, 10, 0));
    }

    #[test]
    fn empty_strings_are_equal_though_they_have_no_hash() {
        let mut heap = Heap::new();
        heap.root("vm", 0x1000).add(object(0x1000, Type::ARRAY, 0), &[(0x2000, ""), (0x2028, ""), (0x2050, "")]);
        for (address, length) in [(0x2000, Some(0)), (0x2028, Some(0)), (0x2050, None)] {
            heap.add(Object { length, ..object(address, Type::STRING, 0) }, &[]);
        }
        let graph = heap.finish();
        let json = r#"{"type":"ROOT", "root":"vm", "references":["0x7f0000002000", "0x7f0000002028", "0x7f0000002050"]}
{"address":"0x7f0000002000", "type":"STRING", "bytesize":0, "value":"", "memsize":40}
{"address":"0x7f0000002028", "type":"STRING", "bytesize":0, "value":"", "memsize":40}
{"address":"0x7f0000002050", "type":"STRING", "shared":true, "memsize":40}
"#;
        let loaded = load::json(json.as_bytes(), Wanted { strings: true, ..Wanted::default() }).unwrap();
        for graph in [graph, loaded.graph] {
            let strings = Strings::new(&graph, &graph.reach());
            let groups: Vec<_> =
                strings.equal.iter().map(|group| (group.hash, group.length, group.amount.objects)).collect();
            assert_eq!((groups.as_slice(), strings.unknown.objects), (&[(HASH_OF_EMPTY, 0, 2)][..], 1));
        }
    }
}
