//! `abort`: the plugin returns a grant.

use std::io::Read;

use anyhow::Context as _;

use super::Context;
use super::output::Done;
use crate::cli::error::{Failure, printable};
use crate::grant::capture;
use diagctl_store::Access;
use diagctl_store::lease::Lease;

/// Discard a staged capture and release the lease (used by plugins)
///
/// With a descriptor that does not hold the lease, only a capture whose dumper has died can be discarded.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Capture ID that `acquire` printed
    capture: String,
    /// Descriptor of <dir>/lease.lock
    #[arg(long, value_name = "N")]
    lease_fd: i32,
    /// Reason, shown by `diagctl status --explain`; - reads it from stdin
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// The longest reason that is read, bytes.
const LONGEST: u64 = 4096;

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let store = cx.open(Access::Write)?;
    let lease = Lease::inherited(args.lease_fd, store.dir(), store.owner())?;
    let inherited = !lease.is_held()?;
    if inherited {
        capture::inherit_from_the_dead(&store, &lease, &args.capture)?;
    }
    let grant = capture::join(&store, &lease, &args.capture);
    if grant.is_err() && inherited {
        // Released here, because the process that passed the description may live long.
        lease.release()?;
    }
    let grant = grant?;
    capture::give_up(&store, &lease, &grant, "aborted", &reason(args)?)?;
    Ok(Done::silent())
}

// A reason that quotes an application stays off the command line, which every user may read.
fn reason(args: &Args) -> Result<String, Failure> {
    if args.reason != "-" {
        return Ok(args.reason.clone());
    }
    let mut text = Vec::new();
    std::io::stdin().lock().take(LONGEST).read_to_end(&mut text).context("cannot read the reason")?;
    Ok(printable(String::from_utf8_lossy(&text).trim()))
}
