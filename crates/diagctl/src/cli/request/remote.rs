//! `request --remote`: asks machines through the remote, each of which decides under its own configuration.

use std::time::Duration;

use serde_json::json;

use crate::cli::error::Failure;
use crate::cli::output::Done;
use crate::cli::{Context, external, remote};
use crate::exit_code::Exit;
use crate::units::{duration, ms};

/// The options about the remote.
#[derive(Debug, clap::Args)]
pub struct RemoteArgs {
    /// Ask machines through the remote, where their configuration allows it
    #[arg(long, conflicts_with_all = ["list", "cancel", "pid"])]
    pub remote: bool,
    /// With --remote: only machines with this name; an asterisk stands for any text
    #[arg(long, value_name = "HOST", requires = "remote")]
    host: Option<String>,
    /// With --remote: only so many machines, chosen at random
    #[arg(long, value_name = "N", requires = "remote", value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
}

/// The longest wait that a node accepts (crates/remote/src/ticket.rs).
const LONGEST: Duration = Duration::from_secs(86_400);

pub(super) fn run(cx: &Context, args: &super::Args) -> Result<Done, Failure> {
    super::check(cx, args)?;
    if args.reports.is_empty() {
        return Err(Failure::new(Exit::Usage, "a request through the remote names its reports")
            .hint("diagctl request gc_stat --remote --reason …"));
    }
    if args.expires > LONGEST {
        let text = duration(ms(args.expires));
        return Err(Failure::new(
            Exit::Usage,
            format!("a request through the remote waits for {text}, which is longer than 24h"),
        )
        .hint("use --expires 24h, or less"));
    }
    let request = json!({
        "reports": args.reports,
        "role": args.role,
        "name": args.name,
        "reason": args.reason,
        "by": super::invoking_user(),
        "expires_ms": ms(args.expires),
        "host": args.remote.host,
        "sample": args.remote.sample,
        "wait": args.wait,
        "json": args.json,
    });
    let mut command = remote::command(cx)?;
    command.arg("request").arg("--").arg(request.to_string());
    Err(external::become_program(command))
}
