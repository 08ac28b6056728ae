//! The columns of a block of objects, while it is collected.

use crate::block::{BLOCK_OBJECTS, column};
use crate::memory::{COUNTED, Column, EDGES, LABELS};
use crate::varint;

#[derive(Debug)]
pub(super) struct Columns<'m> {
    pub address: Column<'m>,
    pub kind: Column<'m>,
    pub class: Column<'m>,
    pub class_address: Column<'m>,
    pub size: Column<'m>,
    pub slot_size: Column<'m>,
    pub flags: Column<'m>,
    pub edge_count: Column<'m>,
    pub edges: Column<'m>,
    pub labels: Column<'m>,
    pub name: Column<'m>,
    pub length: Column<'m>,
    pub hash: Column<'m>,
    pub encoding: Column<'m>,
    pub site: Column<'m>,
    pub generation: Column<'m>,
    pub counts: Column<'m>,
    pub modules: Column<'m>,
}

impl<'m> Columns<'m> {
    pub fn cut(rest: &mut &'m mut [u8]) -> Self {
        let mut cut = |len| Column::cut(rest, len);
        let (number, small) = (BLOCK_OBJECTS * varint::MAX_LEN, BLOCK_OBJECTS * 5);
        Self {
            address: cut(number),
            kind: cut(BLOCK_OBJECTS),
            class: cut(small),
            class_address: cut(number),
            size: cut(number),
            slot_size: cut(2 * small),
            flags: cut(small),
            edge_count: cut(small),
            edges: cut(EDGES),
            labels: cut(LABELS),
            name: cut(small),
            length: cut(number),
            hash: cut(BLOCK_OBJECTS * 8),
            encoding: cut(small),
            site: cut(small),
            generation: cut(number),
            counts: cut(BLOCK_OBJECTS * COUNTED + varint::MAX_LEN),
            modules: cut(number + small),
        }
    }

    fn all(&mut self) -> [(u64, &mut Column<'m>); 18] {
        [
            (column::ADDRESS, &mut self.address),
            (column::TYPE, &mut self.kind),
            (column::CLASS, &mut self.class),
            (column::CLASS_ADDRESS, &mut self.class_address),
            (column::SIZE, &mut self.size),
            (column::SLOT_SIZE, &mut self.slot_size),
            (column::FLAGS, &mut self.flags),
            (column::EDGE_COUNT, &mut self.edge_count),
            (column::EDGES, &mut self.edges),
            (column::LABELS, &mut self.labels),
            (column::NAME, &mut self.name),
            (column::LENGTH, &mut self.length),
            (column::HASH, &mut self.hash),
            (column::ENCODING, &mut self.encoding),
            (column::SITE, &mut self.site),
            (column::GENERATION, &mut self.generation),
            (column::COUNTS, &mut self.counts),
            (column::MODULES, &mut self.modules),
        ]
    }

    /// Appends the columns that are not empty.
    pub fn write(&mut self, out: &mut Column<'_>) {
        for (id, column) in self.all() {
            if !column.is_empty() {
                out.number(id);
                out.number(column.len() as u64);
                out.slice(column.as_slice());
            }
        }
    }

    pub fn clear(&mut self) {
        for (_, column) in self.all() {
            column.clear();
        }
    }

    /// Ends a run of objects with equal slot sizes.
    pub fn end_run(&mut self, (objects, slot_size): (u64, u32)) {
        if objects > 0 {
            self.slot_size.number(objects);
            self.slot_size.number(slot_size.into());
        }
    }
}

/// Appends the number at position `index` to a column that stays empty as long as all numbers are 0.
#[inline]
pub(super) fn dense(column: &mut Column<'_>, index: usize, number: u32) {
    if number == 0 && column.is_empty() {
        return;
    }
    if column.is_empty() {
        column.zeros(index);
    }
    column.number(number.into());
}
