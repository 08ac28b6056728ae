//! `diagctl heap`: reads heap dumps. One file for each subcommand.

mod as_far_as_it_goes;
mod diff;
mod export;
mod grouping;
mod input;
pub(super) mod leak;
mod object;
mod path;
mod process;
mod retained;
mod strings;
mod summarized;
mod summary;
mod top;
mod trend;
mod waste;

use super::identity::Key;
use super::output::Done;
use super::remote::view::{From, View, Wanted};
use super::{Context, Failure};
use crate::exit_code::Exit;

/// Analyse a heap dump
///
/// DUMP is a capture ID, a unique prefix of one, or `latest`; a file (one with the name of a capture as ./NAME); or `-` for stdin. It may
/// be a heap graph or what ObjectSpace.dump_all wrote, compressed with gzip or zstd or not.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  diagctl heap top latest\n  diagctl heap diff A B C\n  diagctl heap top --remote --host 'web-*' latest"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    from: From,
    #[command(flatten)]
    key: Key,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Top(top::Args),
    Retained(retained::Args),
    Path(path::Args),
    Diff(diff::Args),
    Object(object::Args),
    Strings(strings::Args),
    Waste(waste::Args),
    Trend(trend::Args),
    Export(export::Args),
}

/// Reports that `heap` reads besides a dump, for the figures about its process.
const BESIDES: [&str; 4] = ["heap_summary", "smaps_rollup", "smaps", "gc_stat"];

pub fn run(cx: &Context, mut args: Args) -> Result<Done, Failure> {
    if args.key.is_stdin() && args.command.dumps().iter().any(|dump| *dump == "-") {
        return Err(Failure::new(Exit::Usage, "the dump and the identity cannot both come from stdin")
            .hint("name a file for one of them"));
    }
    args.key.unlock(cx)?;
    let view = match &mut args.command {
        Command::Trend(trend) => trend::view(cx, &args.from, trend)?,
        other => view(cx, &args.from, other.dumps())?,
    };
    let cx = view.as_ref().map_or(cx, View::cx);
    match &args.command {
        Command::Top(args) => top::run(cx, args),
        Command::Retained(args) => retained::run(cx, args),
        Command::Path(args) => path::run(cx, args),
        Command::Diff(args) => diff::run(cx, args),
        Command::Object(args) => object::run(cx, args),
        Command::Strings(args) => strings::run(cx, args),
        Command::Waste(args) => waste::run(cx, args),
        Command::Trend(trend) => trend::run(cx, trend, args.from.is_remote()),
        Command::Export(args) => export::run(cx, args),
    }
}

impl Command {
    fn dumps(&mut self) -> Vec<&mut String> {
        match self {
            Self::Top(args) => vec![&mut args.dump],
            Self::Retained(args) => vec![&mut args.dump],
            Self::Path(args) => vec![&mut args.dump],
            Self::Diff(args) => [&mut args.a, &mut args.b].into_iter().chain(&mut args.c).collect(),
            Self::Object(args) => vec![&mut args.dump],
            Self::Strings(args) => vec![&mut args.dump],
            Self::Waste(args) => vec![&mut args.dump],
            Self::Export(args) => vec![&mut args.dump],
            Self::Trend(_) => Vec::new(),
        }
    }
}

// Brings the dumps that are not files of this machine.
fn view(cx: &Context, from: &From, dumps: Vec<&mut String>) -> Result<Option<View>, Failure> {
    if !from.is_remote() {
        return Ok(None);
    }
    let is_file = |dump: &String| dump.starts_with(['-', '.', '/']);
    let mut targets = Vec::new();
    for dump in dumps.into_iter().filter(|dump| !is_file(dump)) {
        let mut target = match dump.strip_suffix("latest") {
            // The latest with a dump, or else with the summary of one.
            Some(_) => match from.resolve(cx, &format!("{dump}:heap_dump")) {
                Err(none) if none.exit == Exit::NoMatch => from
                    .resolve(cx, &format!("{dump}:heap_summary"))
                    .map_err(|failure| if failure.exit == Exit::NoMatch { none } else { failure }),
                found => found,
            },
            None => from.resolve(cx, dump),
        }?;
        let has = |name: &str| target.entry.reports.iter().any(|report| report.name == *name && report.has_data());
        let usual = if !has("heap_dump") && has("heap_summary") { "heap_summary" } else { "heap_dump" };
        let is_named = dump.contains(':');
        let report = target.report.get_or_insert_with(|| usual.to_owned());
        *dump = if is_named { format!("{}:{report}", target.entry.id) } else { target.entry.id.to_string() };
        targets.push(target);
    }
    View::of(cx, targets, Wanted::NamedAnd(&BESIDES)).map(Some)
}

// A number of objects, in words.
fn objects(count: u64) -> String {
    format!("{count} {}", if count == 1 { "object" } else { "objects" })
}

// The line below a table that a limit has cut.
fn left_out(groups: usize) -> String {
    match groups {
        0 => String::new(),
        more => format!("\n({more} more; see --limit)"),
    }
}
