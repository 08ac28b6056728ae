//! The deadline of a command that holds the lease.

use std::time::Duration;

use crate::exit_code::Exit;
use crate::sys;

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
