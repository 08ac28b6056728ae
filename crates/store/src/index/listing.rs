//! The captures of a store in order.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{Entry, Present, parse_line, read_unknown, scan};
use crate::catalog::Catalog;
use crate::error::Result;
use crate::id::Id;
use crate::layout::INDEX;
use crate::{Store, meta};
use diagctl_fs as fs;

/// The captures of a store in order. Each entry is read on request, so a listing of a hundred thousand captures takes a few MiB.
#[derive(Debug)]
pub struct Listing<'a> {
    store: &'a Store,
    index: Option<File>,
    /// Oldest first. A listing of the newest holds only those.
    captures: Vec<Placed>,
    /// The entries of a listing of the newest.
    read: Vec<Entry>,
    /// The number of readable captures.
    pub total: usize,
    /// Captures whose `meta.json` cannot be read, with the reason.
    pub damaged: Vec<(Id, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Placed {
    sequence: u64,
    id: Id,
    // Offset and length of its line in the index, if it has one.
    line: Option<(u64, u32)>,
}

impl<'a> Listing<'a> {
    /// Lists all captures.
    pub fn all(store: &'a Store) -> Result<Self> {
        let mut present = Present::list(store)?;
        let mut captures = Vec::with_capacity(present.captures.len());
        scan(store, |at, entry, bytes| {
            let Some(number) = present.number(entry.id) else { return };
            let placed = Placed { sequence: entry.sequence, id: entry.id, line: Some((at as u64, bytes.len() as u32)) };
            match number {
                Some(number) => captures[*number] = placed,
                None => {
                    *number = Some(captures.len());
                    captures.push(placed);
                }
            }
        });
        let damaged = read_unknown(store, &present, |entry| {
            captures.push(Placed { sequence: entry.sequence, id: entry.id, line: None });
        });
        captures.sort_unstable();
        let index = fs::open_read(&store.path(INDEX)).ok();
        Ok(Self { store, index, total: captures.len(), captures, read: Vec::new(), damaged })
    }

    /// Lists the `most` newest captures by the catalog. Returns `None` if the catalog is not valid. A capture that was damaged
    /// since the catalog was written counts as damaged.
    pub fn newest(store: &'a Store, most: usize) -> Option<Self> {
        let catalog = Catalog::current(store)?;
        let (mut captures, mut read) = (Vec::new(), Vec::new());
        let mut damaged = damaged_by(store, &catalog)?;
        let mut total = usize::try_from(catalog.totals().captures).ok()?;
        let whole = most == 0
            || catalog.newest_first(|record| {
                let placed = Placed { sequence: record.sequence, id: record.id, line: None };
                let dir = store.report_dir(&record.id);
                match meta::read(&dir) {
                    _ if record.damaged => {}
                    Ok(meta) => {
                        captures.push(placed);
                        read.push(Entry::of(store, &meta));
                    }
                    Err(error) => {
                        total = total.saturating_sub(1);
                        if dir.exists() {
                            damaged.push((record.id, error.to_string()));
                        }
                    }
                }
                captures.len() < most
            });
        captures.reverse();
        read.reverse();
        whole.then_some(Self { store, index: None, captures, read, total, damaged })
    }

    /// Reads the records of the newest captures, because the index does not tell of damage since it was written. Those that cannot
    /// be read count as damaged.
    pub fn check_newest(&mut self, most: usize) {
        let mut newest = self.captures.split_off(self.captures.len().saturating_sub(most));
        newest.retain(|placed| {
            let dir = self.store.report_dir(&placed.id);
            let Err(error) = meta::read(&dir) else { return true };
            if dir.exists() {
                self.damaged.push((placed.id, error.to_string()));
            }
            false
        });
        self.captures.append(&mut newest);
        self.total = self.captures.len();
    }

    /// Returns the numbers of the captures, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.captures.len()).rev()
    }

    /// Returns a capture by its number, or `None` if it is gone or cannot be read.
    pub fn entry(&self, number: usize) -> Option<Entry> {
        let placed = self.captures.get(number)?;
        self.read.get(number).cloned().or_else(|| self.by_line(placed)).or_else(|| {
            let meta = meta::read(&self.store.report_dir(&placed.id)).ok()?;
            Some(Entry::of(self.store, &meta))
        })
    }

    fn by_line(&self, placed: &Placed) -> Option<Entry> {
        let (at, length) = placed.line?;
        let mut line = vec![0; length as usize];
        self.index.as_ref()?.read_exact_at(&mut line, at).ok()?;
        // The index may have been rewritten since it was scanned.
        parse_line(&line).filter(|entry| entry.id == placed.id)
    }
}

// Returns the captures that the catalog lists as damaged, with the reason. Returns `None` if one of them can be read after all.
fn damaged_by(store: &Store, catalog: &Catalog) -> Option<Vec<(Id, String)>> {
    let mut ids = Vec::new();
    if catalog.totals().damaged > 0 && !catalog.each(|_, record| ids.extend(record.damaged.then_some(record.id))) {
        return None;
    }
    let reason = |id: &Id| Some((*id, meta::read(&store.report_dir(id)).err()?.to_string()));
    ids.iter().map(reason).collect()
}
