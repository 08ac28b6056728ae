//! The verdict: one cause or none, with its confidence, in one sentence.

use serde::Serialize;

use super::account::{Account, Part};
use super::cause::{self, Candidate, Cause};
use super::evidence::Evidence;
use super::family::Family;
use super::objects::Objects;
use crate::units::size;

/// Growth over less than this says nothing, milliseconds.
const SHORT_MS: u64 = 10_000;

/// The confidence in a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// No cause is named.
    None,
    /// More than a tenth is unknown, but less than what the cause explains.
    Low,
    /// The figures add up; the cause explains less than half, or an estimate is among them.
    Medium,
    /// The figures add up, and the cause explains half of them or more.
    High,
}

/// The answer to "why is this process so large?".
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The cause, if one can be named.
    pub cause: Option<Cause>,
    /// The memory that it explains, bytes.
    pub bytes: u64,
    /// The memory that no figure explains, bytes.
    pub unknown_bytes: u64,
    /// The confidence.
    pub confidence: Confidence,
    /// The verdict in one sentence.
    pub sentence: String,
    /// The figures that support it.
    pub because: Vec<String>,
    /// The step that would raise the confidence.
    pub wanted: Vec<String>,
}

impl Confidence {
    /// Returns the word for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// Judges the account.
pub fn judge(evidence: &Evidence, account: &Account) -> Verdict {
    let candidates = cause::candidates(evidence, account);
    let named = candidates.first().copied().filter(|first| stands_out(*first, &candidates, account));
    let confidence = named.map_or(Confidence::None, |named| confidence(named, account));
    let sentence = named.map_or_else(|| undetermined(account), |named| sentence(named, evidence, account));
    Verdict {
        cause: named.map(|named| named.cause),
        bytes: named.map_or(0, |named| named.bytes),
        unknown_bytes: account.bytes(Part::Unknown),
        confidence,
        sentence,
        because: named.map(|named| because(named.cause, evidence)).unwrap_or_default(),
        wanted: if confidence == Confidence::High { Vec::new() } else { wanted(named, evidence, account) },
    }
}

// The unknown part could belong to the next cause. Then neither is named.
fn stands_out(first: Candidate, all: &[Candidate], account: &Account) -> bool {
    let second = all
        .iter()
        .skip(1)
        .filter(|other| other.cause != Cause::RetainedObjects || first.cause != Cause::CopyOnWriteLost);
    let next = second.map(|other| other.bytes).max().unwrap_or(0);
    let undivided = account.bytes(Part::Allocated);
    let unsure = if account.adds_up() { 0 } else { account.unexplained() };
    first.cause == Cause::TooManyProcesses || first.bytes > next.max(undivided) + unsure
}

fn confidence(named: Candidate, account: &Account) -> Confidence {
    match (account.adds_up(), named.estimated) {
        (false, _) => Confidence::Low,
        // It is what remains: an object whose native memory nobody knows may hold it.
        (true, _) if named.cause == Cause::NativeWithoutObject => Confidence::Medium,
        (true, false) if account.percent(named.bytes) >= 50 => Confidence::High,
        (true, _) => Confidence::Medium,
    }
}

fn sentence(named: Candidate, evidence: &Evidence, account: &Account) -> String {
    let share = format!("{} of {} ({}%)", size(named.bytes), size(account.rss), account.percent(named.bytes));
    match named.cause {
        Cause::RetainedObjects => format!("Live Ruby objects: {share}."),
        Cause::FreeSlots => {
            format!("Free slots of Ruby's heap: {share}. A burst of objects is gone, and its slots were left.")
        }
        Cause::Fragmentation => {
            let allocator = evidence.allocator.map_or("the allocator", |allocator| allocator.kind.name());
            format!("Fragmentation: {share} is free memory that {allocator} keeps.")
        }
        Cause::NativeBehindObjects => {
            let holder = evidence.objects.as_ref().and_then(|objects| objects.holders().into_iter().next());
            let holder = holder.map_or_else(String::new, |h| format!(", behind {} {}", h.count, h.class));
            format!("Native memory behind Ruby objects: {share}{holder}.")
        }
        Cause::NativeWithoutObject => format!("Native memory that no Ruby object accounts for: {share}."),
        Cause::Stacks => format!("Stacks of threads and fibers: {share}."),
        Cause::MappedFiles => format!("Mapped files: {share}."),
        Cause::CopyOnWriteLost => {
            format!("Copy-on-write lost: {share} was shared with the parent and is private by now.")
        }
        Cause::TooManyProcesses => {
            let limit = evidence.limit.map_or(0, |limit| limit.bytes);
            let workers = evidence.family.as_ref().map_or(0, Family::workers);
            let whose = if evidence.limit.is_some_and(|limit| limit.of_cgroup) { "limit" } else { "machine" };
            format!(
                "The number of processes: {workers} of about {} use {} of the {} of the {whose}.",
                size(account.rss),
                size(named.bytes),
                size(limit)
            )
        }
    }
}

fn undetermined(account: &Account) -> String {
    let undivided = account.bytes(Part::Allocated);
    let unexplained = account.unexplained();
    if undivided * 5 >= account.rss * 2 {
        let undivided = size(undivided);
        return format!(
            "Not determined: {undivided} was allocated for Ruby objects or by native code, and nothing tells which."
        );
    }
    if !account.adds_up() {
        let share = format!("{} of {} ({}%)", size(unexplained), size(account.rss), account.percent(unexplained));
        return match account.excess > account.bytes(Part::Unknown) {
            true => format!("Not determined: the figures exceed the resident memory by {share}."),
            false => format!("Not determined: {share} is unknown."),
        };
    }
    "Nothing stands out: no part takes both 40% of the memory and 32 MiB.".into()
}

fn because(cause: Cause, evidence: &Evidence) -> Vec<String> {
    let mut reasons = Vec::new();
    match cause {
        Cause::RetainedObjects => {
            if let Some(slots) = &evidence.slots {
                let percent = slots.old_count.saturating_mul(100) / slots.live_count.max(1);
                reasons
                    .push(format!("{percent}% of the {} live objects survived several collections", slots.live_count));
            }
            if let Some((class, count, bytes)) = evidence.objects.as_ref().and_then(|objects| objects.largest()) {
                reasons.push(format!("the largest class is {class}: {count} objects, {}", size(bytes)));
            }
        }
        Cause::FreeSlots => {
            if let Some(slots) = &evidence.slots {
                reasons.push(format!("{} slots are free, {} are in use", slots.free_count, slots.live_count));
            }
        }
        Cause::Fragmentation => {
            if let Some(allocator) = &evidence.allocator {
                let (allocated, kept) = (size(allocator.allocated), size(allocator.kept));
                let arenas =
                    if allocator.arenas > 0 { format!(" in {} arenas", allocator.arenas) } else { String::new() };
                reasons.push(format!("{allocated} is allocated, {kept} is free{arenas}"));
            }
        }
        Cause::NativeBehindObjects | Cause::NativeWithoutObject => {
            for holder in evidence.objects.iter().flat_map(Objects::holders).take(3) {
                let estimate = size(holder.bytes);
                reasons.push(format!("{} {} keep about {estimate} by estimate", holder.count, holder.class));
            }
            if cause == Cause::NativeWithoutObject {
                reasons.push("no class that is known to keep native memory explains half of it".into());
            }
        }
        Cause::CopyOnWriteLost => {
            if let Some(lost) = cause::lost(evidence) {
                let (inherited, shared) = (size(lost.inherited), size(lost.shared));
                reasons.push(format!("the parent has {inherited} of anonymous memory; {shared} of it is still shared"));
            }
        }
        Cause::TooManyProcesses => {
            if let Some(family) = &evidence.family {
                reasons.push(format!("the median of {} workers is {}", family.workers(), size(family.median())));
            }
        }
        Cause::Stacks | Cause::MappedFiles => {}
    }
    if let Some(growth) = evidence.growth.filter(|growth| growth.over_ms >= SHORT_MS) {
        let over = crate::units::duration(growth.over_ms);
        reasons.push(format!("RSS went from {} to {} in {over}", size(growth.first), size(growth.last)));
    }
    reasons
}

fn wanted(named: Option<Candidate>, evidence: &Evidence, account: &Account) -> Vec<String> {
    let mut wanted = Vec::new();
    let missing = evidence.missing();
    for (report, gap) in [
        ("smaps", "which anonymous memory is stacks or compiled code"),
        ("gc_stat", "the slots of Ruby's heap"),
        ("jemalloc_stats", "what the allocator handed out and what it keeps"),
        ("malloc_info", "what the allocator handed out and what it keeps"),
        ("object_counts", "the memory behind Ruby objects, and so what is native"),
        ("siblings", "the other processes, and what is shared with them"),
    ] {
        if missing.contains(&report) {
            wanted.push(format!("{report}: {gap}"));
        }
    }
    if named.is_some_and(|named| named.cause == Cause::NativeBehindObjects) {
        wanted.push("a later capture: `compare` shows if the objects and the memory grow together".into());
    }
    if named.is_some_and(|named| named.cause == Cause::NativeWithoutObject) {
        wanted.push(
            "a later capture: `compare` shows if a class that diagctl does not know grows with the memory".into(),
        );
    }
    if named.is_some_and(|named| named.cause == Cause::RetainedObjects) && cause::is_young(evidence) {
        wanted.push("a capture after more collections: objects that were not swept yet count as live".into());
    }
    if evidence.is_complete() && account.bytes(Part::Unknown) > account.rss / 10 {
        wanted.push(
            "the mappings of the process: what a library mapped itself is known neither to Ruby nor to the allocator"
                .into(),
        );
    }
    if account.excess > account.rss / 10 {
        wanted.push(
            "a capture while the process is idle: it changed between two reports, or never wrote to what it allocated"
                .into(),
        );
    }
    if let Some(swap) = evidence.mappings.as_ref().map(|mappings| mappings.swap).filter(|swap| *swap > account.rss / 10)
    {
        wanted.push(format!("{} is swapped out and in none of these figures", size(swap)));
    }
    wanted
}
