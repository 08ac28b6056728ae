//! `samples`: prints the recorded polls, for `simulate` or any other tool.

use std::io::Write;
use std::time::Duration;

use super::Context;
use super::output::{self, Done};
use crate::cli::error::Failure;
use crate::history;
use crate::units;
use diagctl_store::Access;

/// Print the recorded samples, one JSON object a line
///
/// Figures are bytes, moments milliseconds since the Unix epoch on the store's time line, stalls microseconds.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only the last part
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration, allow_hyphen_values = true)]
    since: Option<Duration>,
    /// Changes nothing: the output is JSON in any case
    #[arg(long)]
    json: bool,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let store = cx.open(Access::Read)?;
    let (_, now) = cx.peek(&store)?;
    let from = args.since.map_or(0, |since| now.store_ms.saturating_sub(units::ms(since)));
    let mut stdout = output::stdout();
    let mut count = 0;
    for sample in history::read(&store)?.into_iter().filter(|sample| sample.at >= from) {
        let line =
            serde_json::to_string(&sample).map_err(|e| Failure::failed(format!("cannot encode a sample: {e}")))?;
        match writeln!(stdout, "{}", output::printable_json(line)) {
            Ok(()) => count += 1,
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Done::silent()),
            Err(e) => return Err(Failure::failed(format!("cannot write to stdout: {e}"))),
        }
    }
    if count == 0 {
        output::note("no samples are recorded; they come with the polls of processes");
    }
    Ok(Done::silent())
}
