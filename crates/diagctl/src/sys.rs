//! The few calls that the standard library cannot make safely. Nothing else in this crate is `unsafe`.

#![expect(unsafe_code, reason = "this module is the one that may")]

use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Borrows a descriptor that was inherited under a number. Whoever calls it makes sure that nothing in this process
/// closes the number; on one that is not open every call fails with EBADF.
pub fn borrow_fd(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the caller keeps the descriptor open; calls on a number that is not open fail and touch nothing.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Has the kernel kill a command when this process dies, so that it never outlives the poll that started it.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(Into::into)
        });
    }
}
