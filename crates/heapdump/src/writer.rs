//! Writes a heap graph in one pass.
//!
//! The producer names things before it uses them ([`Writer::name`], [`Writer::site`]), then writes objects one after the other:
//! [`Writer::object`], and [`Writer::edge`] for each edge of that object. Names may be written between two objects, and between
//! an object and its edges. [`Writer::finish`] writes the trailer; a graph without one is known to be cut off.

mod columns;
mod lists;
mod tables;

use crate::block::{self, BLOCK_OBJECTS, kind};
use crate::block_counts::BlockCounts;
use crate::checksum::xxh64;
use crate::memory::{self, CLASS_SLOTS, ClassSlot, Column, Memory};
use crate::record::{Edge, Flags, FreeSlots, Header, NameId, Object, SiteId, Trailer, Type};
use crate::varint::{self, zigzag};
use columns::{Columns, dense};

/// Takes the bytes of a graph.
pub trait Sink {
    /// The reason why bytes could not be written.
    type Error;

    /// Writes all these bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
}

#[cfg(feature = "std")]
impl<W: std::io::Write> Sink for W {
    type Error = std::io::Error;

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.write_all(bytes)
    }
}

/// The object whose edges are being written.
#[derive(Clone, Copy, Debug, Default)]
struct Current {
    /// Its address in units.
    source: u64,
    class: u64,
    /// The first prediction for its edges.
    predictor: u16,
    /// The number of its edges so far, in all blocks.
    position: u32,
}

/// Writes one graph.
#[derive(Debug)]
pub struct Writer<'m, S> {
    sink: S,
    shift: u8,
    hash_bytes: usize,
    totals: Trailer,
    chain: u64,

    classes: &'m mut [ClassSlot; CLASS_SLOTS],
    class_count: u32,
    last_class: u64,
    site_count: u32,
    names: Column<'m>,
    new_classes: Column<'m>,
    sites: Column<'m>,

    objects: usize,
    edge_total: usize,
    /// Edges in this block that belong to an object of an earlier one, and the address of that object in units.
    continued: (u64, u64),
    /// Edges of the current object in this block.
    edge_count: u64,
    current: Option<Current>,
    predictions: [i64; block::PREDICTIONS],
    last_address: u64,
    last_generation: u64,
    last_module: u64,
    counts: &'m mut BlockCounts,
    /// Objects since the slot size changed last, and that size.
    run: (u64, u32),
    columns: Columns<'m>,

    roots: Column<'m>,
    last_root: u64,
    free: Column<'m>,
    last_free: u64,
    free_run: FreeSlots,
    pages: Column<'m>,
    last_page: u64,
    out: Column<'m>,
}

impl<'m, S: Sink> Writer<'m, S> {
    /// Writes the header.
    pub fn new(memory: Memory<'m>, sink: S, header: &Header<'_>) -> Result<Self, S::Error> {
        let mut rest: &mut [u8] = memory.bytes;
        let columns = Columns::cut(&mut rest);
        let mut cut = |len| Column::cut(&mut rest, len);
        let mut writer = Self {
            sink,
            shift: header.address_shift.min(6),
            hash_bytes: usize::from(header.hash_bytes).clamp(4, 8),
            totals: Trailer::default(),
            chain: 0,
            classes: memory.classes,
            class_count: 0,
            last_class: 0,
            site_count: 0,
            names: cut(memory::NAMES),
            new_classes: cut(BLOCK_OBJECTS * varint::MAX_LEN),
            sites: cut(memory::LISTS),
            objects: 0,
            edge_total: 0,
            continued: (0, 0),
            edge_count: 0,
            current: None,
            predictions: [0; block::PREDICTIONS],
            last_address: 0,
            last_generation: 0,
            last_module: 0,
            counts: memory.counts,
            run: (0, 0),
            columns,
            roots: cut(memory::LISTS),
            last_root: 0,
            free: cut(memory::LISTS),
            last_free: 0,
            free_run: FreeSlots::default(),
            pages: cut(memory::LISTS),
            last_page: 0,
            out: cut(memory::OUT),
        };
        writer.header(header)?;
        Ok(writer)
    }

    fn header(&mut self, header: &Header<'_>) -> Result<(), S::Error> {
        let mut start = [0; block::MAGIC.len() + 4];
        start[..block::MAGIC.len()].copy_from_slice(&block::MAGIC);
        start[block::MAGIC.len()..].copy_from_slice(&block::VERSION.to_le_bytes());
        self.sink.write(&start)?;
        self.totals.bytes = start.len() as u64;
        self.open();
        let cut = |text: &'_ [u8]| text.len().min(256);
        for (key, value) in [(block::header::RUBY, header.ruby), (block::header::PLATFORM, header.platform)] {
            if !value.is_empty() {
                self.out.number(key);
                self.out.number(cut(value) as u64);
                self.out.slice(value.get(..cut(value)).unwrap_or_default());
            }
        }
        for (key, value) in [
            (block::header::PRODUCER, header.producer as u8),
            (block::header::POINTER_SIZE, header.pointer_size),
            (block::header::ADDRESS_SHIFT, self.shift),
            (block::header::HASH_BYTES, self.hash_bytes.to_le_bytes()[0]),
        ] {
            self.out.number(key);
            self.out.number(1);
            self.out.byte(value);
        }
        self.close(kind::HEADER)
    }

    /// Begins an object. Its edges follow.
    pub fn object(&mut self, object: &Object) -> Result<(), S::Error> {
        self.end_object();
        if self.objects == BLOCK_OBJECTS {
            self.flush_objects()?;
        }
        let class_value = self.class_value(object.class);
        let address = object.address >> self.shift;
        let mut flags = object.flags.without(Flags::HASHED).without(Flags::SIZED);
        let columns = &mut self.columns;
        if let Some(length) = object.length {
            flags = flags.with(Flags::SIZED);
            columns.length.number(length);
        }
        if let Some(hash) = object.hash {
            flags = flags.with(Flags::HASHED);
            columns.hash.slice(hash.to_le_bytes().get(..self.hash_bytes).unwrap_or_default());
        }
        columns.address.number(zigzag(address.wrapping_sub(self.last_address).cast_signed()));
        self.last_address = address;
        columns.kind.byte(object.kind.0 & 0x1f);
        columns.class.number(class_value);
        if class_value == 1 {
            columns.class_address.number(zigzag((object.class >> self.shift).wrapping_sub(address).cast_signed()));
        }
        columns.size.number(object.size);
        if self.run.1 != object.slot_size || self.run.0 == 0 {
            columns.end_run(self.run);
            self.run = (0, object.slot_size);
        }
        self.run.0 += 1;
        columns.flags.number(flags.0.into());
        dense(&mut columns.name, self.objects, object.name.0);
        dense(&mut columns.site, self.objects, object.site.0);
        if object.kind == Type::STRING {
            columns.encoding.number(object.encoding.0.into());
        }
        if object.site != SiteId::NONE {
            columns.generation.number(zigzag(object.generation.wrapping_sub(self.last_generation).cast_signed()));
            self.last_generation = object.generation;
        }
        self.counts.add(object.kind.0 & 0x1f, class_value, object.name.0, object.size, object.flags.has(Flags::OLD));
        if object.name != NameId::NONE && matches!(object.kind, Type::CLASS | Type::MODULE | Type::ICLASS) {
            columns.modules.number(zigzag(address.wrapping_sub(self.last_module).cast_signed()));
            columns.modules.number(object.name.0.into());
            self.last_module = address;
        }
        self.objects += 1;
        self.totals.objects += 1;
        self.totals.size = self.totals.size.wrapping_add(object.size);
        if let Some(count) = self.totals.by_type.get_mut(usize::from(object.kind.0 & 0x1f)) {
            *count += 1;
        }
        let predictor = block::predictor(object.kind.0 & 0x1f, class_value);
        self.current = Some(Current { source: address, class: object.class, predictor, position: 0 });
        Ok(())
    }

    /// Begins edges of an object whose record follows: the next one that is written. For producers that learn of an object's size only
    /// after its edges.
    pub fn edges_ahead(&mut self, address: u64) -> Result<(), S::Error> {
        self.end_object();
        self.flush_objects()?;
        let source = address >> self.shift;
        self.continued.1 = source;
        self.current = Some(Current { source, position: u32::MAX, ..Current::default() });
        Ok(())
    }

    /// Adds an edge to the last object. An edge to its class without a name is left out, because readers add it.
    #[inline]
    pub fn edge(&mut self, edge: Edge) -> Result<(), S::Error> {
        if self.edge_total == block::MAX_EDGES
            || self.columns.edges.room() < varint::MAX_LEN
            || self.columns.labels.room() < varint::MAX_LEN
        {
            self.flush_objects()?;
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        if edge.label == NameId::NONE && edge.target == current.class {
            return Ok(());
        }
        let delta = (edge.target >> self.shift).wrapping_sub(current.source).cast_signed();
        let place = block::prediction(current.predictor, current.position);
        if let Some(predicted) = self.predictions.get_mut(usize::from(place)) {
            self.columns.edges.number(zigzag(delta.wrapping_sub(*predicted)));
            *predicted = delta;
        }
        current.position = current.position.saturating_add(1);
        dense(&mut self.columns.labels, self.edge_total, edge.label.0);
        self.edge_total += 1;
        self.edge_count += 1;
        self.totals.edges += 1;
        self.totals.named_edges += u64::from(edge.label != NameId::NONE);
        Ok(())
    }

    /// Adds numbers about the process, for example those of `GC.stat`.
    pub fn stats(&mut self, stats: &[(NameId, u64)]) -> Result<(), S::Error> {
        self.flush_tables()?;
        for some in stats.chunks(1024) {
            self.open();
            for (name, value) in some {
                self.out.number(name.0.into());
                self.out.number(*value);
            }
            self.close(kind::STATS)?;
        }
        Ok(())
    }

    /// Writes what is left and the trailer, and returns the totals and the sink. `complete` says that the producer reached the end
    /// of the heap; `lost` and `repaired` count damaged records of its source.
    pub fn finish(mut self, complete: bool, lost: u64, repaired: u64) -> Result<(Trailer, S), S::Error> {
        self.flush_objects()?;
        self.flush_tables()?;
        self.flush_roots()?;
        self.end_free_run();
        self.flush_free()?;
        self.flush_pages()?;
        self.totals = Trailer { complete, lost, repaired, ..self.totals };
        self.open();
        crate::trailer::write(&self.totals, self.chain, |key, value| {
            self.out.number(key);
            self.out.number(value);
        });
        let totals = self.totals;
        self.close(kind::TRAILER)?;
        Ok((totals, self.sink))
    }

    /// The totals so far.
    pub fn totals(&self) -> &Trailer {
        &self.totals
    }

    fn end_object(&mut self) {
        if self.current.take().is_some() {
            self.count_edges();
        }
    }

    // Writes the number of the current object's edges in this block.
    fn count_edges(&mut self) {
        if self.objects > 0 {
            self.columns.edge_count.number(self.edge_count);
        } else {
            self.continued.0 = self.edge_count;
        }
        self.edge_count = 0;
    }

    // Writes the block of objects. The edges of the current object go on in the next one.
    fn flush_objects(&mut self) -> Result<(), S::Error> {
        if self.current.is_some() {
            self.count_edges();
        }
        if self.objects > 0 || self.edge_total > 0 {
            // Roots stay in front of objects that were written after them.
            self.flush_roots()?;
            self.flush_tables()?;
            self.open();
            self.out.number(self.objects as u64);
            self.out.number(self.continued.0);
            if self.continued.0 > 0 {
                self.out.number(self.continued.1);
            }
            self.columns.end_run(self.run);
            self.counts.write(self.edge_total as u64, |number| self.columns.counts.number(number));
            self.columns.write(&mut self.out);
            self.close(kind::OBJECTS)?;
        }
        self.columns.clear();
        (self.objects, self.edge_total, self.run) = (0, 0, (0, 0));
        (self.last_address, self.last_generation, self.last_module) = (0, 0, 0);
        self.predictions.fill(0);
        self.continued = (0, 0);
        if let Some(current) = &mut self.current {
            self.continued.1 = current.source;
            *current = Current { predictor: 0, position: u32::MAX, ..*current };
        }
        Ok(())
    }

    // Begins a block. Its head is filled in by `close`.
    fn open(&mut self) {
        self.out.clear();
        self.out.zeros(block::HEAD);
    }

    fn close(&mut self, kind: u16) -> Result<(), S::Error> {
        let length = u32::try_from(self.out.len() - block::HEAD).unwrap_or(u32::MAX);
        let kind = kind.to_le_bytes();
        let length = length.to_le_bytes();
        let start = [length[0], length[1], length[2], length[3], kind[0], kind[1], 0, 0];
        self.out.patch(0, &start);
        let (head, payload) = self.out.as_slice().split_at_checked(block::HEAD).unwrap_or_default();
        let sum = block::checksum(head, payload, self.totals.blocks).to_le_bytes();
        self.out.patch(8, &sum);
        self.chain = xxh64(&sum, self.chain);
        self.totals.blocks += 1;
        self.totals.bytes += self.out.len() as u64;
        self.sink.write(self.out.as_slice())
    }
}
