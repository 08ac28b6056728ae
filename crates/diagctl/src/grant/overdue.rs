//! The lease always comes back: a poll of any process ends the dumper that holds it past its deadline.
//!
//! The dumper's own alarm ends it, and its worker kills it ten seconds later. Both may fail together: the dumper is stopped, or
//! hangs before it has set the alarm, and its worker is dead. A process is ended only if it holds the lease by its own account or by
//! the kernel's, started after the grant, belongs to the same user, descends from the granted worker, and has never polled.

use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};

use super::begin::Applicant;
use super::{leftovers, lock_holders};
use crate::clock::Reading;
use crate::proc::Proc;
use crate::state::files::{load_sample, load_state};
use crate::state::schedule::{self as state, LEASE_GRACE_MS};
use crate::units::duration;
use diagctl_observe::{Presence, ticks_per_second};
use diagctl_store::lease::{self, Lease, Record};
use diagctl_store::{Id, Result, events, holders};

/// The time that killed processes get to release the lease.
const DYING: Duration = Duration::from_secs(2);

/// The number of ancestors that are looked at.
const ANCESTORS: usize = 8;

/// Brings back a lease whose dump must be over, and clears away what it left. Does nothing while the dump may go on.
pub fn recover(applicant: Applicant<'_>, lease: &Lease) -> Result<()> {
    let Applicant { cx, store, .. } = applicant;
    if lease.is_held()? {
        return Ok(());
    }
    let mut why = None;
    if !lease.try_take()? {
        why = end_holders(applicant)?;
        if why.is_none() || !take_within(lease, DYING)? {
            return Ok(());
        }
    }
    let why = why.as_ref().map(|(id, why)| (*id, why.as_str()));
    let cleared = leftovers::clear(cx, store, why).and_then(|()| {
        let _guard = store.lock()?;
        let (mut state, _) = load_state(store)?;
        state.lease_until = None;
        state::save(store.dir(), &state)
    });
    leftovers::end_lease(store, lease)?;
    cleared
}

fn take_within(lease: &Lease, time: Duration) -> Result<bool> {
    let step = Duration::from_millis(20);
    for _ in 0..time.as_millis() / step.as_millis() {
        if lease.try_take()? {
            return Ok(true);
        }
        std::thread::sleep(step);
    }
    Ok(false)
}

// Kills the holders that are overdue. Returns the capture and the reason, or `None` if none was killed.
fn end_holders(applicant: Applicant<'_>) -> Result<Option<(Id, String)>> {
    let Applicant { cx, store, .. } = applicant;
    let Some(record) = lease::read_record(store.dir())?.filter(|record| !record.ended) else { return Ok(None) };
    let now = Reading::take(cx.proc.boot_id());
    if record.boot_id != now.boot_id {
        return Ok(None);
    }
    let inspector = Inspector { applicant, record: &record, now_ms: now.boot_ms };
    let overdue: Vec<u32> = inspector
        .candidates()
        .into_iter()
        .filter(|(pid, start)| inspector.end(*pid, *start))
        .map(|(pid, _)| pid)
        .collect();
    let Some(pid) = overdue.first() else { return Ok(None) };
    let late = duration(now.boot_ms.saturating_sub(record.deadline_boot_ms) / 1000 * 1000);
    let why =
        format!("its dumper (pid {pid}) was killed: it held the lease {late} past its deadline (guards.deadline)");
    events::record(
        store,
        &events::Event { pid: *pid, rule: record.rule.clone(), ..events::Event::about("ended", record.capture, &why) },
    );
    Ok(Some((record.capture, why)))
}

struct Inspector<'a> {
    applicant: Applicant<'a>,
    record: &'a Record,
    now_ms: u64,
}

impl Inspector<'_> {
    fn proc(&self) -> &Proc {
        &self.applicant.cx.proc
    }

    // The processes that registered themselves, and those that the kernel lists as holders and that run the worker's program (a
    // child that has not got so far) or this one (a `finalize` whose capture has left staging). With their start times.
    fn candidates(&self) -> Vec<(u32, u64)> {
        let store = self.applicant.store;
        let registered = holders::list(&store.staging(&self.record.capture));
        let mut found: Vec<(u32, u64)> = registered
            .iter()
            .filter_map(|id| match self.proc().presence(id) {
                Presence::Here(pid) => Some((pid, id.start_ticks)),
                Presence::Gone | Presence::Elsewhere => None,
            })
            .collect();
        let ours = [self.record.program, self.proc().program(std::process::id())];
        for pid in lock_holders::find(self.proc(), &store.path("lease.lock")) {
            let program = self.proc().program(pid);
            if program.is_some() && ours.contains(&program) {
                found.extend(self.proc().stat(pid).map(|stat| (pid, stat.start_ticks)));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    // Kills the process and the group that it leads, if it is a dumper of this grant and overdue.
    fn end(&self, pid: u32, start_ticks: u64) -> bool {
        if !self.kill(pid, start_ticks) {
            return false;
        }
        for member in self.proc().pids() {
            if let Ok(stat) = self.proc().stat(member)
                && stat.pgrp == pid
                && member != pid
                && stat.start_ticks >= start_ticks
            {
                self.kill(member, stat.start_ticks);
            }
        }
        true
    }

    // Opens the descriptor before it looks, so that the process that is looked at is the one that is killed.
    fn kill(&self, pid: u32, start_ticks: u64) -> bool {
        let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
        let Ok(process) = pidfd_open(number, PidfdFlags::empty()) else { return false };
        self.is_dumper(pid, start_ticks) && pidfd_send_signal(process, Signal::KILL).is_ok()
    }

    fn is_dumper(&self, pid: u32, start_ticks: u64) -> bool {
        let Applicant { store, process, .. } = self.applicant;
        let started_ms = start_ticks * 1000 / ticks_per_second();
        let tick_ms = 1000 / ticks_per_second();
        let deadline_ms = self.record.deadline_boot_ms.saturating_sub(self.record.granted_boot_ms);
        let must_end_ms = self.record.deadline_boot_ms.max(started_ms + deadline_ms) + LEASE_GRACE_MS;
        let id = self.proc().process_id(pid).unwrap_or_default();
        let polls = load_sample(store, &id).is_some();
        self.proc().is_alive(pid, start_ticks)
            && ![1, std::process::id(), process.id.pid, self.record.pid].contains(&pid)
            && started_ms + tick_ms >= self.record.granted_boot_ms
            && self.now_ms > must_end_ms
            && self.proc().uid(pid) == Some(geteuid().as_raw())
            && !polls
            && self.descends_from_worker(pid)
    }

    // A dead worker has no children any more: its dumper was given to another process.
    fn descends_from_worker(&self, pid: u32) -> bool {
        let worker = match self.proc().presence(&self.record.process()) {
            Presence::Here(worker) => worker,
            Presence::Gone => return true,
            Presence::Elsewhere => return false,
        };
        let mut at = pid;
        for _ in 0..ANCESTORS {
            let Ok(stat) = self.proc().stat(at) else { return false };
            if stat.ppid == worker {
                return true;
            }
            at = stat.ppid;
        }
        false
    }
}
