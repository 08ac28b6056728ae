//! The only unsafe call of this crate.

#![expect(unsafe_code, reason = "this module is the one that may")]

use std::os::fd::{BorrowedFd, RawFd};

/// Borrows a descriptor that was inherited under a number. The caller must ensure that nothing in this process closes the
/// descriptor. Every call on a number that is not open fails with EBADF.
pub fn borrow_fd(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the caller keeps the descriptor open; calls on a number that is not open fail and touch nothing.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
