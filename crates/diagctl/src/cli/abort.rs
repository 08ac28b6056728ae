//! `abort`: the plugin returns a grant.

use std::time::Duration;

use super::Context;
use super::output::Done;
use crate::cli::error::Failure;
use crate::grant::capture;
use diagctl_store::lease::{self, Lease};
use diagctl_store::{Access, Id, Store};

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

/// The time within which a killed dumper, and a `put` killed with it, release the lease.
const DYING: Duration = Duration::from_secs(5);

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let store = cx.open(Access::Write)?;
    let lease = Lease::inherited(args.lease_fd, store.dir(), store.owner())?;
    let inherited = !lease.is_held()?;
    if let Some(capture) = Id::parse(&args.capture).filter(|_| inherited) {
        inherit_from_the_dead(&store, &lease, capture)?;
    }
    let grant = capture::join(&store, &lease, &args.capture);
    if grant.is_err() && inherited {
        // Released here, because the process that passed the description may live long.
        lease.release()?;
    }
    let grant = grant?;
    capture::give_up(&store, &lease, &grant, "aborted", &args.reason)?;
    Ok(Done::silent())
}

// Takes the lease of a killed dumper on a description of the worker's own, so that the worker can say why the dumper was
// killed. The caller proves afterwards that this was allowed.
fn inherit_from_the_dead(store: &Store, lease: &Lease, capture: Id) -> Result<(), Failure> {
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
