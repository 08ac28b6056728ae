//! `after-capture`: what follows a capture, in a process that `finalize` starts and nobody waits for.

mod hook;
mod shipment;

use super::output::Done;
use super::{Context, Failure};
use crate::sys;
use diagctl_store::Access;

/// Run the hook or the shipment that follows a capture (started by diagctl)
///
/// Tells the hook of all captures that wait for it, or ships all that wait. Ends at once if another process is at it, which then does
/// the rest.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The part that is to be done
    #[arg(value_enum)]
    work: Work,
}

/// A follow-up of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Work {
    /// Tell the hook, [on_capture]
    Hook,
    /// Ship, remote.ship
    Ship,
}

impl Work {
    /// Returns its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Ship => "ship",
        }
    }

    /// Returns the event for its failure.
    pub fn failure(self) -> &'static str {
        match self {
            Self::Hook => "hook_failed",
            Self::Ship => "ship_failed",
        }
    }
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    // The gem knows it by this name, where it has to reap it. It was started as /proc/self/exe, whose name is `exe`.
    let _ = rustix::thread::set_name(c"diagctl-after");
    sys::give_way();
    // Root becomes the owner of the store here, so that nothing runs with more rights than the workers have.
    let store = cx.open(Access::Write)?;
    match args.work {
        Work::Hook => hook::run(cx, &store)?,
        Work::Ship => shipment::run(cx, &store)?,
    }
    Ok(Done::silent())
}
