//! Parse, run, exit status. Everything else is in the library.

#![cfg_attr(target_env = "gnu", no_main)]

/// Called by the C library instead of by Rust's own start-up, which reads `/proc/self/maps` and installs a signal stack, only to
/// word a stack overflow better: 15 of a poll's 134 system calls and 11 of its 77 page faults. What of it matters is done by
/// `prepare`. Only glibc hands the arguments to a program that starts so.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "a symbol that the C library calls")]
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    diagctl::prepare();
    // Not by returning: this flushes stdout.
    std::process::exit(diagctl::main() as i32)
}

#[cfg(not(target_env = "gnu"))]
fn main() {
    std::process::exit(diagctl::main() as i32)
}
