//! The contents of the store as retention and the cap need them, packed: a `put` at the cap keeps the inventory in memory while
//! it works, however large the store is.
//!
//! The index may be out of date, so the capture's own record and pin marker are read before a capture is deleted.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::{self, Catalog, NewRecord, Stamp};
use crate::error::Result;
use crate::id::Id;
use crate::index::{self, Entry, PIN_FILE, Present, SHIPPED_FILE};
use crate::retention::{self, Captures, Plan, Policy, Pressure, Usage, Verdict};
use crate::trash;
use crate::{Store, events, meta, shipping};
use diagctl_fs as fs;
use diagctl_observe::clock::{Now, Reading};

/// Number of captures that are added to the index in one write.
const BATCH: usize = 256;

/// Number of the oldest captures in the first plan for age or count.
const FIRST: usize = 64;

/// Maximum number of the newest captures that are read for that plan.
const MOST_LAST: usize = 4096;

/// Interval between full reads of the directory when the catalog seems to be valid. Two changes of a directory within one tick of
/// the kernel's clock may look like one.
const CHECK_EVERY_MS: u64 = 3_600_000;

/// The captures of a store, and the disk usage of everything else in `reports/`.
#[derive(Debug, Default)]
pub struct Inventory {
    captures: Captures,
    /// Disk usage of damaged captures and foreign entries in `reports/`, bytes. The cap counts them too.
    strange_bytes: u64,
    /// The captures that cannot be read, each with its share of `strange_bytes`.
    damaged: Vec<(Id, u64)>,
}

/// The captures that were first in sequence.
struct First {
    /// The number of those in the inventory.
    listed: usize,
    /// The earliest time among all of them.
    oldest_ms: u64,
}

impl Inventory {
    /// Loads the catalog, or calls [`Inventory::check`] if the catalog is not valid.
    pub fn load(store: &Store, write_back: bool) -> Result<Self> {
        let catalog = Catalog::current(store).filter(|catalog| !(write_back && catalog.is_stale()));
        match catalog.and_then(|catalog| Self::of_catalog(&catalog)) {
            Some(inventory) => Ok(inventory),
            None => Self::check(store, write_back),
        }
    }

    /// Plans deletions. Returns `None` if the totals in the catalog show that nothing can be deleted.
    ///
    /// A plan for age or count that the oldest captures decide is made from them alone. Where the capture with the earliest time is not
    /// among them, all captures are read. A second one like that goes at the latest with the next full reading of the directory.
    pub fn planned(
        store: &Store,
        now: &Now,
        incoming: u64,
        pressure: Pressure,
        newest: Option<Id>,
    ) -> Result<Option<(Self, Plan)>> {
        let checked = |catalog: &Catalog| catalog.was_checked(now.clock.wall_ms, CHECK_EVERY_MS);
        let mut inventory = match Catalog::current(store).filter(checked) {
            None => Self::check(store, true)?,
            Some(catalog) => {
                let totals = catalog.totals();
                let (policy, free_disk) = policy(store)?;
                let other_bytes = other_bytes(store).saturating_add(totals.strange_bytes);
                let usage = Usage { other_bytes, free_disk, incoming, staged: 0 };
                let may_delete = |policy: &Policy| retention::may_delete(&totals, policy, &usage, now.store_ms);
                if !catalog.is_stale() && !may_delete(&policy) {
                    return Ok(None);
                }
                // Any shipped capture goes before one that is not, so the oldest alone do not decide by count.
                let max_captures = policy.max_captures.filter(|_| policy.ships);
                let for_room = may_delete(&Policy { max_age_ms: u64::MAX, max_captures, ..policy });
                if !catalog.is_stale()
                    && !for_room
                    && let Some((mut few, first)) = Self::oldest_and_newest(&catalog, policy.keep_last, MOST_LAST)
                    && first.oldest_ms <= totals.oldest_ms
                {
                    let plan = few.plan(store, now.store_ms, incoming, pressure, newest)?;
                    if plan.stays_within(first.listed) {
                        return Ok(Some((few, plan)));
                    }
                }
                Self::load(store, true)?
            }
        };
        let plan = inventory.plan(store, now.store_ms, incoming, pressure, newest)?;
        Ok(Some((inventory, plan)))
    }

    // Loads the oldest captures, and enough of the newest to know which of the oldest are the last of their kinds. Returns the
    // number of the oldest ones too. Leaves out a capture whose kind is too rare to decide this; such a capture stays until all
    // captures are read.
    //
    // The oldest are the first in sequence. Their times are in that order too, unless the store's time line was lost in between; then a
    // later capture may be the oldest by its time, which the totals show.
    fn oldest_and_newest(catalog: &Catalog, keep_last: u32, most_last: usize) -> Option<(Self, First)> {
        let totals = catalog.totals();
        let mut inventory = Self { strange_bytes: totals.strange_bytes, ..Self::default() };
        let mut kinds_of = Vec::new();
        let mut last = None;
        let mut oldest_ms = u64::MAX;
        let whole = catalog.oldest_first(|at, record| {
            if !record.damaged {
                kinds_of.push(record.kinds().map(|(name, _)| name.to_owned()).collect::<Vec<_>>());
                inventory.captures.push_record(at, &record);
                last = Some((record.sequence, record.id));
                oldest_ms = oldest_ms.min(record.store_ms);
            }
            kinds_of.len() < FIRST
        });
        let mut sought: BTreeMap<&str, u32> =
            kinds_of.iter().flatten().map(|kind| (kind.as_str(), keep_last)).collect();
        sought.retain(|_, left| *left > 0);
        let mut seen = 0;
        let whole = whole
            && catalog.newest_first(|record| {
                if Some((record.sequence, record.id)) <= last {
                    // All captures have been read, so the kinds still sought do not exist among the newer ones.
                    sought.clear();
                } else if !record.damaged {
                    seen += 1;
                    for (name, _) in record.kinds() {
                        if let Some(left) = sought.get_mut(name) {
                            *left -= 1;
                        }
                    }
                    sought.retain(|_, left| *left > 0);
                    inventory.captures.push_record(0, &record);
                    return !sought.is_empty() && seen < most_last;
                }
                !sought.is_empty()
            });
        let is_known = |kinds: &Vec<String>| !kinds.iter().any(|kind| sought.contains_key(kind.as_str()));
        inventory.captures.retain(|i, _| kinds_of.get(i).is_none_or(is_known));
        let listed = u64::try_from(inventory.captures.count()).ok()?;
        let omitted = totals.captures.checked_sub(listed)?;
        inventory.captures.omit(omitted, totals.bytes.checked_sub(inventory.captures.bytes())?);
        let listed = kinds_of.iter().filter(|kinds| is_known(kinds)).count();
        whole.then_some((inventory, First { listed, oldest_ms }))
    }

    fn of_catalog(catalog: &Catalog) -> Option<Self> {
        let mut inventory = Self { strange_bytes: catalog.totals().strange_bytes, ..Self::default() };
        let whole = catalog.each(|at, record| {
            if !record.damaged {
                inventory.captures.push_record(at, &record);
            }
        });
        whole.then_some(inventory)
    }

    /// Reads `reports/`, and takes each capture from the catalog, the index or its own record, in this order. With `write_back`,
    /// completes the index and writes a new catalog.
    pub fn check(store: &Store, write_back: bool) -> Result<Self> {
        let write_back = write_back && store.is_ours();
        let of_reports = Stamp::of_reports(store);
        let mut of_index = Stamp::of_index(store);
        let mut present = Present::list(store)?;
        let known = Catalog::of_index(store).filter(|catalog| !(write_back && catalog.is_stale()));
        let mut inventory = match known.and_then(|catalog| Self::known_by_catalog(&catalog, &mut present)) {
            Some(inventory) => inventory,
            None => Self::known_by_index(store, &mut present, write_back.then_some(&mut of_index)),
        };
        inventory.learn(store, &present, write_back.then_some(&mut of_index));
        inventory.release(store, write_back.then_some(&mut of_index));
        if write_back {
            // The catalog is a cache. On a full disk it is left as it is, so that room can be made.
            let _ = inventory.write_catalog(store, (of_reports, of_index));
        }
        Ok(inventory)
    }

    fn known_by_catalog(catalog: &Catalog, present: &mut Present) -> Option<Self> {
        let mut inventory = Self::default();
        let whole = catalog.each(|at, record| {
            if let Some(number @ None) = present.number(record.id)
                && !record.damaged
            {
                *number = Some(inventory.captures.count());
                inventory.captures.push_record(at, &record);
            }
        });
        if !whole {
            present.forget_numbers();
        }
        whole.then_some(inventory)
    }

    fn known_by_index(store: &Store, present: &mut Present, to_write_back: Option<&mut Stamp>) -> Self {
        let mut inventory = Self::default();
        let lines = index::scan(store, |_, entry, _| {
            let Some(number) = present.number(entry.id) else { return };
            if let Some(number) = *number {
                inventory.captures.replace(number, &entry);
            } else {
                *number = Some(inventory.captures.count());
                inventory.captures.push(&entry);
            }
        });
        if let Some(seen) = to_write_back
            && index::is_stale(lines, inventory.captures.count())
        {
            // Like the catalog, the index is a cache.
            let _ = index::compact(store, seen);
        }
        inventory
    }

    fn write_catalog(&self, store: &Store, stamps: (Stamp, Stamp)) -> Result<()> {
        let damaged = self.damaged.iter().map(|(id, disk_bytes)| NewRecord::damaged(*id, *disk_bytes));
        let checked_ms = Reading::take(String::new()).wall_ms;
        let strange = self.strange_bytes;
        catalog::write(store, damaged.chain(self.captures.records()), strange, stamps, checked_ms)
    }

    /// Reads the directory again. Others may have deleted captures or made them unreadable.
    pub fn refresh(&mut self, store: &Store) -> Result<()> {
        let mut present = Present::list(store)?;
        let mut kept = 0;
        self.captures.retain(|_, id| {
            let Some(number) = present.number(id) else { return false };
            *number = Some(kept);
            kept += 1;
            true
        });
        self.learn(store, &present, None);
        Ok(())
    }

    // Reads the captures without a number from their own records.
    fn learn(&mut self, store: &Store, present: &Present, mut to_write_back: Option<&mut Stamp>) {
        let reports = store.path("reports");
        self.damaged.clear();
        self.strange_bytes = present.strange.iter().map(|name| fs::occupied_tree(&reports.join(name))).sum();
        let unknown: Vec<Id> = present.unknown().collect();
        for batch in unknown.chunks(BATCH) {
            let mut learned = Vec::new();
            for id in batch {
                let dir = store.report_dir(id);
                let Ok(meta) = meta::read(&dir) else {
                    let bytes = fs::occupied_tree(&dir);
                    self.strange_bytes += bytes;
                    self.damaged.push((*id, bytes));
                    continue;
                };
                let entry = Entry::of(store, &meta);
                self.captures.push(&entry);
                learned.push(entry);
            }
            if let Some(seen) = &mut to_write_back {
                let _ = index::learn(store, &mut learned, seen);
            }
        }
    }

    // Corrects captures that the index calls pinned without a marker: an `unpin` was killed before its line.
    fn release(&mut self, store: &Store, to_write_back: Option<&mut Stamp>) {
        let mut released = Vec::new();
        for i in (0..self.captures.count()).filter(|i| self.captures.is_pinned(*i)) {
            let dir = store.report_dir(&self.captures.id(i));
            if !dir.join(PIN_FILE).exists()
                && let Ok(meta) = meta::read(&dir)
            {
                released.push((i, Entry::of(store, &meta)));
            }
        }
        for (i, entry) in &released {
            self.captures.replace(*i, entry);
        }
        if let Some(seen) = to_write_back {
            let mut entries: Vec<Entry> = released.into_iter().map(|(_, entry)| entry).collect();
            let _ = index::learn(store, &mut entries, seen);
        }
    }

    /// Returns the disk usage of `reports/`, bytes.
    pub fn reports_bytes(&self) -> u64 {
        self.captures.bytes().saturating_add(self.strange_bytes)
    }

    /// Plans deletions among all captures.
    pub fn plan(
        &mut self,
        store: &Store,
        now_ms: u64,
        incoming: u64,
        pressure: Pressure,
        newest: Option<Id>,
    ) -> Result<Plan> {
        let (policy, free_disk) = policy(store)?;
        loop {
            let other_bytes = other_bytes(store) + self.strange_bytes;
            let staged = fs::occupied_tree(&store.path("staging"));
            let usage = Usage { other_bytes, free_disk, incoming, staged };
            let plan = retention::plan(&self.captures, &policy, &usage, pressure, now_ms, newest);
            if !self.correct(store, &plan) {
                return Ok(plan);
            }
        }
    }

    // Corrects the captures that the plan would delete. The index may be out of date, or damaged so that it can still be parsed,
    // so the capture's own record and pin marker decide about its age and pin. A capture that can no longer be read is left to
    // people.
    fn correct(&mut self, store: &Store, plan: &Plan) -> bool {
        let mut corrected = false;
        let mut unreadable = BTreeSet::new();
        for i in plan.victims() {
            let dir = store.report_dir(&self.captures.id(i));
            if let Ok(meta) = meta::read(&dir) {
                corrected |= self.captures.replace(i, &Entry::of(store, &meta));
            } else {
                self.strange_bytes += fs::occupied_tree(&dir);
                unreadable.insert(i);
            }
        }
        self.captures.retain(|i, _| !unreadable.contains(&i));
        corrected || !unreadable.is_empty()
    }

    /// Returns the verdicts of a plan for this inventory, applied or not.
    pub fn verdicts(&self, plan: &Plan) -> Vec<Verdict> {
        plan.verdicts(&self.captures).collect()
    }

    /// Deletes the captures that the plan condemns, except those pinned since. Returns the number of bytes freed.
    pub fn apply(&mut self, store: &Store, plan: &mut Plan) -> Result<u64> {
        let mut freed = 0;
        let mut pinned = Vec::new();
        for (i, verdict) in plan.deletions(&self.captures) {
            let dir = store.report_dir(&verdict.id);
            if !self.captures.is_pinned(i) && dir.join(PIN_FILE).exists() {
                pinned.push(i);
                continue;
            }
            let unshipped = store.options().ships && !dir.join(SHIPPED_FILE).is_file();
            trash::discard_capture(store, verdict.id, self.captures.place(i))?;
            let mut why = verdict.reasons.join("; ");
            if unshipped {
                why.push_str("; it was NOT shipped before");
                shipping::note_dropped(store, verdict.id, verdict.disk_bytes);
            }
            let cause = verdict.cause.unwrap_or_default().to_owned();
            events::record(store, &events::Event { cause, ..events::Event::about("deleted", verdict.id, &why) });
            freed += verdict.disk_bytes;
        }
        for i in pinned {
            self.captures.pin(i);
            plan.spare(i);
        }
        Ok(freed)
    }

    /// Records the age of the oldest capture in the catalog, so that the next check of the totals is exact.
    pub fn note_oldest(&self, store: &Store) {
        catalog::set_oldest(store, self.captures.oldest_ms());
    }

    /// Drops the deleted captures.
    pub fn forget(&mut self, applied: &Plan) {
        let gone: BTreeSet<usize> = applied.victims().collect();
        self.captures.retain(|i, _| !gone.contains(&i));
    }
}

fn policy(store: &Store) -> Result<(Policy, u64)> {
    let (free_disk, total_disk) = store.space()?;
    let keep = &store.options().retention;
    let policy = Policy {
        max_use: keep.max_use,
        keep_free: keep.keep_free.of(total_disk),
        max_age_ms: crate::units::ms(keep.max_age),
        keep_last: keep.keep_last,
        max_captures: keep.max_captures,
        ships: store.options().ships,
    };
    Ok((policy, free_disk))
}

/// Returns the disk usage of `reports/`, bytes: from the catalog if it is valid, else counted.
pub fn reports_bytes(store: &Store) -> Result<u64> {
    match Catalog::current(store) {
        Some(catalog) => Ok(catalog.totals().reports_bytes()),
        None => Ok(Inventory::load(store, false)?.reports_bytes()),
    }
}

/// Returns the disk usage of the store outside `reports/`, bytes.
pub fn other_bytes(store: &Store) -> u64 {
    let others = fs::children(store.dir()).filter(|entry| entry.name != "reports");
    let others: u64 = others.map(|entry| fs::occupied_tree(&store.dir().join(entry.name))).sum();
    // The list of very many captures takes space, too.
    let list = store.path("reports").stat().map_or(0, |stat| fs::occupied(u64::try_from(stat.st_size).unwrap_or(0)));
    others.saturating_add(list.saturating_sub(fs::occupied(1)))
}

#[cfg(test)]
mod tests;
