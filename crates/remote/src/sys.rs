//! The one call of the C library that has no safe function.

#![expect(unsafe_code, reason = "this module is the one that may")]

/// The size from which on a buffer is a mapping of its own, bytes.
#[cfg(target_env = "gnu")]
const MAPPED: libc::c_int = 256 << 10;

/// Has the allocator return each large buffer to the kernel at once.
///
/// glibc otherwise raises the threshold to the size of the largest buffer that was freed, 32 MiB at most, and keeps the holes that
/// parts of an upload leave behind: a fifth of the memory of a shipper.
pub fn return_large_buffers() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) sets a number of the allocator. No other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
    }
}
