//! `diagctl list`: lists the captures in the store.

mod captures;
mod filter;
mod page;

use serde::Serialize;

use super::output::{self, Done};
use super::remote::hosts;
use super::times::{self, Moment, Times};
use super::{Context, Failure};
use super::{deaths, view};
use crate::exit_code::Exit;
use captures::Captures;
use diagctl_store::index::Entry;
use diagctl_store::{Access, Id};
use filter::Sort;
use page::Page;

const EXAMPLES: &str = "\
Examples:
  diagctl list -n 10
  diagctl list --name worker-0 --report heap_dump --since 2h
  diagctl list --since 2026-11-22 --until '2026-11-22 18:00'
  diagctl list --sort size -n 5
  diagctl list --remote --host 'web-*' --since 1d
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
    /// Only captures of machines with this name; an asterisk stands for any text: `web-*`
    #[arg(long)]
    host: Option<String>,
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
    /// List the captures in the remote, of all machines, instead of those in this store
    #[arg(long)]
    remote: bool,
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
    let wall_ms = times::wall_ms(&crate::clock::utc_now());
    Times::new(args.utc).require_order(args.since.as_ref(), args.until.as_ref(), wall_ms)?;
    if args.remote {
        let url = cx.config().remote.as_ref().map(|remote| remote.url.clone()).unwrap_or_default();
        return show(&Captures::of_remote(cx, args, wall_ms)?, args, wall_ms, &url);
    }
    let store = cx.open(Access::Read)?;
    let (_, now) = cx.peek(&store)?;
    let done = show(&Captures::of_store(&store, args)?, args, now.store_ms, &store.dir().display().to_string())?;
    if !args.json
        && !args.quiet
        && let Some(line) = deaths::recent(cx, &store, now.store_ms).line()
    {
        output::note(&format!("{line}: diagctl deaths"));
    }
    Ok(done)
}

fn show(listing: &Captures<'_>, args: &Args, now_ms: u64, place: &str) -> Result<Done, Failure> {
    let times = Times::new(args.utc);
    let matches = |number: &usize| {
        let entry = listing.entry(*number)?;
        args.accepts(&entry, now_ms, &times).then_some((*number, entry))
    };
    let mut numbers: Vec<usize> = listing.newest_first();
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
        json(listing, matching.map(|(_, entry)| entry), limit)?
    } else if args.quiet {
        ids(matching.map(|(_, entry)| entry.id), limit)?
    } else {
        let mut page = Page::new(&times, now_ms, args.sort, args.remote);
        matching.for_each(|(number, entry)| page.add(number, &entry, limit));
        if args.accepts_all() {
            // Only the newest of them may have been read.
            page.matched = listing.total();
        }
        page.print(listing)?;
        page.matched
    };
    let matched = if args.accepts_all() { listing.total() } else { matched };
    let total = listing.total();
    if total == 0 {
        output::note(&format!("no captures in {place}"));
    } else if matched == 0 {
        let place = if args.remote { "remote" } else { "store" };
        output::note(&format!("no capture matches; the {place} has {total}"));
        let all = listing.newest_first().into_iter().filter_map(|number| listing.entry(number));
        args.meant(all).iter().for_each(|meant| output::note(meant));
    }
    // Only the name of a node can stand for more than it says.
    if let Some(name) = args.host.as_ref().filter(|name| matched > 0 && name.contains('~')) {
        let hosts: Vec<String> =
            listing.newest_first().into_iter().filter_map(|n| Some(listing.entry(n)?.host)).collect();
        let told = hosts::of_all_stores(name, hosts.iter().map(String::as_str));
        told.iter().for_each(|told| output::note(told));
    }
    let exit = if total > 0 && matched == 0 { Exit::NoMatch } else { Exit::Ok };
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
fn json(listing: &Captures<'_>, captures: impl Iterator<Item = Entry>, limit: usize) -> Result<usize, Failure> {
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
        let damaged = listing.damaged().iter().map(|(id, reason)| Damaged { id, reason });
        writeln!(out, "],\"damaged\":{}}}", encoded(&damaged.collect::<Vec<_>>())?)
    })?;
    Ok(matched)
}

#[cfg(test)]
mod tests;
