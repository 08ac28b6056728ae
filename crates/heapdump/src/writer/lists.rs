//! The blocks that are lists: roots, free slots, pages.

use super::{Sink, Writer};
use crate::block::kind;
use crate::record::{FreeSlots, Page, Root};
use crate::varint::{self, zigzag};

impl<S: Sink> Writer<'_, S> {
    /// Adds an edge from outside of the heap.
    pub fn root(&mut self, root: &Root) -> Result<(), S::Error> {
        if self.roots.room() < 3 * varint::MAX_LEN {
            self.flush_roots()?;
        }
        let target = root.edge.target >> self.shift;
        self.roots.number(root.category.0.into());
        self.roots.number(root.edge.label.0.into());
        self.roots.number(zigzag(target.wrapping_sub(self.last_root).cast_signed()));
        self.last_root = target;
        self.totals.roots += 1;
        Ok(())
    }

    /// Adds a free slot, or several.
    pub fn free(&mut self, slots: &FreeSlots) -> Result<(), S::Error> {
        let run = &mut self.free_run;
        let next = run.address.wrapping_add(u64::from(run.slot_size).wrapping_mul(run.count));
        self.totals.free_slots += slots.count;
        if run.count > 0 && next == slots.address && run.slot_size == slots.slot_size {
            run.count += slots.count;
            return Ok(());
        }
        self.end_free_run();
        self.free_run = *slots;
        if self.free.room() < 6 * varint::MAX_LEN {
            self.flush_free()?;
        }
        Ok(())
    }

    /// Adds a page of the heap.
    pub fn page(&mut self, page: &Page) -> Result<(), S::Error> {
        if self.pages.room() < 4 * varint::MAX_LEN {
            self.flush_pages()?;
        }
        let address = page.address >> self.shift;
        self.pages.number(zigzag(address.wrapping_sub(self.last_page).cast_signed()));
        self.last_page = address;
        for number in [page.slot_size, page.slots, page.free] {
            self.pages.number(number.into());
        }
        Ok(())
    }

    pub(super) fn flush_roots(&mut self) -> Result<(), S::Error> {
        if !self.roots.is_empty() {
            self.flush_tables()?;
            self.open();
            self.out.slice(self.roots.as_slice());
            self.roots.clear();
            self.last_root = 0;
            self.close(kind::ROOTS)?;
        }
        Ok(())
    }

    pub(super) fn end_free_run(&mut self) {
        let run = core::mem::take(&mut self.free_run);
        if run.count > 0 {
            let address = run.address >> self.shift;
            self.free.number(zigzag(address.wrapping_sub(self.last_free).cast_signed()));
            self.free.number(run.slot_size.into());
            self.free.number(run.count);
            self.last_free = address;
        }
    }

    pub(super) fn flush_free(&mut self) -> Result<(), S::Error> {
        if !self.free.is_empty() {
            self.open();
            self.out.slice(self.free.as_slice());
            self.free.clear();
            self.last_free = 0;
            self.close(kind::FREE)?;
        }
        Ok(())
    }

    pub(super) fn flush_pages(&mut self) -> Result<(), S::Error> {
        if !self.pages.is_empty() {
            self.open();
            self.out.slice(self.pages.as_slice());
            self.pages.clear();
            self.last_page = 0;
            self.close(kind::PAGES)?;
        }
        Ok(())
    }
}
