//! A decoded block of objects.

use std::collections::HashMap;

use super::numbers::{Numbers, Why};
use crate::block::{self, column};
use crate::record::{Edge, Flags, NameId, Object, SiteId, Type};

/// The objects of a block, with their edges.
#[derive(Debug, Default)]
pub struct Batch {
    objects: Vec<Object>,
    class_values: Vec<u64>,
    class_ids: Vec<u32>,
    /// The position after the last edge of each object in `edges`.
    ends: Vec<u32>,
    edges: Vec<Edge>,
    edge_total: u64,
    continued: u32,
    continued_source: u64,
    predictions: Vec<i64>,
}

/// The options for decoding a block.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub shift: u8,
    pub hash_bytes: usize,
    pub edges: bool,
    pub labels: bool,
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
    /// The objects, in the order of their addresses as far as the producer kept it.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The edges of the object at this position, without that to its class. The edges of the last object may go on in the next
    /// block.
    pub fn edges_of(&self, index: usize) -> &[Edge] {
        let start = index.checked_sub(1).map_or(Some(&self.continued), |before| self.ends.get(before));
        match (start, self.ends.get(index)) {
            (Some(&start), Some(&end)) => self.edges.get(start as usize..end as usize).unwrap_or_default(),
            _ => &[],
        }
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
        self.class_ids.get(index).copied().unwrap_or(0)
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
        self.objects.clear();
        self.objects.resize(count, Object::default());
        self.decode_addresses(&columns, cx)?;
        self.decode_classes(&columns, cx)?;
        self.decode_numbers(&columns)?;
        self.decode_strings(&columns, cx.hash_bytes)?;
        self.decode_sites(&columns)?;
        self.decode_ends(&columns)?;
        self.decode_edges(&columns, cx)
    }

    fn decode_addresses(&mut self, columns: &Columns<'_>, cx: &Context<'_>) -> Result<(), Why> {
        let mut deltas = columns.get(column::ADDRESS);
        let kinds = columns.raw(column::TYPE);
        if kinds.len() != self.objects.len() {
            return Err("it has another number of types than of objects");
        }
        let mut units = 0u64;
        for (object, kind) in self.objects.iter_mut().zip(kinds) {
            units = units.wrapping_add_signed(deltas.signed()?);
            object.address = units << cx.shift;
            object.kind = Type(kind & 0x1f);
        }
        deltas.end()
    }

    fn decode_classes(&mut self, columns: &Columns<'_>, cx: &mut Context<'_>) -> Result<(), Why> {
        let (mut values, mut addresses) = (columns.get(column::CLASS), columns.get(column::CLASS_ADDRESS));
        self.class_values.clear();
        self.class_ids.clear();
        for object in &mut self.objects {
            let value = values.next()?;
            let (class, id) = match value {
                0 => (0, 0),
                1 => {
                    let units = (object.address >> cx.shift).wrapping_add_signed(addresses.signed()?);
                    (units << cx.shift, cx.classes.other(units << cx.shift))
                }
                _ => {
                    let known = usize::try_from(value - 2).ok().and_then(|place| cx.classes.addresses.get(place));
                    // An entry of a lost block of the table is 0.
                    let known = known.copied().unwrap_or(0);
                    (known, if known == 0 { 0 } else { u32::try_from(value - 1).unwrap_or(0) })
                }
            };
            object.class = class;
            self.class_values.push(value);
            self.class_ids.push(id);
        }
        values.end()?;
        addresses.end()
    }

    fn decode_numbers(&mut self, columns: &Columns<'_>) -> Result<(), Why> {
        let (mut sizes, mut flags) = (columns.get(column::SIZE), columns.get(column::FLAGS));
        let (mut runs, mut names) = (columns.get(column::SLOT_SIZE), columns.get(column::NAME));
        let mut run = (0u64, 0u32);
        let named = !names.is_empty();
        for object in &mut self.objects {
            if run.0 == 0 {
                run = (runs.next()?, runs.small()?);
                if run.0 == 0 {
                    return Err("a run of slot sizes has no object");
                }
            }
            run.0 -= 1;
            object.slot_size = run.1;
            object.size = sizes.next()?;
            object.flags = Flags(flags.small()?);
            if named {
                object.name = NameId(names.small()?);
            }
        }
        if run.0 > 0 {
            return Err("a run of slot sizes has more objects than the block");
        }
        sizes.end()?;
        flags.end()?;
        runs.end()?;
        names.end()
    }

    fn decode_strings(&mut self, columns: &Columns<'_>, hash_bytes: usize) -> Result<(), Why> {
        let (mut lengths, mut encodings) = (columns.get(column::LENGTH), columns.get(column::ENCODING));
        let mut hashes = columns.get(column::HASH);
        for object in &mut self.objects {
            if object.flags.has(Flags::SIZED) {
                object.length = Some(lengths.next()?);
            }
            if object.flags.has(Flags::HASHED) {
                let mut hash = [0; 8];
                let kept = hashes.slice(hash_bytes as u64)?;
                for (byte, kept) in hash.iter_mut().zip(kept) {
                    *byte = *kept;
                }
                object.hash = Some(u64::from_le_bytes(hash));
            }
            if object.kind == Type::STRING {
                object.encoding = NameId(encodings.small()?);
            }
        }
        lengths.end()?;
        hashes.end()?;
        encodings.end()
    }

    fn decode_sites(&mut self, columns: &Columns<'_>) -> Result<(), Why> {
        let (mut sites, mut generations) = (columns.get(column::SITE), columns.get(column::GENERATION));
        if sites.is_empty() {
            return generations.end();
        }
        let mut generation = 0u64;
        for object in &mut self.objects {
            object.site = SiteId(sites.small()?);
            if object.site != SiteId::NONE {
                generation = generation.wrapping_add_signed(generations.signed()?);
                object.generation = generation;
            }
        }
        sites.end()?;
        generations.end()
    }

    fn decode_ends(&mut self, columns: &Columns<'_>) -> Result<(), Why> {
        let mut counts = columns.get(column::EDGE_COUNT);
        self.ends.clear();
        let mut end = u64::from(self.continued);
        for _ in 0..self.objects.len() {
            end = end.saturating_add(counts.next()?);
            self.ends.push(u32::try_from(end).unwrap_or(u32::MAX));
        }
        self.edge_total = end;
        if end > block::MAX_EDGES as u64 { Err("it has too many edges") } else { counts.end() }
    }

    fn decode_edges(&mut self, columns: &Columns<'_>, cx: &Context<'_>) -> Result<(), Why> {
        self.edges.clear();
        if !cx.edges {
            return Ok(());
        }
        self.predictions.clear();
        self.predictions.resize(block::PREDICTIONS, 0);
        let mut deltas = columns.get(column::EDGES);
        let mut follow = |count: u32, source: u64, key: Option<(Type, u64)>, edges: &mut Vec<Edge>| {
            for position in 0..count {
                let place = match key {
                    Some((kind, class)) => block::prediction(kind.0, class, position),
                    None => block::prediction(0, 0, u32::MAX),
                };
                let predicted = self.predictions.get_mut(place).ok_or("a prediction is missing")?;
                *predicted = predicted.wrapping_add(deltas.signed()?);
                let target = source.wrapping_add_signed(*predicted) << cx.shift;
                edges.push(Edge { target, label: NameId::NONE });
            }
            Ok::<(), Why>(())
        };
        follow(self.continued, self.continued_source >> cx.shift, None, &mut self.edges)?;
        let mut start = self.continued;
        for ((object, end), class) in self.objects.iter().zip(&self.ends).zip(&self.class_values) {
            follow(end - start, object.address >> cx.shift, Some((object.kind, *class)), &mut self.edges)?;
            start = *end;
        }
        deltas.end()?;
        let mut labels = columns.get(column::LABELS);
        if cx.labels && !labels.is_empty() {
            for edge in &mut self.edges {
                edge.label = NameId(labels.small()?);
            }
            labels.end()?;
        }
        Ok(())
    }
}

/// The columns of a block.
#[derive(Default)]
struct Columns<'a> {
    known: [Option<&'a [u8]>; 17],
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
