//! Brings memory into the cache before it is read.

#![expect(unsafe_code, reason = "an instruction that has no safe function")]

use core::arch::asm;

/// Starts to fetch the memory at an address. Any address will do: the processor ignores one that it cannot read.
#[inline]
pub fn prefetch<T>(address: *const T) {
    // SAFETY: the instruction changes neither registers nor memory, and never faults.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!("prefetcht0 [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
        #[cfg(target_arch = "aarch64")]
        asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
}
