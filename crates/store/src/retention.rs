//! Decides which captures are kept. The planner is pure: it takes captures, a policy and usage figures, and returns a plan with a
//! verdict and reasons for each capture.
//!
//! Captures are deleted for age, count, size (`max_use`, which counts everything in the store) and free space (`keep_free`). For
//! size and free space, the next capture to go is the oldest one that has the kind of report which uses most. The newest capture,
//! pinned captures and the last `keep_last` of each kind are protected. Only the hard cap overrides protection, and never that of
//! the newest capture.
//!
//! For count, size and free space, captures that the remote has confirmed go before any other of the same protection.
//!
//! A capture that would not fit in any case costs no other capture its place. Neither do other files in the store that exceed the
//! cap by themselves, for example one that a command is just writing: deletions could not help. What is being staged never costs a
//! protected capture its place, because it may still be given up.
//!
//! A store may hold a hundred thousand captures, and `put` plans beside a worker that needs its memory. So captures are packed, a
//! plan holds numbers, and verdicts are worded on demand.

mod captures;
mod planner;

use std::collections::BTreeMap;

pub use captures::Captures;
use captures::NO_REPORT_KIND;
use planner::Planner;

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
    /// Captures are shipped, so those that the remote has go before older ones that it has not.
    pub ships: bool,
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

/// How much a plan may delete to make room.
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
    /// The limit that deletes it, for programs: `age`, `count`, `use` or `space`.
    pub cause: Option<&'static str>,
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
    /// Then omitted captures, all newer than these in sequence and in time, could not have changed a plan for age and count.
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
        let cause = self.condemned.get(&at).map(|why| why.cause());
        Verdict { id: capture.id, keep: cause.is_none(), reasons, cause, disk_bytes: capture.disk_bytes }
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

impl Reason {
    fn cause(self) -> &'static str {
        match self {
            Self::TooOld { .. } => "age",
            Self::TooMany { .. } => "count",
            Self::NoSpace { shortage: Shortage::Cap { .. }, .. } => "use",
            Self::NoSpace { shortage: Shortage::Disk { .. }, .. } => "space",
        }
    }
}

/// The space that is short.
#[derive(Clone, Copy, Debug)]
enum Shortage {
    Cap { used: u64, incoming: u64 },
    Disk { free: u64, incoming: u64 },
}

#[cfg(test)]
mod tests;
