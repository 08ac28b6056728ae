//! Writes one report.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use super::destination::{Destination, Existing};
use super::{Args, Fetched, Opened, Written, warn};
use crate::cli::output;
use crate::cli::{Context, Failure};
use crate::exit_code::Exit;
use diagctl_store::reader::{Interrupted, Representation, Stored};

/// A format that heap dumps are converted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// One object a line, for heapy, sheap, harb and reap
    Json,
}

/// The form in which reports are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) representation: Representation,
    /// Heap dumps become JSON.
    pub(super) json: bool,
}

impl Form {
    pub(super) fn file_name<'s>(&self, stored: &'s Stored) -> &'s str {
        if self.converts(stored) {
            stored.json_file_name(self.representation)
        } else {
            stored.file_name(self.representation)
        }
    }

    pub(super) fn converts(&self, stored: &Stored) -> bool {
        self.json && stored.is_heap_dump()
    }
}

pub(super) fn one(
    cx: &Context,
    args: &Args,
    form: Form,
    to_stdout: bool,
    opened: Opened,
    fetched: &mut Fetched,
) -> Result<Exit, Failure> {
    let Some((name, stored)) = opened.reports.into_iter().next() else { return Ok(Exit::Ok) };
    let mut stored = stored?;
    let exit = warn(&stored);
    if to_stdout {
        stored.verify()?;
        return match copy(
            &mut stored,
            form,
            &mut output::stdout().map_err(|e| output::unprintable(&e))?,
            io::stdout().is_terminal(),
        ) {
            Ok(_) => Ok(exit),
            Err(Interrupted::Source(error)) => Err(error.into()),
            // The reader has closed the pipe because it needs no more.
            Err(Interrupted::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(exit),
            Err(Interrupted::Output(e)) => Err(output::unprintable(&e)),
        };
    }
    let own_name = format!("{}-{}", opened.meta.id, form.file_name(&stored));
    let existing = if args.force { Existing::Replace } else { Existing::Refuse };
    let (path, existing) = match &args.output {
        None => (PathBuf::from(own_name), existing),
        Some(path) if path.is_dir() => (path.join(own_name), existing),
        Some(path) => (path.clone(), Existing::Replace),
    };
    fetched.written.push(place(cx, &name, &mut stored, form, &path, existing)?);
    Ok(exit)
}

// Copies a report to a file. It is verified before the destination is touched.
pub(super) fn place(
    cx: &Context,
    name: &str,
    stored: &mut Stored,
    form: Form,
    path: &Path,
    existing: Existing,
) -> Result<Written, Failure> {
    stored.verify()?;
    let mut file = Destination::open(path, existing, &cx.config().dir)?;
    // The size of a conversion is not known.
    if !form.converts(stored) {
        file.require_room(stored.bytes(form.representation))?;
    }
    let bytes = copy(stored, form, &mut file, false).map_err(|e| match e {
        Interrupted::Source(error) => error.into(),
        Interrupted::Output(e) => Failure::output("write", path, e),
    })?;
    let is_file = file.finish()?;
    let damaged = stored.report.error.clone();
    Ok(Written { report: name.into(), path: path.display().to_string(), bytes, damaged, is_file })
}

// No progress bar on a terminal that also shows the data.
pub(super) fn copy(
    stored: &mut Stored,
    form: Form,
    out: &mut dyn Write,
    to_terminal: bool,
) -> Result<u64, Interrupted> {
    let shown = output::is_watched() && !to_terminal;
    let converts = form.converts(stored);
    // The progress of a conversion is that of reading.
    let shown_form = if converts { Representation::Content } else { form.representation };
    let bar = if shown { ProgressBar::new(stored.bytes(shown_form)) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}") {
        bar.set_style(style);
    }
    bar.set_prefix(stored.report.name.to_string());
    let progress = &mut |bytes| bar.set_position(bytes);
    let result = if converts {
        stored.export_json(form.representation, out, progress).map(|exported| exported.bytes)
    } else {
        stored.copy(form.representation, out, progress)
    };
    bar.finish_and_clear();
    result
}
