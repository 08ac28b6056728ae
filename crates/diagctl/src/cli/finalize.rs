//! `finalize`: the dumper is done. Verifies and publishes the capture, applies retention, and ends the lease.

use super::Context;
use super::output::{self, Done};
use super::view;
use crate::cli::error::{Failure, quoted};
use crate::deadline;
use crate::exit_code::Exit;
use crate::grant::records::{self, Fact, Writers};
use crate::grant::{capture, leftovers};
use diagctl_store::commit::Told;
use diagctl_store::lease::Lease;
use diagctl_store::meta::Meta;
use diagctl_store::{Access, ReportName, Store, holders};

/// Publish a staged capture and release the lease (used by dumpers)
///
/// Prints the capture as JSON. Exit status 0: all reports are stored; 5: at least one failed or is damaged.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Capture ID that `acquire` printed
    capture: String,
    /// Descriptor that holds the lease
    #[arg(long, value_name = "N")]
    lease_fd: i32,
    /// A report that could not be produced, and why (repeatable)
    #[arg(long, value_name = "REPORT=MESSAGE")]
    failed: Vec<String>,
    /// Metadata: cost.NAME=NUMBER, took.REPORT=MILLISECONDS, note.REPORT=TEXT, versions.NAME=TEXT, or a label (repeatable)
    #[arg(long, value_name = "K=V")]
    set: Vec<String>,
    /// Read reports, failures and metadata as records from stdin
    #[arg(long)]
    records: bool,
    /// The dumper has died: publish what is whole. The descriptor need not hold the lease
    #[arg(long)]
    broken_off: bool,
}

/// The maximum size of a text from a dumper, in bytes. Longer texts are cut.
const LONGEST: usize = 4096;

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let store = cx.open(Access::Write)?;
    let lease = Lease::inherited(args.lease_fd, store.dir(), store.owner())?;
    let inherited = args.broken_off && !lease.is_held()?;
    if inherited {
        capture::inherit_from_the_dead(&store, &lease, &args.capture)?;
    }
    let finished = finish(cx, args, &store, &lease);
    if finished.is_err() && inherited {
        // Released here, because the process that passed the description may live long.
        lease.release()?;
    }
    finished
}

fn finish(cx: &Context, args: &Args, store: &Store, lease: &Lease) -> Result<Done, Failure> {
    let grant = capture::join(store, lease, &args.capture)?;
    let staging = store.own_staging(&grant.meta.id)?;
    holders::register(&staging, &cx.proc);
    let mut told = parse(args)?;
    if args.records {
        deadline::end_with_the_capture(&cx.proc, store, output::note)?;
        for fact in records::read(store, &grant, Writers::ThisOne, &mut std::io::stdin().lock(), &mut told)? {
            learn(&mut told, fact)?;
        }
    }
    if args.broken_off || told.broken_off.is_some() {
        let why = told.broken_off.clone().unwrap_or_else(|| "the dump broke off".to_owned());
        let salvaged = leftovers::salvage(cx, store, grant.meta.id, "aborted", &mut told);
        leftovers::end_lease(store, lease)?;
        let meta = salvaged?.ok_or_else(|| Failure::failed(format!("no report of the capture is whole: {why}")))?;
        return Ok(Done::json(&view::Capture::from(&meta))?.with_exit(exit_of(&meta)));
    }
    let meta = capture::finish(cx, store, lease, &grant, &mut told)?;
    Ok(Done::json(&view::Capture::from(&meta))?.with_exit(exit_of(&meta)))
}

/// Returns the exit status for a published capture: `Ok`, or `Partial` if a report has an error.
pub fn exit_of(meta: &Meta) -> Exit {
    if meta.reports.iter().any(|report| report.error.is_some()) { Exit::Partial } else { Exit::Ok }
}

fn parse(args: &Args) -> Result<Told, Failure> {
    let mut told = Told::default();
    for item in &args.failed {
        let (name, message) = pair("--failed", item, "REPORT=MESSAGE")?;
        let Some(name) = ReportName::parse(name) else {
            return Err(Failure::new(Exit::Usage, format!("--failed: {} is not a valid report name", quoted(name))));
        };
        told.failed.insert(name, message);
    }
    for item in &args.set {
        let (key, value) = pair("--set", item, "K=V")?;
        set(&mut told, key, value)?;
    }
    Ok(told)
}

fn learn(told: &mut Told, fact: Fact) -> Result<(), Failure> {
    match fact {
        Fact::Failed(name, message) => _ = told.failed.insert(name, message),
        Fact::Set(key, value) => set(told, &key, value)?,
    }
    Ok(())
}

fn set(told: &mut Told, key: &str, value: String) -> Result<(), Failure> {
    if let Some(name) = key.strip_prefix("cost.") {
        told.cost.insert(name.to_owned(), number(key, &value)?.into());
    } else if let Some(name) = key.strip_prefix("took.") {
        let took = number(key, &value)?;
        told.took.extend(ReportName::parse(name).map(|name| (name, took)));
    } else if let Some(name) = key.strip_prefix("note.") {
        told.notes.extend(ReportName::parse(name).map(|name| (name, value)));
    } else if let Some(name) = key.strip_prefix("versions.") {
        told.versions.insert(name.to_owned(), value);
    } else {
        told.labels.insert(key.to_owned(), value);
    }
    Ok(())
}

fn number(key: &str, value: &str) -> Result<serde_json::Number, Failure> {
    value.parse().map_err(|_| {
        Failure::new(Exit::Usage, format!("--set {key}: {} is not a number", quoted(value)))
            .hint("costs are numbers, with the unit in the name, for example cost.pause_ms=7.5")
    })
}

fn pair<'a>(flag: &str, item: &'a str, form: &str) -> Result<(&'a str, String), Failure> {
    match item.split_once('=') {
        Some((key, value)) if !key.is_empty() && key.len() <= 128 => {
            let mut end = value.len().min(LONGEST);
            while !value.is_char_boundary(end) {
                end -= 1;
            }
            Ok((key, value[..end].to_owned()))
        }
        _ => Err(Failure::new(Exit::Usage, format!("{flag} {} is not {form}", quoted(item)))),
    }
}
