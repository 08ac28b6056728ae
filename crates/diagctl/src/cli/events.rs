//! `diagctl events`: what happened in the store, newest last.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::output::{self, Done};
use super::show::text::observed;
use super::times::{self, Moment, Times};
use super::{Context, Failure, names};
use crate::cli::error::printable;
use crate::clock;
use diagctl_store::events::{self, Event};
use diagctl_store::{Access, Store};

/// The time between two looks with --watch.
const LOOK: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  diagctl events --since 1h
  diagctl events -n 20
  diagctl events --since '2026-11-22 10:15' --pid 4711
  diagctl events --watch --json | jq -c 'select(.event == \"published\")'";

/// Show what happened: verdicts, captures, deletions, requests
///
/// Oldest first. The store keeps the latest few hundred. A refusal is one event when it begins, not one for each poll.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only events younger than this (90m, 2h, 14d), or since a time (2026-11-22 10:15, 2026-11-22T10:15:30Z)
    #[arg(long, value_name = "TIME", value_parser = times::parse_moment, allow_hyphen_values = true)]
    since: Option<Moment>,
    /// Only events older than this, or until a time
    #[arg(long, value_name = "TIME", value_parser = times::parse_moment, allow_hyphen_values = true, conflicts_with = "watch")]
    until: Option<Moment>,
    /// Only events of this process
    #[arg(long, allow_negative_numbers = true)]
    pid: Option<u32>,
    /// Only events of this rule
    #[arg(long)]
    rule: Option<String>,
    /// Show only the newest N events; with --watch, those before the first new one
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    limit: Option<usize>,
    /// Keep running and print events as they happen; waits for a store that does not exist yet
    #[arg(short, long)]
    watch: bool,
    /// Show times in UTC instead of the local time zone, and read given times as UTC
    #[arg(long)]
    utc: bool,
    /// Print JSON; with --watch one object a line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output<'a> {
    schema: u32,
    events: Vec<&'a Event>,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let times = Times::new(args.utc);
    times.require_order(args.since.as_ref(), args.until.as_ref(), times::wall_ms(&clock::utc_now()))?;
    if args.watch {
        wait_for_a_store(&cx.config().dir);
    }
    let store = cx.open(Access::Read)?;
    let all = events::read(&store);
    let now_ms = clock::Reading::take(String::new()).wall_ms;
    let mut chosen: Vec<&Event> = all.iter().filter(|event| args.accepts(event, now_ms, &times)).collect();
    let matched = chosen.len();
    chosen.drain(..matched.saturating_sub(args.limit.unwrap_or(usize::MAX)));
    if args.watch {
        return watch(&store, args, &times, all.clone(), &chosen);
    }
    if matched == 0 && !args.json {
        tell_nothing(args, &all, &store);
    }
    if chosen.is_empty() && !args.json {
        return Ok(Done::silent());
    }
    Done::either(args.json, &Output { schema: 1, events: chosen }, |output| table(&output.events, &times))
}

fn tell_nothing(args: &Args, all: &[Event], store: &Store) {
    output::note(&match all.len() {
        0 => format!("no events in {}", store.dir().display()),
        n => format!("no event matches; the store has {n}"),
    });
    let rules = all.iter().map(|event| event.rule.clone()).collect();
    names::meant_by([("--rule", args.rule.as_deref(), &rules)]).iter().for_each(|meant| output::note(meant));
}

impl Args {
    fn accepts(&self, event: &Event, now_ms: i64, times: &Times) -> bool {
        let age_ms = times::since(&event.at, now_ms);
        self.pid.is_none_or(|pid| pid == event.pid)
            && self.rule.as_ref().is_none_or(|rule| *rule == event.rule)
            && self.since.as_ref().is_none_or(|since| !times.is_before(&event.at, age_ms, since))
            && self.until.as_ref().is_none_or(|until| !times.is_after(&event.at, age_ms, until))
    }
}

/// Formats events as a table.
pub fn table(events: &[&Event], times: &Times) -> String {
    let header = [format!("TIME ({})", times.name()), "EVENT".into(), "ABOUT".into(), "WHY".into()];
    let rows: Vec<_> = events.iter().map(|event| row(event, times)).collect();
    output::table_with_cuts(&header.each_ref().map(String::as_str), &rows, &[0, 2], &[2])
}

fn row(event: &Event, times: &Times) -> Vec<String> {
    let what = if event.event == "verdict" { &event.verdict } else { &event.event };
    let mut about: Vec<String> = [&event.id, &event.rule].into_iter().filter(|s| !s.is_empty()).cloned().collect();
    if event.pid > 0 {
        about.push(format!("pid {}", event.pid));
    }
    let figures: Vec<String> =
        event.observed.iter().map(|(name, value)| format!("{name} {}", observed(name, value))).collect();
    let why =
        if figures.is_empty() { event.reason.clone() } else { format!("{} [{}]", event.reason, figures.join(", ")) };
    vec![times.show(&event.at), what.clone(), about.join(" "), why]
}

// An event by itself: nobody knows the width of those to come. In a terminal, its further lines are indented beside the time.
fn line(event: &Event, times: &Times) -> String {
    let [time, rest @ ..] = &row(event, times)[..] else { return String::new() };
    let mark = printable(time) + "  ";
    output::row(&mark, mark.len(), &rest.join("  ")).trim_end().to_owned()
}

// A watcher may start before the workers, as the sidecar of a pod does. Their first poll creates the store.
fn wait_for_a_store(dir: &Path) {
    let exists = || dir.join("FORMAT").exists();
    if !exists() {
        output::note(&format!("there is no store at {} yet; waiting for the first poll", dir.display()));
    }
    while !exists() {
        std::thread::sleep(LOOK);
    }
}

// The file is bounded: its older half is dropped now and then. What was printed is known by the last event, not by its place.
fn watch(store: &Store, args: &Args, times: &Times, mut known: Vec<Event>, first: &[&Event]) -> Result<Done, Failure> {
    let print = |events: &[&Event]| -> io::Result<()> {
        let mut out = output::stdout()?;
        for event in events {
            let line =
                if args.json { output::printable_json(serde_json::to_string(event)?) } else { line(event, times) };
            writeln!(out, "{line}")?;
        }
        out.flush()
    };
    let told = |result: io::Result<()>| match result {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(output::unprintable(&e)),
        Ok(()) => Ok(true),
    };
    let mut goes_on = told(print(first))?;
    while goes_on {
        std::thread::sleep(LOOK);
        let now = events::read(store);
        let news = new_since(&known, &now);
        let now_ms = clock::Reading::take(String::new()).wall_ms;
        let chosen: Vec<&Event> = news.iter().filter(|event| args.accepts(event, now_ms, times)).collect();
        goes_on = told(print(&chosen))?;
        known = now;
    }
    Ok(Done::silent())
}

// Returns the events after the known ones, of which the oldest may have been dropped.
fn new_since<'e>(known: &[Event], now: &'e [Event]) -> &'e [Event] {
    let kept = (0..=known.len()).map(|dropped| &known[dropped..]).find(|kept| now.starts_with(kept));
    &now[kept.map_or(0, <[Event]>::len)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_prints_each_event_once_whatever_was_dropped_before_it() {
        let event = |name: &str| Event::about("verdict", "", name);
        let all = |names: &str| names.split(' ').filter(|name| !name.is_empty()).map(event).collect::<Vec<_>>();
        let table = [
            ("", "a b", "a b"),
            ("a b", "a b", ""),
            ("a b", "a b c", "c"),
            ("a b c", "b c d", "d"),
            ("a b", "x y", "x y"),
            ("a a", "a a a", "a"),
            ("a b a", "a b a b a", "b a"),
        ];
        for (known, now, expected) in table {
            let now = all(now);
            let news: Vec<&str> = new_since(&all(known), &now).iter().map(|event| event.reason.as_str()).collect();
            assert_eq!(news.join(" "), expected, "{known} then {now:?}");
        }
    }
}
