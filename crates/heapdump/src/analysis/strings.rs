//! Equal strings, found by hash and length. The graph does not have their content.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::address::ObjectIndex;
use super::held::Amount;
use super::memory::Graph;
use super::reach::Reach;
use crate::record::{NameKind, Type};

/// Stands for the hash of strings without content: a dump has none for them.
pub const HASH_OF_EMPTY: u64 = 0;

/// Strings of the same content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Equal {
    /// The hash of their content, under a key that died with the process, or [`HASH_OF_EMPTY`].
    pub hash: u64,
    /// The length of each, bytes.
    pub length: u64,
    /// All of them, with the bytes of the buffers that only they share.
    pub amount: Amount,
    /// The size of the largest, bytes.
    pub largest: u64,
    /// The first of them.
    pub example: ObjectIndex,
}

impl Equal {
    /// The bytes that would be free if there were only the largest of them. What shares its buffer has no more than a slot.
    pub fn wasted(&self) -> u64 {
        self.amount.bytes.saturating_sub(self.largest)
    }

    fn add(&mut self, size: u64, is_buffer: bool) {
        self.amount.objects += u64::from(!is_buffer);
        self.amount.bytes = self.amount.bytes.saturating_add(size);
        self.largest = self.largest.max(size);
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
    buffers: Buffers,
}

impl Strings {
    /// Finds the equal ones among the reachable strings.
    pub fn new(graph: &Graph, reach: &Reach) -> Self {
        let mut strings = Self::default();
        let mut groups: HashMap<(u64, u64), Equal, RandomState> = HashMap::default();
        strings.buffers = Buffers::new(graph, reach);
        for (object, key) in all(graph, reach) {
            let size = graph.size(object);
            let Some((hash, length)) = key else {
                strings.unknown.add(size);
                continue;
            };
            strings.hashed.add(size);
            let new = Equal { hash, length, amount: Amount::default(), largest: 0, example: object };
            let group = groups.entry((hash, length)).or_insert(new);
            let is_buffer = strings.buffers.contains(object);
            if group.amount.objects == 0 && !is_buffer {
                group.example = object;
            }
            group.add(size, is_buffer);
        }
        strings.equal = groups.into_values().filter(|group| group.amount.objects > 1).collect();
        strings.equal.sort_unstable_by_key(|group| (std::cmp::Reverse(group.wasted()), group.example));
        strings
    }

    /// The first strings of each of some groups, at most so many.
    pub fn members(&self, graph: &Graph, reach: &Reach, groups: &[Equal], most: usize) -> Vec<Vec<ObjectIndex>> {
        let numbers: HashMap<(u64, u64), usize, RandomState> =
            groups.iter().enumerate().map(|(at, group)| ((group.hash, group.length), at)).collect();
        let mut members = vec![Vec::new(); groups.len()];
        for (object, key) in all(graph, reach) {
            let number = key.and_then(|key| numbers.get(&key)).filter(|_| !self.buffers.contains(object));
            if let Some(of_group) = number.map(|number| &mut members[*number]).filter(|members| members.len() < most) {
                of_group.push(object);
            }
        }
        members
    }

    /// The bytes that would be free if there were only one string of each content.
    pub fn wasted(&self) -> u64 {
        self.equal.iter().fold(0, |sum, group| sum.saturating_add(group.wasted()))
    }
}

/// The hash of a string's content, if the dump has it.
pub fn hash(graph: &Graph, string: ObjectIndex) -> Option<u64> {
    let of =
        |column: &[(ObjectIndex, u64)]| column.binary_search_by_key(&string, |(at, _)| *at).ok().map(|at| column[at].1);
    let is_string = graph.kind(string) == Type::STRING;
    key(of(&graph.columns().hashes), of(&graph.columns().lengths)).filter(|_| is_string).map(|(hash, _)| hash)
}

// The hash and the length that strings of one content have in common.
fn key(hash: Option<u64>, length: Option<u64>) -> Option<(u64, u64)> {
    match length {
        Some(0) => Some((HASH_OF_EMPTY, 0)),
        _ => Some((hash?, length.unwrap_or_default())),
    }
}

// All reachable strings.
fn all(graph: &Graph, reach: &Reach) -> impl Iterator<Item = (ObjectIndex, Option<(u64, u64)>)> {
    let mut lengths = graph.columns().lengths.iter().copied().peekable();
    let mut hashes = graph.columns().hashes.iter().copied().peekable();
    let keys = graph.all().map(move |object| {
        let of = |column: &mut std::iter::Peekable<_>| column.next_if(|(at, _)| *at == object).map(|(_, value)| value);
        (object, key(of(&mut hashes), of(&mut lengths)))
    });
    keys.filter(|(object, _)| graph.kind(*object) == Type::STRING && reach.number(*object).is_some())
}

/// Strings that no program refers to: Ruby made them to own the bytes that others share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Buffers {
    is_shared: Vec<bool>,
    is_named: Vec<bool>,
}

impl Buffers {
    fn new(graph: &Graph, reach: &Reach) -> Self {
        let mut buffers = Self::default();
        if graph.columns().labels.is_empty() {
            return buffers;
        }
        buffers.is_shared.resize(graph.objects(), false);
        buffers.is_named.resize(graph.objects(), false);
        for from in reach.objects_found() {
            for place in graph.edges().range(from) {
                let target = graph.edges().target(place);
                if graph.kind(target) == Type::STRING {
                    let label = graph.label(place);
                    let is_shared = graph.name_kind(label) == NameKind::Internal && graph.text(label) == "shared";
                    let column = if is_shared { &mut buffers.is_shared } else { &mut buffers.is_named };
                    column[target as usize] = true;
                }
            }
        }
        for root in graph.roots() {
            buffers.is_named[root.object as usize] = true;
        }
        buffers
    }

    fn contains(&self, string: ObjectIndex) -> bool {
        let of = |column: &[bool]| column.get(string as usize).copied().unwrap_or_default();
        of(&self.is_shared) && !of(&self.is_named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::builder::Wanted;
    use crate::analysis::load;
    use crate::analysis::testing::{Heap, application, object};
    use crate::record::Object;

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
    fn what_shares_a_buffer_wastes_only_its_slot() {
        let mut heap = Heap::new();
        let mut string = |address: u64, hash: u64, size: u64, shared: u64| {
            let edges: &[(u64, &str)] = if shared > 0 { &[(shared, "=shared")] } else { &[] };
            heap.add(Object { hash: Some(hash), length: Some(9), size, ..object(address, Type::STRING, 0) }, edges);
        };
        // `T = "…"; COPIES = [T.dup, T.dup]`: three share the buffer of one that no program refers to.
        string(0x2000, 1, 5_000, 0);
        for at in [0x2028, 0x2050, 0x2078] {
            string(at, 1, 40, 0x2000);
        }
        // The key of a Hash owns the bytes of the string that it was made of.
        string(0x20a0, 2, 3_000, 0);
        string(0x20c8, 2, 40, 0x20a0);
        // Only one of two strings is in the program: the other is its buffer.
        string(0x20f0, 3, 3_000, 0);
        string(0x2118, 3, 40, 0x20f0);
        // Two that own their bytes, one with room to grow.
        string(0x2140, 4, 1_000, 0);
        string(0x2168, 4, 1_500, 0);
        let all = [0x2028, 0x2050, 0x2078, 0x20a0, 0x20c8, 0x2118, 0x2140, 0x2168].map(|at| (at, ""));
        heap.root("vm", 0x1000).add(object(0x1000, Type::ARRAY, 0), &all);
        let graph = heap.finish();
        let strings = Strings::new(&graph, &graph.reach());
        let groups: Vec<_> = strings
            .equal
            .iter()
            .map(|group| (group.hash, group.amount.objects, group.wasted(), graph.address(group.example)))
            .collect();
        assert_eq!(groups, [(4, 2, 1_000, 0x2140), (1, 3, 120, 0x2028), (2, 2, 40, 0x20a0)]);
        let members = strings.members(&graph, &graph.reach(), &strings.equal, 2);
        let members: Vec<Vec<u64>> =
            members.iter().map(|group| group.iter().map(|object| graph.address(*object)).collect()).collect();
        assert_eq!(members, [[0x2140, 0x2168], [0x2028, 0x2050], [0x20a0, 0x20c8]]);
        let hashes: Vec<_> = strings.equal.iter().map(|group| hash(&graph, group.example)).collect();
        assert_eq!(hashes, [Some(4), Some(1), Some(2)]);
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
