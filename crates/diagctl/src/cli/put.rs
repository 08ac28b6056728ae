//! `put`: the dumper streams one report into a staged capture.

use std::time::Duration;

use super::Context;
use super::output::{self, Done};
use crate::cli::error::{Failure, quoted};
use crate::clock::Reading;
use crate::config::Snapshot;
use crate::deadline;
use crate::exit_code::Exit;
use crate::grant::capture;
use crate::grant::cpu_throttle::Paced;
use diagctl_store::lease::{self, Lease};
use diagctl_store::writer::{self, Room};
use diagctl_store::{Access, Store, staging};

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

/// Extra time for the dumper's own alarm to go off first, in milliseconds.
const GRACE_MS: u64 = 15_000;

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let store = cx.open(Access::Write)?;
    let lease = Lease::inherited(args.lease_fd, store.dir(), store.owner())?;
    let grant = capture::join(&store, &lease, &args.capture)?;
    let shown = quoted(&args.report);
    let Some(report) = grant.planned.iter().find(|planned| ***planned == args.report) else {
        return Err(Failure::new(Exit::Usage, format!("report {shown} is not part of capture {}", args.capture))
            .hint(format!("it was granted for {}", grant.planned.join(", "))));
    };
    let staging = store.staging(&grant.meta.id);
    // Reports that `acquire` made itself also have a sidecar.
    if staging::read_sidecar(&staging, report)?.is_some() || !staging::claim(&staging, report)? {
        let capture = &args.capture;
        return Err(Failure::failed(format!(
            "report {report} of capture {capture} has been stored already, or another put of it is under way"
        ))
        .hint("each report is stored once; use `finalize --failed` to drop it"));
    }
    end_at_the_deadline(cx, &store)?;
    let mut room = Room::of(&store, &grant)?;
    let stdin = std::io::stdin().lock();
    // A larger pipe means fewer switches between the two processes: a tenth of the CPU time. On failure (not a pipe, or not
    // allowed) its size stays as it is.
    let _ = rustix::pipe::fcntl_setpipe_size(&stdin, writer::CHUNK);
    // A worker that dumps itself serves no requests meanwhile, so it should finish as soon as possible.
    let limit = (grant.snapshot == Snapshot::Fork).then(|| cx.own_cpu_limit()).flatten();
    writer::store_report(&mut room, &staging, report, &mut Paced::new(stdin, limit))?;
    Ok(Done::silent())
}

// Ends this process at the capture's deadline. A producer that hangs must not keep the lease forever, and the process that
// should have killed this one may be dead.
fn end_at_the_deadline(cx: &Context, store: &Store) -> Result<(), Failure> {
    let Some(record) = lease::read_record(store.dir())? else { return Ok(()) };
    let now = Reading::take(cx.proc.boot_id());
    let left = Duration::from_millis(record.deadline_boot_ms.saturating_sub(now.boot_ms) + GRACE_MS);
    deadline::end_process_after(left, || output::note("the capture's deadline is over; giving up"));
    Ok(())
}
