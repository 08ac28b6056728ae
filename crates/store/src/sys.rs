//! The one call that is not safe.

#![expect(unsafe_code, reason = "this module is the one that may")]

use std::os::fd::{BorrowedFd, RawFd};

/// Borrows a descriptor that was inherited under a number. The caller makes sure that nothing in this process closes the number; on
/// one that is not open every call fails with EBADF.
pub fn borrow_fd(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the caller keeps the descriptor open; calls on a number that is not open fail and touch nothing.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
