//! Memory that nothing explains is shown, and never made a cause.

use super::*;

// With any combination of reports missing, the answer is the true cause or none.
#[test]
fn no_missing_report_makes_a_wrong_cause() {
    type Removal = (&'static str, fn(&mut Evidence));
    const REMOVALS: [Removal; 4] = [
        ("object_counts", |e| e.objects = None),
        ("allocator", |e| e.allocator = None),
        ("gc_stat", |e| e.slots = None),
        // Only smaps_rollup could be read.
        ("smaps", |e| e.mappings.as_mut().unwrap().uses = None),
    ];
    let (mut unknown, mut named) = (0, 0);
    for (program, figures, cause) in programs() {
        for chosen in 0..1 << REMOVALS.len() {
            let mut evidence = evidence(&figures);
            let missing: Vec<&str> = (0..REMOVALS.len())
                .filter(|bit| chosen & (1 << bit) != 0)
                .map(|bit| {
                    REMOVALS[bit].1(&mut evidence);
                    REMOVALS[bit].0
                })
                .collect();
            let account = Account::of(&evidence).unwrap();
            let verdict = judge(&evidence, &account);
            let what = format!("{program} without {missing:?}: {}", verdict.sentence);
            assert!(verdict.cause.is_none() || verdict.cause == cause, "{what}");
            let sum: u64 = account.lines.iter().map(|line| line.bytes).sum();
            assert_eq!(sum, account.rss + account.excess, "{what}");
            if account.unexplained() > account.rss / 10 {
                unknown += 1;
                named += usize::from(verdict.cause.is_some());
                assert!(verdict.confidence <= Confidence::Low, "{what}");
                assert!(verdict.cause.is_none() || verdict.bytes > account.unexplained(), "{what}");
                assert!(account.bytes(Part::Unknown) > 0 || account.excess > 0, "{what}");
                let gaps = evidence.missing();
                let gaps: Vec<&str> = gaps.into_iter().filter(|report| *report != "siblings").collect();
                let asked = |report: &&str| verdict.wanted.iter().any(|wanted| wanted.starts_with(report));
                assert!(gaps.iter().all(asked), "{what}: {:?}", verdict.wanted);
                let of_nobody = gaps.is_empty() && account.bytes(Part::Unknown) > account.rss / 10;
                assert_eq!(verdict.wanted.iter().any(|w| w.contains("mapped itself")), of_nobody, "{what}");
            }
        }
    }
    assert!(unknown > 40 && named > 0, "{unknown} remainders of more than a tenth, {named} with a cause");
}

#[test]
fn an_unknown_remainder_is_shown_with_what_is_missing() {
    type Change = fn(&mut Evidence);
    let mapped = || Figures { mappings: (150_000, 10_460, 160, 4196), ..PLAIN };
    let native =
        || Figures { mappings: (141_236, 10_460, 160, 4196), allocator: (Kind::Glibc, 124_648, 1096), ..PLAIN };
    // (figures, change, percent unknown, the detail of that part, the verdict)
    let table: [(Figures, Change, u64, &str, &str); 5] = [
        (
            mapped(),
            |_| {},
            84,
            "not of Ruby, not of the allocator",
            "Not determined: 123.5 MiB of 146.5 MiB (84%) is unknown.",
        ),
        (mapped(), |e| (e.slots, e.objects) = (None, None), 85, "no gc_stat", "(85%) is unknown."),
        (native(), |e| e.allocator = None, 92, "no allocator statistics", "(92%) is unknown."),
        (
            native(),
            |e| (e.allocator, e.slots) = (None, None),
            92,
            "no gc_stat, no allocator statistics",
            "(92%) is unknown.",
        ),
        (
            native(),
            |e| e.mappings.as_mut().unwrap().uses = None,
            3,
            "not of Ruby, not of the allocator",
            "Native memory that no Ruby object accounts for",
        ),
    ];
    for (figures, change, percent, detail, words) in table {
        let mut evidence = evidence(&figures);
        change(&mut evidence);
        let account = Account::of(&evidence).unwrap();
        let verdict = judge(&evidence, &account);
        let unknown = account.lines.iter().find(|line| line.part == Part::Unknown);
        let shown = unknown.map_or((0, ""), |line| (account.percent(line.bytes), line.detail.as_str()));
        assert!(verdict.sentence.contains(words), "{}", verdict.sentence);
        assert_eq!(shown, (percent, detail), "{account:?}");
        assert_eq!(account.adds_up(), percent <= 10);
    }
}
