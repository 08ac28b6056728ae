//! What the store holds, as retention and the cap need to know it: loaded a line at a time and packed, so that `put` can keep it
//! while it works, whatever the store has grown to.
//!
//! Before a capture is given up, its own record and its own marker are asked, as the index may be behind.

use std::collections::BTreeSet;

use crate::clock::Now;
use crate::config::Config;
use crate::error::Failure;
use crate::fsio;
use crate::store::index::{self, Entry, Id, PIN_FILE, Present};
use crate::store::retention::{self, Captures, Plan, Policy, Pressure, Usage, Verdict};
use crate::store::{Store, events, meta};

/// So many captures that the index did not have are added to it at once.
const BATCH: usize = 256;

/// The captures of a store, and what else is among them.
#[derive(Debug, Default)]
pub struct Stock {
    captures: Captures,
    /// What else is in `reports/`: captures that cannot be read, and whatever somebody put there. It takes room all the same.
    strange_bytes: u64,
}

impl Stock {
    /// Reads the index and makes it agree with `reports/`; where `write_back` allows it, in the file too.
    pub fn load(store: &Store, write_back: bool) -> Result<Self, Failure> {
        let mut stock = Self::default();
        let mut present = Present::list(store)?;
        let lines = index::scan(store, |_, entry, _| {
            let Some((id, number)) = Id::parse(&entry.id).zip(present.number(&entry.id)) else { return };
            if let Some(number) = *number {
                stock.captures.replace(number, &entry);
            } else {
                *number = Some(stock.captures.len());
                stock.captures.push(id, &entry);
            }
        });
        let write_back = write_back && store.is_ours();
        if write_back && index::is_stale(lines, stock.captures.len()) {
            // It is a cache: on a full disk it stays as it is, so that room can be made.
            let _ = index::compact(store);
        }
        stock.learn(store, &present, write_back);
        Ok(stock)
    }

    /// Looks again at what there is: captures may have been deleted by others, or been made unreadable.
    pub fn refresh(&mut self, store: &Store) -> Result<(), Failure> {
        let mut present = Present::list(store)?;
        let mut kept = 0;
        self.captures.retain(|_, id| {
            let Some(number) = present.number(id.as_str()) else { return false };
            *number = Some(kept);
            kept += 1;
            true
        });
        self.learn(store, &present, false);
        Ok(())
    }

    // Those that have no number are read from their own records.
    fn learn(&mut self, store: &Store, present: &Present, write_back: bool) {
        let reports = store.path("reports");
        self.strange_bytes = present.strange.iter().map(|name| fsio::occupied_tree(&reports.join(name))).sum();
        let unknown: Vec<Id> = present.unknown().collect();
        for batch in unknown.chunks(BATCH) {
            let mut learned = Vec::new();
            for id in batch {
                let dir = store.report_dir(id.as_str());
                let Ok(meta) = meta::read(&dir) else {
                    self.strange_bytes += fsio::occupied_tree(&dir);
                    continue;
                };
                let entry = Entry::of(store, &meta);
                self.captures.push(*id, &entry);
                learned.push(entry);
            }
            if write_back {
                let _ = index::learn(store, &mut learned);
            }
        }
    }

    /// What the whole store occupies, in whole blocks.
    pub fn used(&self, store: &Store) -> u64 {
        self.captures.bytes().saturating_add(self.others(store))
    }

    // Everything but the captures.
    fn others(&self, store: &Store) -> u64 {
        let others = fsio::children(store.dir()).filter(|entry| entry.name != "reports");
        others.map(|entry| fsio::occupied_tree(&store.dir().join(entry.name))).sum::<u64>() + self.strange_bytes
    }

    /// What retention says of every capture, now.
    pub fn plan(
        &mut self,
        config: &Config,
        store: &Store,
        now: &Now,
        incoming: u64,
        pressure: Pressure,
        newest: Option<&str>,
    ) -> Result<Plan, Failure> {
        let (free_disk, total_disk) = store.space()?;
        let keep = &config.retention;
        let policy = Policy {
            max_use: keep.max_use,
            keep_free: keep.keep_free.of(total_disk),
            max_age_ms: crate::units::ms(keep.max_age),
            keep_last: keep.keep_last,
            max_captures: keep.max_captures,
        };
        loop {
            let usage = Usage { other_bytes: self.others(store), free_disk, incoming };
            let plan = retention::plan(&self.captures, &policy, &usage, pressure, now.store_ms, newest);
            if !self.correct(store, &plan) {
                return Ok(plan);
            }
        }
    }

    // The index may be behind, or damaged in a way that still can be read: before a capture is given up, its own record and its
    // own marker say how old it is and whether it is pinned. One that cannot be read any more is left to people.
    fn correct(&mut self, store: &Store, plan: &Plan) -> bool {
        let mut corrected = false;
        let mut unreadable = BTreeSet::new();
        for i in plan.victims() {
            let dir = store.report_dir(self.captures.id(i).as_str());
            if let Ok(meta) = meta::read(&dir) {
                corrected |= self.captures.replace(i, &Entry::of(store, &meta));
            } else {
                self.strange_bytes += fsio::occupied_tree(&dir);
                unreadable.insert(i);
            }
        }
        self.captures.retain(|i, _| !unreadable.contains(&i));
        corrected || !unreadable.is_empty()
    }

    /// The verdicts of a plan that was made of this stock and nothing was done with, or that was applied.
    pub fn verdicts(&self, plan: &Plan) -> Vec<Verdict> {
        plan.verdicts(&self.captures).collect()
    }

    /// Deletes what a plan gives up, but not what was pinned since it was made; returns the bytes that were freed.
    pub fn apply(&mut self, store: &Store, plan: &mut Plan) -> Result<u64, Failure> {
        let mut freed = 0;
        let mut pinned = Vec::new();
        for (i, verdict) in plan.deletions(&self.captures) {
            let dir = store.report_dir(&verdict.id);
            if !self.captures.is_pinned(i) && dir.join(PIN_FILE).exists() {
                pinned.push(i);
                continue;
            }
            store.discard(&dir)?;
            events::record(store, &events::Event::about("deleted", &verdict.id, &verdict.reasons.join("; ")));
            freed += verdict.disk_bytes;
        }
        for i in pinned {
            self.captures.pin(i);
            plan.spare(i);
        }
        Ok(freed)
    }

    /// Forgets what was deleted.
    pub fn forget(&mut self, applied: &Plan) {
        let gone: BTreeSet<usize> = applied.victims().collect();
        self.captures.retain(|i, _| !gone.contains(&i));
    }
}

#[cfg(test)]
mod tests;
