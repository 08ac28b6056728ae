//! `diagctl list`: lists the captures in the store.

use std::time::Duration;

use serde::Serialize;

use super::output::{self, Columns, Done};
use super::times::{Times, age};
use super::view;
use super::{Context, Failure};
use crate::exit_code::Exit;
use crate::units::{self, size};
use diagctl_store::index::{Entry, EntryReport, Listing};
use diagctl_store::{Access, Id};

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

/// A capture whose record cannot be read.
#[derive(Serialize)]
struct Damaged<'a> {
    id: &'a Id,
    reason: &'a str,
}

impl Args {
    fn accepts_all(&self) -> bool {
        let names = [&self.role, &self.worker, &self.rule, &self.report];
        names.iter().all(|name| name.is_none()) && self.since.is_none()
    }

    fn accepts(&self, entry: &Entry, now_ms: u64) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        is(&self.role, &entry.role)
            && is(&self.worker, &entry.worker)
            && is(&self.rule, &entry.rule)
            && self.report.as_ref().is_none_or(|wanted| entry.reports.iter().any(|r| r.name == **wanted))
            && self.since.is_none_or(|since| now_ms.saturating_sub(entry.store_ms) <= units::ms(since))
    }
}

/// Up to this many of the newest captures are read from their own records. For more, the index is faster.
const FEW: usize = 1000;

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let store = cx.open(Access::Read)?;
    let (_, now) = cx.peek(&store)?;
    let few = args.limit.filter(|limit| *limit <= FEW && args.accepts_all());
    let listing = match few.and_then(|limit| Listing::newest(&store, limit)) {
        Some(listing) => listing,
        None => Listing::all(&store)?,
    };
    for (id, reason) in &listing.damaged {
        output::note(&format!("skipped capture {id}: {reason}"));
    }
    let matching = listing.newest_first().filter_map(|number| {
        let entry = listing.entry(number)?;
        args.accepts(&entry, now.store_ms).then_some((number, entry))
    });
    let limit = args.limit.unwrap_or(usize::MAX);
    let times = Times::new(args.utc);
    let matched = if args.json {
        json(&listing, matching.map(|(_, entry)| entry), limit)?
    } else {
        let mut page = Page::new(&times, now.store_ms);
        matching.for_each(|(number, entry)| page.add(number, &entry, limit));
        if args.accepts_all() {
            // Only the newest of them may have been read.
            page.matched = listing.total;
        }
        page.print(&listing)?;
        page.matched
    };
    let matched = if args.accepts_all() { listing.total } else { matched };
    if listing.total == 0 {
        output::note(&format!("no captures in {}", store.dir().display()));
    } else if matched == 0 {
        output::note(&format!("no capture matches; the store has {}", listing.total));
    }
    let exit = if listing.total > 0 && matched == 0 { Exit::NoMatch } else { Exit::Ok };
    Ok(Done::silent().with_exit(exit))
}

fn encoded(value: &impl Serialize) -> std::io::Result<String> {
    Ok(output::printable_json(serde_json::to_string(value)?))
}

// Streams the captures one by one. Returns the number that matched; when the limit is reached, the count stops.
fn json(listing: &Listing<'_>, captures: impl Iterator<Item = Entry>, limit: usize) -> Result<usize, Failure> {
    let mut matched = 0;
    output::stream(|out| {
        out.write_all(b"{\"schema\":1,\"captures\":[")?;
        for entry in captures {
            matched += 1;
            if matched > limit {
                break;
            }
            let comma = if matched == 1 { "" } else { "," };
            write!(out, "{comma}{}", encoded(&view::Listed::from(&entry))?)?;
        }
        let damaged = listing.damaged.iter().map(|(id, reason)| Damaged { id, reason });
        writeln!(out, "],\"damaged\":{}}}", encoded(&damaged.collect::<Vec<_>>())?)
    })?;
    Ok(matched)
}

/// The listing for people: the numbers of the captures and the column widths, both from a first pass over the captures.
struct Page<'a> {
    times: &'a Times,
    now_ms: u64,
    created: String,
    columns: Columns,
    numbers: Vec<usize>,
    matched: usize,
    bytes: u64,
}

impl<'a> Page<'a> {
    fn new(times: &'a Times, now_ms: u64) -> Self {
        let created = format!("CREATED ({})", times.name());
        let columns = Columns::new(&header(&created), &[2, 5, 7]);
        Self { times, now_ms, created, columns, numbers: Vec::new(), matched: 0, bytes: 0 }
    }

    fn add(&mut self, number: usize, entry: &Entry, limit: usize) {
        self.matched += 1;
        if self.numbers.len() < limit {
            self.columns.widen(&row(entry, self.times, self.now_ms));
            self.numbers.push(number);
            self.bytes = self.bytes.saturating_add(entry.disk_bytes);
        }
    }

    fn print(&mut self, listing: &Listing<'_>) -> Result<(), Failure> {
        if self.numbers.is_empty() {
            return Ok(());
        }
        self.columns.fit_terminal(&OPTIONAL);
        output::stream(|out| {
            writeln!(out, "{}", self.columns.line(&header(&self.created)))?;
            // Captures that were deleted after the first pass are left out.
            for entry in self.numbers.iter().filter_map(|number| listing.entry(*number)) {
                writeln!(out, "{}", self.columns.line(&row(&entry, self.times, self.now_ms)))?;
            }
            if let Some(note) = self.columns.left_out(&header(&self.created)) {
                writeln!(out, "{note}")?;
            }
            writeln!(out, "\n{}", self.sum())
        })
    }

    fn sum(&self) -> String {
        let count = match (self.numbers.len(), self.matched) {
            (1, 1) => "1 capture".to_owned(),
            (shown, matched) if shown == matched => format!("{shown} captures, newest first"),
            (shown, matched) => format!("the newest {shown} of {matched} captures"),
        };
        let zone = match self.times.name() {
            "UTC" => "times are UTC".to_owned(),
            zone => format!("times are {zone}, --utc for UTC"),
        };
        format!("{count}; {}; {zone}", size(self.bytes))
    }
}

/// Columns that a narrow terminal may not show, the most important first.
const OPTIONAL: [usize; 9] = [2, 3, 4, 6, 7, 8, 9, 5, 1];

fn header(created: &str) -> [&str; 10] {
    ["ID", created, "AGE", "ROLE", "WORKER", "PID", "RULE", "SIZE", "PINNED", "REPORTS"]
}

fn row(entry: &Entry, times: &Times, now_ms: u64) -> Vec<String> {
    let mark = |set: bool, mark: &'static str| if set { mark } else { "" };
    let report = |r: &EntryReport| format!("{}{}{}", r.name, mark(r.error.is_some(), "!"), mark(r.values, "(values)"));
    let reports: Vec<String> = entry.reports.iter().map(report).collect();
    vec![
        entry.id.to_string(),
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
    use diagctl_store::ReportName;

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
            id: "20261122T101530123Z-7f3a9c2e".parse().unwrap(),
            created: "2026-11-22T10:15:30.123Z".into(),
            store_ms: 1000,
            role: "puma".into(),
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

    #[test]
    fn every_filter_excludes_all_other_captures() {
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
    fn columns_are_aligned_and_show_zone_order_and_failures() {
        let plain = Entry { pid: 7, pinned: false, worker: String::new(), ..entry() };
        let times = Times::new(true);
        let mut page = Page::new(&times, 91_000);
        let entries = [entry(), plain, entry()];
        entries.iter().enumerate().for_each(|(number, entry)| page.add(number, entry, 2));
        let rows = entries[..2].iter().map(|entry| page.columns.line(&row(entry, &times, 91_000)));
        let head = page.columns.line(&header(&page.created));
        let text = [head].into_iter().chain(rows).chain([page.sum()]).collect::<Vec<_>>().join("\n");
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
