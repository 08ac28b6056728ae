//! `diagctl ship`: hands the checked configuration to `diagctl-remote`, which alone has an HTTP client and TLS.

use super::output::Done;
use super::{Context, Failure, external, remote};

const EXAMPLES: &str = "\
Examples:
  diagctl ship
  diagctl ship --watch
  diagctl ship --watch --json";

/// Send the captures of this store to the remote
///
/// The table [remote] of the configuration names the bucket. A capture counts as shipped when the remote has confirmed all of it.
/// Retention deletes shipped captures first. A failure deletes nothing, and the next run resumes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Send what waits, and end (default)
    #[arg(long, conflicts_with = "watch")]
    once: bool,
    /// Go on, and send each new capture
    #[arg(long)]
    watch: bool,
    /// Print the log as JSON, an object a line, all on stdout
    #[arg(long)]
    json: bool,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let mut command = remote::command(cx)?;
    command.arg("ship").arg(if args.watch && !args.once { "--watch" } else { "--once" });
    command.args(args.json.then_some("--json"));
    Err(external::become_program(command))
}
