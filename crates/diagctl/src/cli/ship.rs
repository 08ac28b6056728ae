//! `diagctl ship`: hands the checked configuration to `diagctl-remote`, which alone has an HTTP client and TLS.

use serde_json::json;

use super::output::Done;
use super::{Context, Failure, external};
use crate::exit_code::Exit;
use crate::units::ms;

const EXAMPLES: &str = "\
Examples:
  diagctl ship
  diagctl ship --watch";

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
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let config = cx.config();
    let Some(remote) = &config.remote else {
        let failure = Failure::new(Exit::Config, "the configuration names no remote");
        return Err(
            failure.hint("add the table [remote] with url = \"s3://BUCKET/PREFIX\"; docs/fleet.md has an example")
        );
    };
    let Some(program) = external::find("remote") else {
        let failure = Failure::failed("the program diagctl-remote is neither beside diagctl nor in PATH");
        return Err(failure.hint("install it from the same release"));
    };
    let settings = json!({
        "dir": config.dir,
        "group": config.group,
        "orders": !config.group_may.is_empty(),
        "allow_network_filesystem": config.allow_network_filesystem,
        "remote": {
            "url": remote.url,
            "endpoint": remote.endpoint,
            "region": remote.region,
            "credential_command": remote.credential_command,
            "max_bandwidth": remote.max_bandwidth,
            "flush_ms": ms(remote.flush),
        },
    });
    let mut command = std::process::Command::new(program);
    command.arg("ship").arg(if args.watch && !args.once { "--watch" } else { "--once" });
    command.env("DIAGCTL_REMOTE", settings.to_string());
    Err(external::become_program(command))
}
