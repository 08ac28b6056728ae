//! Tests for the order of deletions, for protection, and for the cap with arbitrary contents of a store.

use super::*;
use crate::ReportName;
use crate::id::Id;
use crate::index::Entry;
use crate::index::EntryReport;

const DAY: u64 = 86_400_000;
const KIB: u64 = 1 << 10;
const HUGE: u64 = 1 << 50;

// `kinds`: `name:stored KiB`, or `name!` for a report that failed. The capture occupies its reports and 8 KiB more.
fn entry(n: u64, store_ms: u64, kinds: &str) -> Entry {
    let reports: Vec<EntryReport> = kinds
        .split_whitespace()
        .map(|kind| match kind.split_once(':') {
            Some((name, kib)) => EntryReport {
                stored_bytes: kib.parse::<u64>().unwrap() * KIB,
                ..EntryReport::new(ReportName::from_text(name))
            },
            None => EntryReport {
                error: Some("failed".into()),
                ..EntryReport::new(ReportName::from_text(kind.trim_end_matches('!')))
            },
        })
        .collect();
    let disk_bytes = 8 * KIB + reports.iter().map(|r| r.stored_bytes).sum::<u64>();
    Entry { id: id(n), sequence: n, store_ms, reports, disk_bytes, ..Entry::default() }
}

fn id(n: u64) -> Id {
    format!("20261122T101530123Z-{n:08x}").parse().unwrap()
}

fn packed(entries: &[Entry]) -> Captures {
    let mut captures = Captures::default();
    entries.iter().for_each(|entry| captures.push(entry));
    captures
}

// Makes a plan and returns all verdicts.
fn plan(
    entries: &[Entry],
    policy: &Policy,
    usage: &Usage,
    pressure: Pressure,
    now_ms: u64,
    newest: Option<Id>,
) -> Vec<Verdict> {
    let captures = packed(entries);
    let plan = super::plan(&captures, policy, usage, pressure, now_ms, newest);
    let verdicts: Vec<Verdict> = plan.verdicts(&captures).collect();
    let deletions: Vec<(usize, Verdict)> = plan.deletions(&captures).collect();
    assert!(deletions.iter().map(|(_, verdict)| verdict).eq(verdicts.iter().filter(|verdict| !verdict.keep)));
    assert!(deletions.iter().all(|(i, verdict)| captures.id(*i) == verdict.id));
    assert!(plan.victims().eq(deletions.iter().map(|(i, _)| *i)));
    // The totals must not rule out a deletion that the plan makes.
    let totals = Totals {
        captures: entries.len() as u64,
        bytes: captures.bytes(),
        oldest_ms: captures.oldest_ms(),
        ..Totals::default()
    };
    assert!(deletions.is_empty() || may_delete(&totals, policy, usage, now_ms));
    verdicts
}

fn lax() -> Policy {
    Policy { max_use: HUGE, keep_free: 0, max_age_ms: 1000 * DAY, keep_last: 0, max_captures: None, ships: false }
}

fn roomy() -> Usage {
    Usage { other_bytes: 0, free_disk: HUGE, incoming: 0, staged: 0 }
}

// The numbers of the deleted captures.
fn deleted(verdicts: &[Verdict]) -> Vec<u64> {
    let number = |verdict: &Verdict| u64::from_str_radix(&verdict.id.as_str()[20..], 16).unwrap();
    verdicts.iter().filter(|v| !v.keep).map(number).collect()
}

fn reason(verdicts: &[Verdict], n: u64) -> &str {
    &verdicts.iter().find(|v| v.id == id(n)).unwrap().reasons[0]
}

#[test]
fn age_spares_protected_and_future_captures() {
    let mut pinned = entry(1, 0, "heap:1");
    pinned.pinned = true;
    let entries = [pinned, entry(2, 0, "heap:1"), entry(3, 0, "heap:1 gc:1"), entry(4, 50 * DAY, "smaps!")];
    let policy = Policy { max_age_ms: 14 * DAY, keep_last: 1, ..lax() };
    let verdicts = plan(&entries, &policy, &roomy(), Pressure::Routine, 15 * DAY + 7_200_000, None);
    assert_eq!(deleted(&verdicts), [2]);
    assert_eq!(reason(&verdicts, 2), "older than max_age 14d (15d 2h)");
    assert_eq!(reason(&verdicts, 1), "pinned");
    assert_eq!(reason(&verdicts, 3), "last gc, heap");
    assert_eq!(reason(&verdicts, 4), "within all limits");
}

#[test]
fn totals_within_all_limits_need_no_plan() {
    let totals = Totals { captures: 3, bytes: 100, oldest_ms: 5, ..Totals::default() };
    let policy =
        Policy { max_use: 150, keep_free: 10, max_age_ms: 20, keep_last: 1, max_captures: Some(3), ships: false };
    let usage = Usage { other_bytes: 30, free_disk: 30, incoming: 20, staged: 0 };
    assert!(!may_delete(&totals, &policy, &usage, 25));
    assert!(may_delete(&totals, &policy, &usage, 26), "one is too old");
    assert!(may_delete(&Totals { captures: 4, ..totals }, &policy, &usage, 25), "too many");
    assert!(may_delete(&Totals { bytes: 101, ..totals }, &policy, &usage, 25), "at the cap with what is to come");
    assert!(may_delete(&totals, &policy, &Usage { free_disk: 29, ..usage }, 25), "too little of the disk is free");
}

#[test]
fn a_partial_plan_knows_whether_more_captures_would_change_it() {
    let entries: Vec<Entry> = (1..=6).map(|n| entry(n, n * DAY, "gc:1")).collect();
    let captures = |omitted| {
        let mut captures = packed(&entries);
        captures.omit(omitted, omitted * KIB);
        captures
    };
    let stays = |omitted, policy: &Policy, now_ms| {
        let captures = captures(omitted);
        let plan = super::plan(&captures, policy, &roomy(), Pressure::Routine, now_ms, None);
        let victims: Vec<usize> = plan.victims().collect();
        (plan.stays_within(4), victims.len())
    };
    let at_most = |max| Policy { max_captures: Some(max), keep_last: 1, ..lax() };
    assert_eq!(stays(100, &at_most(106), 0), (true, 0));
    assert_eq!(stays(100, &at_most(103), 0), (true, 3));
    assert_eq!(stays(100, &at_most(102), 0), (false, 4), "all of the first go");
    assert_eq!(stays(100, &at_most(50), 0), (false, 5));
    let young = Policy { max_age_ms: 2 * DAY, ..lax() };
    assert_eq!(stays(100, &young, 5 * DAY), (true, 2));
    assert_eq!(stays(100, &young, 7 * DAY), (false, 4));
    let small = Policy { max_use: captures(100).bytes() - 1, ..lax() };
    assert_eq!(stays(100, &small, 0), (false, 1), "where it is about room, every kind of all captures counts");
    let plan = super::plan(&captures(100), &at_most(105), &roomy(), Pressure::Routine, 0, None);
    let verdicts: Vec<Verdict> = plan.verdicts(&captures(100)).collect();
    assert_eq!(reason(&verdicts, 1), "106 captures, max_captures is 105");
}

#[test]
fn count_deletes_the_oldest_unprotected_captures() {
    let entries: Vec<Entry> = (1..=5).map(|n| entry(n, 0, if n == 1 { "heap:1" } else { "gc:1" })).collect();
    let policy = Policy { max_captures: Some(3), keep_last: 1, ..lax() };
    let verdicts = plan(&entries, &policy, &roomy(), Pressure::Admission, 0, None);
    assert_eq!(deleted(&verdicts), [2, 3]);
    assert_eq!(reason(&verdicts, 2), "5 captures, max_captures is 3");
}

#[test]
fn the_victim_is_the_oldest_of_the_kind_that_uses_most() {
    // gc is older, heap is larger. After two heap dumps are deleted, gc uses most.
    let entries = [
        entry(1, 0, "gc:60"),
        entry(2, 0, "gc:60"),
        entry(3, 0, "heap:100"),
        entry(4, 0, "heap:100 gc:1"),
        entry(5, 0, "smaps!"),
    ];
    let all: u64 = entries.iter().map(|e| e.disk_bytes).sum();
    let table: &[(u64, &[u64])] = &[
        (all, &[]),
        (all - KIB, &[3]),
        (all - 109 * KIB, &[1, 3]),
        (all - 177 * KIB, &[1, 3, 4]),
        (all - 300 * KIB, &[1, 2, 3, 4]),
        (0, &[1, 2, 3, 4, 5]),
    ];
    for (max_use, expected) in table {
        let policy = Policy { max_use: *max_use, ..lax() };
        let verdicts = plan(&entries, &policy, &roomy(), Pressure::Routine, 0, None);
        assert_eq!(deleted(&verdicts), *expected, "max_use {max_use}");
    }
    let policy = Policy { max_use: 300 * KIB, ..lax() };
    let verdicts = plan(&entries, &policy, &roomy(), Pressure::Routine, 0, None);
    assert_eq!(reason(&verdicts, 3), "store holds 361.0 KiB of max_use 300.0 KiB; heap uses most");
}

#[test]
fn each_pressure_stays_within_its_bounds() {
    let mut pinned = entry(1, 0, "heap:100");
    pinned.pinned = true;
    let entries = [pinned, entry(2, 0, "heap:100"), entry(3, 0, "heap:100"), entry(4, 0, "gc:100")];
    let each = 108 * KIB;
    // (pressure, max_use, other, incoming) → deleted; 3 is the last heap, 4 the last gc and the newest.
    let table: &[(Pressure, u64, u64, u64, &[u64])] = &[
        (Pressure::Routine, 3 * each, 0, 0, &[2]),
        (Pressure::Routine, 3 * each, 1, 0, &[2, 3]),
        (Pressure::Routine, each, 0, 0, &[1, 2, 3]),
        (Pressure::Routine, 1, 0, 0, &[1, 2, 3]),
        (Pressure::Routine, 4 * each, 0, 1, &[2]),
        // Incoming bytes never cost a protected capture its place.
        (Pressure::Routine, 4 * each, 0, each + 1, &[]),
        (Pressure::Admission, 4 * each, 0, each, &[2]),
        (Pressure::Admission, 4 * each, 0, each + 1, &[]),
        (Pressure::Admission, each, 0, 0, &[2]),
        // Other files exceed the cap by themselves.
        (Pressure::Routine, each, each, 0, &[1, 2, 3]),
        (Pressure::Routine, each, each + 1, 0, &[]),
        (Pressure::Admission, each, each + 1, 0, &[]),
        // If the capture would not fit even without all unprotected captures, nothing is deleted.
    ];
    for (pressure, max_use, other_bytes, incoming, expected) in table {
        let policy = Policy { max_use: *max_use, keep_last: 1, ..lax() };
        let usage = Usage { other_bytes: *other_bytes, incoming: *incoming, ..roomy() };
        let verdicts = plan(&entries, &policy, &usage, *pressure, 0, Some(id(4)));
        assert_eq!(deleted(&verdicts), *expected, "{pressure:?} {max_use} {other_bytes} {incoming}");
    }
}

// A command that writes into its capture may exceed the cap for a while, and then fail.
#[test]
fn what_is_being_staged_costs_no_protected_capture_its_place() {
    let mut pinned = entry(1, 0, "heap:100");
    pinned.pinned = true;
    let entries = [pinned, entry(2, 0, "heap:100"), entry(3, 0, "heap:100"), entry(4, 0, "gc:100")];
    let each = 108 * KIB;
    // (staged, other) → deleted. The cap has room for four captures and two more; 3 is the last heap, 4 the newest.
    let table: &[(u64, u64, &[u64])] = &[
        (2 * each, 2 * each, &[]),
        (3 * each, 3 * each, &[2]),
        (6 * each, 6 * each, &[2]),
        (3 * each, 5 * each, &[2]),
        (2 * each, 6 * each, &[2, 3]),
        (0, 6 * each, &[1, 2, 3]),
    ];
    for (staged, other_bytes, expected) in table {
        let policy = Policy { max_use: 6 * each, keep_last: 1, ..lax() };
        let usage = Usage { other_bytes: *other_bytes, staged: *staged, ..roomy() };
        let verdicts = plan(&entries, &policy, &usage, Pressure::Routine, 0, Some(id(4)));
        assert_eq!(deleted(&verdicts), *expected, "{staged} of {other_bytes}");
    }
}

#[test]
fn forced_deletions_name_the_overridden_protection() {
    let mut pinned = entry(1, 0, "heap:100");
    pinned.pinned = true;
    let entries = [pinned, entry(2, 0, "heap:100"), entry(3, 0, "gc:1")];
    let policy = Policy { max_use: KIB, keep_last: 1, ..lax() };
    let verdicts = plan(&entries, &policy, &roomy(), Pressure::Routine, 0, Some(id(3)));
    assert!(reason(&verdicts, 2).ends_with("heap uses most; although last heap"), "{verdicts:?}");
    assert!(reason(&verdicts, 1).ends_with("although pinned"), "{verdicts:?}");
    assert_eq!(reason(&verdicts, 3), "newest");
}

#[test]
fn free_space_never_costs_a_protected_capture() {
    let entries = [entry(1, 0, "heap:100"), entry(2, 0, "heap:100"), entry(3, 0, "heap:100")];
    let each = 108 * KIB;
    let table: &[(u64, u64, &[u64])] = &[
        (10 * each, 0, &[]),
        (10 * each, 1, &[1]),
        (9 * each, 0, &[1]),
        (9 * each, each, &[1, 2]),
        // The incoming bytes do not fit in any case, so only keep_free itself is restored.
        (9 * each, 2 * each, &[1]),
        // Somebody else fills the disk: all unprotected captures are deleted for the application's sake (docs/decisions).
        (0, 0, &[1, 2]),
    ];
    for (free_disk, incoming, expected) in table {
        let policy = Policy { keep_free: 10 * each, keep_last: 1, ..lax() };
        let usage = Usage { free_disk: *free_disk, incoming: *incoming, ..roomy() };
        let verdicts = plan(&entries, &policy, &usage, Pressure::Admission, 0, None);
        assert_eq!(deleted(&verdicts), *expected, "{free_disk} {incoming}");
    }
}

/// xorshift64*, seeded, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n
    }
}

#[test]
fn retention_invariants_hold_for_random_stores() {
    for seed in 1..=4000 {
        let mut random = Random(seed);
        let mut entries: Vec<Entry> = (0..random.below(14))
            .map(|n| {
                let kinds: Vec<String> = (0..random.below(4))
                    .map(|_| {
                        let name = ["heap", "gc", "smaps", "threads"][random.below(4) as usize];
                        if random.below(6) == 0 { format!("{name}!") } else { format!("{name}:{}", random.below(200)) }
                    })
                    .collect();
                let mut entry = entry(n, random.below(40) * DAY, &kinds.join(" "));
                entry.pinned = random.below(4) == 0;
                entry
            })
            .collect();
        let policy = Policy {
            max_use: random.below(1500) * KIB,
            keep_free: random.below(500) * KIB,
            max_age_ms: random.below(30) * DAY,
            keep_last: random.below(3) as u32,
            max_captures: (random.below(2) == 0).then(|| random.below(10) as u32 + 1),
            ships: false,
        };
        let other_bytes = random.below(300) * KIB;
        let usage = Usage {
            other_bytes,
            free_disk: random.below(800) * KIB,
            incoming: if random.below(2) == 0 { 0 } else { random.below(400) * KIB },
            staged: random.below(2) * other_bytes / 2,
        };
        let pressure = [Pressure::Routine, Pressure::Admission][random.below(2) as usize];
        let newest = entries.last().filter(|_| seed % 3 != 0).map(|e| e.id);
        let verdicts = plan(&entries, &policy, &usage, pressure, 30 * DAY, newest);
        let context = format!("seed {seed}: {pressure:?} {policy:?} {usage:?}\n{entries:#?}\n{verdicts:#?}");

        assert_eq!(verdicts.len(), entries.len(), "{context}");
        assert!(verdicts.iter().all(|v| v.reasons.iter().all(|r| !r.is_empty()) && !v.reasons.is_empty()), "{context}");
        let gone = |id: Id| verdicts.iter().any(|v| v.id == id && !v.keep);
        assert!(!newest.is_some_and(gone), "the newest was deleted; {context}");

        let left: u64 = entries.iter().filter(|e| !gone(e.id)).map(|e| e.disk_bytes).sum();
        let used = usage.other_bytes + left;
        let settled = used - usage.staged;
        let only_newest = entries.iter().all(|e| gone(e.id) || Some(e.id) == newest);
        if pressure == Pressure::Routine {
            let is_hopeless = usage.other_bytes > policy.max_use;
            assert!(settled <= policy.max_use || only_newest || is_hopeless, "the cap does not hold; {context}");
        }
        let forced: Vec<&Entry> = entries.iter().filter(|e| e.pinned && gone(e.id)).collect();
        if !forced.is_empty() {
            assert_eq!(pressure, Pressure::Routine, "{context}");
            let without_force = settled + forced.iter().map(|e| e.disk_bytes).sum::<u64>();
            assert!(without_force > policy.max_use, "pinned ones were deleted without need; {context}");
            let mut others = entries.iter().filter(|o| !o.pinned && Some(&o.id) != newest.as_ref());
            assert!(others.all(|o| gone(o.id)), "pinned ones went before others; {context}");
        }
        if pressure == Pressure::Admission {
            for kind in ["heap", "gc", "smaps", "threads"] {
                let with = entries.iter().filter(|e| e.reports.iter().any(|r| r.name == kind && r.error.is_none()));
                let last: Vec<&Entry> = with.rev().take(policy.keep_last as usize).collect();
                assert!(last.iter().all(|e| !gone(e.id)), "the last {kind} was deleted; {context}");
            }
        }
        entries.reverse();
        let again = plan(&entries, &policy, &usage, pressure, 30 * DAY, newest);
        assert_eq!(again, verdicts, "the order of the entries matters; {context}");
    }
}

#[test]
fn a_hundred_thousand_captures_are_planned_in_a_moment() {
    let mut random = Random(7);
    let entries: Vec<Entry> = (0..100_000)
        .map(|n| entry(n, n, &format!("heap:{} gc:{} smaps:{}", random.below(500), random.below(9), random.below(99))))
        .collect();
    let policy = Policy { max_use: 64 * KIB, keep_last: 1, ..lax() };
    let watch = diagctl_observe::clock::Stopwatch::start();
    let verdicts = plan(&entries, &policy, &roomy(), Pressure::Routine, 0, None);
    assert!(verdicts.iter().filter(|v| v.keep).count() <= 8);
    // A quadratic plan takes minutes; an unoptimised build of this one takes about a second.
    assert!(!watch.is_past(20_000), "{} ms", watch.ms());
}
