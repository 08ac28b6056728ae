//! Parse, run, exit status. Everything else is in the library.

#![no_main]
#![expect(unsafe_code, reason = "a symbol that the C library calls")]

/// Called by the C library instead of by Rust's own start-up, which reads `/proc/self/maps` and installs a signal stack, only to
/// word a stack overflow better: a seventh of what a poll costs. What of it matters is done by `prepare`.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    diagctl::prepare();
    // Not by returning: this flushes stdout.
    std::process::exit(diagctl::main() as i32)
}
