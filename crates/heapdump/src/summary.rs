//! The summary of a heap: counts and bytes by class, type, allocation site and generation, a few KB.
//!
//! It is counted while the objects pass, without their references. So it cannot tell what is reachable: garbage that was not freed
//! yet counts. `old` leaves that out, as far as Ruby knows: objects that survived three collections.

mod classes;
mod counted;
pub mod trend;

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io::Read;

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::convert::Target;
use crate::error::Error;
use crate::reader::{Batch, Block, Count, Options, Reader};
use crate::record::{Edge, Flags, FreeSlots, NameId, NameKind, Object, Producer, Root, Site, SiteId, Type};
use crate::tables::{Names, Sites, shortened};
use classes::Class;
pub use counted::Counted;

/// Groups that are kept of each kind: the largest by bytes, and half as many by count. As many classes of C extensions besides.
const KEPT: usize = 80;
/// Classes that are counted one by one, and sites, and generations.
const MAX_GROUPS: usize = 1 << 18;

/// The parts of a graph that a summary needs decoded.
pub const OPTIONS: Options = Options {
    edges: false,
    labels: false,
    slots: false,
    flags: true,
    strings: false,
    sites: true,
    counts: true,
    max_classes: MAX_GROUPS,
};

/// Objects and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// The number of objects.
    pub count: u64,
    /// Their size with what they have allocated, bytes.
    pub bytes: u64,
    /// The number of them that survived three collections.
    pub old: u64,
    /// The size of those, bytes.
    pub old_bytes: u64,
}

impl Amount {
    fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.old = self.old.saturating_add(other.old);
        self.old_bytes = self.old_bytes.saturating_add(other.old_bytes);
    }

    fn of(object: &Object) -> Self {
        let old = u64::from(object.flags.has(Flags::OLD));
        Self { count: 1, bytes: object.size, old, old_bytes: old * object.size }
    }
}

/// A group of objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The name of the class or type, the file and line, or the number of the generation.
    pub name: String,
    /// Its objects.
    #[serde(flatten)]
    pub amount: Amount,
}

/// The largest groups, and what the others add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// The largest groups, by bytes.
    pub groups: Vec<Group>,
    /// The number of groups that are left out.
    #[serde(default)]
    pub left_out: u64,
    /// The objects of those.
    #[serde(default)]
    pub others: Amount,
}

/// The summary of a heap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The version of this form.
    pub schema: u32,
    /// `walker` or `dump_all`.
    pub producer: String,
    /// Ruby's version, or empty if unknown.
    #[serde(default)]
    pub ruby: String,
    /// False if the producer did not reach the end of the heap.
    pub complete: bool,
    /// All objects, reachable or not.
    pub objects: Amount,
    /// Slots without objects, and their size, bytes.
    pub free_slots: u64,
    /// The size of those slots, bytes.
    pub free_bytes: u64,
    /// By type, as Ruby's virtual machine names it.
    pub types: Groups,
    /// By class.
    pub classes: Groups,
    /// By allocation site; empty unless allocations are traced.
    pub sites: Groups,
    /// By the number of collections before the allocation; empty unless allocations are traced.
    pub generations: Groups,
}

impl Summary {
    /// The version of the form that is written.
    pub const SCHEMA: u32 = 1;
}

/// Counts the objects of one heap. It is a [`Target`] for a conversion, and takes the blocks of a graph.
#[derive(Debug, Default)]
pub struct Counter {
    free_slots: u64,
    free_bytes: u64,
    by_class: classes::Classes,
    by_site: HashMap<SiteId, Amount, RandomState>,
    by_generation: HashMap<u64, Amount, RandomState>,
    class_names: HashMap<u64, NameId, RandomState>,
    names: Names,
    sites: Sites,
}

impl Counter {
    /// Counts an object.
    #[inline]
    pub fn count(&mut self, object: &Object) {
        let Object { kind, class, name, size, flags, .. } = *object;
        self.by_class.add(Class::of(kind, class, name), size, flags);
        self.name_class(object.address, kind, name);
        self.count_allocation(object);
    }

    // Column by column, which takes half the instructions of counting one object after the other.
    fn batch(&mut self, batch: &Batch) {
        for Count { kind, class, name, young, old } in batch.counts() {
            self.by_class.add_counted(Class::of(*kind, *class, *name), [*young, *old]);
        }
        for (address, name) in batch.modules() {
            self.name_class(*address, Type::CLASS, *name);
        }
        let classes = batch.kinds().iter().zip(batch.classes()).zip(batch.names());
        let classes = classes.map(|((kind, class), name)| Class::of(*kind, *class, name));
        for ((class, size), flags) in classes.zip(batch.sizes()).zip(batch.flags()) {
            self.by_class.add(class, *size, *flags);
        }
        for ((address, kind), name) in batch.addresses().iter().zip(batch.kinds()).zip(batch.names()) {
            self.name_class(*address, *kind, name);
        }
        if batch.has_sites() {
            batch.objects().for_each(|object| self.count_allocation(&object));
        }
    }

    #[inline]
    fn name_class(&mut self, address: u64, kind: Type, name: NameId) {
        let is_module = matches!(kind, Type::CLASS | Type::MODULE | Type::ICLASS);
        if is_module && name != NameId::NONE && self.class_names.len() < MAX_GROUPS {
            self.class_names.insert(address, name);
        }
    }

    #[inline]
    fn count_allocation(&mut self, object: &Object) {
        if object.site != SiteId::NONE {
            let amount = Amount::of(object);
            add(&mut self.by_site, object.site, SiteId::NONE, amount);
            add(&mut self.by_generation, object.generation, 0, amount);
        }
    }

    /// Takes a block of a graph.
    pub fn block(&mut self, block: &Block<'_>) -> Result<(), Error> {
        match block {
            Block::Objects(batch) => self.batch(batch),
            Block::Names(names) => self.names.add(names)?,
            Block::Sites(sites) => self.sites.add(sites)?,
            Block::Free(runs) => runs.iter().for_each(|run| self.free_slots(run)),
            _ => {}
        }
        Ok(())
    }

    fn free_slots(&mut self, run: &FreeSlots) {
        self.free_slots = self.free_slots.saturating_add(run.count);
        self.free_bytes = self.free_bytes.saturating_add(run.count.saturating_mul(u64::from(run.slot_size)));
    }

    /// Sorts the groups and keeps the largest.
    pub fn finish(self, producer: Producer, ruby: &str, complete: bool) -> Summary {
        let (mut all, mut by_type) = (Amount::default(), [Amount::default(); Type::COUNT]);
        for (class, amount) in self.by_class.groups() {
            all.add(amount);
            by_type[usize::from(class.kind().0) % Type::COUNT].add(amount);
        }
        let types = (0u8..).map(|kind| type_name(Type(kind)).to_owned()).zip(by_type);
        let classes = self.by_class.groups().map(|(class, amount)| (self.class_name(class), amount));
        let of_extensions = self.by_class.groups().filter(|(class, _)| matches!(class, Class::At(_, Type::DATA)));
        let of_extensions: HashSet<String, RandomState> =
            of_extensions.map(|(class, _)| self.class_name(class)).collect();
        let sites = self.by_site.iter().map(|(site, amount)| (self.site_name(*site), *amount));
        let generations = self.by_generation.iter().map(|(generation, amount)| (generation.to_string(), *amount));
        Summary {
            schema: Summary::SCHEMA,
            producer: match producer {
                Producer::Walker => "walker",
                Producer::DumpAll => "dump_all",
                Producer::Unknown => "unknown",
            }
            .to_owned(),
            ruby: ruby.to_owned(),
            complete,
            objects: all,
            free_slots: self.free_slots,
            free_bytes: self.free_bytes,
            types: largest(types, |_| false),
            classes: largest(classes, |name| of_extensions.contains(name)),
            sites: largest(sites, |_| false),
            generations: largest(generations, |_| false),
        }
    }

    // Addresses differ from process to process, so groups are by name only.
    fn class_name(&self, class: Class) -> String {
        match class {
            Class::At(address, kind) => match (self.class_names.get(&address), kind) {
                (Some(name), _) => self.text(*name),
                (None, Type::CLASS) => "Class".to_owned(),
                (None, Type::MODULE) => "Module".to_owned(),
                (None, Type::ICLASS) => "(ICLASS)".to_owned(),
                (None, _) => "(class without a name)".to_owned(),
            },
            Class::Internal(kind, NameId::NONE) => format!("({})", type_name(kind)),
            Class::Internal(kind, name) => format!("({} {})", type_name(kind), self.text(name)),
            Class::Other(_) => "(other classes)".to_owned(),
        }
    }

    fn site_name(&self, site: SiteId) -> String {
        if site == SiteId::NONE {
            return "(other sites)".to_owned();
        }
        let Site { file, line, .. } = self.sites.get(site);
        format!("{}:{line}", self.text(file))
    }

    fn text(&self, name: NameId) -> String {
        shortened(self.names.text(name))
    }
}

fn type_name(kind: Type) -> &'static str {
    kind.name().unwrap_or("UNKNOWN")
}

#[inline]
fn add<K: std::hash::Hash + Eq>(groups: &mut HashMap<K, Amount, RandomState>, key: K, other: K, amount: Amount) {
    if let Some(group) = groups.get_mut(&key) {
        return group.add(amount);
    }
    let key = if groups.len() < MAX_GROUPS { key } else { other };
    groups.entry(key).or_default().add(amount);
}

// `matters` names groups of which as many are kept besides.
fn largest(groups: impl Iterator<Item = (String, Amount)>, matters: impl Fn(&str) -> bool) -> Groups {
    let mut named: HashMap<String, Amount, RandomState> = HashMap::default();
    for (name, amount) in groups.filter(|(_, amount)| amount.count > 0) {
        named.entry(name).or_default().add(amount);
    }
    let mut all: Vec<Group> = named.into_iter().map(|(name, amount)| Group { name, amount }).collect();
    all.sort_unstable_by(|a, b| (b.amount.count, &a.name).cmp(&(a.amount.count, &b.name)));
    let frequent = all.len().min(KEPT / 2);
    // Of the others, the largest by bytes.
    all[frequent..].sort_unstable_by(|a, b| (b.amount.bytes, &a.name).cmp(&(a.amount.bytes, &b.name)));
    let rest = all.split_off(all.len().min(frequent + KEPT));
    let (mut besides, mut rest): (Vec<Group>, Vec<Group>) = rest.into_iter().partition(|group| matters(&group.name));
    besides.sort_unstable_by(|a, b| (b.amount.count, &a.name).cmp(&(a.amount.count, &b.name)));
    rest.extend(besides.drain(besides.len().min(KEPT)..));
    all.extend(besides);
    all.sort_unstable_by(|a, b| (b.amount.bytes, &a.name).cmp(&(a.amount.bytes, &b.name)));
    let mut others = Amount::default();
    rest.iter().for_each(|group| others.add(group.amount));
    Groups { groups: all, left_out: rest.len() as u64, others }
}

impl Target for Counter {
    type Error = Infallible;

    fn name(&mut self, kind: NameKind, text: &[u8]) -> Result<NameId, Infallible> {
        // Names beyond the limit of the table are empty.
        Ok(self.names.push(kind, text).unwrap_or(NameId::NONE))
    }

    fn site(&mut self, site: &Site) -> Result<SiteId, Infallible> {
        Ok(self.sites.push(site).unwrap_or(SiteId::NONE))
    }

    #[inline]
    fn object(&mut self, object: &Object) -> Result<(), Infallible> {
        self.count(object);
        Ok(())
    }

    fn edges_ahead(&mut self, _: u64) -> Result<(), Infallible> {
        Ok(())
    }

    #[inline]
    fn edge(&mut self, _: Edge) -> Result<(), Infallible> {
        Ok(())
    }

    fn root(&mut self, _: &Root) -> Result<(), Infallible> {
        Ok(())
    }

    fn free(&mut self, slots: &FreeSlots) -> Result<(), Infallible> {
        self.free_slots(slots);
        Ok(())
    }

    fn stats(&mut self, _: &[(NameId, u64)]) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Summarizes a graph. Returns the summary of what could be read, and the first damage.
pub fn of_graph(input: impl Read) -> Result<(Summary, Option<Error>), Error> {
    with_options(input, OPTIONS)
}

fn with_options(input: impl Read, options: Options) -> Result<(Summary, Option<Error>), Error> {
    let mut reader = Reader::with_options(input, options)?;
    let (mut counter, mut complete, mut damage) = (Counter::default(), false, None);
    loop {
        match reader.next_block() {
            Ok(Some(Block::Trailer(trailer))) => complete = trailer.complete,
            Ok(Some(block)) => counter.block(&block)?,
            Ok(None) => break,
            Err(error) if error.is_recoverable() => damage = damage.or(Some(error)),
            Err(error) => {
                (complete, damage) = (false, damage.or(Some(error)));
                break;
            }
        }
    }
    if !complete {
        damage = damage.or(Some(Error::Incomplete));
    }
    let about = reader.about().clone();
    Ok((counter.finish(about.producer, &about.ruby, complete && damage.is_none()), damage))
}

/// Checks that the counts of a graph's blocks and their objects give the same summary. Returns false for a damaged graph.
pub(crate) fn check_counts(graph: &[u8]) -> bool {
    let both = [true, false].map(|counts| with_options(graph, Options { counts, ..OPTIONS }));
    let [Ok((counted, None)), Ok((of_objects, None))] = both else { return false };
    assert_eq!(counted, of_objects);
    true
}

#[cfg(test)]
mod tests;
