//! The resident memory of a process, divided into parts that add up to it.
//!
//! Mappings say what is resident, Ruby and the allocator say what it is for. Slots lie outside the allocator (see `gc_stat`), so
//! anonymous memory is slots, what the allocator has, stacks, compiled code, and the rest, which stays unknown.

use serde::Serialize;

use super::evidence::Evidence;
use super::smaps::Uses;
use crate::units::size;

/// A part of the resident memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Live objects: their slots, and the memory behind them if that is known.
    LiveObjects,
    /// Free slots of Ruby's heap.
    FreeSlots,
    /// Handed out by the allocator, to Ruby objects or to native code. Only where nothing tells them apart.
    Allocated,
    /// Handed out by the allocator, and not reported by any Ruby object.
    Native,
    /// Free memory that the allocator keeps, and its own records.
    AllocatorFree,
    /// Stacks of threads and fibers.
    Stacks,
    /// Compiled code, of a JIT for example.
    Code,
    /// Mapped files: the program and its libraries.
    Files,
    /// Resident memory that no figure explains.
    Unknown,
}

/// One part with its size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The part.
    pub part: Part,
    /// Bytes.
    pub bytes: u64,
    /// The figures behind the size, for people.
    pub detail: String,
}

/// The resident memory of a process by part. Sizes are in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Resident set.
    pub rss: u64,
    /// The parts that are not empty. They add up to `rss` plus `excess`.
    pub lines: Vec<Line>,
    /// The excess of the parts over the resident set: memory that was handed out and never written, or a process that changed between
    /// two reports.
    pub excess: u64,
}

impl Part {
    /// Returns the name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::LiveObjects => "live Ruby objects",
            Self::FreeSlots => "free Ruby slots",
            Self::Allocated => "allocated, undivided",
            Self::Native => "native memory",
            Self::AllocatorFree => "kept by the allocator",
            Self::Stacks => "stacks",
            Self::Code => "compiled code",
            Self::Files => "mapped files",
            Self::Unknown => "unknown",
        }
    }
}

/// The size of Ruby's smallest slot, bytes.
const SMALLEST_SLOT: u64 = 40;

impl Account {
    /// Divides the resident set. `None` if nothing says how large it is.
    pub fn of(evidence: &Evidence) -> Option<Self> {
        let mappings = evidence.mappings.as_ref()?;
        let uses = mappings.uses.unwrap_or(Uses { files: mappings.files(), ..Uses::default() });
        let mut account = Self { rss: mappings.rss, ..Self::default() };
        // The transient heap holds the content of objects. Ruby maps it itself.
        let mut left = mappings.rss.saturating_sub(uses.files + uses.stacks + uses.code);
        account.slots_and_allocated(evidence, &uses, &mut left);
        account.add(Part::Stacks, uses.stacks, format!("{} of threads and fibers", uses.stack_count));
        account.add(Part::Code, uses.code, String::new());
        account.add(Part::Files, uses.files, "the program and its libraries".into());
        account.add(Part::Unknown, left, unexplained(evidence));
        Some(account)
    }

    fn slots_and_allocated(&mut self, evidence: &Evidence, uses: &Uses, left: &mut u64) {
        let (slots, objects) = (evidence.slots.as_ref(), evidence.objects.as_ref());
        let Some(allocator) = &evidence.allocator else {
            if let Some(slots) = slots {
                self.add(Part::LiveObjects, slots.live, format!("{} slots, not what is behind", slots.live_count));
                self.add(Part::FreeSlots, slots.free(), format!("{} slots", slots.free_count));
                self.take(left, slots.pages);
            }
            return;
        };
        let allocated = allocator.allocated + uses.transient;
        let name = allocator.kind.name();
        match (slots, objects) {
            (Some(slots), Some(objects)) => {
                let behind = objects.behind(slots.live_count, slots.live).min(allocated);
                let detail = format!("{} slots, {} behind", size(slots.live), size(behind));
                self.add(Part::LiveObjects, slots.live + behind, detail);
                self.add(Part::Native, allocated - behind, format!("from {name}, in no object's size"));
            }
            (Some(slots), None) => {
                self.add(Part::LiveObjects, slots.live, format!("{} slots, not what is behind", slots.live_count));
                self.add(Part::Allocated, allocated, format!("from {name}"));
            }
            // The sizes of objects include the memory behind them: at most what slots of the smallest size leave.
            (None, Some(objects)) => {
                let slots = objects.count.saturating_mul(SMALLEST_SLOT).min(objects.size);
                let behind = (objects.size - slots).min(allocated);
                let detail = format!("by {}, at least {} of it slots", objects.source, size(slots));
                self.add(Part::LiveObjects, slots + behind, detail);
                self.add(Part::Native, allocated - behind, format!("from {name}, in no object's size"));
                self.take(left, slots);
            }
            (None, None) => self.add(Part::Allocated, allocated, format!("from {name}")),
        }
        if let Some(slots) = slots {
            self.add(Part::FreeSlots, slots.free(), format!("{} slots", slots.free_count));
            self.take(left, slots.pages);
        }
        self.take(left, allocated);
        // Free memory is resident only as far as there is resident memory left: what was returned to the kernel is not.
        let kept = allocator.kept.min(*left);
        self.take(left, kept);
        self.add(Part::AllocatorFree, kept, format!("free in {name}, or its records"));
    }

    fn add(&mut self, part: Part, bytes: u64, detail: String) {
        if bytes > 0 {
            self.lines.push(Line { part, bytes, detail });
            self.lines.sort_by_key(|line| line.part);
        }
    }

    // Takes bytes from what is left of the resident set. What is not there was never written.
    fn take(&mut self, left: &mut u64, bytes: u64) {
        self.excess += bytes.saturating_sub(*left);
        *left = left.saturating_sub(bytes);
    }

    /// Returns the size of a part, 0 if it is empty.
    pub fn bytes(&self, part: Part) -> u64 {
        self.lines.iter().find(|line| line.part == part).map_or(0, |line| line.bytes)
    }

    /// Returns the share of the resident set, in percent.
    pub fn percent(&self, bytes: u64) -> u64 {
        let percent = (u128::from(bytes) * 100 + u128::from(self.rss) / 2) / u128::from(self.rss.max(1));
        u64::try_from(percent).unwrap_or(u64::MAX)
    }

    /// Returns what the parts do not explain, in either direction.
    pub fn unexplained(&self) -> u64 {
        self.bytes(Part::Unknown).max(self.excess)
    }

    /// Returns true if the parts add up to the resident set within a tenth.
    pub fn adds_up(&self) -> bool {
        self.unexplained() <= self.rss / 10
    }
}

fn unexplained(evidence: &Evidence) -> String {
    match (&evidence.allocator, &evidence.slots) {
        (None, None) => "no gc_stat, no allocator statistics".into(),
        (None, Some(_)) => "no allocator statistics".into(),
        (Some(_), None) => "no gc_stat".into(),
        (Some(_), Some(_)) => "not of Ruby, not of the allocator".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::allocator::{Allocator, Kind};
    use super::super::gc_stat::Slots;
    use super::super::objects::Objects;
    use super::super::smaps::Mappings;
    use super::*;

    const MIB: u64 = 1 << 20;

    fn mappings(rss: u64, files: u64, stacks: u64) -> Mappings {
        let uses = Uses { files, stacks, other: rss - files - stacks, ..Uses::default() };
        Mappings { rss, anonymous: rss - files, uses: Some(uses), ..Mappings::default() }
    }

    fn evidence(rss: u64, slots: Option<(u64, u64)>, allocator: Option<(u64, u64)>, size: Option<u64>) -> Evidence {
        let slots = slots.map(|(pages, live)| Slots { pages, live, live_count: live / 40, ..Slots::default() });
        let allocator =
            allocator.map(|(allocated, kept)| Allocator { kind: Kind::Glibc, allocated, kept, dirty: 0, arenas: 1 });
        let count = slots.as_ref().map_or(5 * MIB / 40, |slots| slots.live_count);
        let objects = size.map(|size| Objects { source: "object_counts", count, size, ..Objects::default() });
        let mappings = Some(mappings(rss, 10 * MIB, MIB));
        Evidence { mappings, slots, allocator, objects, ..Evidence::default() }
    }

    #[test]
    fn the_parts_add_up_to_the_resident_set() {
        use Part::{Allocated, AllocatorFree, Files, FreeSlots, LiveObjects, Native, Stacks, Unknown};
        let m = |mib: u64| mib * MIB;
        // (resident, (pages, live), (allocated, kept), size of the objects) → parts in MiB, and the excess
        type Row = (u64, Option<(u64, u64)>, Option<(u64, u64)>, Option<u64>, &'static [(Part, u64)], u64);
        let table: [Row; 8] = [
            (
                111,
                Some((m(30), m(20))),
                Some((m(60), m(50))),
                Some(m(70)),
                &[(LiveObjects, 70), (FreeSlots, 10), (Native, 10), (AllocatorFree, 10), (Stacks, 1), (Files, 10)],
                0,
            ),
            // The allocator has less than is resident.
            (
                111,
                Some((m(30), m(20))),
                Some((m(40), m(5))),
                Some(m(30)),
                &[
                    (LiveObjects, 30),
                    (FreeSlots, 10),
                    (Native, 30),
                    (AllocatorFree, 5),
                    (Stacks, 1),
                    (Files, 10),
                    (Unknown, 25),
                ],
                0,
            ),
            // Handed out, never written.
            (
                51,
                Some((m(10), m(10))),
                Some((m(40), m(3))),
                Some(m(20)),
                &[(LiveObjects, 20), (Native, 30), (Stacks, 1), (Files, 10)],
                10,
            ),
            (
                51,
                Some((m(10), m(10))),
                Some((m(30), m(3))),
                None,
                &[(LiveObjects, 10), (Allocated, 30), (Stacks, 1), (Files, 10)],
                0,
            ),
            (
                51,
                None,
                Some((m(30), m(3))),
                None,
                &[(Allocated, 30), (AllocatorFree, 3), (Stacks, 1), (Files, 10), (Unknown, 7)],
                0,
            ),
            (
                51,
                Some((m(10), m(9))),
                None,
                None,
                &[(LiveObjects, 9), (FreeSlots, 1), (Stacks, 1), (Files, 10), (Unknown, 30)],
                0,
            ),
            // Five of the objects' 20 are slots at least.
            (
                51,
                None,
                Some((m(30), m(3))),
                Some(m(20)),
                &[(LiveObjects, 20), (Native, 15), (AllocatorFree, 3), (Stacks, 1), (Files, 10), (Unknown, 2)],
                0,
            ),
            (51, None, None, None, &[(Stacks, 1), (Files, 10), (Unknown, 40)], 0),
        ];
        for (rss, slots, allocator, objects, parts, excess) in table {
            let account = Account::of(&evidence(m(rss), slots, allocator, objects)).unwrap();
            let found: Vec<(Part, u64)> = account.lines.iter().map(|line| (line.part, line.bytes / MIB)).collect();
            assert_eq!((found.as_slice(), account.excess / MIB), (parts, excess), "{account:?}");
            let sum: u64 = account.lines.iter().map(|line| line.bytes).sum();
            assert_eq!(sum, account.rss + account.excess, "{account:?}");
        }
    }

    #[test]
    fn nothing_is_said_without_a_resident_set() {
        assert_eq!(Account::of(&Evidence::default()), None);
    }

    #[test]
    fn a_tenth_may_stay_unexplained() {
        let account = |unknown: u64, excess: u64| Account {
            rss: 1000,
            lines: vec![Line { part: Part::Unknown, bytes: unknown, detail: String::new() }],
            excess,
        };
        assert!(account(100, 0).adds_up() && account(0, 100).adds_up());
        assert!(!account(101, 0).adds_up() && !account(0, 101).adds_up());
        assert_eq!((account(0, 0).percent(355), account(0, 0).percent(354)), (36, 35));
    }
}
