//! The system calls that the standard library does not make. Nothing else in this crate is `unsafe`.

#![expect(unsafe_code, reason = "this module is the one that may")]

/// `CLOCK_BOOTTIME` in milliseconds, by the system call itself: an interposed libc (libfaketime) cannot intercept it.
pub(crate) fn boottime_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec to a valid address; the clock exists since Linux 2.6.39.
    let failed = unsafe { libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_BOOTTIME, &raw mut now) } != 0;
    if failed {
        return 0;
    }
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// The size of a page of memory, in bytes.
pub fn page_size() -> u64 {
    // SAFETY: sysconf reads a constant.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// The unit of process times in `/proc`, per second.
pub fn ticks_per_second() -> u64 {
    // SAFETY: sysconf reads a constant.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100)
}
