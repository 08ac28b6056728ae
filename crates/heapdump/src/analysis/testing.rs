//! Graphs for tests: random ones, and heaps made by hand.

use super::address::{NONE, ObjectIndex};
use super::builder::{Builder, Wanted};
use super::edges::Edges;
use super::memory::Graph;
use crate::record::{self, Edge, FreeSlots, NameId, NameKind, Object, Type};

/// A small generator of pseudo-random numbers: the same seed gives the same graphs.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % limit
    }

    /// References among at most `most` objects, with classes in half of the graphs, and roots.
    pub fn edges(&mut self, most: u32) -> (Edges, Vec<ObjectIndex>) {
        let objects = 1 + self.below(most);
        let density = 1 + self.below(4);
        let mut starts = vec![0];
        let mut targets = Vec::new();
        for _ in 0..objects {
            let degree = self.below(density + 1);
            targets.extend((0..degree).map(|_| self.below(objects)));
            starts.push(targets.len() as u32);
        }
        let class_objects: Vec<ObjectIndex> = (0..2 + self.below(2)).map(|_| self.below(objects)).collect();
        let classes = match self.below(2) {
            0 => Vec::new(),
            _ => (0..objects)
                .map(|_| match self.below(5) {
                    0 => NONE,
                    _ => self.below(class_objects.len() as u32),
                })
                .collect(),
        };
        let roots = (0..1 + self.below(3)).map(|_| self.below(objects)).collect();
        (Edges::new(starts, targets, classes, class_objects), roots)
    }
}

/// Builds small heaps by hand.
pub struct Heap {
    builder: Builder,
    names: Vec<(NameKind, String)>,
}

impl Heap {
    pub fn new() -> Self {
        let wanted = Wanted { labels: true, sites: true, strings: true, slots: true, flags: true, ..Wanted::default() };
        Self { builder: Builder::new(wanted), names: Vec::new() }
    }

    pub fn name(&mut self, kind: NameKind, text: &str) -> NameId {
        let name = (kind, text.to_owned());
        let at = self.names.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.builder.names().push(kind, text.as_bytes()).unwrap();
            self.names.push(name);
            self.names.len() - 1
        });
        NameId(at as u32 + 1)
    }

    pub fn root(&mut self, category: &str, target: u64) -> &mut Self {
        let category = self.name(NameKind::Text, category);
        self.builder.root(record::Root { category, edge: Edge { target, label: NameId::NONE } }).unwrap();
        self
    }

    /// Adds an object with the references that follow it. A label begins with the sign of its kind: `@`, `.`, `:`, `[`, `$`, `|`, `=`
    /// for one of Ruby's own.
    pub fn add(&mut self, object: Object, edges: &[(u64, &str)]) -> &mut Self {
        self.builder.object(&object).unwrap();
        for (target, label) in edges {
            let kind = match label.chars().next() {
                None => {
                    self.builder.edge(*target, NameId::NONE).unwrap();
                    continue;
                }
                Some('@') => NameKind::InstanceVariable,
                Some('.') => NameKind::Member,
                Some('[') => NameKind::HashValue,
                Some('$') => NameKind::Global,
                Some('|') => NameKind::Frame,
                Some('=') => NameKind::Internal,
                Some(_) => NameKind::Constant,
            };
            let name = self.name(kind, label.trim_start_matches(['.', '[', '|', '=']));
            self.builder.edge(*target, name).unwrap();
        }
        self
    }

    pub fn class(&mut self, address: u64, name: &str, edges: &[(u64, &str)]) -> &mut Self {
        let name = self.name(NameKind::Text, name);
        self.add(Object { name, ..object(address, Type::CLASS, 0) }, edges)
    }

    pub fn free(&mut self, run: FreeSlots) -> &mut Self {
        self.builder.free(&run).unwrap();
        self
    }

    pub fn finish(self) -> Graph {
        self.builder.finish()
    }
}

/// An object of 40 bytes.
pub fn object(address: u64, kind: Type, class: u64) -> Object {
    Object { address, kind, class, size: 40, ..Object::default() }
}

/// Objects of an application: `App::CACHE` is a Hash whose `records` are an Array of `count` users with a name each; each user refers to
/// the next. The stack holds the last one, too.
pub fn application(count: u64) -> Graph {
    let mut heap = Heap::new();
    let user = |i: u64| 0x10_0000 + i * 80;
    heap.root("vm", 0x1000).root("machine_context", user(count - 1));
    heap.class(0x1000, "Object", &[(0x1050, "App"), (0x1078, "String"), (0x10a0, "User")]);
    heap.class(0x1050, "App", &[(0x2000, "CACHE")]);
    heap.class(0x1078, "String", &[]).class(0x10a0, "User", &[]).class(0x10c8, "Hash", &[]).class(0x10f0, "Array", &[]);
    heap.add(object(0x2000, Type::HASH, 0x10c8), &[(0x2028, "[records")]);
    let users: Vec<(u64, &str)> = (0..count).map(|i| (user(i), "")).collect();
    heap.add(object(0x2028, Type::ARRAY, 0x10f0), &users);
    for i in 0..count {
        let next = if i + 1 < count {
            vec![(user(i) + 40, "@name"), (user(i + 1), "@next")]
        } else {
            vec![(user(i) + 40, "@name")]
        };
        heap.add(object(user(i), Type::OBJECT, 0x10a0), &next);
        let string = object(user(i) + 40, Type::STRING, 0x1078);
        heap.add(Object { hash: Some(i % 3), length: Some(7), ..string }, &[]);
    }
    heap.add(object(0x3000, Type::STRING, 0x1078), &[]);
    heap.finish()
}

/// A list of this length that a root holds, each element of another class, with names by its number.
pub fn list(length: u64, class_name: impl Fn(u64) -> String) -> Graph {
    let mut heap = Heap::new();
    heap.root("vm", 0x10_0000);
    for i in 0..length {
        let (object_at, class_at) = (0x10_0000 + i * 80, 0x10_0028 + i * 80);
        heap.add(object(object_at, Type::OBJECT, class_at), &[(object_at + 80, "@next")]);
        heap.class(class_at, &class_name(i), &[]);
    }
    heap.finish()
}
