//! `diagctl heap trend`: what grows over the heap summaries of one process.

mod figures;
mod points;
mod releases;
mod roots;
mod text;
mod view;

use diagctl_heapdump::summary::trend::{self, FEWEST, Series};
use diagctl_heapdump::summary::{Groups, Summary};
use diagctl_store::index::{Entry, Listing};
use diagctl_store::{Access, Store};

use super::input::SUMMARY;
use super::leak;
use super::{Context, Done, Failure};
use crate::cli::error::printable;
use crate::cli::names;
use crate::cli::output::{self, who};
use crate::cli::remote::Days;
use crate::cli::remote::view::{From, Target, View, Wanted};
use crate::cli::times::{self, Moment, Times};
use crate::exit_code::Exit;
use points::{of_one_process, read, with_memory};
use view::{Besides, view as shown};

/// The key by which the objects of a trend are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    Class,
    Type,
    Site,
    Generation,
    /// The roots that keep them. Reads heap dumps, about a second each for a million objects
    Root,
}

/// Show which classes, sites or roots grow over the summaries of a process
///
/// Reads the heap_summary reports of one process: that of the newest summary that the filters accept. A leak is what grows in each of
/// them. At least three are needed; for roots, three heap dumps.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  diagctl heap trend\n  diagctl heap trend --name worker-0 --since 12h --by site\n  diagctl heap trend --by root"
)]
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

/// The most summaries that are brought from the remote.
const MOST_REMOTE: usize = 200;

/// Brings the summaries that the filters accept from the remote: those of the machine that has the newest.
pub fn view(cx: &Context, from: &From, args: &Args) -> Result<Option<View>, Failure> {
    if !from.is_remote() {
        return Ok(None);
    }
    if args.by == By::Root {
        return Err(Failure::new(Exit::Usage, "--by root reads heap dumps, and --remote brings summaries only")
            .hint("use another --by; `heap trend --by root` works where the store is"));
    }
    let now_ms = times::wall_ms(&crate::clock::utc_now());
    let since = args.since.as_ref().map(|since| times::day_before(since, now_ms));
    let entries = from.captures(cx, &Days { since, until: None })?;
    let mut accepted = entries.into_iter().filter(|entry| args.accepts(entry, now_ms)).peekable();
    let host = accepted.peek().map(|entry| entry.host.clone()).unwrap_or_default();
    let of_host: Vec<Entry> = accepted.filter(|entry| entry.host == host).take(MOST_REMOTE).collect();
    let has = |entry: &Entry, name: &str| entry.reports.iter().any(|report| report.name == *name && report.has_data());
    // `smaps` is large, and needed only where the other is missing.
    let besides: &[&str] = match of_host.iter().all(|entry| has(entry, "smaps_rollup")) {
        true => &["smaps_rollup"],
        false => &["smaps_rollup", "smaps"],
    };
    let targets = of_host.into_iter().map(|entry| Target { entry, report: Some(SUMMARY.to_owned()) }).collect();
    View::of(cx, targets, Wanted::NamedAnd(besides)).map(Some)
}

impl Args {
    fn accepts(&self, entry: &Entry, now_ms: u64) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        let age_ms = now_ms.saturating_sub(entry.store_ms);
        is(&self.role, &entry.role)
            && is(&self.name, &entry.worker)
            && self.pid.is_none_or(|pid| pid == entry.pid)
            && entry.reports.iter().any(|report| report.name == *SUMMARY && report.has_data())
            && self.since.as_ref().is_none_or(|since| !Times::new(false).is_before(&entry.created, age_ms, since))
    }

    // Returns the names that were probably meant, where none is that of a process with a summary.
    fn meant(&self, entries: impl Iterator<Item = Entry>) -> Option<String> {
        let with_summary = entries.filter(|entry| entry.reports.iter().any(|report| report.name == *SUMMARY));
        let (roles, names) = with_summary.map(|entry| (entry.role, entry.worker)).unzip();
        let filters = [("--role", self.role.as_deref(), &roles), ("--name", self.name.as_deref(), &names)];
        let meant = names::meant_by(filters);
        (!meant.is_empty()).then(|| meant.join("; "))
    }
}

pub fn run(cx: &Context, args: &Args, is_remote: bool) -> Result<Done, Failure> {
    let store = cx.open(Access::Read)?;
    let (_, now) = cx.peek(&store)?;
    let accepts = |entry: &Entry| args.accepts(entry, now.store_ms);
    let listing = Listing::all(&store)?;
    let entries = listing.newest_first().filter_map(|number| listing.entry(number)).filter(accepts).take(MOST);
    let (of_process, others) = of_one_process(&store, entries.collect());
    let Some(newest) = of_process.last() else {
        let failure = too_few(0, "no process has a heap_summary that passes the filters");
        return Err(match args.meant(listing.newest_first().filter_map(|number| listing.entry(number))) {
            Some(meant) => failure.hint(meant),
            None => failure,
        });
    };
    let (pid, role, name) = (newest.pid, newest.role.clone(), newest.worker.clone());
    let process = format!("process {pid} {}", who(&role, &name));
    if args.by == By::Root {
        return by_root(cx, args, &store, &of_process);
    }
    let (taken, points) = read(&store, &of_process)?;
    if points.len() < FEWEST {
        return Err(too_few(points.len(), &format!("{} of {}", counted(points.len()), printable(&process))));
    }
    if !others.is_empty() {
        output::note(&format!("{} of other processes left out; see --pid", counted(others.len())));
    }
    let taken = with_memory(&store, taken, pid)?;
    let trend = trend::of(&points, groups_of(args.by));
    let leaks: Option<&Series> = trend.groups.iter().find(|group| group.leaks());
    let own = taken.last().and_then(|one| one.release.clone());
    let releases = releases::of(&store, newest, own.as_deref(), others, args.by, leaks);
    // A remote is not asked for whole dumps.
    let (dump, found) = if is_remote { (None, None) } else { kept_by(cx, &store, newest) };
    let view = shown(args, (pid, role, name), taken, &trend, Besides { releases, leak: found, dump, is_remote });
    Done::either(args.json, &view, |view| text::render(view, &trend, args))
}

// Only heap dumps have references.
fn by_root(cx: &Context, args: &Args, store: &Store, of_process: &[Entry]) -> Result<Done, Failure> {
    let Some(newest) = of_process.last() else { return Err(too_few(0, "no process has a heap_summary")) };
    let (pid, role, name) = (newest.pid, newest.role.clone(), newest.worker.clone());
    let (taken, points) = roots::read(cx, store, of_process);
    if points.len() < FEWEST {
        let process = format!("{pid} {}", who(&role, &name));
        let message = format!(
            "a trend by root needs {FEWEST} heap dumps; of process {} there are {}",
            printable(process.trim_end()),
            points.len()
        );
        return Err(Failure::new(Exit::NoMatch, message)
            .hint("a rule with reports = [\"heap_dump\"] and capture = \"three\" takes them; see docs/heap.md"));
    }
    let taken = with_memory(store, taken, pid)?;
    let trend = trend::of(&points, groups_of(By::Root));
    let (dump, leak) = kept_by(cx, store, newest);
    let view =
        shown(args, (pid, role, name), taken, &trend, Besides { releases: Vec::new(), leak, dump, is_remote: false });
    Done::either(args.json, &view, |view| text::render(view, &trend, args))
}

// The newest heap dump of the process, and what grew between its dumps. The trend does not depend on it.
fn kept_by(cx: &Context, store: &Store, newest: &Entry) -> (Option<String>, Option<leak::Leak>) {
    let found = (|| {
        let Some(last) = leak::last_dump(store, store.capture(&newest.id)?.meta())? else { return Ok((None, None)) };
        let found = leak::find(cx, &leak::dumps_of(store, &last)?)?;
        Ok((Some(last.id.to_string()), found))
    })();
    found.unwrap_or_else(|why: Failure| {
        output::note(&format!("the heap dumps of the process were not compared: {}", why.message));
        (None, None)
    })
}

fn counted(summaries: usize) -> String {
    counted_as(summaries, By::Class)
}

fn counted_as(number: usize, by: By) -> String {
    match (by, number) {
        (By::Root, _) => format!("{number} heap dump{}", if number == 1 { "" } else { "s" }),
        (_, 1) => "1 summary".to_owned(),
        (_, more) => format!("{more} summaries"),
    }
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
        // See `roots`.
        By::Class | By::Root => |summary| &summary.classes,
        By::Type => |summary| &summary.types,
        By::Site => |summary| &summary.sites,
        By::Generation => |summary| &summary.generations,
    }
}
