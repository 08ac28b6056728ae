//! What is kept and what goes. Pure: entries, policy and figures in, one verdict per capture out, each with its reasons.
//!
//! Rules: age, count, size (`max_use`, everything in the store counts), free space (`keep_free`). Under size and free-space
//! pressure the victim is the oldest capture that has the kind of report which uses most. Protected are the newest, pinned
//! ones, and the last `keep_last` of each kind. Only the hard cap overrides protection, and never that of the newest.
//!
//! What cannot be reached by deleting is not tried at the expense of what is there: room for a capture that would not
//! fit in any case costs nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;

use crate::store::index::Entry;
use crate::units::{duration, size};

/// Stands for the kind of those captures in which every report failed.
const NO_REPORT: &str = "captures without any report";

/// What the operator declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Hard cap of the whole store, bytes.
    pub max_use: u64,
    /// What is to stay free on the filesystem, bytes.
    pub keep_free: u64,
    /// Older captures go, milliseconds.
    pub max_age_ms: u64,
    /// So many of each kind of report stay.
    pub keep_last: u32,
    /// No more captures than this.
    pub max_captures: Option<u32>,
}

/// What else takes room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the store outside `reports/`: staging, quarantine, index, …
    pub other_bytes: u64,
    /// Free bytes on the filesystem.
    pub free_disk: u64,
    /// Bytes that are about to be written; 0 after a commit.
    pub incoming: u64,
}

/// How far a plan may go to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// `gc`, and after a commit: the hard cap holds, whatever it costs.
    Routine,
    /// Before a grant, and when a `put` runs into the cap: only what nothing protects. How large a report becomes is not known
    /// while it is written; one that does not fit in the end must not have cost the last good one.
    Admission,
}

/// What is to become of one capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The capture.
    pub id: String,
    /// Whether it stays.
    pub keep: bool,
    /// Why, for people.
    pub reasons: Vec<String>,
    /// What it occupies.
    pub disk_bytes: u64,
}

/// Decides for every entry; the verdicts come oldest first. `now_ms` is on the store's time line, as the entries are: one
/// that seems to come from the future is never too old. `newest` is never deleted.
pub fn plan(
    entries: &[Entry],
    policy: &Policy,
    usage: &Usage,
    pressure: Pressure,
    now_ms: u64,
    newest: Option<&str>,
) -> Vec<Verdict> {
    let mut planner = Planner::new(entries, *policy, *usage, newest);
    planner.by_age(now_ms);
    planner.by_count();
    planner.by_size(pressure);
    planner.by_free_space();
    planner.verdicts()
}

/// How well a capture is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Unprotected,
    LastOfKind,
    Pinned,
    Newest,
}

struct Planner<'a> {
    policy: Policy,
    usage: Usage,
    /// Oldest first.
    entries: Vec<&'a Entry>,
    standing: Vec<Standing>,
    /// The kinds of which an entry is one of the last.
    last_of: Vec<Vec<&'a str>>,
    /// Why it goes; `None` as long as it stays.
    condemned: Vec<Option<String>>,
    used: u64,
    freed: u64,
}

impl<'a> Planner<'a> {
    fn new(entries: &'a [Entry], policy: Policy, usage: Usage, newest: Option<&str>) -> Self {
        let mut entries: Vec<&Entry> = entries.iter().collect();
        entries.sort_by(|a, b| a.sequence.cmp(&b.sequence).then_with(|| a.id.cmp(&b.id)));
        let mut counts = BTreeMap::<&str, u32>::new();
        let mut last_of = vec![Vec::new(); entries.len()];
        for (i, entry) in entries.iter().enumerate().rev() {
            for kind in kinds(entry).filter(|kind| *kind != NO_REPORT) {
                let count = counts.entry(kind).or_default();
                if *count < policy.keep_last {
                    *count += 1;
                    last_of[i].push(kind);
                }
            }
        }
        let standing = entries
            .iter()
            .zip(&last_of)
            .map(|(entry, last_of)| match (newest == Some(entry.id.as_str()), entry.pinned, last_of.is_empty()) {
                (true, _, _) => Standing::Newest,
                (_, true, _) => Standing::Pinned,
                (_, _, false) => Standing::LastOfKind,
                _ => Standing::Unprotected,
            })
            .collect();
        let stored = entries.iter().fold(0u64, |sum, entry| sum.saturating_add(entry.disk_bytes));
        Self {
            used: usage.other_bytes.saturating_add(stored),
            condemned: vec![None; entries.len()],
            policy,
            usage,
            entries,
            standing,
            last_of,
            freed: 0,
        }
    }

    fn condemn(&mut self, i: usize, reason: String) {
        self.condemned[i] = Some(reason);
        self.used = self.used.saturating_sub(self.entries[i].disk_bytes);
        self.freed = self.freed.saturating_add(self.entries[i].disk_bytes);
    }

    fn remaining(&self, standing: Standing) -> impl Iterator<Item = usize> + '_ {
        (0..self.entries.len()).filter(move |i| self.standing[*i] == standing && self.condemned[*i].is_none())
    }

    fn by_age(&mut self, now_ms: u64) {
        let max_age = self.policy.max_age_ms;
        let old = |entry: &Entry| now_ms.saturating_sub(entry.store_ms);
        let victims: Vec<usize> =
            self.remaining(Standing::Unprotected).filter(|i| old(self.entries[*i]) > max_age).collect();
        for i in victims {
            let reason = format!("older than max_age {} ({})", duration(max_age), duration(old(self.entries[i])));
            self.condemn(i, reason);
        }
    }

    fn by_count(&mut self) {
        let Some(max) = self.policy.max_captures else { return };
        let count = self.condemned.iter().filter(|reason| reason.is_none()).count();
        let excess = count.saturating_sub(max as usize);
        let victims: Vec<usize> = self.remaining(Standing::Unprotected).take(excess).collect();
        for i in victims {
            self.condemn(i, format!("{count} captures, max_captures is {max}"));
        }
    }

    fn by_size(&mut self, pressure: Pressure) {
        let yielding: &[Standing] = match pressure {
            Pressure::Routine => &[Standing::Unprotected, Standing::LastOfKind, Standing::Pinned],
            Pressure::Admission => &[Standing::Unprotected],
        };
        let incoming_may_take: &[Standing] = match pressure {
            Pressure::Routine => &[Standing::Unprotected],
            _ => yielding,
        };
        let deletable = self.deletable(incoming_may_take);
        let fits = self.used.saturating_sub(deletable).saturating_add(self.usage.incoming) <= self.policy.max_use;
        for standing in yielding {
            let incoming = if fits && incoming_may_take.contains(standing) { self.usage.incoming } else { 0 };
            self.shrink(*standing, move |planner| {
                let (used, max) = (planner.used, planner.policy.max_use);
                (used.saturating_add(incoming) > max).then(|| match incoming {
                    0 => format!("store holds {} of max_use {}", size(used), size(max)),
                    _ => format!(
                        "store holds {} of max_use {} and {} are to come",
                        size(used),
                        size(max),
                        size(incoming)
                    ),
                })
            });
        }
    }

    fn by_free_space(&mut self) {
        let free = |planner: &Self| planner.usage.free_disk.saturating_add(planner.freed);
        let keep_free = self.policy.keep_free;
        let reachable = free(self).saturating_add(self.deletable(&[Standing::Unprotected]));
        let wanted = keep_free.saturating_add(self.usage.incoming);
        let wanted = if reachable < wanted { keep_free } else { wanted };
        self.shrink(Standing::Unprotected, move |planner| {
            let free = free(planner);
            (free < wanted).then(|| match wanted - keep_free {
                0 => format!("{} of disk are free, keep_free is {}", size(free), size(keep_free)),
                incoming => {
                    format!(
                        "{} of disk are free, {} are to come, keep_free is {}",
                        size(free),
                        size(incoming),
                        size(keep_free)
                    )
                }
            })
        });
    }

    fn deletable(&self, standings: &[Standing]) -> u64 {
        standings
            .iter()
            .flat_map(|standing| self.remaining(*standing))
            .fold(0, |sum, i| sum.saturating_add(self.entries[i].disk_bytes))
    }

    // Deletes among those of one standing for as long as `too_full` gives a reason to.
    fn shrink(&mut self, standing: Standing, too_full: impl Fn(&Self) -> Option<String>) {
        if too_full(self).is_none() {
            return;
        }
        let mut pool = Pool::default();
        for i in self.remaining(standing) {
            pool.add(i, self.entries[i]);
        }
        while let Some(why) = too_full(self) {
            let Some((i, kind)) = pool.take(&self.entries) else { return };
            let verb = if kind == NO_REPORT { "use" } else { "uses" };
            let although = match standing {
                Standing::LastOfKind => format!("; although {}", self.last_kinds(i)),
                Standing::Pinned => "; although pinned".into(),
                Standing::Unprotected | Standing::Newest => String::new(),
            };
            self.condemn(i, format!("{why}; {kind} {verb} most{although}"));
        }
    }

    fn last_kinds(&self, i: usize) -> String {
        let kinds = self.last_of[i].join(", ");
        match self.policy.keep_last {
            1 => format!("last {kinds}"),
            n => format!("among the last {n} with {kinds}"),
        }
    }

    fn verdicts(self) -> Vec<Verdict> {
        let verdict = |i: usize| {
            let entry = self.entries[i];
            let reasons = match &self.condemned[i] {
                Some(reason) => vec![reason.clone()],
                None => {
                    let mut reasons = Vec::new();
                    reasons.extend((self.standing[i] == Standing::Newest).then(|| "kept: newest".into()));
                    reasons.extend(entry.pinned.then(|| "kept: pinned".into()));
                    reasons.extend((!self.last_of[i].is_empty()).then(|| format!("kept: {}", self.last_kinds(i))));
                    if reasons.is_empty() {
                        reasons.push("kept: within all limits".into());
                    }
                    reasons
                }
            };
            Verdict { id: entry.id.clone(), keep: self.condemned[i].is_none(), reasons, disk_bytes: entry.disk_bytes }
        };
        (0..self.entries.len()).map(verdict).collect()
    }
}

// The kinds of report that an entry has, each once, with data.
fn kinds(entry: &Entry) -> impl Iterator<Item = &str> {
    let kinds: BTreeSet<&str> = entry.reports.iter().filter(|r| r.error.is_none()).map(|r| r.name.as_str()).collect();
    let none = kinds.is_empty().then_some(NO_REPORT);
    kinds.into_iter().chain(none)
}

fn bytes_of(entry: &Entry, kind: &str) -> u64 {
    match kind {
        NO_REPORT => entry.disk_bytes,
        _ => entry
            .reports
            .iter()
            .filter(|r| r.name == kind && r.error.is_none())
            .fold(0, |sum, r| sum.saturating_add(r.stored_bytes)),
    }
}

/// Candidates by kind. A capture waits in the queue of each of its kinds; one that was taken from another queue is passed
/// over when its turn comes, so that emptying the pool takes time in proportion to what is in it.
#[derive(Default)]
struct Pool<'a> {
    kinds: BTreeMap<&'a str, Queue>,
    taken: BTreeSet<usize>,
}

#[derive(Default)]
struct Queue {
    bytes: u64,
    oldest_first: VecDeque<usize>,
}

impl<'a> Pool<'a> {
    fn add(&mut self, i: usize, entry: &'a Entry) {
        for kind in kinds(entry) {
            let queue = self.kinds.entry(kind).or_default();
            queue.bytes = queue.bytes.saturating_add(bytes_of(entry, kind));
            queue.oldest_first.push_back(i);
        }
    }

    // The oldest capture of the kind that uses most; of equals the first by name.
    fn take(&mut self, entries: &[&'a Entry]) -> Option<(usize, &'a str)> {
        loop {
            let kind = *self.kinds.iter().rev().max_by_key(|(_, queue)| queue.bytes)?.0;
            let queue = self.kinds.get_mut(kind)?;
            let Some(i) = queue.oldest_first.pop_front() else {
                self.kinds.remove(kind);
                continue;
            };
            if !self.taken.insert(i) {
                continue;
            }
            for other in kinds(entries[i]) {
                if let Some(queue) = self.kinds.get_mut(other) {
                    queue.bytes = queue.bytes.saturating_sub(bytes_of(entries[i], other));
                }
            }
            return Some((i, kind));
        }
    }
}

#[cfg(test)]
mod tests;
