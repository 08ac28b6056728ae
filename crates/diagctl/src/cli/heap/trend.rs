//! `diagctl heap trend`: what grows over the heap summaries of one process.

use diagctl_heapdump::summary::trend::{self, FEWEST, Point, Series, Trend};
use diagctl_heapdump::summary::{Groups, Summary};
use diagctl_store::index::{Entry, Listing};
use diagctl_store::{Access, Id, Store};
use serde::Serialize;

use super::grouping::By;
use super::input::{self, SUMMARY};
use super::{Context, Done, Failure};
use crate::cli::diagnose::text::wrapped;
use crate::cli::error::printable;
use crate::cli::output::{self, who};
use crate::cli::times::{self, Moment, Times};
use crate::exit_code::Exit;
use crate::history::{self, Recorded};
use crate::units::{duration, size};

/// Show which classes or sites grow over the summaries of a process
///
/// Reads the heap_summary reports of one process: that of the newest summary that the filters accept. A leak is what grows in each of
/// them. At least three are needed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  diagctl heap trend\n  diagctl heap trend --name worker-0 --since 12h --by site")]
pub struct Args {
    /// Only summaries of this process
    #[arg(long, allow_negative_numbers = true)]
    pid: Option<u32>,
    /// Only summaries of processes with this role
    #[arg(long)]
    role: Option<String>,
    /// Only summaries of the process with this name
    #[arg(long)]
    name: Option<String>,
    /// Only summaries younger than this (90m, 2h, 14d), or since a time (2026-11-22 10:15, 2026-11-22T10:15:30Z)
    #[arg(long, value_name = "TIME", value_parser = times::parse_moment, allow_hyphen_values = true)]
    since: Option<Moment>,
    /// Group the objects by this
    #[arg(long, value_enum, default_value_t = By::Class)]
    by: By,
    /// Show at most N groups
    #[arg(short = 'n', long, value_name = "N", default_value_t = 15)]
    limit: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The most summaries that are read, the newest.
const MOST: usize = 500;
/// A recorded poll tells the memory of a summary that was taken this close to it, milliseconds.
const CLOSE_MS: u64 = 600_000;
/// Groups that a verdict names.
const NAMED: usize = 3;

#[derive(Serialize)]
struct View {
    schema: u32,
    pid: u32,
    role: String,
    name: String,
    summaries: Vec<Taken>,
    over_ms: u64,
    /// True if the figures leave out what did not survive three collections.
    old_only: bool,
    verdict: &'static str,
    because: Vec<String>,
    all: Row,
    groups: Vec<Row>,
    /// Groups that the limit left out.
    left_out: usize,
    next: Vec<String>,
}

/// One summary.
#[derive(Clone, Serialize)]
struct Taken {
    id: Id,
    at: String,
    store_ms: u64,
    /// Resident set at that time, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    rss: Option<u64>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    growth: i64,
    per_hour: i64,
    always_grows: bool,
    leaks: bool,
    bytes: Vec<u64>,
    counts: Vec<u64>,
}

impl From<&Series> for Row {
    fn from(series: &Series) -> Self {
        Self {
            name: series.name.clone(),
            growth: i64::try_from(series.growth()).unwrap_or(i64::MAX),
            per_hour: series.per_hour,
            always_grows: series.always_grows,
            leaks: series.leaks(),
            bytes: series.bytes.clone(),
            counts: series.counts.clone(),
        }
    }
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let store = cx.open(Access::Read)?;
    let (_, now) = cx.peek(&store)?;
    let times = Times::new(false);
    let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
    let accepts = |entry: &Entry| {
        let age_ms = now.store_ms.saturating_sub(entry.store_ms);
        is(&args.role, &entry.role)
            && is(&args.name, &entry.worker)
            && args.pid.is_none_or(|pid| pid == entry.pid)
            && entry.reports.iter().any(|report| report.name == *SUMMARY && report.has_data())
            && args.since.as_ref().is_none_or(|since| !times.is_before(&entry.created, age_ms, since))
    };
    let listing = Listing::all(&store)?;
    let entries = listing.newest_first().filter_map(|number| listing.entry(number)).filter(accepts).take(MOST);
    let (of_process, others) = of_one_process(&store, entries.collect());
    let Some(newest) = of_process.last() else {
        return Err(too_few(0, "no process has a heap_summary that passes the filters"));
    };
    let (pid, role, name) = (newest.pid, newest.role.clone(), newest.worker.clone());
    let process = format!("process {pid} {}", who(&role, &name));
    let (taken, points) = read(&store, &of_process);
    if points.len() < FEWEST {
        return Err(too_few(points.len(), &format!("{} of {}", counted(points.len()), printable(&process))));
    }
    if others > 0 {
        output::note(&format!("{} of other processes left out; see --pid", counted(others)));
    }
    let taken = with_memory(&store, taken, pid)?;
    let trend = trend::of(&points, groups_of(args.by));
    let view = view(args, (pid, role, name), taken, &trend);
    Done::either(args.json, &view, |view| text(view, &trend, args))
}

fn counted(summaries: usize) -> String {
    format!("{summaries} {}", if summaries == 1 { "summary" } else { "summaries" })
}

fn too_few(found: usize, what: &str) -> Failure {
    let message =
        if found == 0 { what.to_owned() } else { format!("a trend needs {FEWEST} summaries; there is {what}") };
    let message = if found > 1 { message.replace("there is", "there are") } else { message };
    Failure::new(Exit::NoMatch, message).hint(
        "a rule with reports = [\"heap_summary\"] and a timer takes them; see `diagctl list --report heap_summary`",
    )
}

fn groups_of(by: By) -> fn(&Summary) -> &Groups {
    match by {
        By::Class => |summary| &summary.classes,
        By::Type => |summary| &summary.types,
        By::Site => |summary| &summary.sites,
        By::Generation => |summary| &summary.generations,
    }
}

// The captures of the process that has the newest, oldest first, and the number of all others. A pid is used again, so the start counts.
fn of_one_process(store: &Store, entries: Vec<Entry>) -> (Vec<Entry>, usize) {
    let start = |entry: &Entry| {
        let capture = store.capture(&entry.id).ok()?;
        let meta = capture.meta();
        Some((meta.pid, meta.pid_ns, meta.start_time, meta.boot_id.clone()))
    };
    let all = entries.len();
    let Some(process) = entries.iter().find_map(start) else { return (Vec::new(), all) };
    let mut own: Vec<Entry> =
        entries.into_iter().filter(|entry| entry.pid == process.0 && start(entry).as_ref() == Some(&process)).collect();
    own.reverse();
    let others = all - own.len();
    (own, others)
}

// A summary that cannot be read is left out.
fn read(store: &Store, entries: &[Entry]) -> (Vec<Taken>, Vec<Point>) {
    let one = |entry: &Entry| -> Result<Summary, Failure> {
        let capture = store.capture(&entry.id)?;
        input::summary(entry.id.as_ref(), capture.reader(SUMMARY)?)
    };
    let (mut taken, mut points) = (Vec::new(), Vec::new());
    for entry in entries {
        match one(entry) {
            Ok(summary) if summary.complete => {
                let (at, store_ms) = (entry.created.clone(), entry.store_ms);
                taken.push(Taken { id: entry.id, at, store_ms, rss: None });
                points.push(Point { at_ms: entry.store_ms, summary });
            }
            Ok(_) => output::note(&format!("skipped {}: its summary is of a part of the heap", entry.id)),
            Err(why) => output::note(&format!("skipped {}: {}", entry.id, why.message)),
        }
    }
    (taken, points)
}

fn with_memory(store: &Store, mut taken: Vec<Taken>, pid: u32) -> Result<Vec<Taken>, Failure> {
    let history = history::read(store)?;
    let polls: Vec<&Recorded> = history.iter().filter(|poll| poll.pid == pid).collect();
    for one in &mut taken {
        let nearest = polls.iter().min_by_key(|poll| poll.at.abs_diff(one.store_ms));
        let nearest = nearest.filter(|poll| poll.at.abs_diff(one.store_ms) <= CLOSE_MS);
        one.rss = nearest.and_then(|poll| poll.memory.get("rss").copied());
    }
    Ok(taken)
}

fn view(args: &Args, (pid, role, name): (u32, String, String), taken: Vec<Taken>, trend: &Trend) -> View {
    let over_ms = match (taken.first(), taken.last()) {
        (Some(first), Some(last)) => last.store_ms.saturating_sub(first.store_ms),
        _ => 0,
    };
    let leaks: Vec<&Series> = trend.groups.iter().filter(|group| group.leaks()).collect();
    let rss = rss_growth(&taken);
    let mut because: Vec<String> = leaks.iter().take(NAMED).map(|leak| sentence(leak, taken.len(), rss)).collect();
    let more = leaks.len().saturating_sub(NAMED);
    if more > 0 {
        because.push(format!("{more} more grow in each of them"));
    }
    if rss.is_none() {
        because.push(
            "the growth of RSS is not known: no poll was recorded near the first and the last summary".to_owned(),
        );
    }
    let verdict = match leaks.is_empty() {
        false => "leak",
        true if trend.all.leaks() => "grows",
        true => "no_leak",
    };
    let next = leaks.first().map(|leak| {
        let to = if args.by == By::Class { leak.name.as_str() } else { "CLASS" };
        vec![
            format!("diagctl request heap_dump --pid {pid} --reason 'what keeps it?' --wait"),
            format!("diagctl heap path latest '{}'", to.replace('\'', "")),
        ]
    });
    View {
        schema: 1,
        pid,
        role,
        name,
        over_ms,
        old_only: trend.old_only,
        verdict,
        because,
        all: Row::from(&trend.all),
        groups: trend.groups.iter().take(args.limit).map(Row::from).collect(),
        left_out: trend.groups.len().saturating_sub(args.limit),
        next: next.unwrap_or_default(),
        summaries: taken,
    }
}

fn rss_growth(taken: &[Taken]) -> Option<i128> {
    Some(i128::from(taken.last()?.rss?) - i128::from(taken.first()?.rss?))
}

fn sentence(leak: &Series, summaries: usize, rss: Option<i128>) -> String {
    let (first, last) = (leak.bytes.first().copied().unwrap_or(0), leak.bytes.last().copied().unwrap_or(0));
    let mut text = format!(
        "{} grows in each of {summaries} summaries: from {} to {}, {} an hour",
        leak.name,
        size(first),
        size(last),
        signed(leak.per_hour.into())
    );
    match rss {
        Some(grown) if grown > 0 => {
            let share = leak.growth() * 100 / grown;
            text.push_str(&format!(
                "; {share} % of the growth of RSS, {}",
                size(u64::try_from(grown).unwrap_or(u64::MAX))
            ));
        }
        Some(_) => text.push_str("; RSS did not grow"),
        None => {}
    }
    text
}

fn signed(bytes: i128) -> String {
    let text = size(u64::try_from(bytes.unsigned_abs()).unwrap_or(u64::MAX));
    if bytes < 0 { format!("-{text}") } else { format!("+{text}") }
}

/// The most bars of a sparkline: the table fits 80 columns.
const BARS: usize = 12;

fn sparkline(figures: &[u64]) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let step = figures.len().div_ceil(BARS).max(1);
    // The last one always shows.
    let mut shown: Vec<u64> = figures.iter().rev().step_by(step).copied().collect();
    shown.reverse();
    let (least, most) = (shown.iter().min().copied().unwrap_or(0), shown.iter().max().copied().unwrap_or(0));
    let level = |figure: &u64| ((figure - least) * 7).checked_div(most - least).unwrap_or(0) as usize;
    shown.iter().map(|figure| LEVELS[level(figure).min(7)]).collect()
}

fn text(view: &View, trend: &Trend, args: &Args) -> String {
    let of = match view.old_only {
        true => "objects that survived three collections",
        false => "all objects, garbage too",
    };
    let mut text = format!(
        "process {} {}: {} over {}\nfigures: {of}\n\n",
        view.pid,
        who(&view.role, &view.name),
        counted(view.summaries.len()),
        duration(view.over_ms)
    );
    let said = match view.verdict {
        "leak" => "Leak:",
        "grows" => "It grows, but no group of objects grows in each summary.",
        _ => "No leak: nothing grows in each summary.",
    };
    text.push_str(said);
    for reason in &view.because {
        text.push('\n');
        text.push_str(wrapped("  - ", &printable(reason)).trim_end());
    }
    text.push_str("\n\n");
    let heading = match args.by {
        By::Class => "CLASS",
        By::Type => "TYPE",
        By::Site => "SITE",
        By::Generation => "GENERATION",
    };
    let row = |series: &Series| {
        vec![
            sparkline(&series.bytes),
            size(series.bytes.last().copied().unwrap_or(0)),
            signed(series.growth()),
            format!("{}/h", signed(series.per_hour.into())),
            if series.leaks() { "yes" } else { "" }.to_owned(),
            series.name.clone(),
        ]
    };
    let shown = std::iter::once(&trend.all).chain(trend.groups.iter().take(args.limit));
    let rows: Vec<Vec<String>> = shown.map(row).collect();
    text.push_str(&output::table(&["TREND", "NOW", "GROWTH", "SLOPE", "LEAK", heading], &rows, &[1, 2, 3], &[3, 1]));
    text.push_str(&super::left_out(view.left_out));
    if !view.next.is_empty() {
        text.push_str(&format!("\n\nNext:\n  {}\n", view.next.join("\n  ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_shows_the_last_figure_and_at_most_twelve() {
        assert_eq!(sparkline(&[0, 50, 100]), "▁▄█");
        assert_eq!(sparkline(&[5, 5, 5]), "▁▁▁");
        let many: Vec<u64> = (0..100).collect();
        let line = sparkline(&many);
        assert!(line.chars().count() <= BARS && line.ends_with('█'), "{line}");
    }
}
