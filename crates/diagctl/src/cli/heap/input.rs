//! The heap dump that a command reads: from a capture, a file or stdin, compressed or not, a graph or JSON.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use diagctl_heapdump::analysis::builder::Wanted;
use diagctl_heapdump::analysis::load::{self, Loaded};
use diagctl_heapdump::summary::Summary;
use diagctl_store::encryption::{self, Undecryptable};
use diagctl_store::{Access, Capture, Id, reader};
use flate2::bufread::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::as_far_as_it_goes::AsFarAsItGoes;
use super::process::{self, Process};
use crate::cli::error::{Failure, IDENTITY_HINT, printable};
use crate::cli::output::Done;
use crate::cli::{Context, output};
use crate::exit_code::Exit;

/// The report that holds a heap dump.
const REPORT: &str = "heap_dump";
/// The report that holds the summary of one.
pub const SUMMARY: &str = "heap_summary";
/// A summary begins with it, and no dump does.
const START_OF_SUMMARY: &[u8] = b"{\"schema\":";
/// The most that is read of a summary.
const MAX_SUMMARY: u64 = 4 << 20;
const BUFFER: usize = 256 << 10;
/// The most that is read of the small reports beside a dump.
const MAX_FIGURES: u64 = 1 << 20;

/// A heap dump in memory.
#[derive(Debug)]
pub struct Input {
    /// The capture or file, as the user named it.
    pub name: String,
    /// The dump.
    pub loaded: Loaded,
    /// The capture's data about the process at that moment.
    pub process: Process,
}

impl Input {
    /// The exit status of a command that has read the dump: one that is cut off or damaged is read as far as it goes.
    pub fn exit(&self) -> Exit {
        if self.loaded.complete { Exit::Ok } else { Exit::Partial }
    }

    /// Shows what a command found in the dump.
    pub fn done<T: Serialize>(&self, json: bool, found: &T, text: impl FnOnce(&T) -> String) -> Result<Done, Failure> {
        Ok(Done::either(json, found, text)?.with_exit(self.exit()))
    }
}

/// A heap dump, or the summary of one.
#[derive(Debug)]
pub enum Given {
    /// A dump in memory.
    Dump(Box<Input>),
    /// A summary.
    Summary(Box<Summary>),
}

/// The content of a dump, decompressed.
pub type Content = BufReader<AsFarAsItGoes<BufReader<Box<dyn Read>>>>;

/// Reads a dump.
pub fn load(cx: &Context, dump: &str, wanted: Wanted) -> Result<Input, Failure> {
    match load_any(cx, dump, wanted)? {
        Given::Dump(input) => Ok(*input),
        Given::Summary(_) => Err(Failure::failed(format!(
            "{} is a summary: it has counts only, no objects and no references",
            printable(dump)
        ))
        .hint("`diagctl heap top` reads summaries; for the rest take a dump with `diagctl request heap_dump`")),
    }
}

/// Reads a dump or a summary.
pub fn load_any(cx: &Context, dump: &str, wanted: Wanted) -> Result<Given, Failure> {
    let wanted = Wanted { most_bytes: memory(cx), ..wanted };
    let mut process = Process::default();
    let loaded = with_content(cx, dump, |content, of_process| {
        process = of_process;
        let start = content.fill_buf().map_err(|error| Failure::heap(dump, error.into()))?;
        if start.starts_with(START_OF_SUMMARY) {
            return summary(dump, content).map(Err);
        }
        let loaded = load::any(&mut *content, wanted);
        let Some(damage) = content.get_mut().damage.take() else {
            return loaded.map(Ok).map_err(|error| Failure::heap(dump, error));
        };
        // If nothing can be read, the reason is the damage.
        let mut loaded = loaded.map_err(|_| Failure::heap(dump, io::Error::other(damage.to_string()).into()))?;
        loaded.complete = false;
        loaded.warnings.insert(0, damage.to_string());
        Ok(Ok(loaded))
    })?;
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(summary) => return Ok(Given::Summary(Box::new(summary))),
    };
    for warning in &loaded.warnings {
        output::note(&format!("{dump}: {warning}"));
    }
    let loaded = Loaded { complete: loaded.complete && !process.is_damaged, ..loaded };
    Ok(Given::Dump(Box::new(Input { name: dump.to_owned(), loaded, process })))
}

/// Reads a summary.
pub fn summary(name: &str, content: impl Read) -> Result<Summary, Failure> {
    let mut data = Vec::new();
    content.take(MAX_SUMMARY).read_to_end(&mut data).map_err(|error| Failure::heap(name, error.into()))?;
    let bad = |why: String| Failure::failed(format!("the summary in {} cannot be read: {why}", printable(name)));
    let summary: Summary = serde_json::from_slice(&data).map_err(|error| bad(error.to_string()))?;
    if summary.schema > Summary::SCHEMA {
        return Err(bad(format!("it has schema {}", summary.schema)).hint("use a newer diagctl"));
    }
    Ok(summary)
}

/// Calls `read` with the content of a dump, decompressed, and shows the progress.
pub fn with_content<T>(
    cx: &Context,
    dump: &str,
    read: impl FnOnce(&mut Content, Process) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let source = open(cx, dump)?;
    let bar = progress(&source);
    let buffered = |content| BufReader::with_capacity(BUFFER, content);
    let mut content = buffered(Box::new(bar.wrap_read(source.content)) as Box<dyn Read>);
    let failed = |error: io::Error| Failure::heap(dump, error.into());
    let start = content.fill_buf().map_err(failed)?;
    if encryption::is_encrypted(start) {
        content = buffered(Box::new(decrypted(cx, dump, content)?));
    }
    let start = content.fill_buf().map_err(failed)?;
    let content = if start.starts_with(&[0x1f, 0x8b]) {
        buffered(Box::new(MultiGzDecoder::new(content)))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        buffered(Box::new(zstd::stream::read::Decoder::with_buffer(content).map_err(failed)?))
    } else {
        content
    };
    let mut content = BufReader::with_capacity(BUFFER, AsFarAsItGoes::new(content));
    let result = read(&mut content, source.process);
    bar.finish_and_clear();
    result
}

// A file that was fetched as it is stored.
fn decrypted(cx: &Context, dump: &str, content: impl BufRead + 'static) -> Result<impl Read + 'static, Failure> {
    let shown = printable(dump);
    let Some(identities) = cx.identities() else {
        return Err(Failure::failed(format!("{shown} is encrypted")).hint(IDENTITY_HINT));
    };
    encryption::decrypt(content, identities).map_err(|why| match why {
        Undecryptable::NoIdentityMatches => Failure::failed(format!(
            "no identity in {} matches: {shown} is encrypted to others",
            printable(identities.source())
        ))
        .hint(IDENTITY_HINT),
        other => Failure::failed(format!("{shown} cannot be decrypted: {other}")),
    })
}

struct Source {
    content: Box<dyn Read>,
    /// The bytes that `content` has, if that is known.
    bytes: Option<u64>,
    process: Process,
}

fn open(cx: &Context, dump: &str) -> Result<Source, Failure> {
    if dump == "-" {
        if io::stdin().is_terminal() {
            return Err(Failure::new(Exit::Usage, "stdin is a terminal, not a heap dump").hint("pipe a dump into it"));
        }
        return Ok(Source { content: Box::new(io::stdin()), bytes: None, process: Process::default() });
    }
    let path = Path::new(dump);
    let is_latest = dump.split(':').next() == Some("latest");
    // Every id begins with a date.
    let may_be_capture = is_latest || dump.starts_with(|c: char| c.is_ascii_digit());
    let is_capture = is_latest || Id::parse(dump).is_some();
    if dump.contains('/') || !may_be_capture || !is_capture && path.exists() {
        return file(path);
    }
    // Credentials belong to a thread: the one that opens the store becomes its owner, as for `fetch`.
    let opened = std::thread::scope(|scope| scope.spawn(|| capture(cx, dump)).join());
    let opened = opened.map_err(|_| Failure::failed("the store could not be read: the reading thread panicked"))?;
    opened.map(|(content, bytes, process)| Source { content, bytes: Some(bytes), process })
}

fn file(path: &Path) -> Result<Source, Failure> {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        let name = path.to_string_lossy();
        output::note(&format!(
            "{} is a named pipe: waiting for a program that writes a dump into it",
            printable(&name)
        ));
    }
    let file = File::open(path).map_err(|e| {
        Failure::io("open", path, e)
            .hint("name a heap dump, a capture ID, or `latest`; `diagctl list --report heap_dump` lists captures")
    })?;
    let metadata = file.metadata().map_err(|e| Failure::io("open", path, e))?;
    if metadata.is_dir() {
        let message = format!("{} is a directory", printable(&path.to_string_lossy()));
        return Err(Failure::new(Exit::Usage, message).hint("name a heap dump or a capture"));
    }
    let bytes = Some(metadata.len()).filter(|_| metadata.is_file());
    Ok(Source { content: Box::new(file), bytes, process: Process::default() })
}

fn capture(cx: &Context, dump: &str) -> Result<(Box<dyn Read + Send>, u64, Process), Failure> {
    let store = cx.open(Access::Read)?;
    let target = match dump {
        "latest" => match reader::resolve(&store, &format!("latest:{REPORT}")) {
            Ok(target) => target,
            // The first failure is the one to show.
            Err(error) => reader::resolve(&store, &format!("latest:{SUMMARY}")).map_err(|_| error)?,
        },
        _ => reader::resolve(&store, dump)?,
    };
    let id = &target.id;
    let capture = store.capture(id)?;
    let has = |name: &str| capture.meta().reports.iter().any(|report| report.name == *name && report.file.is_some());
    let usual = if !has(REPORT) && has(SUMMARY) { SUMMARY } else { REPORT };
    let report = target.report.as_deref().unwrap_or(usual);
    let entry = reader::report_of(capture.meta(), report)?;
    if let Some(error) = entry.error.as_ref().filter(|_| entry.is_damaged()) {
        output::note(&format!("report {report} of capture {id} was stored damaged: {}", printable(error)));
    }
    let process = Process {
        capture: Some(*id),
        id: Some(capture.meta().process()).filter(|id| id.start_ticks > 0 && capture.meta().role != "run"),
        rss: process::rss_of(&capture),
        is_damaged: entry.is_damaged(),
        gc: figures(&capture, "gc_stat").as_deref().and_then(Process::gc_of).unwrap_or_default(),
    };
    Ok((Box::new(capture.reader(report)?), entry.raw_bytes, process))
}

// A small report of the capture. One that is missing or damaged only leaves figures out.
fn figures(capture: &Capture, report: &str) -> Option<String> {
    let mut text = String::new();
    capture.reader(report).ok()?.take(MAX_FIGURES).read_to_string(&mut text).ok()?;
    Some(text)
}

// Three quarters of the memory that is free for this process.
fn memory(cx: &Context) -> Option<u64> {
    let available = cx.proc.meminfo().ok()?.get("MemAvailable").copied()?;
    let group = cx.cgroups.memory_of(&cx.proc, std::process::id()).ok();
    let in_group = group.and_then(|group| group.available(|_| 0)).unwrap_or(u64::MAX);
    Some(available.min(in_group) / 4 * 3)
}

fn progress(source: &Source) -> ProgressBar {
    let bar = match source.bytes {
        _ if !output::is_watched() => ProgressBar::hidden(),
        Some(bytes) => ProgressBar::new(bytes),
        None => ProgressBar::new_spinner(),
    };
    let template = if source.bytes.is_some() { "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec}" } else { "{bytes}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
