//! The heap snapshots of V8, which Chrome DevTools and memlab open.
//!
//! The format is that of `HeapSnapshotJSONSerializer` in V8: flat arrays of numbers in which the references of all nodes follow each
//! other in the order of the nodes. DevTools keeps these numbers in 32 bits, so an id is made of an address, and the same object has
//! the same id in two snapshots unless addresses are 16 GiB apart. Only reachable objects are written.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use foldhash::fast::RandomState;

use crate::analysis::address::ObjectIndex;
use crate::analysis::memory::Graph;
use crate::analysis::reach::Reach;
use crate::record::{NameId, Type};

const NODE_FIELDS: usize = 7;
const META: &str = r#"{"node_fields":["type","name","id","self_size","edge_count","trace_node_id","detachedness"],"node_types":[["hidden","array","string","object","code","closure","regexp","number","native","synthetic","concatenated string","sliced string","symbol","bigint","object shape"],"string","number","number","number","number","number"],"edge_fields":["type","name_or_index","to_node"],"edge_types":[["context","element","property","internal","hidden","shortcut","weak"],"string_or_number","node"],"trace_function_info_fields":["function_id","name","script_name","script_id","line","column"],"trace_node_fields":["id","function_info_index","count","size","children"],"sample_fields":["timestamp_us","last_assigned_id"],"location_fields":["object_index","script_id","line","column"]}"#;

// Indices into the types of nodes and edges above.
const OBJECT: u64 = 3;
const CODE: u64 = 4;
const SYNTHETIC: u64 = 9;
const ELEMENT: u64 = 1;
const PROPERTY: u64 = 2;
const INTERNAL: u64 = 3;

/// Writes the snapshot.
pub fn write(graph: &Graph, reach: &Reach, out: &mut dyn Write) -> io::Result<()> {
    Snapshot::new(graph, reach).write(out)
}

/// A snapshot in the making. The nodes are the root, one for each category of roots, and the objects by their numbers.
struct Snapshot<'g> {
    graph: &'g Graph,
    reach: &'g Reach,
    strings: Strings,
    /// The categories of roots, each with the distinct objects that it holds.
    categories: Vec<(NameId, Vec<(NameId, ObjectIndex)>)>,
}

impl<'g> Snapshot<'g> {
    fn new(graph: &'g Graph, reach: &'g Reach) -> Self {
        let mut categories: Vec<(NameId, Vec<(NameId, ObjectIndex)>)> = Vec::new();
        let mut places: HashMap<NameId, usize, RandomState> = HashMap::default();
        for root in graph.roots() {
            let at = *places.entry(root.category).or_insert_with(|| {
                categories.push((root.category, Vec::new()));
                categories.len() - 1
            });
            categories[at].1.push((root.label, root.object));
        }
        for (_, held) in &mut categories {
            held.sort_unstable_by_key(|(label, object)| (*object, *label == NameId::NONE));
            held.dedup_by_key(|(_, object)| *object);
        }
        Self { graph, reach, strings: Strings::default(), categories }
    }

    fn write(mut self, out: &mut dyn Write) -> io::Result<()> {
        let nodes = 1 + self.categories.len() + self.reach.objects();
        let held: usize = self.categories.iter().map(|(_, held)| held.len()).sum();
        let references: usize = self.objects().map(|object| self.graph.edges().of(object).count()).sum();
        let edges = self.categories.len() + held + references;
        write!(
            out,
            "{{\"snapshot\":{{\"meta\":{META},\"node_count\":{nodes},\"edge_count\":{edges},\"trace_function_count\":0}},\n\"nodes\":["
        )?;
        self.nodes(out)?;
        out.write_all(b"],\n\"edges\":[")?;
        self.edges(out)?;
        out.write_all(
            b"],\n\"trace_function_infos\":[],\n\"trace_tree\":[],\n\"samples\":[],\n\"locations\":[],\n\"strings\":[",
        )?;
        for (at, text) in self.strings.texts.iter().enumerate() {
            out.write_all(if at == 0 { b"\n" } else { b",\n" })?;
            super::quoted(text, out)?;
        }
        out.write_all(b"]}\n")
    }

    fn objects(&self) -> impl Iterator<Item = ObjectIndex> + '_ {
        self.reach.numbers().map(|number| self.reach.object(number))
    }

    fn nodes(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let (mut ids, mut list) = (Ids::default(), List::default());
        let root = self.strings.id("");
        list.record(out, &[SYNTHETIC, root, ids.next(0), 0, self.categories.len() as u64, 0, 0])?;
        for at in 0..self.categories.len() {
            let name = format!("({})", self.graph.text(self.categories[at].0));
            let name = self.strings.id(&name);
            list.record(out, &[SYNTHETIC, name, ids.next(0), 0, self.categories[at].1.len() as u64, 0, 0])?;
        }
        let mut classes = vec![None; self.graph.classes().len()];
        for number in self.reach.numbers() {
            let object = self.reach.object(number);
            let class = self.graph.class(object) as usize;
            let name = match (self.graph.own_name(object), classes[class]) {
                (Some(own), _) => {
                    let kind = if self.graph.kind(object) == Type::MODULE { "module" } else { "class" };
                    self.strings.id(&format!("{kind} {own}"))
                }
                (None, Some(name)) => name,
                (None, None) => {
                    let name = self.strings.id(&self.graph.class_name(class as u32));
                    *classes[class].insert(name)
                }
            };
            let kind = if self.graph.kind(object) == Type::IMEMO { CODE } else { OBJECT };
            let size = self.graph.size(object).min(u64::from(u32::MAX));
            let references = self.graph.edges().of(object).count() as u64;
            list.record(out, &[kind, name, ids.next(self.graph.address(object)), size, references, 0, 0])?;
        }
        Ok(())
    }

    fn edges(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let mut list = List::default();
        let first = 1 + self.categories.len();
        let place = |node: usize| (node * NODE_FIELDS) as u64;
        for at in 0..self.categories.len() {
            list.record(out, &[ELEMENT, at as u64, place(1 + at)])?;
        }
        // The node of a reachable object. What is referred to by something reachable is reachable.
        let reach = self.reach;
        let node = |object| place(first + reach.number(object).map_or(0, |number| number as usize - 1));
        for (_, held) in std::mem::take(&mut self.categories) {
            for (at, (label, object)) in (0..).zip(held) {
                let (kind, name) = self.label(label, None, at);
                list.record(out, &[kind, name, node(object)])?;
            }
        }
        for number in self.reach.numbers() {
            let object = self.reach.object(number);
            let edges = self.graph.edges();
            let kind = self.graph.kind(object);
            for (at, reference) in (0..).zip(edges.range(object)) {
                let (kind, name) = self.label(self.graph.label(reference), Some(kind), at);
                list.record(out, &[kind, name, node(edges.target(reference))])?;
            }
            // The class comes last.
            if edges.of(object).count() > edges.explicit_of(object).len() {
                let name = self.strings.id("class");
                list.record(out, &[INTERNAL, name, node(edges.class_of(object))])?;
            }
        }
        Ok(())
    }

    // The type and the name of an edge: elements have a number.
    fn label(&mut self, label: NameId, holder: Option<Type>, at: u64) -> (u64, u64) {
        match (label, holder) {
            (NameId::NONE, None | Some(Type::ARRAY | Type::HASH)) => (ELEMENT, at),
            (NameId::NONE, Some(_)) => (INTERNAL, self.strings.id("reference")),
            (label, _) => {
                let text = self.graph.text(label);
                (PROPERTY, self.strings.id(&text))
            }
        }
    }
}

/// The string table.
#[derive(Default)]
struct Strings {
    ids: HashMap<String, u64, RandomState>,
    texts: Vec<String>,
}

impl Strings {
    fn id(&mut self, text: &str) -> u64 {
        if let Some(id) = self.ids.get(text) {
            return *id;
        }
        let id = self.texts.len() as u64;
        self.texts.push(text.to_owned());
        self.ids.insert(text.to_owned(), id);
        id
    }
}

/// Gives each node an odd number of 32 bits, as V8 numbers objects.
#[derive(Default)]
struct Ids {
    taken: HashSet<u32, RandomState>,
}

impl Ids {
    fn next(&mut self, address: u64) -> u64 {
        let mut id = ((address >> 3) as u32) << 1 | 1;
        while !self.taken.insert(id) {
            id = id.wrapping_add(2);
        }
        u64::from(id)
    }
}

/// A list of numbers, a record a line.
#[derive(Default)]
struct List {
    begun: bool,
    line: Vec<u8>,
}

impl List {
    fn record(&mut self, out: &mut dyn Write, numbers: &[u64]) -> io::Result<()> {
        self.line.clear();
        for number in numbers {
            if std::mem::replace(&mut self.begun, true) {
                self.line.push(b',');
            }
            write!(self.line, "{number}")?;
        }
        self.line.push(b'\n');
        out.write_all(&self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::{Heap, Random, application, object};
    use serde_json::Value;

    fn snapshot(graph: &Graph) -> Value {
        let mut out = Vec::new();
        write(graph, &graph.reach(), &mut out).unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    // The invariants on which the readers of DevTools and memlab rely.
    fn assert_sound(snapshot: &Value) {
        let numbers = |key: &str| -> Vec<usize> {
            snapshot[key].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
        };
        let (nodes, edges, strings) =
            (numbers("nodes"), numbers("edges"), snapshot["strings"].as_array().unwrap().len());
        let meta = &snapshot["snapshot"]["meta"];
        assert_eq!(meta["node_fields"].as_array().unwrap().len(), NODE_FIELDS);
        assert_eq!(snapshot["snapshot"]["node_count"], nodes.len() / NODE_FIELDS);
        assert_eq!(snapshot["snapshot"]["edge_count"], edges.len() / 3);
        assert_eq!(nodes.chunks(NODE_FIELDS).map(|node| node[4]).sum::<usize>(), edges.len() / 3);
        let ids: HashSet<usize> = nodes.chunks(NODE_FIELDS).map(|node| node[2]).collect();
        assert_eq!(ids.len(), nodes.len() / NODE_FIELDS, "ids are unique");
        assert!(ids.iter().all(|id| id % 2 == 1 && u32::try_from(*id).is_ok()));
        let types = |key: &str| meta[key][0].as_array().unwrap().len();
        assert!(nodes.chunks(NODE_FIELDS).all(|node| node[0] < types("node_types") && node[1] < strings));
        for edge in edges.chunks(3) {
            assert!(edge[0] < types("edge_types") && edge[2] < nodes.len() && edge[2] % NODE_FIELDS == 0);
            assert!(edge[0] == ELEMENT as usize || edge[1] < strings);
        }
    }

    #[test]
    fn a_snapshot_is_what_its_readers_rely_on() {
        let graph = application(10);
        let snapshot = snapshot(&graph);
        assert_sound(&snapshot);
        let has = |text: &str| snapshot["strings"].as_array().unwrap().iter().any(|string| string == text);
        assert!(
            ["module App", "class App", "(vm)", "@name", "CACHE", "User"].into_iter().filter(|text| has(text)).count()
                == 5
        );
        assert_eq!(snapshot["snapshot"]["node_count"], 3 + graph.reach().objects());
    }

    #[test]
    fn the_same_object_has_the_same_id_in_two_snapshots() {
        let ids = |snapshot: Value| -> HashSet<u64> {
            let nodes = snapshot["nodes"].as_array().unwrap().clone();
            nodes.chunks(NODE_FIELDS).skip(3).map(|node| node[2].as_u64().unwrap()).collect()
        };
        let (small, large) = (ids(snapshot(&application(10))), ids(snapshot(&application(12))));
        assert!(small.is_subset(&large));
    }

    #[test]
    fn any_graph_and_any_name_give_a_sound_snapshot() {
        let mut random = Random::new(5);
        for _ in 0..50 {
            let mut heap = Heap::new();
            let objects = u64::from(1 + random.below(20));
            heap.root("vm", 0x1000).root("\"\\\n\u{9b}2J", 0x1000 + 40 * u64::from(random.below(20)));
            for at in 0..objects {
                // Addresses whose lower bits are equal.
                let address = |at: u64| 0x1000 + 40 * at + ((at % 3) << 40);
                let to: Vec<(u64, &str)> = (0..random.below(4))
                    .map(|i| (address(random.below(20).into()), ["", "@\u{202e}x", "C"][i as usize % 3]))
                    .collect();
                heap.add(object(address(at), [Type::OBJECT, Type::ARRAY, Type::IMEMO][at as usize % 3], 0x1000), &to);
            }
            assert_sound(&snapshot(&heap.finish()));
        }
    }
}
