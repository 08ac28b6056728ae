//! `put`: the dumper streams one report into a staged capture.

use super::Context;
use super::output::{self, Done};
use crate::cli::error::{Failure, quoted};
use crate::config::Snapshot;
use crate::deadline;
use crate::exit_code::Exit;
use crate::fsio::Spot;
use crate::grant::capture;
use crate::grant::cpu_throttle::Paced;
use crate::grant::producer::{self, Produced};
use crate::grant::records::{self, Fact, Writers};
use diagctl_store::ReportName;
use diagctl_store::commit::Told;
use diagctl_store::lease::Lease;
use diagctl_store::meta::Report;
use diagctl_store::report_kind::HEAP_SUMMARY;
use diagctl_store::staging::Grant;
use diagctl_store::writer::{self, Room};
use diagctl_store::{Access, Store, holders, staging};

/// Compress a report from stdin into a staged capture (used by dumpers)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Capture ID that `acquire` printed
    capture: String,
    /// Name of the report on stdin
    #[arg(required_unless_present = "records", conflicts_with = "records")]
    report: Option<String>,
    /// Read several reports as records from stdin
    #[arg(long)]
    records: bool,
    /// Descriptor that holds the lease
    #[arg(long, value_name = "N")]
    lease_fd: i32,
    /// Discard what an earlier put of this report left
    #[arg(long)]
    again: bool,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let store = cx.open(Access::Write)?;
    let lease = Lease::inherited(args.lease_fd, store.dir(), store.owner())?;
    let grant = capture::join(&store, &lease, &args.capture)?;
    // Reports pass through this process. No debugger of the same user and no core file is to see them. Not earlier: the lease is
    // proved from this process's own fdinfo, which is then root's.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let staging = store.own_staging(&grant.meta.id)?;
    holders::register(&staging, &cx.proc);
    deadline::end_with_the_capture(&cx.proc, &store, output::note)?;
    match &args.report {
        Some(report) => put_one(cx, &store, &grant, &staging, report, args.again)?,
        None => put_records(&store, &grant, &staging)?,
    }
    Ok(Done::silent())
}

fn put_one(
    cx: &Context,
    store: &Store,
    grant: &Grant,
    staging: &Spot,
    report: &str,
    again: bool,
) -> Result<(), Failure> {
    let capture = &grant.meta.id;
    let Some(report) = grant.planned.iter().find(|planned| ***planned == *report) else {
        return Err(Failure::new(Exit::Usage, format!("report {} is not part of capture {capture}", quoted(report)))
            .hint(format!("it was granted for {}", grant.planned.join(", "))));
    };
    if again {
        staging::release(staging, report)?;
        // An earlier put of the dump may have left its summary.
        let summary = ReportName::from_text(HEAP_SUMMARY);
        if **report == *"heap_dump" && !grant.planned.contains(&summary) {
            staging::release(staging, &summary)?;
        }
    }
    // Reports that `acquire` made itself also have a sidecar.
    if staging::read_sidecar(staging, report)?.is_some() || !staging::claim(staging, report)? {
        return Err(Failure::failed(format!(
            "report {report} of capture {capture} has been stored already, or another put of it is under way"
        ))
        .hint("each report is stored once; use `finalize --failed` to drop it"));
    }
    let mut room = Room::of(store, grant)?;
    let stdin = std::io::stdin().lock();
    // A larger pipe means fewer switches between the two processes: a tenth of the CPU time. On failure (not a pipe, or not
    // allowed) its size stays as it is.
    let _ = rustix::pipe::fcntl_setpipe_size(&stdin, writer::CHUNK);
    // A worker that dumps itself serves no requests meanwhile, so it should finish as soon as possible.
    let limit = (grant.snapshot == Snapshot::Fork).then(|| cx.own_cpu_limit()).flatten();
    let input = Produced::new(stdin, &cx.proc, producer::dumper(grant, staging, &cx.proc));
    writer::store_report(&mut room, staging, report, &mut Paced::new(input, limit))?;
    Ok(())
}

// Failures and values are kept beside the reports, for `finalize`, and for whoever publishes what is whole if the dumper dies.
fn put_records(store: &Store, grant: &Grant, staging: &Spot) -> Result<(), Failure> {
    let mut told = Told::default();
    for fact in records::read(store, grant, Writers::Several, &mut std::io::stdin().lock(), &mut told)? {
        if let Fact::Failed(name, why) = fact {
            staging::write_sidecar(staging, &Report::failed(name, why))?;
        }
    }
    match told.broken_off {
        Some(why) => Err(Failure::failed(why)),
        None => Ok(()),
    }
}
