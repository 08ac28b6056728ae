//! The deadline of a command that holds the lease.

use std::time::Duration;

use crate::exit_code::Exit;

/// Ends this process with status 1 when it still runs after this time: it holds a copy of the lease, and whoever would have
/// killed it may be dead itself.
pub fn end_process_after(time: Duration, tell: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        std::thread::sleep(time);
        tell();
        std::process::exit(Exit::Failed as i32);
    });
}
