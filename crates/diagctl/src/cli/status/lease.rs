//! The lease for people: its holder, its age, and anything wrong with it.

use std::time::Duration;

use serde::Serialize;

use crate::cli::error::Failure;
use crate::cli::output;
use crate::clock::{Now, Stopwatch};
use crate::fsio::Spot;
use crate::grant::lock_holders;
use crate::proc::Proc;
use crate::units::duration;
use diagctl_observe::Presence;
use diagctl_store::ProcessId;
use diagctl_store::lease::{self, Record};

/// A lock without a running grant is leaked after this time, milliseconds.
const LEAKED_AFTER_MS: u64 = 1000;

/// The state of the lease.
#[derive(Debug, Serialize)]
pub struct Report {
    /// True if the lock is held. Only the lock counts.
    pub taken: bool,
    /// A summary in one sentence.
    pub summary: String,
    /// Time by which the holder has passed its deadline, milliseconds.
    pub overdue_ms: Option<u64>,
    /// True if the lock is held although the dump that it was granted for is over, or although there is no record of a grant.
    pub leaked: bool,
    /// Processes that hold the lock, as far as this user can see them.
    pub holders: Vec<Holder>,
    /// The record of the last grant.
    pub record: Option<Record>,
}

/// A process that holds the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// The pid.
    pub pid: u32,
    /// The name of its executable.
    pub comm: String,
}

impl Report {
    /// Examines the lock and its record.
    ///
    /// The two are not changed in one step: a process that begins a capture has the lock before it writes the record, and one that
    /// ends a capture marks the record before it releases the lock. A lease is leaked only if nothing changes for a second.
    pub fn read(proc: &Proc, dir: &Spot, now: &Now) -> Result<Self, Failure> {
        let watch = Stopwatch::start();
        let mut report = Self::look(proc, dir, now)?;
        while report.leaked && !watch.is_past(LEAKED_AFTER_MS) {
            std::thread::sleep(Duration::from_millis(50));
            report = Self::look(proc, dir, now)?;
        }
        Ok(report)
    }

    fn look(proc: &Proc, dir: &Spot, now: &Now) -> Result<Self, Failure> {
        let taken = lease::is_taken(dir)?;
        let record = lease::read_record(dir)?;
        let presence = record.as_ref().map_or(Presence::Gone, |r| proc.presence(&r.process()));
        Ok(Self::of(taken, record, presence, now))
    }

    fn of(taken: bool, record: Option<Record>, presence: Presence, now: &Now) -> Self {
        let same_boot = record.as_ref().filter(|r| r.boot_id == now.clock.boot_id);
        let running = same_boot.filter(|r| taken && !r.ended);
        let overdue_ms = running.map(|r| now.clock.boot_ms.saturating_sub(r.deadline_boot_ms)).filter(|ms| *ms > 0);
        let summary = match (taken, &record, running) {
            (true, _, Some(r)) => {
                let since = duration(now.clock.boot_ms.saturating_sub(r.granted_boot_ms) / 1000 * 1000);
                let ended = match presence {
                    Presence::Gone => ", which has ended; its dumper still holds the lease",
                    Presence::Here(_) | Presence::Elsewhere => "",
                };
                let of = format!("{} (pid {}){ended}", output::who(&r.role, &r.worker), r.pid);
                let time = match overdue_ms {
                    Some(ms) => format!("overdue by {}", duration(ms)),
                    None => format!("deadline in {}", duration(r.deadline_boot_ms.saturating_sub(now.clock.boot_ms))),
                };
                format!("held for {since} by {of}: capture {}, rule {}, {time}", r.capture, r.rule)
            }
            (true, Some(r), None) => format!("leaked: still held, although capture {} has ended", r.capture),
            (true, None, _) => "leaked: held without a recorded grant".into(),
            (false, Some(r), _) if !r.ended => {
                format!("free; capture {} was not finished, and the next grant cleans it up", r.capture)
            }
            (false, ..) => "free".into(),
        };
        Self { taken, summary, overdue_ms, leaked: taken && running.is_none(), holders: Vec::new(), record }
    }

    /// Returns true if the capture in progress was granted to this process.
    pub fn is_held_by(&self, process: &ProcessId) -> bool {
        let holds = |record: &Record| !record.ended && record.process().is(process);
        self.taken && self.record.as_ref().is_some_and(holds)
    }

    /// Finds the processes that hold the lock.
    pub fn find_holders(&mut self, proc: &Proc, dir: &Spot) {
        if !self.taken {
            return;
        }
        self.holders = holders(proc, &dir.join("lease.lock"));
        // Clearing up after a dumper, or deleting many captures, takes longer than a second.
        if let Some(holder) = self.holders.iter().find(|holder| self.leaked && holder.comm == "diagctl") {
            self.summary = format!("held by a diagctl (pid {}) that begins or ends a capture", holder.pid);
            self.leaked = false;
        }
    }
}

fn holders(proc: &Proc, lock: &Spot) -> Vec<Holder> {
    let pids = lock_holders::find(proc, lock).into_iter();
    pids.map(|pid| Holder { pid, comm: proc.stat(pid).map(|stat| stat.comm).unwrap_or_default() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Reading;
    use diagctl_store::lease::Lease;

    fn now() -> Now {
        let clock = Reading { wall_ms: 0, boot_ms: 100_000, boot_id: "this".into() };
        Now { store_ms: 0, clock, stepped_back_ms: None }
    }

    fn record(boot: &str, deadline_boot_ms: u64, ended: bool) -> Record {
        Record {
            schema: 1,
            capture: Default::default(),
            generation: 1,
            pid: 7,
            pid_ns: 0,
            start_ticks: 1,
            boot_id: boot.into(),
            role: "puma".into(),
            worker: "worker-0".into(),
            rule: "routine".into(),
            program: None,
            granted_boot_ms: 40_000,
            deadline_boot_ms,
            ended,
        }
    }

    #[test]
    fn every_state_of_the_lease_has_a_sentence() {
        let running = record("this", 160_000, false);
        let (here, gone) = (Presence::Here(7), Presence::Gone);
        let table = [
            (false, None, gone, "free", false),
            (false, Some(record("this", 0, true)), here, "free", false),
            (false, Some(running.clone()), gone, "free; capture 00000000T000000000Z-00000000 was not finished", false),
            (
                true,
                Some(running.clone()),
                here,
                "held for 1m by puma worker-0 (pid 7): capture 00000000T000000000Z-00000000, rule routine, deadline in 1m",
                false,
            ),
            (
                true,
                Some(running.clone()),
                gone,
                "(pid 7), which has ended; its dumper still holds the lease: capture 00000000T000000000Z-00000000",
                false,
            ),
            (true, Some(running), Presence::Elsewhere, "worker-0 (pid 7): capture 00000000T000000000Z-00000000", false),
            (true, Some(record("this", 70_000, false)), here, "overdue by 30s", false),
            (
                true,
                Some(record("this", 0, true)),
                here,
                "leaked: still held, although capture 00000000T000000000Z-00000000 has ended",
                true,
            ),
            (true, Some(record("earlier", 0, false)), Presence::Elsewhere, "leaked", true),
            (true, None, gone, "leaked: held without a recorded grant", true),
        ];
        for (taken, record, presence, expected, leaked) in table {
            let report = Report::of(taken, record, presence, &now());
            assert!(report.summary.contains(expected), "should say {expected:?} but says {:?}", report.summary);
            assert_eq!(report.leaked, leaked, "{}", report.summary);
        }
    }

    // `finalize` marks the record before it releases the lock, and the next grant takes the lock before it writes its record.
    #[test]
    fn a_lease_between_two_captures_is_not_leaked() {
        let dir = tempfile::tempdir().unwrap();
        let owner = rustix::process::geteuid().as_raw();
        let dir = Spot::hold(dir.path()).unwrap();
        let (held, _file) = Lease::open(&dir, owner).unwrap();
        held.try_take().unwrap();
        lease::write_record(&dir, &record("this", 0, true)).unwrap();
        assert!(Report::look(&Proc::default(), &dir, &now()).unwrap().leaked, "at this moment");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(200));
                lease::write_record(&dir, &record("this", 160_000, false)).unwrap();
            });
            let report = Report::read(&Proc::default(), &dir, &now()).unwrap();
            assert!(report.taken && !report.leaked, "{}", report.summary);
        });
        lease::write_record(&dir, &record("this", 0, true)).unwrap();
        let mut report = Report::read(&Proc::default(), &dir, &now()).unwrap();
        report.find_holders(&Proc::default(), &dir);
        assert!(report.leaked, "nothing changed for a second");
    }
}
