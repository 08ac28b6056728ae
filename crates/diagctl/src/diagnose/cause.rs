//! The causes that can be named, and the memory that each explains.

use std::cmp::Reverse;

use serde::Serialize;

use super::account::{Account, Part};
use super::evidence::Evidence;
use super::family::Family;
use super::objects::Objects;

/// A cause must explain at least this share of the resident set, percent.
const SHARE: u64 = 40;

/// Less than this is not worth naming, bytes. Ruby itself takes as much.
const FLOOR: u64 = 32 << 20;

/// All processes together must use this share of the limit before their number is the cause, percent.
const CROWDED: u64 = 70;

/// At least this many workers can be too many.
const CROWD: usize = 3;

/// The reason why a process, or all of them together, is large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Ruby objects that are alive.
    RetainedObjects,
    /// Free slots: a burst of objects that are gone.
    FreeSlots,
    /// Free memory that the allocator cannot return.
    Fragmentation,
    /// Native memory that objects of a known class keep.
    NativeBehindObjects,
    /// Native memory that no object accounts for.
    NativeWithoutObject,
    /// Stacks of threads or fibers.
    Stacks,
    /// Mapped files.
    MappedFiles,
    /// Pages that a fork shared with its parent and that were written since.
    CopyOnWriteLost,
    /// No process is large, but there are many.
    TooManyProcesses,
}

/// A cause, with the memory that it explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The cause.
    pub cause: Cause,
    /// Bytes.
    pub bytes: u64,
    /// True if the bytes include an estimate.
    pub estimated: bool,
}

/// The pages that a fork does not share any more, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Anonymous memory of the parent.
    pub inherited: u64,
    /// Anonymous memory that is still shared.
    pub shared: u64,
    /// Inherited, and private by now.
    pub lost: u64,
}

/// Returns the causes that are large enough to be named, the one to name first at the head.
pub fn candidates(evidence: &Evidence, account: &Account) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = parts(evidence, account);
    let enough = |candidate: &Candidate| account.percent(candidate.bytes) >= SHARE && candidate.bytes >= FLOOR;
    found.retain(enough);
    found.sort_by_key(|candidate| Reverse(candidate.bytes));
    // These two explain the same bytes a second time: they say why every process has them.
    let lost =
        lost(evidence).map(|lost| Candidate { cause: Cause::CopyOnWriteLost, bytes: lost.lost, estimated: true });
    let wasted = found.first().is_some_and(|first| is_waste(first.cause));
    if let Some(lost) = lost.filter(enough).filter(|_| !wasted) {
        found.insert(0, lost);
    } else if !wasted && is_crowded(evidence, account) {
        let bytes = evidence.family.as_ref().map_or(0, Family::total);
        found.insert(0, Candidate { cause: Cause::TooManyProcesses, bytes, estimated: false });
    }
    found
}

fn parts(evidence: &Evidence, account: &Account) -> Vec<Candidate> {
    let sure = |cause, bytes| Candidate { cause, bytes, estimated: false };
    let native = account.bytes(Part::Native);
    let held: u64 = evidence.objects.iter().flat_map(Objects::holders).map(|holder| holder.bytes).sum();
    // An estimate that covers half of it names the class; anything less proves nothing.
    let native = match held >= native / 2 && native > 0 {
        true => Candidate { cause: Cause::NativeBehindObjects, bytes: native, estimated: true },
        false => sure(Cause::NativeWithoutObject, native),
    };
    // Dirty pages are on their way back.
    let dirty = evidence.allocator.map_or(0, |allocator| allocator.dirty);
    vec![
        Candidate { estimated: is_young(evidence), ..sure(Cause::RetainedObjects, account.bytes(Part::LiveObjects)) },
        sure(Cause::FreeSlots, account.bytes(Part::FreeSlots)),
        sure(Cause::Fragmentation, account.bytes(Part::AllocatorFree).saturating_sub(dirty)),
        native,
        sure(Cause::Stacks, account.bytes(Part::Stacks)),
        sure(Cause::MappedFiles, account.bytes(Part::Files)),
    ]
}

/// Returns true if most objects have not survived several collections yet. Many of them can be garbage that was not swept.
pub fn is_young(evidence: &Evidence) -> bool {
    evidence.slots.as_ref().is_some_and(|slots| slots.old_count < slots.live_count / 2)
}

fn is_waste(cause: Cause) -> bool {
    !matches!(cause, Cause::RetainedObjects | Cause::MappedFiles)
}

/// Returns how much of what a fork inherited is private by now. `None` if it is not proven to be a fork, or has forks itself,
/// whose shared pages would count as those of the parent.
pub fn lost(evidence: &Evidence) -> Option<Lost> {
    let (mappings, family) = (evidence.mappings.as_ref()?, evidence.family.as_ref()?);
    let inherited = family.forked_from()?.anonymous?;
    if family.has_forks_of_its_own() {
        return None;
    }
    let shared = mappings.shared_anonymous;
    let lost = inherited.min(mappings.anonymous).saturating_sub(shared);
    (lost >= inherited / 2).then_some(Lost { inherited, shared, lost })
}

// Every process is about as large as the others and as at its start, and together they fill the limit.
fn is_crowded(evidence: &Evidence, account: &Account) -> bool {
    let (Some(family), Some(limit)) = (&evidence.family, &evidence.limit) else { return false };
    let full = u128::from(family.total()) * 100 >= u128::from(limit.bytes) * u128::from(CROWDED);
    let ordinary = account.rss <= family.median().saturating_mul(3) / 2;
    let grown = evidence.growth.is_some_and(|growth| growth.is_large());
    family.workers() >= CROWD && full && ordinary && !grown
}
