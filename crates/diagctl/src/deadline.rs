//! The deadline of a command that holds the lease.

use std::time::Duration;

use crate::clock::Reading;
use crate::exit_code::Exit;
use crate::proc::Proc;
use crate::sys;
use diagctl_store::{Result, Store, lease};

/// Extra time for the dumper's own alarm to go off first, in milliseconds.
const GRACE_MS: u64 = 15_000;

/// Ends this process with status 1 if it still runs after this time. It holds a copy of the lease, and the process that should
/// have killed it may be dead.
pub fn end_process_after(time: Duration, tell: impl FnOnce() + Send + 'static) {
    let watch = move || {
        std::thread::sleep(time);
        tell();
        std::process::exit(Exit::Failed as i32);
    };
    if std::thread::Builder::new().spawn(watch).is_err() {
        // No thread is to be had. The signal ends the process without a word.
        sys::alarm(time);
    }
}

/// Ends this process at the deadline of the capture that it writes. A producer that hangs must not keep the lease for ever.
pub fn end_with_the_capture(proc: &Proc, store: &Store, tell: impl FnOnce(&str) + Send + 'static) -> Result<()> {
    let Some(record) = lease::read_record(store.dir())? else { return Ok(()) };
    let now = Reading::take(proc.boot_id());
    let left = Duration::from_millis(record.deadline_boot_ms.saturating_sub(now.boot_ms) + GRACE_MS);
    end_process_after(left, || tell("the capture's deadline is over; giving up"));
    Ok(())
}
