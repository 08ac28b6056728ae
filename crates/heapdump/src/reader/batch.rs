//! A decoded block of objects.

use std::collections::HashMap;

use super::Options;
use super::numbers::{Numbers, Why, small};
use crate::block::{self, column};
use crate::record::{Edge, Flags, NameId, Object, SiteId, Type};
use crate::varint::unzigzag;

/// The objects of a block in columns, with their edges. A column that is absent or was not asked for is empty.
#[derive(Debug, Default)]
pub struct Batch {
    addresses: Vec<u64>,
    kinds: Vec<Type>,
    classes: Vec<u64>,
    class_ids: Vec<u32>,
    /// The first prediction for the edges of each object.
    predictors: Vec<u16>,
    sizes: Vec<u64>,
    slot_sizes: Vec<u32>,
    flags: Vec<Flags>,
    names: Vec<NameId>,
    lengths: Vec<Option<u64>>,
    hashes: Vec<Option<u64>>,
    encodings: Vec<NameId>,
    sites: Vec<SiteId>,
    generations: Vec<u64>,
    /// The position after the last edge of each object in `edges`.
    ends: Vec<u32>,
    edges: Vec<Edge>,
    edge_total: u64,
    continued: u32,
    continued_source: u64,
    predictions: Vec<i64>,
    counts: Vec<Count>,
    modules: Vec<(u64, NameId)>,
}

/// Objects of one type and class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Their type.
    pub kind: Type,
    /// Their class, or 0.
    pub class: u64,
    /// The name that they have in place of a class.
    pub name: NameId,
    /// The number and bytes of those that are not old.
    pub young: (u64, u64),
    /// The number and bytes of those that are old.
    pub old: (u64, u64),
}

/// The context for decoding a block.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub shift: u8,
    pub hash_bytes: usize,
    pub wanted: Options,
    pub classes: &'a mut ClassTable,
}

/// The class table.
#[derive(Debug, Default)]
pub(super) struct ClassTable {
    pub addresses: Vec<u64>,
    /// Classes that are in no block of the table.
    pub others: HashMap<u64, u32>,
    pub limit: usize,
}

impl ClassTable {
    fn other(&mut self, address: u64) -> u32 {
        if let Some(id) = self.others.get(&address) {
            return *id;
        }
        if self.others.len() >= self.limit {
            return 0;
        }
        // These ids count down, so that they do not collide with those of blocks to come.
        let id = u32::MAX - u32::try_from(self.others.len()).unwrap_or(u32::MAX);
        self.others.insert(address, id);
        id
    }
}

impl Batch {
    /// The number of objects.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Returns true if there is no object.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// The objects, in the order of their addresses as far as the producer kept it.
    pub fn objects(&self) -> impl ExactSizeIterator<Item = Object> + '_ {
        (0..self.len()).map(|index| self.object(index))
    }

    /// The object at a position. What was not decoded of it is absent.
    #[inline]
    pub fn object(&self, index: usize) -> Object {
        Object {
            address: at(&self.addresses, index),
            kind: at(&self.kinds, index),
            class: at(&self.classes, index),
            size: at(&self.sizes, index),
            slot_size: at(&self.slot_sizes, index),
            flags: at(&self.flags, index),
            name: at(&self.names, index),
            site: at(&self.sites, index),
            generation: at(&self.generations, index),
            length: at(&self.lengths, index),
            hash: at(&self.hashes, index),
            encoding: at(&self.encodings, index),
        }
    }

    /// The objects by type and class, if only these were decoded. Then there are no objects.
    pub fn counts(&self) -> &[Count] {
        &self.counts
    }

    /// The classes and modules with a name among the objects that were counted: their addresses and names.
    pub fn modules(&self) -> &[(u64, NameId)] {
        &self.modules
    }

    /// The objects by type: their type, number and bytes, each type any number of times.
    pub(super) fn sums(&self) -> impl Iterator<Item = (Type, u64, u64)> + '_ {
        let counted = self.counts.iter().map(|count| {
            let (young, old) = (count.young, count.old);
            (count.kind, young.0.saturating_add(old.0), young.1.wrapping_add(old.1))
        });
        counted.chain(self.kinds.iter().zip(&self.sizes).map(|(kind, size)| (*kind, 1, *size)))
    }

    /// The addresses of the objects.
    pub(crate) fn addresses(&self) -> &[u64] {
        &self.addresses
    }

    /// The classes of the objects; 0 for an object without one.
    pub(crate) fn classes(&self) -> &[u64] {
        &self.classes
    }

    /// The names of the objects.
    pub(crate) fn names(&self) -> impl Iterator<Item = NameId> + '_ {
        (0..self.len()).map(|index| at(&self.names, index))
    }

    /// The sizes of the objects.
    pub(crate) fn sizes(&self) -> &[u64] {
        &self.sizes
    }

    /// The flags of the objects, if they were decoded.
    pub(crate) fn flags(&self) -> &[Flags] {
        &self.flags
    }

    /// Returns true if an object may have an allocation site.
    pub(crate) fn has_sites(&self) -> bool {
        !self.sites.is_empty()
    }

    /// The types of the objects.
    pub(crate) fn kinds(&self) -> &[Type] {
        &self.kinds
    }

    /// The edges of the object at this position, without that to its class. The edges of the last object may go on in the next
    /// block.
    #[inline]
    pub fn edges_of(&self, index: usize) -> &[Edge] {
        let start = index.checked_sub(1).map_or(Some(&self.continued), |before| self.ends.get(before));
        match (start, self.ends.get(index)) {
            (Some(&start), Some(&end)) => self.edges.get(start as usize..end as usize).unwrap_or_default(),
            _ => &[],
        }
    }

    /// The edges of the objects of this block, without those that continue an object of an earlier one.
    pub(crate) fn own_edges(&self) -> &[Edge] {
        self.edges.get(self.continued as usize..).unwrap_or_default()
    }

    /// The position of each object's first edge in [`Batch::own_edges`].
    pub(crate) fn starts(&self) -> impl Iterator<Item = u32> + '_ {
        let before = std::iter::once(self.continued).chain(self.ends.iter().copied());
        before.map(|end| end - self.continued).take(self.len())
    }

    /// All edges of the block, in the order of their objects. Those of [`Batch::continued`] come first.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// The address of an object of an earlier block, and more edges of it.
    pub fn continued(&self) -> Option<(u64, &[Edge])> {
        (self.continued > 0)
            .then(|| (self.continued_source, self.edges.get(..self.continued as usize).unwrap_or_default()))
    }

    /// A small number that identifies the class of the object at this position within the graph, or 0 if it has none.
    /// Ids count up from 1; those of classes outside of the table count down from `u32::MAX`.
    pub fn class_id(&self, index: usize) -> u32 {
        at(&self.class_ids, index)
    }

    /// The number of edges in the block, also when the reader skips them.
    pub fn edge_total(&self) -> u64 {
        self.edge_total
    }

    pub(super) fn decode(&mut self, payload: &[u8], cx: &mut Context<'_>) -> Result<(), Why> {
        let mut rest = Numbers::new(payload);
        let count = usize::try_from(rest.next()?).ok().filter(|count| *count <= block::MAX_OBJECTS);
        let count = count.ok_or("it has too many objects")?;
        self.continued = rest.small()?;
        if self.continued > 0 {
            self.continued_source = rest.next()? << cx.shift;
        }
        let mut columns = Columns::default();
        while !rest.is_empty() {
            let id = rest.next()?;
            let len = rest.next()?;
            columns.keep(id, rest.slice(len)?)?;
        }
        self.counts.clear();
        self.modules.clear();
        // Where allocations are traced, the objects have more to tell.
        if cx.wanted.counts && !columns.raw(column::COUNTS).is_empty() && columns.raw(column::SITE).is_empty() {
            self.clear();
            return self.decode_counts(count, &columns, cx);
        }
        self.decode_addresses(count, &columns, cx)?;
        self.decode_classes(count, &columns, cx)?;
        columns.get(column::SIZE).fill(&mut self.sizes, count, Ok)?;
        match columns.get(column::NAME) {
            names if names.is_empty() => self.names.clear(),
            mut names => names.fill(&mut self.names, count, |name| small(name).map(NameId))?,
        }
        self.decode_slot_sizes(if cx.wanted.slots { count } else { 0 }, &columns)?;
        let flagged = if cx.wanted.flags || cx.wanted.strings { count } else { 0 };
        self.flags.clear();
        match columns.get(column::FLAGS) {
            flags if flags.is_empty() || flagged == 0 => self.flags.resize(flagged, Flags::default()),
            mut flags => flags.fill(&mut self.flags, flagged, |flags| small(flags).map(Flags))?,
        }
        self.decode_strings(cx.wanted.strings, &columns, cx.hash_bytes)?;
        self.decode_sites(if cx.wanted.sites { count } else { 0 }, &columns)?;
        self.decode_ends(count, &columns)?;
        self.decode_edges(&columns, cx)
    }

    fn clear(&mut self) {
        let Self { addresses, kinds, classes, class_ids, sizes, flags, names, sites, ends, edges, .. } = self;
        addresses.clear();
        kinds.clear();
        classes.clear();
        class_ids.clear();
        sizes.clear();
        flags.clear();
        names.clear();
        sites.clear();
        ends.clear();
        edges.clear();
    }

    fn decode_counts(&mut self, count: usize, columns: &Columns<'_>, cx: &Context<'_>) -> Result<(), Why> {
        let mut counts = columns.get(column::COUNTS);
        self.edge_total = counts.next()?;
        let mut total = 0u64;
        while !counts.is_empty() {
            let kind = Type(counts.byte()? & 0x1f);
            let of = counts.small()?;
            let (class, name) = match of {
                name if block::is_internal(kind.0) => (0, NameId(name)),
                0 | 1 => (0, NameId::NONE),
                class => (cx.classes.addresses.get(class as usize - 2).copied().unwrap_or(0), NameId::NONE),
            };
            let (young, old) = ((counts.next()?, counts.next()?), (counts.next()?, counts.next()?));
            total = total.saturating_add(young.0).saturating_add(old.0);
            self.counts.push(Count { kind, class, name, young, old });
        }
        if total != count as u64 {
            return Err("it counts another number of objects than it has");
        }
        let mut modules = columns.get(column::MODULES);
        let mut units = 0u64;
        while !modules.is_empty() {
            units = units.wrapping_add_signed(modules.signed()?);
            self.modules.push((units << cx.shift, NameId(modules.small()?)));
        }
        if self.edge_total > block::MAX_EDGES as u64 { Err("it has too many edges") } else { Ok(()) }
    }

    fn decode_addresses(&mut self, count: usize, columns: &Columns<'_>, cx: &Context<'_>) -> Result<(), Why> {
        let kinds = columns.raw(column::TYPE);
        if kinds.len() != count {
            return Err("it has another number of types than of objects");
        }
        self.kinds.clear();
        self.kinds.extend(kinds.iter().map(|kind| Type(kind & 0x1f)));
        let mut units = 0u64;
        columns.get(column::ADDRESS).fill(&mut self.addresses, count, |delta| {
            units = units.wrapping_add_signed(unzigzag(delta));
            Ok(units << cx.shift)
        })
    }

    fn decode_classes(&mut self, count: usize, columns: &Columns<'_>, cx: &mut Context<'_>) -> Result<(), Why> {
        let mut addresses = columns.get(column::CLASS_ADDRESS);
        columns.get(column::CLASS).fill(&mut self.class_ids, count, small)?;
        self.predictors.clear();
        if cx.wanted.edges {
            let kinds = self.kinds.iter().zip(&self.class_ids);
            self.predictors.extend(kinds.map(|(kind, value)| block::predictor(kind.0, u64::from(*value))));
        }
        self.classes.resize(count, 0);
        for ((class, id), address) in self.classes.iter_mut().zip(&mut self.class_ids).zip(&self.addresses) {
            (*class, *id) = match *id {
                0 => (0, 0),
                1 => {
                    let units = (address >> cx.shift).wrapping_add_signed(addresses.signed()?);
                    (units << cx.shift, cx.classes.other(units << cx.shift))
                }
                // An entry of a lost block of the table is 0.
                value => match cx.classes.addresses.get(value as usize - 2) {
                    None | Some(0) => (0, 0),
                    Some(known) => (*known, value - 1),
                },
            };
        }
        addresses.end()
    }

    fn decode_slot_sizes(&mut self, count: usize, columns: &Columns<'_>) -> Result<(), Why> {
        self.slot_sizes.clear();
        if count == 0 {
            return Ok(());
        }
        let mut runs = columns.get(column::SLOT_SIZE);
        if runs.is_empty() {
            self.slot_sizes.resize(count, 0);
            return Ok(());
        }
        while !runs.is_empty() {
            let (objects, size) = (runs.next()?, runs.small()?);
            let objects = usize::try_from(objects).ok().filter(|objects| *objects <= count - self.slot_sizes.len());
            let objects = objects.ok_or("a run of slot sizes has more objects than the block")?;
            if objects == 0 {
                return Err("a run of slot sizes has no object");
            }
            self.slot_sizes.resize(self.slot_sizes.len() + objects, size);
        }
        if self.slot_sizes.len() < count { Err("an object has no slot size") } else { Ok(()) }
    }

    fn decode_strings(&mut self, wanted: bool, columns: &Columns<'_>, hash_bytes: usize) -> Result<(), Why> {
        self.lengths.clear();
        self.hashes.clear();
        self.encodings.clear();
        if !wanted {
            return Ok(());
        }
        let (mut lengths, mut encodings) = (columns.get(column::LENGTH), columns.get(column::ENCODING));
        let mut hashes = columns.get(column::HASH);
        for (flags, kind) in self.flags.iter().zip(&self.kinds) {
            self.lengths.push(if flags.has(Flags::SIZED) { Some(lengths.next()?) } else { None });
            self.hashes.push(if flags.has(Flags::HASHED) {
                let mut hash = [0; 8];
                let kept = hashes.slice(hash_bytes as u64)?;
                for (byte, kept) in hash.iter_mut().zip(kept) {
                    *byte = *kept;
                }
                Some(u64::from_le_bytes(hash))
            } else {
                None
            });
            self.encodings.push(if *kind == Type::STRING { NameId(encodings.small()?) } else { NameId::NONE });
        }
        lengths.end()?;
        hashes.end()?;
        encodings.end()
    }

    fn decode_sites(&mut self, count: usize, columns: &Columns<'_>) -> Result<(), Why> {
        self.sites.clear();
        self.generations.clear();
        if count == 0 {
            return Ok(());
        }
        let (mut sites, mut generations) = (columns.get(column::SITE), columns.get(column::GENERATION));
        if sites.is_empty() {
            return generations.end();
        }
        let mut generation = 0u64;
        for _ in 0..count {
            let site = SiteId(sites.small()?);
            self.sites.push(site);
            if site != SiteId::NONE {
                generation = generation.wrapping_add_signed(generations.signed()?);
            }
            self.generations.push(if site == SiteId::NONE { 0 } else { generation });
        }
        sites.end()?;
        generations.end()
    }

    fn decode_ends(&mut self, count: usize, columns: &Columns<'_>) -> Result<(), Why> {
        let mut end = u64::from(self.continued);
        columns.get(column::EDGE_COUNT).fill(&mut self.ends, count, |edges| {
            end = end.saturating_add(edges);
            Ok(u32::try_from(end).unwrap_or(u32::MAX))
        })?;
        self.edge_total = end;
        if end > block::MAX_EDGES as u64 { Err("it has too many edges") } else { Ok(()) }
    }

    fn decode_edges(&mut self, columns: &Columns<'_>, cx: &Context<'_>) -> Result<(), Why> {
        self.edges.clear();
        if !cx.wanted.edges {
            return Ok(());
        }
        self.predictions.clear();
        self.predictions.resize(block::PREDICTIONS, 0);
        // `decode_ends` has bounded the number.
        self.edges.resize(self.edge_total as usize, Edge::default());
        let mut deltas = columns.get(column::EDGES);
        let predictions =
            self.predictions.first_chunk_mut::<{ block::PREDICTIONS }>().ok_or("a prediction is missing")?;
        let mut follow = |place: u16, source: u64, edge: &mut Edge| {
            let predicted = &mut predictions[usize::from(place) % block::PREDICTIONS];
            *predicted = predicted.wrapping_add(deltas.signed()?);
            *edge = Edge { target: source.wrapping_add_signed(*predicted) << cx.shift, label: NameId::NONE };
            Ok::<(), Why>(())
        };
        let mut start = self.continued as usize;
        let (continued, _) = self.edges.split_at_mut_checked(start).ok_or("it has fewer edges than it continues")?;
        for edge in continued {
            follow(block::CONTINUED, self.continued_source >> cx.shift, edge)?;
        }
        for ((address, end), predictor) in self.addresses.iter().zip(&self.ends).zip(&self.predictors) {
            let own = self.edges.get_mut(start..*end as usize).unwrap_or_default();
            for (position, edge) in (0..).zip(own) {
                follow(block::prediction(*predictor, position), address >> cx.shift, edge)?;
            }
            start = *end as usize;
        }
        deltas.end()?;
        let mut labels = columns.get(column::LABELS);
        if cx.wanted.labels && !labels.is_empty() {
            for edge in &mut self.edges {
                edge.label = NameId(labels.small()?);
            }
            labels.end()?;
        }
        Ok(())
    }
}

#[inline]
fn at<T: Copy + Default>(column: &[T], index: usize) -> T {
    column.get(index).copied().unwrap_or_default()
}

/// The columns of a block.
#[derive(Default)]
struct Columns<'a> {
    known: [Option<&'a [u8]>; 19],
}

impl<'a> Columns<'a> {
    fn keep(&mut self, id: u64, bytes: &'a [u8]) -> Result<(), Why> {
        // Columns of later versions are ignored.
        let Some(place) = usize::try_from(id).ok().and_then(|id| self.known.get_mut(id)) else { return Ok(()) };
        if place.replace(bytes).is_some() { Err("a column comes twice") } else { Ok(()) }
    }

    fn raw(&self, id: u64) -> &'a [u8] {
        usize::try_from(id).ok().and_then(|id| self.known.get(id).copied().flatten()).unwrap_or_default()
    }

    fn get(&self, id: u64) -> Numbers<'a> {
        Numbers::new(self.raw(id))
    }
}
