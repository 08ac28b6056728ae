//! `put`: the dumper streams one report into the staged capture.

use std::time::Duration;

use super::Context;
use super::output::{self, Done};
use crate::clock::Reading;
use crate::config::Snapshot;
use crate::deadline;
use crate::error::{Failure, quoted};
use crate::exit_code::Exit;
use crate::grant::capture;
use crate::grant::cpu_throttle::Paced;
use crate::lease::{self, Lease};
use crate::store::writer::{self, Room};
use crate::store::{Access, Store, grant};

/// Compress a report from stdin into a staged capture (used by dumpers)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Capture ID that `acquire` printed
    capture: String,
    /// Name of the report on stdin
    report: String,
    /// Descriptor that holds the lease
    #[arg(long, value_name = "N")]
    lease_fd: i32,
}

/// The dumper's own alarm comes first. Milliseconds.
const GRACE_MS: u64 = 15_000;

/// Runs the command.
pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let store = cx.open(Access::Write)?;
    let lease = Lease::inherited(args.lease_fd, store.dir(), store.owner())?;
    let grant = capture::join(&store, &lease, &args.capture)?;
    let shown = quoted(&args.report);
    if !grant.planned.contains(&args.report) {
        return Err(Failure::new(Exit::Usage, format!("report {shown} is not part of capture {}", args.capture))
            .hint(format!("it was granted for {}", grant.planned.join(", "))));
    }
    let staging = store.staging(&args.capture);
    // The note is of what `acquire` made itself, too.
    if grant::read_sidecar(&staging, &args.report)?.is_some() || !grant::claim(&staging, &args.report)? {
        let (report, capture) = (&args.report, &args.capture);
        return Err(Failure::failed(format!(
            "report {report} of capture {capture} has been stored already, or another put of it is under way"
        ))
        .hint("each report is stored once; use `finalize --failed` to drop it"));
    }
    end_at_the_deadline(cx, &store)?;
    let mut room = Room::measure(&store, cx.config())?;
    let stdin = std::io::stdin().lock();
    // Fewer turns between the two processes: a tenth of the CPU time. Not a pipe, or not allowed: then it stays as it is.
    let _ = rustix::pipe::fcntl_setpipe_size(&stdin, writer::CHUNK);
    // A worker that dumps itself serves nobody meanwhile: the sooner it is over the better.
    let limit = (grant.snapshot == Snapshot::Fork).then(|| cx.own_cpu_limit()).flatten();
    writer::store_report(&mut room, &staging, &args.report, &mut Paced::new(stdin, limit))?;
    Ok(Done::silent())
}

// A producer that hangs must not keep the lease for ever: whoever would have killed this process may be dead itself.
fn end_at_the_deadline(cx: &Context, store: &Store) -> Result<(), Failure> {
    let Some(record) = lease::read_record(store.dir())? else { return Ok(()) };
    let now = Reading::take(cx.proc.boot_id());
    let left = Duration::from_millis(record.deadline_boot_ms.saturating_sub(now.boot_ms) + GRACE_MS);
    deadline::end_process_after(left, || output::note("the capture's deadline is over; giving up"));
    Ok(())
}
