//! Tests of the status that people read.

use super::rules::{budgets, rule_status};
use super::*;
use crate::config::{LimitsOfRule, Rule};
use crate::state::samples::{Holding, Refused, Sample};
use crate::state::schedule::{RuleState, Spent, State};
use std::time::Duration;

fn rule(cooldown: u64, max_count: Option<u32>) -> Rule {
    let limits = LimitsOfRule {
        cooldown: Duration::from_millis(cooldown),
        max_count,
        window: Duration::from_secs(3600),
        ..LimitsOfRule::default()
    };
    Rule { limits, ..Config::default().rules.remove(0) }
}

#[test]
fn a_rule_shows_its_state_and_the_time_left() {
    let marks =
        RuleState { fires: vec![1000, 60_000], due: [("timer".to_owned(), 400_000)].into(), ..RuleState::default() };
    let table = [
        (rule(0, None), Some(&marks), "idle", None, Some(300_000)),
        (rule(50_000, None), Some(&marks), "cooldown", Some(10_000), Some(300_000)),
        (rule(0, Some(2)), Some(&marks), "throttled", Some(3_501_000), Some(300_000)),
        (rule(50_000, Some(1)), None, "idle", None, None),
    ];
    for (rule, marks, state, left_ms, due_in_ms) in table {
        let status = rule_status(&rule, marks, &[], 100_000);
        assert_eq!((status.state.as_str(), status.left_ms, status.due_in_ms), (state, left_ms, due_in_ms), "{rule:?}");
    }
}

#[test]
fn a_rule_shows_the_strongest_verdict_of_all_processes() {
    let refused = |verdict: &str, guard: Option<&str>| Sample {
        refusals: [(
            "routine".to_owned(),
            Refused {
                verdict: verdict.into(),
                guard: guard.map(str::to_owned),
                reason: format!("{verdict}: no such gauge"),
            },
        )]
        .into(),
        holding: [("routine".to_owned(), Holding { since: 0, last: 12_000 })].into(),
        ..Sample::default()
    };
    let rule = Rule { hold_for: Duration::from_secs(30), ..rule(0, None) };
    let (pending, guarded) = (refused("pending", None), refused("guarded", Some("disk")));
    let told = |polling: &[&Sample]| {
        let status = rule_status(&rule, None, polling, 100_000);
        (status.state, status.detail.unwrap_or_default())
    };
    assert_eq!(told(&[]), ("idle".into(), String::new()));
    assert_eq!(told(&[&refused("skipped", None)]), ("skipped".into(), "no such gauge".into()));
    assert_eq!(told(&[&pending]), ("pending".into(), "12s of 30s".into()));
    assert_eq!(told(&[&pending, &guarded]), ("guarded".into(), "by disk".into()));
}

fn status() -> Status {
    let marks = RuleState { fires: vec![40_000], due: [("timer".to_owned(), 400_000)].into(), ..RuleState::default() };
    let state = State { spent: vec![Spent { at: 90_000, units: 11 }], ..State::default() };
    Status {
        schema: 1,
        dir: "/var/lib/diagctl".into(),
        headline: "ready: 1 process polls".into(),
        configuration_file: None,
        configuration_note: Some("shown is another file".into()),
        switch: Switch { enabled: false, source: "default".into(), paused: None },
        configuration: Some("1 problem:\n  rules: bad".into()),
        warnings: vec!["guards.min_free_disk: no filesystem ever has 100% free".into()],
        notes: vec!["shares in rule heap are of the host's memory (64.0 GiB): no memory limit applies here".into()],
        lease: lease::Report {
            taken: true,
            summary: "held for 1m by puma worker-0 (pid 7): capture C, rule routine, overdue by 30s".into(),
            overdue_ms: Some(30_000),
            leaked: false,
            holders: vec![lease::Holder { pid: 8, comm: "ruby".into() }],
            record: None,
        },
        store: Room {
            captures: 2,
            latest: Some(Id::default()),
            latest_age_ms: Some(61_000),
            used_bytes: 1 << 20,
            max_use_bytes: 1 << 30,
            free_disk_bytes: 5 << 30,
            keep_free_bytes: 1 << 30,
            quarantine_bytes: 4096,
            damaged: [(Id::default(), "meta.json is damaged".to_owned())].into(),
        },
        rules: vec![rule_status(&rule(80_000, Some(5)), Some(&marks), &[], 100_000)],
        budgets: budgets(&Config::default(), &state, 100_000),
        shipped: None,
        hook: None,
        requests: vec![Request {
            reports: vec![diagctl_store::ReportName::parse("heap_dump").unwrap()],
            by: "anna".into(),
            reason: "odd".into(),
            ..Request::default()
        }],
        deaths: deaths::Recent::default(),
        processes: vec![Process {
            pid_ns: 4_026_531_836,
            pid_here: Some(7),
            pid: 7,
            role: "puma".into(),
            name: "worker-0".into(),
            rss_bytes: 300 << 20,
            polled_ms: 4_200,
            gone: false,
            silent: false,
            dumping: false,
            off: false,
            verdict: "pending".into(),
            reason: "rss 300.0 MiB is above 200.0 MiB, for 10s of 30s".into(),
            holding_ms: [("heap".to_owned(), 10_000)].into(),
        }],
        events: vec![Event {
            at: "2026-11-22T10:15:30Z".into(),
            event: "verdict".into(),
            verdict: "guarded".into(),
            rule: "heap".into(),
            pid: 7,
            reason: "too big".into(),
            observed: [("rss".to_owned(), (1 << 30).into())].into(),
            ..Event::default()
        }],
    }
}

#[test]
fn status_shows_everything_and_explain_adds_reasons() {
    let page = text::render(&status(), &Times::new(true), false);
    for expected in [
        "state      ready: 1 process polls\n",
        "switch     on in the process that polls\n",
        "config     1 problem: rules: bad\n",
        "config     shown is another file\n",
        "overdue by 30s\n",
        "holders    8 (ruby)\n",
        "use        2 captures, 1.00 MiB of max_use 1.00 GiB\n",
        "disk       5.00 GiB free, keep_free is 1.00 GiB\n",
        "latest     00000000T000000000Z-00000000, 1m 1s ago\n",
        "budget     11 of 20 units this hour, 11 of 50 units this day\n",
        "request    heap_dump, requested by anna: odd\n",
        "damaged    00000000T000000000Z-00000000: meta.json is damaged\n",
        "cooldown, 20s left",
        "1 of 5 in 1h",
        "in 5m",
        "300.0 MiB",
        "4s ago  pending",
    ] {
        assert!(page.contains(expected), "missing {expected:?} in\n{page}");
    }
    assert!(!page.contains("for 10s of 30s") && !page.contains("guarded"), "{page}");
    let page = text::render(&status(), &Times::new(true), true);
    for expected in [
        "puma worker-0 (7): pending, rss 300.0 MiB is above 200.0 MiB, for 10s of 30s\n",
        "the condition of heap has held for 10s\n",
        "2026-11-22 10:15:30  guarded  heap pid 7  too big [rss 1.00 GiB]\n",
    ] {
        assert!(page.contains(expected), "missing {expected:?} in\n{page}");
    }
}

#[test]
fn the_first_line_says_what_an_operator_needs_first() {
    type Change = fn(&mut Status);
    let off = |status: &mut Status| {
        status.processes[0].off = true;
        status.processes[0].reason = "switched off: enabled = false (file)".into();
    };
    let table: [(&str, Change, &str); 11] = [
        ("a leak", |s| s.lease.leaked = true, "blocked: the lease is held, but no dump runs"),
        ("a hang", |s| s.lease.overdue_ms = Some(30_000), "blocked: a dump is past its deadline by 30s"),
        ("a pause", |s| s.switch.paused = Some("paused by ann".into()), "paused by ann"),
        ("nobody", |s| s.processes.clear(), "nothing is captured: no process polls this store"),
        ("dead processes", |s| s.processes[0].gone = true, "nothing is captured: no process polls this store"),
        ("a stop", |s| s.processes[0].silent = true, "nothing is captured: 1 running process has not polled for 4s"),
        ("a switch", off, "off: switched off: enabled = false (file)"),
        (
            "a guard",
            |s| (s.rules[0].state, s.rules[0].detail) = ("guarded".into(), Some("by disk".into())),
            "refused: routine is guarded by disk",
        ),
        ("a request", |_| (), "ready: 1 process polls; 1 request waits"),
        (
            "a budget",
            |s| s.rules[0].state = "throttled".into(),
            "ready: 1 process polls; routine has used up its limit; 1 request waits",
        ),
        ("nothing", |s| s.requests.clear(), "ready: 1 process polls"),
    ];
    for (what, change, expected) in table {
        let mut status = status();
        status.lease.overdue_ms = None;
        status.lease.taken = false;
        change(&mut status);
        assert!(headline::headline(&status).starts_with(expected), "{what}: {}", headline::headline(&status));
    }
}

#[test]
fn a_process_that_dumps_is_not_silent_and_an_old_verdict_is_shown_as_old() {
    let line = |change: fn(&mut Process)| {
        let mut status = status();
        change(&mut status.processes[0]);
        let page = text::render(&status, &Times::new(true), true);
        let of_process = |line: &&str| line.trim_start().starts_with("7  ") || line.starts_with("puma worker-0 (7)");
        page.lines().filter(of_process).map(str::to_owned).collect::<Vec<_>>().join("\n")
    };
    let dumping = line(|process| process.dumping = true);
    assert!(dumping.contains("ago  dumping\n") && dumping.ends_with("(7): dumping"), "{dumping}");
    let silent = line(|process| process.silent = true);
    assert!(silent.contains("silent (was pending)"), "{silent}");
    assert!(silent.contains("silent for 4s; its last verdict, which may no longer hold, was pending, rss"), "{silent}");
}
