//! Condemns captures, one limit after another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::captures::{Capture, Captures, NO_REPORT_KIND, Share};
use super::{Plan, Policy, Pressure, Protection, Reason, Shortage, Usage};
use crate::id::Id;

pub(super) struct Planner<'a> {
    captures: &'a Captures,
    usage: Usage,
    pub(super) plan: Plan,
    used: u64,
    freed: u64,
}

impl<'a> Planner<'a> {
    pub(super) fn new(captures: &'a Captures, policy: Policy, usage: Usage, newest: Option<Id>) -> Self {
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

    pub(super) fn by_age(&mut self, now_ms: u64) {
        let age_ms = |planner: &Self, at| now_ms.saturating_sub(planner.capture(at).store_ms);
        let max = self.plan.policy.max_age_ms;
        let victims: Vec<usize> =
            self.remaining(Protection::Unprotected).filter(|at| age_ms(self, *at) > max).collect();
        for at in victims {
            self.condemn(at, Reason::TooOld { age_ms: age_ms(self, at) });
        }
    }

    pub(super) fn by_count(&mut self) {
        let Some(max) = self.plan.policy.max_captures else { return };
        let omitted = usize::try_from(self.captures.omitted.0).unwrap_or(usize::MAX);
        let count = (self.plan.order.len() - self.plan.condemned.len()).saturating_add(omitted);
        let excess = count.saturating_sub(max as usize);
        let mut victims: Vec<usize> = self.remaining(Protection::Unprotected).collect();
        // Oldest first among each.
        victims.sort_by_key(|at| !self.capture(*at).shipped);
        for at in victims.into_iter().take(excess) {
            self.condemn(at, Reason::TooMany { count });
        }
    }

    pub(super) fn by_size(&mut self, pressure: Pressure) {
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

    pub(super) fn by_free_space(&mut self) {
        let free = |planner: &Self| planner.usage.free_disk.saturating_add(planner.freed);
        let keep_free = self.plan.policy.keep_free;
        let reachable = free(self).saturating_add(self.deletable(&[Protection::Unprotected]));
        // If keep_free is out of reach, something else fills the disk. The application needs every byte then, and the newest
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

    // Deletes captures of one protection while `shortage_of` returns a shortage. Those that the remote has go first.
    fn shrink(&mut self, protection: Protection, shortage_of: impl Fn(&Self) -> Option<Shortage>) {
        self.shrink_among(protection, true, &shortage_of);
        self.shrink_among(protection, false, &shortage_of);
    }

    fn shrink_among(&mut self, of: Protection, shipped: bool, shortage_of: &impl Fn(&Self) -> Option<Shortage>) {
        if shortage_of(self).is_none() {
            return;
        }
        let mut pool = Pool::of(self.captures);
        for at in self.remaining(of).filter(|at| self.capture(*at).shipped == shipped) {
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
