//! `abort`: the plugin gives a grant back.

use std::time::Duration;

use super::Context;
use super::output::Done;
use crate::error::Failure;
use crate::grant::capture;
use crate::lease::{self, Lease};
use crate::store::{Access, Store};

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
    /// Reason, shown by `diagctl status --explain`
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// A killed dumper, and a `put` that is killed with it, let go of the lease within so much time.
const DYING: Duration = Duration::from_secs(5);

/// Runs the command.
pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let store = cx.open(Access::Write)?;
    let lease = Lease::inherited(args.lease_fd, store.dir(), store.owner())?;
    let inherited = !lease.is_held()?;
    if inherited {
        inherit_from_the_dead(&store, &lease, &args.capture)?;
    }
    let grant = capture::join(&store, &lease, &args.capture);
    if grant.is_err() && inherited {
        // The process that passed the description may live long.
        lease.release()?;
    }
    let grant = grant?;
    capture::give_up(&store, &lease, &grant, "aborted", &args.reason)?;
    Ok(Done::silent())
}

// The worker of a dumper that was killed says why on a description of its own: it takes the lease that nobody holds any more.
// Whether that may be done is proved afterwards, like everything else.
fn inherit_from_the_dead(store: &Store, lease: &Lease, capture: &str) -> Result<(), Failure> {
    let step = Duration::from_millis(20);
    for _ in 0..DYING.as_millis() / step.as_millis() {
        let record = lease::read_record(store.dir())?;
        let passed_on = record.is_none_or(|record| record.ended || record.capture != capture);
        if passed_on || lease.try_take()? {
            return Ok(());
        }
        std::thread::sleep(step);
    }
    Err(Failure::failed(format!("capture {capture} cannot be discarded: its dumper still holds the lease"))
        .hint("pass the descriptor on which `acquire` was granted, or wait until the dumper has ended"))
}
