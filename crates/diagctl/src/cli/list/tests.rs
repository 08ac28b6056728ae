//! Tests of the filters and of the order.

use super::*;
use diagctl_store::ReportName;
use diagctl_store::index::EntryReport;

fn args(change: impl Fn(&mut Args)) -> Args {
    let mut args = Args {
        role: None,
        host: None,
        remote: false,
        name: None,
        pid: None,
        rule: None,
        report: None,
        pinned: false,
        since: None,
        until: None,
        sort: Sort::Age,
        limit: None,
        quiet: false,
        utc: true,
        json: false,
    };
    change(&mut args);
    args
}

pub(super) fn entry() -> Entry {
    Entry {
        id: "20261122T101530123Z-7f3a9c2e".parse().unwrap(),
        created: "2026-11-22T10:15:30.123Z".into(),
        store_ms: 1000,
        role: "puma".into(),
        host: "web-1".into(),
        worker: "worker-0".into(),
        rule: "routine".into(),
        pid: 4711,
        disk_bytes: 4096,
        pinned: true,
        reports: vec![
            EntryReport::new(ReportName::from_text("gc_stat")),
            EntryReport { error: Some("no".into()), ..EntryReport::new(ReportName::from_text("jemalloc_stats")) },
        ],
        ..Entry::default()
    }
}

fn moment(text: &str) -> Option<Moment> {
    Some(times::parse_moment(text).unwrap())
}

#[test]
fn every_filter_excludes_all_other_captures() {
    let table: [(Args, bool); 21] = [
        (args(|_| {}), true),
        (args(|a| a.role = Some("puma".into())), true),
        (args(|a| a.role = Some("sidekiq".into())), false),
        (args(|a| a.name = Some("worker-1".into())), false),
        (args(|a| a.host = Some("web-1".into())), true),
        (args(|a| a.host = Some("web-*".into())), true),
        (args(|a| a.host = Some("web".into())), false),
        (args(|a| a.host = Some("db-*".into())), false),
        (args(|a| a.pid = Some(4711)), true),
        (args(|a| a.pid = Some(4712)), false),
        (args(|a| a.pinned = true), true),
        (args(|a| a.rule = Some("other".into())), false),
        (args(|a| a.report = Some("jemalloc_stats".into())), true),
        (args(|a| a.report = Some("heap_dump".into())), false),
        (args(|a| a.since = moment("60s")), true),
        (args(|a| a.since = moment("59s")), false),
        (args(|a| a.until = moment("60s")), true),
        (args(|a| a.until = moment("61s")), false),
        (args(|a| a.since = moment("2026-11-22 10:15:30")), true),
        (args(|a| a.since = moment("2026-11-22 10:15:31")), false),
        (args(|a| a.until = moment("2026-11-22")), false),
    ];
    for (args, expected) in table {
        assert_eq!(args.accepts(&entry(), 61_000, &Times::new(true)), expected, "{args:?}");
    }
}

#[test]
fn captures_are_sorted_by_each_key_and_newest_first_among_equals() {
    let of = |role: &str, pid, rule: &str, disk_bytes| Entry {
        role: role.into(),
        worker: format!("w{pid}"),
        pid,
        rule: rule.into(),
        disk_bytes,
        ..Entry::default()
    };
    // Newest first, as listed.
    let entries = [of("puma", 3, "b", 10), of("sidekiq", 1, "a", 30), of("puma", 2, "b", 20)];
    let table = [
        (Sort::Age, [0, 1, 2]),
        (Sort::Size, [1, 2, 0]),
        (Sort::Pid, [1, 2, 0]),
        (Sort::Role, [0, 2, 1]),
        (Sort::Name, [1, 2, 0]),
        (Sort::Rule, [1, 0, 2]),
    ];
    for (sort, expected) in table {
        let mut keyed: Vec<(Key, usize)> = entries.iter().enumerate().map(|(n, e)| (sort.key(e), n)).collect();
        keyed.sort_by(|(one, _), (other, _)| one.cmp(other));
        assert_eq!(keyed.iter().map(|(_, number)| *number).collect::<Vec<_>>(), expected, "{sort:?}");
    }
}
