//! `diagctl heap`: reads heap dumps. One file for each subcommand.

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

use super::output::Done;
use super::{Context, Failure};

/// Analyse a heap dump
///
/// DUMP is a capture ID, a unique prefix of one, or `latest`; a file (one with the name of a capture as ./NAME); or `-` for stdin. It may
/// be a heap graph or what ObjectSpace.dump_all wrote, compressed with gzip or zstd or not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  diagctl heap top latest\n  diagctl heap diff A B C")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
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

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    match &args.command {
        Command::Top(args) => top::run(cx, args),
        Command::Retained(args) => retained::run(cx, args),
        Command::Path(args) => path::run(cx, args),
        Command::Diff(args) => diff::run(cx, args),
        Command::Object(args) => object::run(cx, args),
        Command::Strings(args) => strings::run(cx, args),
        Command::Waste(args) => waste::run(cx, args),
        Command::Trend(args) => trend::run(cx, args),
        Command::Export(args) => export::run(cx, args),
    }
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
