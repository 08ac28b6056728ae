//! `diagctl heap export`: a dump in the format of another tool.

use std::io::{self, BufRead as _, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum as _;
use diagctl_heapdump::analysis::builder::Wanted;
use diagctl_heapdump::analysis::error::Error;
use diagctl_heapdump::analysis::export::{folded, heapsnapshot, pprof};
use diagctl_heapdump::analysis::frames::Frames;
use diagctl_heapdump::analysis::held::Held;
use diagctl_heapdump::block::MAGIC;
use diagctl_heapdump::json::{self, ExportError};
use flate2::write::GzEncoder;

use super::input::{self, Content};
use super::{Context, Done, Failure};
use crate::cli::error::printable;
use crate::cli::fetch::destination::{Destination, Existing};
use crate::cli::output;
use crate::exit_code::Exit;

/// Convert a dump for another tool
///
/// No format has a value of the application. In a flame graph, a frame is as wide as what its objects retain.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "diagctl heap export [OPTIONS] --format <FORMAT> <DUMP>",
    after_help = "Examples:
  diagctl heap export latest --format heapsnapshot -o worker.heapsnapshot
  diagctl heap export latest --format svg -o retained.svg
  diagctl heap export latest --format folded | flamelens"
)]
pub struct Args {
    /// Capture, file or `-`
    pub(super) dump: String,
    /// Format of the output
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write to this file, which is replaced [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The format of ObjectSpace.dump_all, for heapy, sheap, harb and reap
    Json,
    /// V8's heap snapshot, for Chrome DevTools and memlab
    Heapsnapshot,
    /// pprof's profile, compressed with gzip
    Pprof,
    /// Folded stacks
    Folded,
    /// A flame graph
    Svg,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let Some(format) = args.format else { return Err(no_format(&args.dump)) };
    let to_terminal = args.output.is_none() && io::stdout().is_terminal();
    if to_terminal && format == Format::Pprof {
        return Err(Failure::new(Exit::Usage, "a profile is not for a terminal").hint("use -o FILE or a pipe"));
    }
    if format == Format::Json {
        return input::with_content(cx, &args.dump, |content, _| to_json(cx, args, content));
    }
    let wanted = Wanted { labels: format == Format::Heapsnapshot, ..Wanted::default() };
    let input = input::load(cx, &args.dump, wanted)?;
    let graph = &input.loaded.graph;
    let frames = || Frames::new(graph, &Held::new(graph));
    let done = match format {
        Format::Json => unreachable!("converted above"),
        Format::Heapsnapshot => to(cx, args, |out| heapsnapshot::write(graph, &graph.reach(), out)),
        Format::Folded => to(cx, args, |out| folded::write(&frames(), out)),
        Format::Pprof => to(cx, args, |out| {
            let mut out = GzEncoder::new(out, flate2::Compression::fast());
            pprof::write(&frames(), &mut out)?;
            out.finish().map(|_| ())
        }),
        Format::Svg => to(cx, args, |out| svg(&frames(), &args.dump, out)),
    };
    Ok(done?.with_exit(input.exit()))
}

fn no_format(dump: &str) -> Failure {
    let formats = Format::value_variants().iter().filter_map(|format| {
        let value = format.to_possible_value()?;
        Some(format!("\n    {:<14}{}", value.get_name(), value.get_help()?))
    });
    let message = format!("--format is missing. The formats are:{}", formats.collect::<String>());
    let dump = printable(dump);
    Failure::new(Exit::Usage, message)
        .hint(format!("`diagctl heap export {dump} --format svg -o retained.svg` writes a flame graph"))
}

// Converts while it reads: a dump is not held in memory for this.
fn to_json(cx: &Context, args: &Args, content: &mut Content) -> Result<Done, Failure> {
    let failed = |error: Error| Failure::heap(&args.dump, error);
    let start = content.fill_buf().map_err(|e| failed(e.into()))?;
    if start.is_empty() {
        return Err(failed(Error::Empty));
    }
    let is_graph = start.starts_with(&MAGIC);
    // As the other formats do. What is not a dump may have no end.
    if !is_graph && !start.trim_ascii_start().starts_with(b"{") && !start.starts_with("\u{feff}".as_bytes()) {
        return Err(failed(Error::Unknown));
    }
    let (mut error, mut exit) = (None, Exit::Ok);
    let mut convert = |out: &mut dyn Write| {
        let exported = if is_graph { json::export(&mut *content, out) } else { json::strip(&mut *content, out) };
        match exported {
            Ok(exported) => {
                if let Some(damage) = &exported.damage {
                    output::note(&format!("{}: {damage}", args.dump));
                    exit = Exit::Partial;
                }
                Ok(())
            }
            Err(ExportError::Output(e)) => Err(e),
            Err(e) => {
                let unreadable = io::Error::other(e.to_string());
                error = Some(match e {
                    ExportError::Graph(e) => e.into(),
                    _ => Error::Unknown,
                });
                // An unfinished file is removed.
                Err(unreadable)
            }
        }
    };
    let written = to(cx, args, |out| convert(out));
    let damage = content.get_mut().damage.take();
    match (error, damage) {
        // If nothing can be read, the reason is the damage.
        (Some(_), Some(damage)) => return Err(failed(io::Error::other(damage.to_string()).into())),
        (Some(error), None) => return Err(failed(error)),
        (None, Some(damage)) => {
            output::note(&format!("{}: {damage}", args.dump));
            exit = Exit::Partial;
        }
        (None, None) => {}
    }
    written.map(|done| done.with_exit(exit))
}

fn svg(frames: &Frames, dump: &str, out: &mut dyn Write) -> io::Result<()> {
    let mut options = inferno::flamegraph::Options::default();
    options.title = format!("Retained memory: {}", printable(dump));
    options.count_name = "bytes".to_owned();
    let lines: Vec<String> = folded::lines(frames).collect();
    inferno::flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), out).map_err(io::Error::other)
}

fn to(cx: &Context, args: &Args, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<Done, Failure> {
    match args.output.as_deref().filter(|path| path.as_os_str() != "-") {
        None => output::stream(write)?,
        Some(path) => file(cx, path, write)?,
    }
    Ok(Done::silent())
}

fn file(cx: &Context, path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = BufWriter::with_capacity(256 << 10, Destination::open(path, Existing::Replace, &cx.config().dir)?);
    let written = write(&mut out).and_then(|()| out.flush());
    written.map_err(|e| Failure::output("write", path, e))?;
    let file = out.into_inner().map_err(|e| Failure::output("write", path, e.into_error()))?;
    file.finish().map(|_| ())
}
