//! `diagctl fetch`: copies reports out of the store, verified and decompressed.
//!
//! If root fetches from another user's store, two identities are involved: the store is opened with its owner's rights, and the
//! copy is written with the caller's.

pub mod destination;
mod file;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::identity::Key;
use super::output::{self, Done};
use super::remote::view::{From, View, Wanted};
use super::{Context, Failure, apart};
use crate::cli::error::printable;
use crate::exit_code::Exit;
use destination::{Destination, Existing};
use diagctl_store::reader::{self, Representation, Stored};
use diagctl_store::{Access, Id, meta};
use file::{Form, Format, one, place};

/// Fetch reports of a capture, verified, decrypted and decompressed
///
/// Without REPORT, all reports of the capture and its meta.json are written to a directory. A report that was stored damaged is
/// fetched as it is, with a warning on stderr and exit status 5.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  diagctl fetch latest:heap_dump --as json -o heap.json\n  diagctl fetch latest:gc_stat -o - | jq .count"
)]
pub struct Args {
    /// Capture ID, a unique prefix of one, or `latest`; each also with `:REPORT`
    id: String,
    /// Report to fetch
    report: Option<String>,
    /// File, directory, or `-` for stdout [default: the file ID-REPORT.EXT, or the directory ID for all reports]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Convert a heap dump to JSON in the shape of ObjectSpace.dump_all, without values; with --raw, compressed by gzip
    #[arg(long = "as", value_name = "FORMAT")]
    form: Option<Format>,
    /// Neither decrypt nor decompress
    #[arg(long)]
    raw: bool,
    /// Replace existing files (a file named with -o is always replaced)
    #[arg(long)]
    force: bool,
    /// Print JSON: the files written and the reports that failed
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    from: From,
    #[command(flatten)]
    key: Key,
}

/// A capture and its reports, opened with the rights of the store's owner.
struct Opened {
    meta: meta::Meta,
    reports: Vec<(String, Result<Stored, Failure>)>,
    /// True if one report was named, or if the capture has only one.
    single: bool,
}

#[derive(Serialize)]
struct Fetched {
    schema: u32,
    capture: Id,
    written: Vec<Written>,
    failed: Vec<Missing>,
}

#[derive(Serialize)]
struct Written {
    report: String,
    path: String,
    bytes: u64,
    /// The damage to the content, if it was damaged when the capture was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    damaged: Option<String>,
    /// False for devices and FIFOs: their readers, like those of `/dev/stdout`, want the data and nothing else.
    #[serde(skip)]
    is_file: bool,
}

#[derive(Serialize)]
struct Missing {
    report: String,
    error: String,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let representation = if args.raw { Representation::Stored } else { Representation::Content };
    let form = Form { representation, json: args.form.is_some() };
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    if to_stdout && args.json {
        return Err(Failure::new(Exit::Usage, "-o - and --json both write to stdout").hint("remove one of them"));
    }
    // Credentials belong to a thread. The thread that opens the store becomes its owner and then ends; this one remains the
    // caller. With --raw, only a conversion decrypts.
    if !args.raw || args.form.is_some() {
        args.key.unlock(cx)?;
    }
    let mut id = args.id.clone();
    let wanted = args.report.as_deref();
    let wanted =
        wanted.as_ref().map_or(Wanted::NamedOrAllBut(&[]), |report| Wanted::NamedOr(std::slice::from_ref(report)));
    let view = args.from.view(cx, vec![&mut id], wanted)?;
    let cx = view.as_ref().map_or(cx, View::cx);
    let opened = apart::run(|| open(cx, &id, args.report.as_ref()))??;
    if to_stdout && !opened.single {
        let names: Vec<&str> = opened.reports.iter().map(|(name, _)| name.as_str()).collect();
        let message = format!("capture {} has {} reports, but -o - takes one", opened.meta.id, names.len());
        return Err(Failure::new(Exit::Usage, message).hint(format!("choose one of {}", names.join(", "))));
    }
    if let (Some(_), true, Some((name, Ok(stored)))) = (args.form, opened.single, opened.reports.first())
        && !stored.is_heap_dump()
    {
        let message = format!("report {} is not a heap dump, so it cannot be converted", printable(name));
        return Err(Failure::new(Exit::Usage, message).hint("remove --as"));
    }
    let mut fetched = Fetched { schema: 1, capture: opened.meta.id, written: Vec::new(), failed: Vec::new() };
    let exit = if opened.single {
        one(cx, args, form, to_stdout, opened, &mut fetched)?
    } else {
        all(cx, args, form, opened, &mut fetched)?
    };
    let files = |fetched: &Fetched| {
        fetched.written.iter().filter(|w| w.is_file).map(|w| printable(&w.path) + "\n").collect::<String>()
    };
    let done = if to_stdout { Done::silent() } else { Done::either(args.json, &fetched, files)? };
    Ok(done.with_exit(exit))
}

fn open(cx: &Context, id: &str, report: Option<&String>) -> Result<Opened, Failure> {
    let store = cx.open(Access::Read)?;
    let target = reader::resolve(&store, id)?;
    let wanted = match (&target.report, report) {
        (Some(one), Some(other)) if one != other => {
            let message = format!("two different reports are given, {} and {}", printable(one), printable(other));
            return Err(Failure::new(Exit::Usage, message).hint("give one of them, or none for all"));
        }
        (one, other) => one.as_ref().or(other),
    };
    let meta = meta::read(&store.report_dir(&target.id))?;
    let names: Vec<String> = match wanted {
        Some(name) => vec![name.clone()],
        None => meta.reports.iter().map(|report| report.name.to_string()).collect(),
    };
    let single = names.len() == 1;
    let reports = names
        .into_iter()
        .map(|name| (name.clone(), Stored::open(&store, &meta, &name).map_err(Failure::from)))
        .collect();
    Ok(Opened { meta, reports, single })
}

fn all(cx: &Context, args: &Args, form: Form, opened: Opened, fetched: &mut Fetched) -> Result<Exit, Failure> {
    let dir = match &args.output {
        None => PathBuf::from(opened.meta.id.as_str()),
        Some(path) if path.is_dir() => path.join(opened.meta.id.as_str()),
        Some(path) => path.clone(),
    };
    // Some reports may be readable.
    let reads = form.representation == Representation::Content;
    let lock = |(_, stored): &(_, Result<Stored, Failure>)| stored.as_ref().ok().filter(|_| reads)?.lock();
    let locks = opened.reports.iter().filter_map(lock);
    if let Some(lock) = opened.reports.iter().find_map(lock) {
        let failure = Failure::from(lock);
        if locks.count() == opened.reports.iter().filter(|(_, stored)| stored.is_ok()).count() {
            return Err(failure);
        }
        failure.hint.iter().for_each(|hint| output::note(hint));
    }
    destination::create_dir(&dir, args.force, &cx.config().dir)?;
    let mut first_failure = None;
    let mut damaged = false;
    for (name, stored) in opened.reports {
        let result = stored.and_then(|mut stored| {
            damaged |= warn(&stored) != Exit::Ok;
            let path = dir.join(form.file_name(&stored));
            place(cx, &name, &mut stored, form, &path, Existing::Replace)
        });
        match result {
            Ok(written) => fetched.written.push(written),
            Err(failure) if failure.is_no_space() => return Err(failure),
            Err(failure) => {
                output::note(&failure.message);
                first_failure = first_failure.or(Some(failure.exit));
                fetched.failed.push(Missing { report: name, error: failure.message });
            }
        }
    }
    let exit = match first_failure {
        Some(exit) if fetched.written.is_empty() => exit,
        Some(_) => Exit::Partial,
        None if damaged => Exit::Partial,
        None => Exit::Ok,
    };
    let mut meta = serde_json::to_string_pretty(&opened.meta).context("cannot encode meta.json")?;
    meta.push('\n');
    let path = dir.join("meta.json");
    let mut file = Destination::open(&path, Existing::Replace, &cx.config().dir)?;
    file.write_all(meta.as_bytes()).map_err(|e| Failure::output("write", &path, e))?;
    let is_file = file.finish()?;
    let (path, bytes) = (path.display().to_string(), meta.len() as u64);
    fetched.written.push(Written { report: "meta".into(), path, bytes, damaged: None, is_file });
    Ok(exit)
}

// Warns about a damaged report. It is fetched nevertheless, because it is still evidence.
fn warn(stored: &Stored) -> Exit {
    let Some(warning) = stored.warning() else { return Exit::Ok };
    output::note(&warning);
    Exit::Partial
}
