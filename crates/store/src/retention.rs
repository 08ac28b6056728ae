//! Decides which captures are kept. The planner is pure: it takes captures, a policy and usage figures, and returns a plan with a
//! verdict and reasons for each capture.
//!
//! Captures are deleted for age, count, size (`max_use`, which counts everything in the store) and free space (`keep_free`). For
//! size and free space, the next capture to go is the oldest one that has the kind of report which uses most. The newest capture,
//! pinned captures and the last `keep_last` of each kind are protected. Only the hard cap overrides protection, and never that of
//! the newest capture.
//!
//! A capture that would not fit in any case costs no other capture its place. Neither do other files in the store that exceed the
//! cap by themselves, for example one that a command is just writing: deletions could not help. What is being staged never costs a
//! protected capture its place, because it may still be given up.
//!
//! A store may hold a hundred thousand captures, and `put` plans beside a worker that needs its memory. So captures are packed, a
//! plan holds numbers, and verdicts are worded on demand.

mod captures;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use captures::Captures;
use captures::{Capture, NO_REPORT_KIND, Share};

use crate::catalog::Totals;
use crate::id::Id;
use crate::units::{duration, size};

/// The operator's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Hard cap of the whole store, bytes.
    pub max_use: u64,
    /// Space to leave free on the filesystem, bytes.
    pub keep_free: u64,
    /// Maximum age of a capture, milliseconds.
    pub max_age_ms: u64,
    /// Number of captures with each kind of report that are protected.
    pub keep_last: u32,
    /// Maximum number of captures.
    pub max_captures: Option<u32>,
}

/// Everything else that takes space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the store outside `reports/`: staging, quarantine, index, …
    pub other_bytes: u64,
    /// Free bytes on the filesystem.
    pub free_disk: u64,
    /// Bytes about to be written. Zero after a commit.
    pub incoming: u64,
    /// The part of `other_bytes` that is being staged. It may still be given up.
    pub staged: u64,
}

/// The lengths to which a plan may go to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// For `gc` and after a commit: the hard cap holds at any cost.
    Routine,
    /// Before a grant, and when a `put` reaches the cap: deletes unprotected captures only. The final size of a report is unknown
    /// while it is written, so a report that does not fit in the end must not cost the last good one.
    Admission,
}

/// The verdict on one capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The capture's id.
    pub id: Id,
    /// True if the capture stays.
    pub keep: bool,
    /// The reasons, for people.
    pub reasons: Vec<String>,
    /// Disk usage, bytes.
    pub disk_bytes: u64,
}

/// The decision about every capture.
#[derive(Debug)]
pub struct Plan {
    policy: Policy,
    /// The numbers of the captures, oldest first. The other fields refer to positions in this list.
    order: Vec<u32>,
    protection: Vec<Protection>,
    /// The kinds of which a capture is one of the last. Most captures have none.
    last_of: BTreeMap<usize, Vec<u32>>,
    /// The captures to be deleted, with the reason.
    condemned: BTreeMap<usize, Reason>,
}

/// Returns true if a plan might delete a capture, judging by the totals alone. May be true although the plan deletes nothing, but
/// is never false if it deletes something.
pub fn may_delete(totals: &Totals, policy: &Policy, usage: &Usage, now_ms: u64) -> bool {
    let used = usage.other_bytes.saturating_add(totals.bytes).saturating_add(usage.incoming);
    now_ms.saturating_sub(totals.oldest_ms) > policy.max_age_ms
        || policy.max_captures.is_some_and(|max| totals.captures > u64::from(max))
        || used > policy.max_use
        || usage.free_disk < policy.keep_free.saturating_add(usage.incoming)
}

/// Decides about every capture. `now_ms` is on the store's time line, like the captures: a capture from the future is never too
/// old. `newest` is never deleted.
pub fn plan(
    captures: &Captures,
    policy: &Policy,
    usage: &Usage,
    pressure: Pressure,
    now_ms: u64,
    newest: Option<Id>,
) -> Plan {
    let mut planner = Planner::new(captures, *policy, *usage, newest);
    planner.by_age(now_ms);
    planner.by_count();
    planner.by_size(pressure);
    planner.by_free_space();
    planner.plan
}

impl Plan {
    /// Returns the numbers of the captures to be deleted, oldest first.
    pub fn victims(&self) -> impl Iterator<Item = usize> + '_ {
        self.condemned.keys().map(|at| self.order[*at] as usize)
    }

    /// Returns the verdicts on all captures, oldest first.
    pub fn verdicts<'a>(&'a self, captures: &'a Captures) -> impl Iterator<Item = Verdict> + 'a {
        (0..self.order.len()).map(|at| self.verdict(captures, at))
    }

    /// Returns the verdicts on the captures to be deleted, with their numbers.
    pub fn deletions<'a>(&'a self, captures: &'a Captures) -> impl Iterator<Item = (usize, Verdict)> + 'a {
        self.condemned.keys().map(|at| (self.order[*at] as usize, self.verdict(captures, *at)))
    }

    /// Returns true if the plan deletes only captures among the first `first` of the list, and leaves an unprotected one there.
    /// Then omitted captures, all newer than these, could not have changed a plan for age and count.
    pub fn stays_within(&self, first: usize) -> bool {
        let is_first = |at: usize| (self.order[at] as usize) < first;
        let spared = |at: usize| self.protection[at] == Protection::Unprotected && !self.condemned.contains_key(&at);
        self.condemned.iter().all(|(at, why)| is_first(*at) && !matches!(why, Reason::NoSpace { .. }))
            && (0..self.order.len()).any(|at| is_first(at) && spared(at))
    }

    /// Removes a capture from the deletions.
    pub fn spare(&mut self, i: usize) {
        self.condemned.retain(|at, _| self.order[*at] as usize != i);
    }

    fn verdict(&self, captures: &Captures, at: usize) -> Verdict {
        let capture = &captures.list[self.order[at] as usize];
        let reasons = match self.condemned.get(&at) {
            Some(why) => vec![self.words(captures, at, *why)],
            None => {
                let mut reasons = Vec::new();
                reasons.extend((self.protection[at] == Protection::Newest).then(|| "newest".into()));
                reasons.extend(capture.pinned.then(|| "pinned".into()));
                reasons.extend(self.last_kinds(captures, at));
                if reasons.is_empty() {
                    reasons.push("within all limits".into());
                }
                reasons
            }
        };
        let keep = !self.condemned.contains_key(&at);
        Verdict { id: capture.id, keep, reasons, disk_bytes: capture.disk_bytes }
    }

    fn words(&self, captures: &Captures, at: usize, why: Reason) -> String {
        let Policy { max_use, keep_free, max_age_ms, max_captures, .. } = self.policy;
        let (shortage, kind) = match why {
            Reason::TooOld { age_ms } => {
                return format!("older than max_age {} ({})", duration(max_age_ms), duration(age_ms));
            }
            Reason::TooMany { count } => {
                return format!("{count} captures, max_captures is {}", max_captures.unwrap_or_default());
            }
            Reason::NoSpace { shortage, kind } => (shortage, kind),
        };
        let shortage = match shortage {
            Shortage::Cap { used, incoming: 0 } => format!("store holds {} of max_use {}", size(used), size(max_use)),
            Shortage::Cap { used, incoming } => {
                format!("store holds {} of max_use {} and {} are to come", size(used), size(max_use), size(incoming))
            }
            Shortage::Disk { free, incoming: 0 } => {
                format!("{} of disk are free, keep_free is {}", size(free), size(keep_free))
            }
            Shortage::Disk { free, incoming } => format!(
                "{} of disk are free, {} are to come, keep_free is {}",
                size(free),
                size(incoming),
                size(keep_free)
            ),
        };
        let verb = if kind == NO_REPORT_KIND { "use" } else { "uses" };
        let although = match self.protection[at] {
            Protection::LastOfKind => self.last_kinds(captures, at).map(|last| format!("; although {last}")),
            Protection::Pinned => Some("; although pinned".into()),
            Protection::Unprotected | Protection::Newest => None,
        };
        format!("{shortage}; {} {verb} most{}", captures.names[kind as usize], although.unwrap_or_default())
    }

    fn last_kinds(&self, captures: &Captures, at: usize) -> Option<String> {
        let mut kinds: Vec<&str> =
            self.last_of.get(&at)?.iter().map(|k| captures.names[*k as usize].as_str()).collect();
        kinds.sort_unstable();
        let kinds = kinds.join(", ");
        Some(match self.policy.keep_last {
            1 => format!("last {kinds}"),
            n => format!("among the last {n} with {kinds}"),
        })
    }
}

/// The level of protection, lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Protection {
    Unprotected,
    LastOfKind,
    Pinned,
    Newest,
}

/// The reason for a deletion.
#[derive(Clone, Copy, Debug)]
enum Reason {
    TooOld {
        age_ms: u64,
    },
    TooMany {
        count: usize,
    },
    /// The capture has the kind that uses most.
    NoSpace {
        shortage: Shortage,
        kind: u32,
    },
}

/// The space that is short.
#[derive(Clone, Copy, Debug)]
enum Shortage {
    Cap { used: u64, incoming: u64 },
    Disk { free: u64, incoming: u64 },
}

struct Planner<'a> {
    captures: &'a Captures,
    usage: Usage,
    plan: Plan,
    used: u64,
    freed: u64,
}

impl<'a> Planner<'a> {
    fn new(captures: &'a Captures, policy: Policy, usage: Usage, newest: Option<Id>) -> Self {
        let list = &captures.list;
        let order = captures.in_order();
        let mut counts = vec![0; captures.names.len()];
        let mut last_of = BTreeMap::<usize, Vec<u32>>::new();
        let mut protection = vec![Protection::Unprotected; list.len()];
        for (at, i) in order.iter().enumerate().rev() {
            let capture = &list[*i as usize];
            for share in captures.shares_of(capture).iter().filter(|share| share.kind != NO_REPORT_KIND) {
                let count = &mut counts[share.kind as usize];
                if *count < policy.keep_last {
                    *count += 1;
                    last_of.entry(at).or_default().push(share.kind);
                }
            }
            protection[at] = match (newest == Some(capture.id), capture.pinned, last_of.contains_key(&at)) {
                (true, _, _) => Protection::Newest,
                (_, true, _) => Protection::Pinned,
                (_, _, true) => Protection::LastOfKind,
                _ => Protection::Unprotected,
            };
        }
        let plan = Plan { policy, order, protection, last_of, condemned: BTreeMap::new() };
        Self { captures, usage, plan, used: usage.other_bytes.saturating_add(captures.bytes()), freed: 0 }
    }

    fn capture(&self, at: usize) -> &'a Capture {
        &self.captures.list[self.plan.order[at] as usize]
    }

    fn condemn(&mut self, at: usize, why: Reason) {
        let bytes = self.capture(at).disk_bytes;
        self.plan.condemned.insert(at, why);
        self.used = self.used.saturating_sub(bytes);
        self.freed = self.freed.saturating_add(bytes);
    }

    fn remaining(&self, protection: Protection) -> impl Iterator<Item = usize> + '_ {
        let plan = &self.plan;
        (0..plan.order.len()).filter(move |at| plan.protection[*at] == protection && !plan.condemned.contains_key(at))
    }

    fn by_age(&mut self, now_ms: u64) {
        let age_ms = |planner: &Self, at| now_ms.saturating_sub(planner.capture(at).store_ms);
        let max = self.plan.policy.max_age_ms;
        let victims: Vec<usize> =
            self.remaining(Protection::Unprotected).filter(|at| age_ms(self, *at) > max).collect();
        for at in victims {
            self.condemn(at, Reason::TooOld { age_ms: age_ms(self, at) });
        }
    }

    fn by_count(&mut self) {
        let Some(max) = self.plan.policy.max_captures else { return };
        let omitted = usize::try_from(self.captures.omitted.0).unwrap_or(usize::MAX);
        let count = (self.plan.order.len() - self.plan.condemned.len()).saturating_add(omitted);
        let excess = count.saturating_sub(max as usize);
        let victims: Vec<usize> = self.remaining(Protection::Unprotected).take(excess).collect();
        for at in victims {
            self.condemn(at, Reason::TooMany { count });
        }
    }

    fn by_size(&mut self, pressure: Pressure) {
        let yielding: &[Protection] = match pressure {
            Pressure::Routine => &[Protection::Unprotected, Protection::LastOfKind, Protection::Pinned],
            Pressure::Admission => &[Protection::Unprotected],
        };
        let incoming_may_take: &[Protection] = match pressure {
            Pressure::Routine => &[Protection::Unprotected],
            Pressure::Admission => yielding,
        };
        let max = self.plan.policy.max_use;
        if self.usage.other_bytes > max {
            return;
        }
        let deletable = self.deletable(incoming_may_take);
        let fits = self.used.saturating_sub(deletable).saturating_add(self.usage.incoming) <= max;
        for protection in yielding {
            let incoming = if fits && incoming_may_take.contains(protection) { self.usage.incoming } else { 0 };
            let staged = if *protection == Protection::Unprotected { 0 } else { self.usage.staged };
            self.shrink(*protection, |planner| {
                let used = planner.used.saturating_sub(staged);
                (used.saturating_add(incoming) > max).then_some(Shortage::Cap { used, incoming })
            });
        }
    }

    fn by_free_space(&mut self) {
        let free = |planner: &Self| planner.usage.free_disk.saturating_add(planner.freed);
        let keep_free = self.plan.policy.keep_free;
        let reachable = free(self).saturating_add(self.deletable(&[Protection::Unprotected]));
        // Where keep_free is out of reach, something else fills the disk. The application needs every byte then, and the newest
        // evidence is protected (docs/decisions).
        let wanted = keep_free.saturating_add(self.usage.incoming);
        let wanted = if reachable < wanted { keep_free } else { wanted };
        self.shrink(Protection::Unprotected, |planner| {
            let free = free(planner);
            (free < wanted).then_some(Shortage::Disk { free, incoming: wanted - keep_free })
        });
    }

    fn deletable(&self, protections: &[Protection]) -> u64 {
        protections
            .iter()
            .flat_map(|protection| self.remaining(*protection))
            .fold(0, |sum, at| sum.saturating_add(self.capture(at).disk_bytes))
    }

    // Deletes captures of one protection while `shortage_of` returns a shortage.
    fn shrink(&mut self, protection: Protection, shortage_of: impl Fn(&Self) -> Option<Shortage>) {
        if shortage_of(self).is_none() {
            return;
        }
        let mut pool = Pool::of(self.captures);
        for at in self.remaining(protection) {
            pool.add(at, self.captures.shares_of(self.capture(at)));
        }
        while let Some(shortage) = shortage_of(self) {
            let Some((at, kind)) = pool.take(|at| self.captures.shares_of(self.capture(at))) else { return };
            self.condemn(at, Reason::NoSpace { shortage, kind });
        }
    }
}

/// Candidates by kind. A capture is in the queue of each of its kinds, and is skipped if another queue has already returned it.
/// Emptying the pool therefore takes time in proportion to its size.
struct Pool<'a> {
    names: &'a [String],
    kinds: BTreeMap<u32, Queue>,
    taken: BTreeSet<usize>,
}

#[derive(Default)]
struct Queue {
    bytes: u64,
    oldest_first: VecDeque<u32>,
}

impl<'a> Pool<'a> {
    fn of(captures: &'a Captures) -> Self {
        Self { names: &captures.names, kinds: BTreeMap::new(), taken: BTreeSet::new() }
    }

    fn add(&mut self, at: usize, shares: &[Share]) {
        for share in shares {
            let queue = self.kinds.entry(share.kind).or_default();
            queue.bytes = queue.bytes.saturating_add(share.bytes);
            queue.oldest_first.push_back(at as u32);
        }
    }

    // Takes the oldest capture of the kind that uses most. Equal kinds are ordered by name.
    fn take(&mut self, shares_of: impl Fn(usize) -> &'a [Share]) -> Option<(usize, u32)> {
        loop {
            let name = |kind: u32| &self.names[kind as usize];
            let more = |(a, p): &(&u32, &Queue), (b, q): &(&u32, &Queue)| {
                p.bytes.cmp(&q.bytes).then_with(|| name(**b).cmp(name(**a)))
            };
            let kind = *self.kinds.iter().max_by(more)?.0;
            let queue = self.kinds.get_mut(&kind)?;
            let Some(at) = queue.oldest_first.pop_front().map(|at| at as usize) else {
                self.kinds.remove(&kind);
                continue;
            };
            if !self.taken.insert(at) {
                continue;
            }
            for share in shares_of(at) {
                if let Some(queue) = self.kinds.get_mut(&share.kind) {
                    queue.bytes = queue.bytes.saturating_sub(share.bytes);
                }
            }
            return Some((at, kind));
        }
    }
}

#[cfg(test)]
mod tests;
