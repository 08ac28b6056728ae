//! `diagctl verify`: checks that captures are unchanged since they were acknowledged. Reads every file, compares its checksum
//! and decompresses it. Changes nothing.

mod check;

use std::collections::BTreeSet;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::output::{self, Done};
use super::remote::Days;
use super::remote::hints::{As, of_command};
use super::remote::view::{From, Target, View, Wanted};
use super::rm::each;
use super::{Context, Failure};
use crate::cli::error::printable;
use crate::exit_code::Exit;
use crate::units::size;
use check::capture;
use diagctl_store::index::{self, Present};
use diagctl_store::{Access, Id, ReportName, Store};

/// Verify captures against their checksums; changes nothing
///
/// Exit status 0: everything is intact; 1: something is damaged; 4: no capture matches an ID; 6: a newer diagctl wrote one.
#[derive(Debug, clap::Args)]
#[command(override_usage = "diagctl verify [OPTIONS] <ID>...\n       diagctl verify [OPTIONS] --all")]
#[command(
    after_help = "Examples:\n  diagctl verify latest\n  diagctl verify --all\n  diagctl verify --remote --host web-1 --all"
)]
pub struct Args {
    /// Capture IDs, unique prefixes, or `latest`
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Verify every capture; an empty store is not an error
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    from: From,
}

#[derive(Debug, Default, Serialize)]
struct Outcome {
    schema: u32,
    /// True if nothing is damaged.
    ok: bool,
    captures: usize,
    files: usize,
    /// Bytes read from the store.
    bytes: u64,
    damaged: Vec<Damage>,
    /// Files in a capture's directory that its meta.json does not list. They do no harm.
    unknown: Vec<Unknown>,
    /// Captures that were deleted during the check.
    gone: Vec<Id>,
    /// Captures that a newer diagctl wrote. They were not verified.
    newer: Vec<Id>,
}

#[derive(Debug, Default, Serialize)]
struct Damage {
    capture: Id,
    /// `null` for the capture's own record.
    report: Option<ReportName>,
    file: String,
    problem: String,
    /// Set if the remote does not have the file.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    missing: bool,
    expected_sha256: Option<String>,
    found_sha256: Option<String>,
    expected_bytes: Option<u64>,
    found_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Unknown {
    capture: Id,
    file: String,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    if args.ids.is_empty() && !args.all {
        return Err(Failure::new(Exit::Usage, "verify needs the ID of a capture, or --all")
            .hint("`diagctl verify latest` verifies the newest capture, `diagctl verify --all` every one"));
    }
    if args.from.is_remote() {
        let delete = of_command("diagctl rm --remote HOST/ID", As { options: &cx.options, host: None });
        let mend = format!("diagctl ship --again ID` on the node sends what its store still has, and `{delete}");
        return finish(of_remote(cx, args)?, args, &mend);
    }
    let store = cx.open(Access::Read)?;
    let mut present = Present::list(&store)?;
    let ids: BTreeSet<Id> = if args.all { present.ids().collect() } else { named(&store, &present, &args.ids)? };
    let mut work = 0;
    index::visit(&store, &mut present, |entry| {
        if ids.contains(&entry.id) {
            work += entry.reports.iter().map(|report| report.stored_bytes + report.raw_bytes).sum::<u64>();
        }
    });
    let bar = if output::is_watched() { ProgressBar::new(work) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("verifying {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}") {
        bar.set_style(style);
    }
    let mut outcome = Outcome { schema: 1, ..Outcome::default() };
    for id in &ids {
        capture(&store, id, &bar, &mut outcome);
    }
    bar.finish_and_clear();
    finish(outcome, args, "diagctl rm ID")
}

// Other commands take the latest capture that can be read. Here, one whose record is damaged must not pass as an older one.
fn named(store: &Store, present: &Present, names: &[String]) -> Result<BTreeSet<Id>, Failure> {
    let unreadable = present.ids().max().filter(|id| store.capture(id).is_err());
    let latest = unreadable.filter(|_| names.iter().any(|name| name == "latest"));
    let others: Vec<String> = names.iter().filter(|name| latest.is_none() || *name != "latest").cloned().collect();
    latest.into_iter().map(Ok).chain(each(store, &others)).collect()
}

// One capture after the other: a remote has more than this machine has room for.
fn of_remote(cx: &Context, args: &Args) -> Result<Outcome, Failure> {
    let targets = if args.all {
        let entries = args.from.captures(cx, &Days::default())?;
        entries.into_iter().map(|entry| Target { entry, report: None }).collect()
    } else {
        args.ids.iter().map(|id| args.from.resolve(cx, id)).collect::<Result<Vec<_>, _>>()?
    };
    let mut outcome = Outcome { schema: 1, ..Outcome::default() };
    for target in targets {
        let id = target.entry.id;
        let view = View::of(cx, vec![target], Wanted::Unchecked)?;
        let (store, before) = (view.cx().open(Access::Read)?, outcome.damaged.len());
        capture(&store, &id, &ProgressBar::hidden(), &mut outcome);
        // An object was not brought. Its path on this machine says nothing to a person.
        let place = view.place(&id).unwrap_or_default();
        for damage in &mut outcome.damaged[before..] {
            if let Some(why) = view.refusal(&id, &damage.file) {
                damage.problem = why.to_owned();
            } else if !store.report_dir(&id).join(&damage.file).exists() {
                damage.missing = true;
                damage.problem = format!("it is not in the remote, at {place}/{}", damage.file);
            }
        }
    }
    Ok(outcome)
}

fn finish(mut outcome: Outcome, args: &Args, delete: &str) -> Result<Done, Failure> {
    outcome.ok = outcome.damaged.is_empty();
    let exit = match outcome.ok {
        true if outcome.newer.is_empty() => Exit::Ok,
        true => Exit::NewerStore,
        false => Exit::Failed,
    };
    Ok(Done::either(args.json, &outcome, |outcome| text(outcome, delete))?.with_exit(exit))
}

fn text(outcome: &Outcome, delete: &str) -> String {
    let mut lines = Vec::new();
    for damage in &outcome.damaged {
        let word = if damage.missing { "missing" } else { "damaged" };
        lines.push(printable(&format!("{word}  {} {}: {}", damage.capture, damage.file, damage.problem)));
        let pairs = [
            ("recorded", &damage.expected_sha256, damage.expected_bytes),
            ("found", &damage.found_sha256, damage.found_bytes),
        ];
        // A damaged record has nothing to compare, and a missing file has nothing to compare with.
        for (word, sha256, bytes) in pairs.into_iter().filter(|_| damage.found_bytes.is_some()) {
            let sha256 = printable(sha256.as_deref().unwrap_or("none"));
            lines.push(format!("         {word:<9} sha256 {sha256}, {} bytes", bytes.unwrap_or(0)));
        }
    }
    for unknown in &outcome.unknown {
        lines.push(printable(&format!("unknown  {} {}: not listed in meta.json", unknown.capture, unknown.file)));
    }
    for id in &outcome.gone {
        lines.push(format!("gone     {id}: deleted meanwhile"));
    }
    for id in &outcome.newer {
        lines.push(format!("newer    {id}: a newer diagctl wrote it; use that version"));
    }
    let plural = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
    let (captures, files) = (plural(outcome.captures, "capture"), plural(outcome.files, "file"));
    let checked = format!("verified {captures}: {files} ({}) intact", size(outcome.bytes));
    if outcome.ok {
        lines.push(checked);
    } else {
        let missing = outcome.damaged.iter().filter(|damage| damage.missing).count();
        let counts = [(outcome.damaged.len() - missing, "damaged"), (missing, "missing")];
        let counts =
            counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!(", {count} {word}"));
        lines.push(format!("{checked}{}", counts.collect::<String>()));
        lines.push(format!("nothing was changed; intact reports can still be fetched, `{delete}` deletes a capture"));
    }
    lines.join("\n")
}
