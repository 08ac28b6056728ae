//! `diagctl ship`: hands the checked configuration to `diagctl-remote`, which alone has an HTTP client and TLS.

use std::time::Duration;

use super::output::Done;
use super::rm::each;
use super::{Context, Failure, external, remote};
use crate::exit_code::Exit;
use crate::units::{self, ms};
use diagctl_store::Access;

const EXAMPLES: &str = "\
Examples:
  diagctl ship
  diagctl ship --wait 1h
  diagctl ship --again 20261122T101530Z
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
    /// Send this capture once more, whatever the remote has of it: an ID, a unique prefix, or `latest`
    #[arg(long, value_name = "ID", conflicts_with = "watch")]
    again: Vec<String>,
    /// Time to wait for another shipper that is at work on this store
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = units::parse_wait, conflicts_with = "watch")]
    wait: Duration,
    /// Print the log as JSON, an object a line, all on stdout
    #[arg(long)]
    json: bool,
    /// Print the settings of the remote, for diagctl-remote, which asks again when the file has changed
    #[arg(long, hide = true)]
    settings: bool,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    if args.settings {
        return settings(cx);
    }
    let mut command = remote::command(cx)?;
    command.arg("ship").arg(if args.watch && !args.once { "--watch" } else { "--once" });
    command.arg(format!("--patience-ms={}", ms(args.wait)));
    if !args.again.is_empty() {
        let store = cx.open(Access::Read)?;
        for id in each(&store, &args.again) {
            command.arg(format!("--again={}", id?));
        }
    }
    command.args(args.json.then_some("--json"));
    Err(external::become_program(command))
}

// The caller keeps the last good ones while the file has problems. Without a remote it ships nothing.
fn settings(cx: &Context) -> Result<Done, Failure> {
    if cx.loaded.broken.is_some() {
        return Err(Failure::new(Exit::Config, "the configuration has problems").hint("see `diagctl config check`"));
    }
    Ok(Done::text(format!("{}\n", remote::settings(cx, cx.config().remote.as_deref()))))
}
