//! `samples`: prints the recorded polls, for `simulate` or any other tool.

use anyhow::Context as _;
use std::io::Write;

use super::Context;
use super::output::{self, Done};
use super::times::{self, Moment, Times};
use crate::cli::error::Failure;
use crate::clock;
use crate::history;
use diagctl_store::Access;

/// Print recorded samples, one JSON object per line
///
/// Sizes are in bytes, stalls in microseconds, times in milliseconds since the Unix epoch on the store's time line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  diagctl samples --since 1h > samples.jsonl")]
pub struct Args {
    /// Only samples younger than this (90m, 2h, 14d), or since a time (2026-11-22 10:15, 2026-11-22T10:15:30Z)
    #[arg(long, value_name = "TIME", value_parser = times::parse_moment, allow_hyphen_values = true)]
    since: Option<Moment>,
    /// Only samples older than this, or until a time
    #[arg(long, value_name = "TIME", value_parser = times::parse_moment, allow_hyphen_values = true)]
    until: Option<Moment>,
    /// Has no effect: the output is always JSON
    #[arg(long)]
    json: bool,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let times = Times::new(false);
    times.require_order(args.since.as_ref(), args.until.as_ref(), times::wall_ms(&clock::utc_now()))?;
    let store = cx.open(Access::Read)?;
    let (_, now) = cx.peek(&store)?;
    let accepts = |at: u64| {
        let (age_ms, wall) = (now.store_ms.saturating_sub(at), || clock::utc(i64::try_from(at).unwrap_or(i64::MAX)));
        args.since.as_ref().is_none_or(|since| !times.is_before(&wall(), age_ms, since))
            && args.until.as_ref().is_none_or(|until| !times.is_after(&wall(), age_ms, until))
    };
    let mut stdout = output::stdout().map_err(|e| output::unprintable(&e))?;
    let mut count = 0;
    for sample in history::read(&store)?.into_iter().filter(|sample| accepts(sample.at)) {
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
