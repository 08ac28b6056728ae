//! System calls, made without a C library.

#![expect(unsafe_code, reason = "a system call is made in assembly")]

use core::arch::asm;

/// `EINTR`, `EAGAIN`: the errors that a write survives.
pub const EINTR: isize = 4;
/// See [`EINTR`].
pub const EAGAIN: isize = 11;
const POLLOUT: i16 = 4;
const PROT_READ_WRITE: usize = 3;
const MAP_SHARED: usize = 1;
const MAP_PRIVATE_ANONYMOUS: usize = 0x22;
const MREMAP_MAYMOVE: usize = 1;
const PR_SET_DUMPABLE: usize = 4;
const RLIMIT_CORE: usize = 4;
const SIGABRT: usize = 6;
/// SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS: what a crash ends with.
const FAULTS: [usize; 7] = [4, 5, 6, 7, 8, 11, 31];
/// Bytes of the kernel's `sigset_t`.
const SIGSET_BYTES: usize = 8;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const WRITE: usize = 1;
    pub const MMAP: usize = 9;
    pub const MUNMAP: usize = 11;
    pub const RT_SIGACTION: usize = 13;
    pub const MREMAP: usize = 25;
    pub const GETPID: usize = 39;
    pub const KILL: usize = 62;
    pub const PRCTL: usize = 157;
    pub const EXIT_GROUP: usize = 231;
    pub const PPOLL: usize = 271;
    pub const PRLIMIT64: usize = 302;
    pub const GETRANDOM: usize = 318;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const WRITE: usize = 64;
    pub const PPOLL: usize = 73;
    pub const EXIT_GROUP: usize = 94;
    pub const KILL: usize = 129;
    pub const RT_SIGACTION: usize = 134;
    pub const PRCTL: usize = 167;
    pub const GETPID: usize = 172;
    pub const MUNMAP: usize = 215;
    pub const MREMAP: usize = 216;
    pub const MMAP: usize = 222;
    pub const PRLIMIT64: usize = 261;
    pub const GETRANDOM: usize = 278;
}

// Returns the kernel's answer: a negative error number, or the result.
#[cfg(target_arch = "x86_64")]
unsafe fn call(number: usize, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let answer: isize;
    // SAFETY: the calling convention of the kernel (entry/entry_64.S): it clobbers rcx and r11 only. The caller vouches for the
    // arguments.
    unsafe {
        asm!("syscall", inlateout("rax") number.cast_signed() => answer, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    answer
}

#[cfg(target_arch = "aarch64")]
unsafe fn call(number: usize, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let answer: isize;
    // SAFETY: the calling convention of the kernel (arch/arm64/kernel/entry.S): it keeps all registers but x0. The caller vouches
    // for the arguments.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a.cast_signed() => answer, in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            in("x5") f, options(nostack));
    }
    answer
}

/// Writes a part of the bytes. Returns its length, or a negative error number.
pub fn write(fd: i32, bytes: &[u8]) -> isize {
    // SAFETY: the kernel only reads `bytes`, within its length.
    unsafe { call(number::WRITE, [descriptor(fd), bytes.as_ptr().addr(), bytes.len(), 0, 0, 0]) }
}

/// Waits until the descriptor takes bytes, however long that takes.
pub fn wait_writable(fd: i32) {
    #[repr(C)]
    struct PollFd {
        fd: i32,
        events: i16,
        revents: i16,
    }
    let mut one = PollFd { fd, events: POLLOUT, revents: 0 };
    // SAFETY: `one` is the single element of the array, and outlives the call. No time-out, no signal mask.
    unsafe {
        call(number::PPOLL, [(&raw mut one).addr(), 1, 0, 0, SIGSET_BYTES, 0]);
    }
}

/// Maps fresh memory, filled with zeros. Returns null if there is none.
pub fn map(bytes: usize) -> *mut u8 {
    // SAFETY: a new private mapping at an address that the kernel chooses touches no memory in use.
    let address = unsafe { call(number::MMAP, [0, bytes, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, usize::MAX, 0]) };
    pointer(address)
}

/// Maps the beginning of a file that other processes may map as well. Returns null if it cannot be mapped.
pub fn map_shared(fd: i32, bytes: usize) -> *mut u8 {
    // SAFETY: as for `map`.
    let address = unsafe { call(number::MMAP, [0, bytes, PROT_READ_WRITE, MAP_SHARED, descriptor(fd), 0]) };
    pointer(address)
}

/// Enlarges a mapping, which may move. Returns null if there is no memory; then the old one remains.
///
/// # Safety
///
/// `old` was returned by [`map`] or [`remap`] with `bytes`, and nothing else points into it.
pub unsafe fn remap(old: *mut u8, bytes: usize, larger: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    let address = unsafe { call(number::MREMAP, [old.expose_provenance(), bytes, larger, MREMAP_MAYMOVE, 0, 0]) };
    pointer(address)
}

/// Gives a mapping back.
///
/// # Safety
///
/// `old` was returned by [`map`] or [`remap`] with `bytes`, and nothing points into it any more.
pub unsafe fn unmap(old: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        call(number::MUNMAP, [old.expose_provenance(), bytes, 0, 0, 0, 0]);
    }
}

/// Fills the buffer with random bytes from the kernel. Returns false if it could not be filled.
pub fn random(buffer: &mut [u8; 16]) -> bool {
    // SAFETY: the kernel writes within the buffer. So few bytes come whole (getrandom(2)).
    unsafe { call(number::GETRANDOM, [buffer.as_mut_ptr().addr(), buffer.len(), 0, 0, 0, 0]) == 16 }
}

/// Lets a crash end this process at once: no core file, no handler of the application or of Ruby, which would print a report of
/// thousands of lines.
pub fn die_quietly() {
    let none = [0u64; 2];
    // `handler`, `flags`, `restorer` and `mask` of the kernel's struct are all zero: SIG_DFL.
    let default = [0u64; 4];
    // SAFETY: the kernel reads both arrays, which are as long as its structs, and writes nothing back.
    unsafe {
        call(number::PRLIMIT64, [0, RLIMIT_CORE, none.as_ptr().addr(), 0, 0, 0]);
        // A core that is piped into a program ignores the limit.
        call(number::PRCTL, [PR_SET_DUMPABLE, 0, 0, 0, 0, 0]);
        for signal in FAULTS {
            call(number::RT_SIGACTION, [signal, default.as_ptr().addr(), 0, SIGSET_BYTES, 0, 0]);
        }
    }
}

/// Ends this process with SIGABRT.
pub fn abort() -> ! {
    // SAFETY: signals to this process itself.
    unsafe {
        let pid = call(number::GETPID, [0; 6]);
        call(number::KILL, [pid.cast_unsigned(), SIGABRT, 0, 0, 0, 0]);
        loop {
            call(number::EXIT_GROUP, [127, 0, 0, 0, 0, 0]);
        }
    }
}

fn descriptor(fd: i32) -> usize {
    (fd as isize).cast_unsigned()
}

fn pointer(address: isize) -> *mut u8 {
    // The last page of the address space stands for errors.
    if (-4095..=0).contains(&address) {
        core::ptr::null_mut()
    } else {
        core::ptr::with_exposed_provenance_mut(address.cast_unsigned())
    }
}
