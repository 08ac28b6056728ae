//! `diagctl list`: lists the captures in the store.

mod filter;
mod page;

use serde::Serialize;

use super::output::{self, Done};
use super::times::{self, Moment, Times};
use super::{Context, Failure};
use super::{deaths, view};
use crate::exit_code::Exit;
use diagctl_store::index::{Entry, Listing};
use diagctl_store::{Access, Id};
use filter::Sort;
use page::Page;

const EXAMPLES: &str = "\
Examples:
  diagctl list -n 10
  diagctl list --name worker-0 --report heap_dump --since 2h
  diagctl list --since 2026-11-22 --until '2026-11-22 18:00'
  diagctl list --sort size -n 5
  diagctl list -q --rule routine | xargs diagctl rm";

/// List captures, newest first
///
/// An exclamation mark after a report means that it failed or is damaged; `diagctl show` says why. ON DISK is what a capture
/// counts against retention.max_use.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only captures of processes with this role
    #[arg(long)]
    role: Option<String>,
    /// Only captures of the process with this name
    #[arg(long, alias = "worker")]
    name: Option<String>,
    /// Only captures of this process
    #[arg(long, allow_negative_numbers = true)]
    pid: Option<u32>,
    /// Only captures of this rule
    #[arg(long)]
    rule: Option<String>,
    /// Only captures with this report, failed or not
    #[arg(long)]
    report: Option<String>,
    /// Only captures that retention does not delete
    #[arg(long)]
    pinned: bool,
    /// Only captures younger than this (90m, 2h, 14d), or since a time (2026-11-22 10:15, 2026-11-22T10:15:30Z)
    #[arg(long, value_name = "TIME", value_parser = times::parse_moment, allow_hyphen_values = true)]
    since: Option<Moment>,
    /// Only captures older than this, or until a time
    #[arg(long, value_name = "TIME", value_parser = times::parse_moment, allow_hyphen_values = true)]
    until: Option<Moment>,
    /// Order: the youngest or largest first, or by name
    #[arg(long, value_name = "KEY", default_value = "age")]
    sort: Sort,
    /// Show at most N captures
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    limit: Option<usize>,
    /// Print only the IDs
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
    /// Show times in UTC instead of the local time zone, and read given times as UTC
    #[arg(long)]
    utc: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The place of a capture in an order; equal ones stay newest first.
type Key = (std::cmp::Reverse<u64>, u32, String);

/// A capture whose record cannot be read.
#[derive(Serialize)]
struct Damaged<'a> {
    id: &'a Id,
    reason: &'a str,
}

/// Up to this many of the newest captures are read from their own records. For more, the index is faster.
const FEW: usize = 1000;

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let store = cx.open(Access::Read)?;
    let (_, now) = cx.peek(&store)?;
    let few = args.limit.filter(|limit| *limit <= FEW && args.accepts_all() && args.sort == Sort::Age);
    let listing = match few.and_then(|limit| Listing::newest(&store, limit)) {
        Some(listing) => listing,
        None => {
            let mut listing = Listing::all(&store)?;
            listing.check_newest(FEW);
            listing
        }
    };
    for (id, reason) in &listing.damaged {
        output::note(&format!("skipped capture {id}: {reason}"));
    }
    let times = Times::new(args.utc);
    let matches = |number: &usize| {
        let entry = listing.entry(*number)?;
        args.accepts(&entry, now.store_ms, &times).then_some((*number, entry))
    };
    let mut numbers: Vec<usize> = listing.newest_first().collect();
    if args.sort != Sort::Age {
        // A capture that is deleted meanwhile is left out.
        let keyed = numbers.iter().filter_map(matches).map(|(number, entry)| (args.sort.key(&entry), number));
        let mut keyed: Vec<(Key, usize)> = keyed.collect();
        keyed.sort_by(|(one, _), (other, _)| one.cmp(other));
        numbers = keyed.into_iter().map(|(_, number)| number).collect();
    }
    let matching = numbers.iter().filter_map(matches);
    let limit = args.limit.unwrap_or(usize::MAX);
    let matched = if args.json {
        json(&listing, matching.map(|(_, entry)| entry), limit)?
    } else if args.quiet {
        ids(matching.map(|(_, entry)| entry.id), limit)?
    } else {
        let mut page = Page::new(&times, now.store_ms, args.sort.first());
        matching.for_each(|(number, entry)| page.add(number, &entry, limit));
        if args.accepts_all() {
            // Only the newest of them may have been read.
            page.matched = listing.total;
        }
        page.print(&listing)?;
        if let Some(line) = deaths::recent(cx, &store, now.store_ms).line() {
            output::note(&format!("{line}: diagctl deaths"));
        }
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

// Returns the number that matched, or that was printed if there is a limit.
fn ids(ids: impl Iterator<Item = Id>, limit: usize) -> Result<usize, Failure> {
    let mut printed = 0;
    output::stream(|out| {
        for id in ids.take(limit) {
            printed += 1;
            writeln!(out, "{id}")?;
        }
        Ok(())
    })?;
    Ok(printed)
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

#[cfg(test)]
mod tests {
    use super::*;
    use diagctl_store::ReportName;
    use diagctl_store::index::EntryReport;

    fn args(change: impl Fn(&mut Args)) -> Args {
        let mut args = Args {
            role: None,
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
        let table: [(Args, bool); 17] = [
            (args(|_| {}), true),
            (args(|a| a.role = Some("puma".into())), true),
            (args(|a| a.role = Some("sidekiq".into())), false),
            (args(|a| a.name = Some("worker-1".into())), false),
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
}
