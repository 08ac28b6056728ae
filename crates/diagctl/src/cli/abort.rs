//! `abort`: the plugin gives a grant back.

use super::Context;
use super::output::Done;
use crate::capture;
use crate::error::Failure;
use crate::lease::Lease;
use crate::store::Access;

/// Discard a staged capture and end the lease (for plugins)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The capture that acquire granted
    capture: String,
    /// Descriptor on which the lease is held
    #[arg(long, value_name = "N")]
    lease_fd: i32,
    /// Why; it is shown by `diagctl status --explain`
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Runs the command.
pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let store = cx.open(Access::Write)?;
    let lease = Lease::inherited(args.lease_fd, store.dir(), store.owner())?;
    let grant = capture::join(&store, &lease, &args.capture)?;
    capture::give_up(&store, &lease, &grant, "aborted", &args.reason)?;
    Ok(Done::silent())
}
