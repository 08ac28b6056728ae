//! Builds the graph in memory from the records of a dump, in any order.

use super::address::{NONE, ObjectIndex, Packed, Pages};
use super::classes::{Class, ClassNumber, Classes};
use super::edges::Edges;
use super::error::{Error, Result};
use super::memory::{Columns, Facts, Graph, Name, Root};
use super::sizes::Sizes;
use crate::record::{self, NameId, Object, Site, Type};

/// The columns that a command needs beside addresses, types, classes, sizes and references.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The names of references.
    pub labels: bool,
    /// Allocation sites and generations.
    pub sites: bool,
    /// Hashes and lengths.
    pub strings: bool,
    /// Sizes of slots.
    pub slots: bool,
    /// Flags.
    pub flags: bool,
    /// The reference of each object to its class, which `dump_all` leaves out of its references.
    pub no_class_edges: bool,
}

/// Collects the records of a dump.
#[derive(Debug)]
pub struct Builder {
    wanted: Wanted,
    pages: Pages,
    addresses: Vec<Packed>,
    kinds: Vec<Type>,
    sizes: Sizes,
    class_numbers: Vec<ClassNumber>,
    classes: Classes,
    /// Where the references of each object begin.
    starts: Vec<u32>,
    targets: Vec<Packed>,
    roots: Vec<(record::Root, Packed)>,
    own_names: Vec<(ObjectIndex, NameId)>,
    names: Vec<Name>,
    sites: Vec<Site>,
    columns: Columns,
    facts: Facts,
}

impl Builder {
    /// Creates an empty graph.
    pub fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            pages: Pages::default(),
            addresses: Vec::new(),
            kinds: Vec::new(),
            sizes: Sizes::default(),
            class_numbers: Vec::new(),
            classes: Classes::default(),
            starts: Vec::new(),
            targets: Vec::new(),
            roots: Vec::new(),
            own_names: Vec::new(),
            names: vec![Name::default()],
            sites: vec![Site::default()],
            columns: Columns::default(),
            facts: Facts::default(),
        }
    }

    /// Adds a name. Its id is the next one.
    pub fn name(&mut self, name: Name) {
        self.names.push(name);
    }

    /// Adds an allocation site. Its id is the next one.
    pub fn site(&mut self, site: Site) {
        self.sites.push(site);
    }

    /// Adds an object. The references that follow are its own.
    pub fn object(&mut self, object: &Object) -> Result<()> {
        let at = u32::try_from(self.addresses.len()).ok().filter(|at| *at < NONE - 1).ok_or(Error::TooLarge)?;
        let packed = self.pages.pack(object.address).ok_or(Error::FalseAddress { address: object.address })?;
        self.addresses.push(packed);
        self.kinds.push(object.kind);
        self.sizes.push(object.size);
        let class = self.class_of(object);
        self.class_numbers.push(class);
        self.starts.push(self.targets.len() as u32);
        let is_module = matches!(object.kind, Type::CLASS | Type::MODULE | Type::ICLASS);
        if is_module && object.name != NameId::NONE {
            self.own_names.push((at, object.name));
        }
        let columns = &mut self.columns;
        if self.wanted.slots {
            columns.slots.push(u16::try_from(object.slot_size).unwrap_or(u16::MAX));
        }
        if self.wanted.flags {
            columns.flags.push(object.flags);
        }
        if self.wanted.sites {
            columns.sites.push(object.site);
            columns.generations.push(u32::try_from(object.generation).unwrap_or(u32::MAX));
        }
        if self.wanted.strings {
            columns.hashes.extend(object.hash.map(|hash| (at, hash)));
            columns.lengths.extend(object.length.map(|length| (at, length)));
        }
        Ok(())
    }

    #[inline]
    fn class_of(&mut self, object: &Object) -> ClassNumber {
        match object.kind {
            // What stands at the place of the class is something else.
            Type::IMEMO | Type::NODE => self.classes.number(Class::Internal(object.kind, object.name)),
            kind if object.class == 0 => self.classes.number(Class::Internal(kind, NameId::NONE)),
            _ => self.classes.at(object.class),
        }
    }

    /// Adds a reference of the last object. One to an address that no object can have is counted and dropped.
    #[inline]
    pub fn edge(&mut self, target: u64, label: NameId) -> Result<()> {
        let Some(packed) = self.pages.pack(target) else {
            self.facts.dangling += 1;
            return Ok(());
        };
        if self.targets.len() >= u32::MAX as usize - 1 {
            return Err(Error::TooLarge);
        }
        self.targets.push(packed);
        if self.wanted.labels {
            self.columns.labels.push(label);
        }
        Ok(())
    }

    /// Adds a root.
    pub fn root(&mut self, root: record::Root) {
        match self.pages.pack(root.edge.target) {
            Some(packed) => self.roots.push((root, packed)),
            None => self.facts.dangling += 1,
        }
    }

    /// Adds slots without objects.
    pub fn free(&mut self, slots: u64, slot_size: u32) {
        self.facts.free_slots = self.facts.free_slots.saturating_add(slots);
        self.facts.free_bytes = self.facts.free_bytes.saturating_add(slots.saturating_mul(u64::from(slot_size)));
    }

    /// Connects the objects.
    pub fn finish(mut self) -> Graph {
        let index = super::address::Index::new(&self.addresses);
        self.facts.misplaced = (self.addresses.len() - index.objects()) as u64;
        self.starts.push(self.targets.len() as u32);
        let targets = index.resolve(self.targets);
        let (starts, targets) = without_dangling(self.starts, targets, &mut self.columns.labels, &mut self.facts);
        let find = |packed| index.find(packed);
        let roots = self.roots.iter().filter_map(|(root, packed)| {
            Some(Root { category: root.category, label: root.edge.label, object: find(*packed)? })
        });
        let roots: Vec<Root> = roots.collect();
        self.facts.dangling += (self.roots.len() - roots.len()) as u64;
        let class_objects = match self.wanted.no_class_edges {
            true => Vec::new(),
            false => self.classes.objects(|address| self.pages.find(address).and_then(find)),
        };
        self.own_names.iter().for_each(|(object, name)| self.classes.name(*object, *name));
        Graph {
            edges: Edges::new(starts, targets, self.class_numbers, class_objects),
            pages: self.pages,
            index,
            addresses: self.addresses,
            kinds: self.kinds,
            sizes: self.sizes,
            classes: self.classes,
            roots,
            names: self.names,
            sites: self.sites,
            columns: self.columns,
            facts: self.facts,
        }
    }
}

// Removes references to what is no object, in place.
fn without_dangling(
    mut starts: Vec<u32>,
    mut targets: Vec<ObjectIndex>,
    labels: &mut Vec<NameId>,
    facts: &mut Facts,
) -> (Vec<u32>, Vec<ObjectIndex>) {
    let before = targets.len();
    if !targets.contains(&NONE) {
        return (starts, targets);
    }
    let (mut read, mut write) = (0, 0);
    for start in &mut starts {
        while read < *start as usize {
            if targets[read] != NONE {
                targets[write] = targets[read];
                if !labels.is_empty() {
                    labels[write] = labels[read];
                }
                write += 1;
            }
            read += 1;
        }
        *start = write as u32;
    }
    targets.truncate(write);
    labels.truncate(write);
    facts.dangling += (before - write) as u64;
    (starts, targets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Edge;

    fn object(address: u64, kind: Type, class: u64, size: u64) -> Object {
        Object { address, kind, class, size, ..Object::default() }
    }

    fn sample() -> Graph {
        let mut builder = Builder::new(Wanted { labels: true, ..Wanted::default() });
        for text in ["App", "@user", "vm", "callcache"] {
            builder.name(Name { text: text.into(), ..Name::default() });
        }
        builder.root(record::Root { category: NameId(3), edge: Edge { target: 0x1028, label: NameId::NONE } });
        builder.root(record::Root { category: NameId(3), edge: Edge { target: 0x9000, label: NameId::NONE } });
        let mut add = |object: Object, edges: &[(u64, u32)]| {
            builder.object(&object).unwrap();
            edges.iter().for_each(|(to, label)| builder.edge(*to, NameId(*label)).unwrap());
        };
        add(object(0x1000, Type::OBJECT, 0x1028, 40), &[(0x8888, 1), (0x1050, 2), (3, 2)]);
        add(Object { name: NameId(1), ..object(0x1028, Type::CLASS, 0, 600) }, &[(0x1000, 0)]);
        add(object(0x1050, Type::STRING, 0x7000, 80), &[(0x10_0000, 0)]);
        add(Object { name: NameId(4), ..object(0x1078, Type::IMEMO, 0x1028, 40) }, &[]);
        builder.free(3, 40);
        builder.finish()
    }

    #[test]
    fn objects_are_connected_and_false_references_are_counted() {
        let graph = sample();
        assert_eq!((graph.objects(), graph.edges().explicit(), graph.facts().dangling), (4, 2, 4));
        assert_eq!(graph.edges().of(0).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(graph.text(graph.label(0)), "@user");
        assert_eq!(graph.edges().of(3).count(), 0, "an IMEMO has no class");
        assert_eq!((graph.facts().free_slots, graph.facts().free_bytes), (3, 120));
        assert_eq!((graph.find(0x1050), graph.address(2), graph.find(0x1048)), (Some(2), 0x1050, None));
        assert_eq!(graph.roots().len(), 1);
        assert_eq!(graph.reach().objects(), 3);
    }

    #[test]
    fn every_object_has_a_class_name() {
        let graph = sample();
        let names: Vec<_> = graph.all().map(|object| graph.class_name(graph.class(object))).collect();
        assert_eq!(names, ["App", "(CLASS)", "#<Class:0x7000>", "(IMEMO callcache)"]);
        assert_eq!((graph.own_name(1), graph.own_name(0)), (Some("App"), None));
    }
}
