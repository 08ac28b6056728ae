//! `diagctl compare`: says what changed between two captures of one process.

use serde::Serialize;

use super::diagnose::account_of;
use super::diagnose::subject::Subject;
use super::identity::Key;
use super::output::{self, Done};
use super::remote::view::{From, View as Brought, Wanted};
use super::times::age;
use super::{Context, Failure};
use crate::cli::error::printable;
use crate::diagnose::{Comparison, compare};
use crate::units::size;

/// Compare two captures of one process: what grew
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  diagctl compare 20261128T041936157Z-af22a2f7 latest")]
pub struct Args {
    /// The earlier capture: its ID or a unique prefix
    #[arg(value_name = "A")]
    before: String,
    /// The later capture: its ID, a unique prefix, or `latest`
    #[arg(value_name = "B")]
    after: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    from: From,
    #[command(flatten)]
    key: Key,
}

#[derive(Debug, Serialize)]
struct View<'a> {
    schema: u32,
    before: String,
    after: String,
    /// True if both captures are of the same process.
    same_process: bool,
    /// The time between the captures, milliseconds.
    apart_ms: u64,
    #[serde(flatten)]
    comparison: &'a Comparison,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    args.key.unlock(cx)?;
    let (mut before, mut after) = (args.before.clone(), args.after.clone());
    let brought = args.from.view(cx, vec![&mut before, &mut after], Wanted::AllBut(&["heap_dump"]))?;
    let cx = brought.as_ref().map_or(cx, Brought::cx);
    let mut before = Subject::capture(cx, &before)?;
    let mut after = Subject::capture(cx, &after)?;
    if before.capture.is_some() && before.capture == after.capture {
        let (a, b) = (printable(&args.before), printable(&args.after));
        output::note(&format!("{a} and {b} are the same capture; `diagctl list` shows others"));
    } else if before.age_ms < after.age_ms {
        output::note("the first capture is the later one; they are compared in the order of their times");
        std::mem::swap(&mut before, &mut after);
    }
    let accounts = (account_of(&before)?, account_of(&after)?);
    let same_process =
        before.host == after.host && before.evidence.pid == after.evidence.pid && before.start_time == after.start_time;
    let comparison = compare((&before.evidence, &accounts.0), (&after.evidence, &accounts.1), same_process);
    let id = |subject: &Subject| subject.capture.map(|id| id.to_string()).unwrap_or_default();
    let view = View {
        schema: 1,
        before: id(&before),
        after: id(&after),
        same_process,
        apart_ms: before.age_ms.saturating_sub(after.age_ms),
        comparison: &comparison,
    };
    let next = format!("diagctl diagnose {}", view.after);
    let next = brought.as_ref().map_or_else(|| next.clone(), |view| view.suggested(&next));
    Done::either(args.json, &view, |view| text(view, &before, &after, &next))
}

fn text(view: &View<'_>, before: &Subject, after: &Subject, next: &str) -> String {
    let mut text = String::new();
    let apart = age(0, view.apart_ms);
    for (mark, id, subject) in [("A", &view.before, before), ("B", &view.after, after)] {
        text.push_str(&format!("{mark}  {id}  {}\n", subject.process()));
    }
    let note = if view.same_process { "" } else { "; these are two processes" };
    text.push_str(&format!("{apart} apart{note}\n\n{}\n\n", view.comparison.sentence));
    let header = ["PART", "A", "B", "CHANGE"];
    let row = |name: &str, before: u64, after: u64| {
        let change = i128::from(after) - i128::from(before);
        vec![name.to_owned(), size(before), size(after), signed(change)]
    };
    let comparison = view.comparison;
    let parts = comparison.parts.iter().map(|change| row(change.part.name(), change.before, change.after));
    let rows: Vec<_> = parts.chain([row("resident (RSS)", comparison.rss_before, comparison.rss_after)]).collect();
    text.push_str(&format!("{}\n", output::table(&header, &rows, &[1, 2, 3], &[])));
    if !comparison.classes.is_empty() {
        let classes = comparison.classes.iter();
        let row = |c: &crate::diagnose::ClassChange| {
            vec![format!("{:+}", c.count), signed(i128::from(c.bytes)), c.class.clone()]
        };
        let rows: Vec<_> = classes.map(row).collect();
        text.push_str(&format!("\n{}\n", output::table(&["OBJECTS", "SIZE", "CLASS"], &rows, &[0, 1], &[])));
    }
    text.push_str(&format!("\nNext:\n  {next}\n"));
    text
}

fn signed(change: i128) -> String {
    let sign = match change {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    format!("{sign}{}", size(u64::try_from(change.unsigned_abs()).unwrap_or(u64::MAX)))
}
