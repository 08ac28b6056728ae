//! `samples`: prints the recorded polls, for `simulate` or any other tool.

use anyhow::Context as _;
use std::io::Write;
use std::time::Duration;

use super::Context;
use super::output::{self, Done};
use crate::cli::error::Failure;
use crate::history;
use crate::units;
use diagctl_store::Access;

/// Print recorded samples, one JSON object per line
///
/// Sizes are in bytes, stalls in microseconds, times in milliseconds since the Unix epoch on the store's time line.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only samples younger than this: 90m, 2h, 14d
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration, allow_hyphen_values = true)]
    since: Option<Duration>,
    /// Has no effect: the output is always JSON
    #[arg(long)]
    json: bool,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let store = cx.open(Access::Read)?;
    let (_, now) = cx.peek(&store)?;
    let from = args.since.map_or(0, |since| now.store_ms.saturating_sub(units::ms(since)));
    let mut stdout = output::stdout().map_err(|e| output::unprintable(&e))?;
    let mut count = 0;
    for sample in history::read(&store)?.into_iter().filter(|sample| sample.at >= from) {
        let line = serde_json::to_string(&sample).context("cannot encode a sample")?;
        match writeln!(stdout, "{}", output::printable_json(line)) {
            Ok(()) => count += 1,
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Done::silent()),
            Err(e) => return Err(output::unprintable(&e)),
        }
    }
    if count == 0 {
        output::note("no samples; they are recorded when processes poll");
    }
    Ok(Done::silent())
}
