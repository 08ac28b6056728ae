//! Checks of the lease and its holders.

use diagctl_observe::Presence;

use super::check::Check;
use crate::cli::error::printable;
use crate::cli::status::lease::Report as Lease;
use crate::proc::Proc;

/// Checks the lease and its holders, as far as this user can see them. `strange` are the holders that do not descend from the
/// process that was granted the lease.
pub fn check(lease: &Lease, strange: &[String]) -> Check {
    let id = "lease";
    let holders: Vec<String> = lease.holders.iter().map(|h| format!("{} ({})", h.pid, printable(&h.comm))).collect();
    let who = if holders.is_empty() { "a process that this user cannot see".into() } else { holders.join(", ") };
    let check = if lease.leaked {
        Check::fail(
            id,
            format!("{}; held by {who}, so no other process can capture", lease.summary),
            "end that process to free the lease; diagctl never takes it from a live holder",
        )
    } else if lease.overdue_ms.is_some() {
        Check::fail(
            id,
            format!("{}; held by {who}", lease.summary),
            "find out what the dumper waits for (a stopped process, a hung disk), then end it to free the lease",
        )
    } else if !strange.is_empty() {
        Check::warn(
            id,
            format!("{}; also held by {}, which is not a child of that process", lease.summary, strange.join(", ")),
            "a forked child inherited the descriptor and keeps the lease after the dump; end it",
        )
    } else {
        Check::ok(id, lease.summary.clone())
    };
    check.seen("taken", lease.taken).seen("overdue_ms", lease.overdue_ms).seen("holders", holders)
}

/// Returns the lease holders that neither descend from the process that was granted the lease nor are diagctl processes.
pub fn strangers(proc: &Proc, lease: &Lease) -> Vec<String> {
    let granted = lease.record.as_ref().filter(|record| !record.ended).map(|record| proc.presence(&record.process()));
    let Some(Presence::Here(granted)) = granted else { return Vec::new() };
    let descends = |pid: u32| {
        let parent = |pid: &u32| proc.stat(*pid).ok().map(|stat| stat.ppid).filter(|ppid| *ppid > 1);
        std::iter::successors(Some(pid), parent).take(64).any(|pid| pid == granted)
    };
    let strange = lease.holders.iter().filter(|holder| holder.comm != "diagctl" && !descends(holder.pid));
    strange.map(|holder| format!("{} ({})", holder.pid, printable(&holder.comm))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::check::Status;
    use crate::cli::status::lease::Holder;

    #[test]
    fn a_stuck_lease_fails_and_names_its_holder() {
        let base = |taken, overdue_ms, leaked| Lease {
            taken,
            summary: "held".into(),
            overdue_ms,
            leaked,
            holders: vec![Holder { pid: 9, comm: "sleep\n".into() }],
            record: None,
        };
        let table = [
            (base(false, None, false), vec![], Status::Ok),
            (base(true, None, false), vec![], Status::Ok),
            (base(true, Some(1), false), vec![], Status::Fail),
            (base(true, None, true), vec![], Status::Fail),
            (base(true, None, false), vec!["9 (sleep)".to_owned()], Status::Warn),
        ];
        for (report, strange, status) in table {
            let check = check(&report, &strange);
            assert_eq!(check.status, status, "{}", check.message);
            assert!(status == Status::Ok || check.message.contains("9 (sleep"), "{}", check.message);
        }
    }
}
