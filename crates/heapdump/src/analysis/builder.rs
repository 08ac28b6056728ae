//! Builds the graph in memory from the records of a dump, in any order.

use super::address::{NONE, ObjectIndex, Packed, Pages};
use super::classes::{Class, ClassNumber, Classes};
use super::edges::Edges;
use super::error::{Error, Result};
use super::memory::{Columns, Facts, Graph, Root};
use super::sizes::Sizes;
use crate::convert::Target;
use crate::record::{self, Edge, FreeSlots, NameId, NameKind, Object, Page, Site, SiteId, Type};
use crate::tables::{Names, Sites};

/// The memory that an object and a reference take until dominators are found, bytes.
const BYTES_OF_OBJECT: u64 = 70;
const BYTES_OF_EDGE: u64 = 12;
/// The memory of a root while it is read and connected, and of what else a dump may have many of, bytes.
const BYTES_OF_ROOT: usize = size_of::<(record::Root, Packed)>() + size_of::<Root>();
const BYTES_OF_FREE: usize = size_of::<FreeSlots>();
const BYTES_OF_PAGE: usize = size_of::<Page>();
/// The memory is checked each time that as many of one kind were added.
const CHECKED_EVERY: u32 = 1 << 16;
/// The most numbers about the process that are kept. A dump has a few dozen.
const MAX_STATS: usize = 256;

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
    /// Leave out the reference of each object to its class, as `dump_all` does.
    pub no_class_edges: bool,
    /// The most memory that the graph may take, bytes.
    pub most_bytes: Option<u64>,
}

impl Wanted {
    fn has_optional_columns(&self) -> bool {
        self.slots || self.flags || self.sites || self.strings
    }
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
    /// The position of each object's first reference.
    starts: Vec<u32>,
    targets: Vec<Packed>,
    roots: Vec<(record::Root, Packed)>,
    own_names: Vec<(ObjectIndex, NameId)>,
    names: Names,
    sites: Sites,
    /// The address and the class of the last object, if it could be added.
    current: Option<(u64, u64)>,
    /// The address of an object that is expected, and where its references begin.
    ahead: Option<(u64, usize)>,
    stats: Vec<(NameId, u64)>,
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
            names: Names::default(),
            sites: Sites::default(),
            current: None,
            ahead: None,
            stats: Vec::new(),
            columns: Columns::default(),
            facts: Facts::default(),
        }
    }

    /// The number of objects so far.
    pub fn objects(&self) -> usize {
        self.addresses.len()
    }

    /// The name table.
    pub fn names(&mut self) -> &mut Names {
        &mut self.names
    }

    /// The table of allocation sites.
    pub fn sites(&mut self) -> &mut Sites {
        &mut self.sites
    }

    /// Adds an object. The references that follow are its own.
    pub fn object(&mut self, object: &Object) -> Result<()> {
        let at = u32::try_from(self.addresses.len()).ok().filter(|at| *at < NONE - 1).ok_or(Error::TooLarge)?;
        self.check_memory_at(at as usize)?;
        let start = self.start_of(object.address);
        let Some(packed) = self.pages.pack(object.address) else {
            return self.refuse(object.address);
        };
        self.current = Some((object.address, object.class));
        self.addresses.push(packed);
        self.kinds.push(object.kind);
        self.sizes.push(object.size);
        let class = self.class_of(object.kind, object.class, object.name);
        self.class_numbers.push(class);
        self.starts.push(start as u32);
        self.name_module(at, object.kind, object.name);
        self.optional_columns(at, object);
        Ok(())
    }

    #[inline]
    fn name_module(&mut self, at: ObjectIndex, kind: Type, name: NameId) {
        if matches!(kind, Type::CLASS | Type::MODULE | Type::ICLASS) && name != NameId::NONE {
            self.own_names.push((at, name));
        }
    }

    fn optional_columns(&mut self, at: ObjectIndex, object: &Object) {
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
    }

    // The position of the next object's first reference, including those that came ahead of it.
    fn start_of(&mut self, address: u64) -> usize {
        match self.ahead.take() {
            Some((expected, start)) if expected == address => start,
            Some((_, start)) => {
                self.facts.dangling += (self.targets.len() - start) as u64;
                self.targets.truncate(start);
                self.columns.labels.truncate(start);
                start
            }
            None => self.targets.len(),
        }
    }

    // An object at an address where none can be is left out with its references.
    fn refuse(&mut self, address: u64) -> Result<()> {
        if Pages::is_possible(address) {
            return Err(Error::Scattered { address });
        }
        self.current = None;
        self.facts.misplaced += 1;
        Ok(())
    }

    // Checks the memory once in a while, by the number of objects, references or others so far.
    #[inline]
    fn check_memory_at(&self, count: usize) -> Result<()> {
        if (count as u32).is_multiple_of(CHECKED_EVERY) { self.check_memory() } else { Ok(()) }
    }

    fn check_memory(&self) -> Result<()> {
        let objects = self.addresses.len();
        let besides = BYTES_OF_ROOT * self.roots.len()
            + BYTES_OF_FREE * self.columns.free.len()
            + BYTES_OF_PAGE * self.columns.pages.len();
        let used = BYTES_OF_OBJECT * objects as u64 + BYTES_OF_EDGE * self.targets.len() as u64 + besides as u64;
        match self.wanted.most_bytes.filter(|limit| used > *limit) {
            Some(limit) => Err(Error::Memory { limit, objects }),
            None => Ok(()),
        }
    }

    #[inline]
    fn class_of(&mut self, kind: Type, class: u64, name: NameId) -> ClassNumber {
        match kind {
            // The address at the place of the class is something else.
            Type::IMEMO | Type::NODE => self.classes.number(Class::Internal(kind, name)),
            _ if class == 0 => self.classes.number(Class::Internal(kind, NameId::NONE)),
            _ => self.classes.at(class),
        }
    }

    /// Adds a reference of the last object. One to an address that no object can have is counted and dropped.
    #[inline]
    pub fn edge(&mut self, target: u64, label: NameId) -> Result<()> {
        let packed = self.pages.pack(target).filter(|_| self.current.is_some() || self.ahead.is_some());
        let Some(packed) = packed else {
            self.facts.dangling += 1;
            return Ok(());
        };
        self.check_memory_at(self.targets.len())?;
        if self.targets.len() >= u32::MAX as usize - CHECKED_EVERY as usize {
            return Err(Error::TooLarge);
        }
        self.targets.push(packed);
        if self.wanted.labels {
            self.columns.labels.push(label);
        }
        Ok(())
    }

    /// Adds references of the object at an address: the last one or the next one. If it is neither, they are counted and dropped.
    pub fn more_edges(&mut self, address: u64, edges: &[Edge]) -> Result<()> {
        if self.current.is_none_or(|(current, _)| current != address)
            && self.ahead.is_none_or(|(ahead, _)| ahead != address)
        {
            self.expect(address);
        }
        edges.iter().try_for_each(|edge| self.edge(edge.target, edge.label))
    }

    // The references that follow belong to an object that follows.
    fn expect(&mut self, address: u64) {
        let start = self.start_of(address);
        self.current = None;
        self.ahead = Some((address, start));
    }

    /// Adds a root.
    pub fn root(&mut self, root: record::Root) -> Result<()> {
        self.check_memory_at(self.roots.len())?;
        match self.pages.pack(root.edge.target) {
            Some(packed) => self.roots.push((root, packed)),
            None => self.facts.dangling += 1,
        }
        Ok(())
    }

    /// Adds slots without objects.
    pub fn free(&mut self, run: &FreeSlots) -> Result<()> {
        self.facts.free_slots = self.facts.free_slots.saturating_add(run.count);
        self.facts.free_bytes =
            self.facts.free_bytes.saturating_add(run.count.saturating_mul(u64::from(run.slot_size)));
        if self.wanted.slots {
            self.check_memory_at(self.columns.free.len())?;
            self.columns.free.push(*run);
        }
        Ok(())
    }

    /// Adds numbers about the process. A later number replaces an earlier one of the same name, and those of too many names are left
    /// out.
    pub fn stats(&mut self, stats: &[(NameId, u64)]) {
        for (name, value) in stats {
            match self.stats.iter().position(|(known, _)| known == name) {
                Some(at) => self.stats[at].1 = *value,
                None if self.stats.len() < MAX_STATS => self.stats.push((*name, *value)),
                None => {}
            }
        }
    }

    /// The numbers about the process, by name.
    pub fn named_stats(&self) -> Vec<(String, u64)> {
        self.stats.iter().map(|(name, value)| (self.names.text(*name).into_owned(), *value)).collect()
    }

    /// Adds pages of the heap.
    pub fn pages(&mut self, pages: &[Page]) -> Result<()> {
        if self.wanted.slots {
            self.columns.pages.extend_from_slice(pages);
            self.check_memory()?;
        }
        Ok(())
    }

    /// Connects the objects.
    pub fn finish(mut self) -> Graph {
        self.start_of(u64::MAX);
        let index = super::address::Index::new(&self.addresses);
        self.facts.misplaced += (self.addresses.len() - index.objects()) as u64;
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
        for (object, name) in &self.own_names {
            self.classes.name(*object, *name, self.class_numbers[*object as usize]);
        }
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

impl Target for Builder {
    type Error = Error;

    fn name(&mut self, kind: NameKind, text: &[u8]) -> Result<NameId> {
        Ok(self.names.push(kind, text)?)
    }

    fn site(&mut self, site: &Site) -> Result<SiteId> {
        Ok(self.sites.push(site)?)
    }

    fn object(&mut self, object: &Object) -> Result<()> {
        self.object(object)
    }

    fn edges_ahead(&mut self, address: u64) -> Result<()> {
        self.expect(address);
        Ok(())
    }

    #[inline]
    fn edge(&mut self, edge: Edge) -> Result<()> {
        // That one is added by itself.
        let is_class = edge.label == NameId::NONE && self.current.is_some_and(|(_, class)| class == edge.target);
        if is_class { Ok(()) } else { self.edge(edge.target, edge.label) }
    }

    fn root(&mut self, root: &record::Root) -> Result<()> {
        self.root(*root)
    }

    fn free(&mut self, slots: &FreeSlots) -> Result<()> {
        self.free(slots)
    }

    fn stats(&mut self, stats: &[(NameId, u64)]) -> Result<()> {
        self.stats(stats);
        Ok(())
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

mod blocks;
#[cfg(test)]
mod tests;
