//! `diagctl list`: what is in the store.

use std::time::Duration;

use serde::Serialize;

use super::output::{self, Done};
use super::times::{Times, age};
use super::{Context, Failure};
use crate::exit_code::Exit;
use crate::store::Access;
use crate::store::index::{self, Entry};
use crate::units::{self, size};

/// List captures, newest first
///
/// An exclamation mark after a report means that it failed or is damaged; `diagctl show` says why.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only captures of processes with this role
    #[arg(long)]
    role: Option<String>,
    /// Only captures of this worker
    #[arg(long, value_name = "NAME")]
    worker: Option<String>,
    /// Only captures of this rule
    #[arg(long)]
    rule: Option<String>,
    /// Only captures with this report, failed or not
    #[arg(long)]
    report: Option<String>,
    /// Only captures younger than this: 90m, 2h, 14d
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration, allow_hyphen_values = true)]
    since: Option<Duration>,
    /// Show at most N captures
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    limit: Option<usize>,
    /// Show times in UTC instead of the local time zone
    #[arg(long)]
    utc: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listing {
    schema: u32,
    captures: Vec<Entry>,
    damaged: Vec<Damaged>,
}

/// A capture whose record cannot be read.
#[derive(Serialize)]
struct Damaged {
    id: String,
    reason: String,
}

impl Args {
    fn accepts(&self, entry: &Entry, now_ms: u64) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        is(&self.role, &entry.role)
            && is(&self.worker, &entry.worker)
            && is(&self.rule, &entry.rule)
            && self.report.as_ref().is_none_or(|wanted| entry.reports.iter().any(|r| r.name == *wanted))
            && self.since.is_none_or(|since| now_ms.saturating_sub(entry.store_ms) <= units::ms(since))
    }
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let store = cx.open(Access::Read)?;
    let (_, now) = cx.peek(&store)?;
    let index = index::load(&store)?;
    for (id, reason) in &index.damaged {
        output::note(&format!("skipped capture {id}: {reason}"));
    }
    let all = index.entries.len();
    let mut captures: Vec<Entry> =
        index.entries.into_iter().rev().filter(|entry| args.accepts(entry, now.store_ms)).collect();
    let matched = captures.len();
    captures.truncate(args.limit.unwrap_or(usize::MAX));
    if all == 0 {
        output::note(&format!("no captures in {}", store.dir().display()));
    } else if matched == 0 {
        output::note(&format!("no capture matches; the store has {all}"));
    }
    let exit = if all > 0 && matched == 0 { Exit::NoMatch } else { Exit::Ok };
    let damaged = index.damaged.into_iter().map(|(id, reason)| Damaged { id, reason }).collect();
    let listing = Listing { schema: 1, captures, damaged };
    let times = Times::new(args.utc);
    let done = Done::either(args.json, &listing, |listing| text(&listing.captures, matched, &times, now.store_ms))?;
    Ok(done.with_exit(exit))
}

fn text(captures: &[Entry], matched: usize, times: &Times, now_ms: u64) -> String {
    if captures.is_empty() {
        return String::new();
    }
    let created = format!("CREATED ({})", times.name());
    let header = ["ID", &created, "AGE", "ROLE", "WORKER", "PID", "RULE", "SIZE", "PINNED", "REPORTS"];
    let rows: Vec<_> = captures.iter().map(|entry| row(entry, times, now_ms)).collect();
    let bytes: u64 = captures.iter().map(|entry| entry.disk_bytes).sum();
    let count = match (captures.len(), matched) {
        (1, 1) => "1 capture".to_owned(),
        (shown, matched) if shown == matched => format!("{shown} captures, newest first"),
        (shown, matched) => format!("the newest {shown} of {matched} captures"),
    };
    let zone = if times.name() == "UTC" {
        "times are UTC".into()
    } else {
        format!("times are {}, --utc for UTC", times.name())
    };
    format!(
        "{}\n\n{count}; {}; {zone}\n",
        output::table(&header, &rows, &[2, 5, 7], &[2, 3, 4, 6, 7, 8, 9, 5, 1]),
        size(bytes)
    )
}

fn row(entry: &Entry, times: &Times, now_ms: u64) -> Vec<String> {
    let reports: Vec<String> =
        entry.reports.iter().map(|r| format!("{}{}", r.name, if r.error.is_some() { "!" } else { "" })).collect();
    vec![
        entry.id.clone(),
        times.show(&entry.created),
        age(entry.store_ms, now_ms),
        or_dash(&entry.role),
        or_dash(&entry.worker),
        entry.pid.to_string(),
        or_dash(&entry.rule),
        size(entry.disk_bytes),
        if entry.pinned { "pinned" } else { "" }.into(),
        or_dash(&reports.join(" ")),
    ]
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::index::EntryReport;

    fn args(change: impl Fn(&mut Args)) -> Args {
        let mut args = Args {
            role: None,
            worker: None,
            rule: None,
            report: None,
            since: None,
            limit: None,
            utc: true,
            json: false,
        };
        change(&mut args);
        args
    }

    fn entry() -> Entry {
        Entry {
            id: "20261122T101530123Z-7f3a9c2e".into(),
            created: "2026-11-22T10:15:30.123Z".into(),
            store_ms: 1000,
            role: "puma".into(),
            worker: "worker-0".into(),
            rule: "routine".into(),
            pid: 4711,
            disk_bytes: 4096,
            pinned: true,
            reports: vec![
                EntryReport { name: "gc_stat".into(), ..EntryReport::default() },
                EntryReport { name: "jemalloc_stats".into(), error: Some("no".into()), ..EntryReport::default() },
            ],
            ..Entry::default()
        }
    }

    #[test]
    fn every_filter_excludes_what_it_does_not_name() {
        let table: [(Args, bool); 9] = [
            (args(|_| {}), true),
            (args(|a| a.role = Some("puma".into())), true),
            (args(|a| a.role = Some("sidekiq".into())), false),
            (args(|a| a.worker = Some("worker-1".into())), false),
            (args(|a| a.rule = Some("other".into())), false),
            (args(|a| a.report = Some("jemalloc_stats".into())), true),
            (args(|a| a.report = Some("heap_dump".into())), false),
            (args(|a| a.since = Some(Duration::from_secs(60))), true),
            (args(|a| a.since = Some(Duration::from_secs(59))), false),
        ];
        for (args, expected) in table {
            assert_eq!(args.accepts(&entry(), 61_000), expected, "{args:?}");
        }
    }

    #[test]
    fn columns_are_aligned_and_zone_order_and_failures_are_told() {
        let plain = Entry { pid: 7, pinned: false, worker: String::new(), ..entry() };
        let text = text(&[entry(), plain], 3, &Times::new(true), 91_000);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("CREATED (UTC)"), "{text}");
        let column = lines[0].find("REPORTS").unwrap();
        for line in &lines[1..3] {
            assert_eq!(line.find("gc_stat jemalloc_stats!"), Some(column), "{text}");
        }
        assert!(lines[1].contains("2026-11-22 10:15:30  1m 30s"), "{text}");
        assert_eq!(lines.last(), Some(&"the newest 2 of 3 captures; 8.00 KiB; times are UTC"));
    }
}
