//! The entry point: parses the arguments, runs the command and exits with its status. Everything else is in the library.

#![cfg_attr(target_env = "gnu", no_main)]

/// The entry point that the C library calls directly. Rust's own start-up reads `/proc/self/maps` and installs a signal stack
/// only to word a stack overflow better: 15 of a poll's 134 system calls and 11 of its 77 page faults. `prepare` does the part
/// of it that matters. Only glibc passes the arguments to a program that starts this way.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "a symbol that the C library calls")]
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    diagctl::prepare();
    // `exit` flushes stdout; returning from here would not.
    std::process::exit(diagctl::main() as i32)
}

#[cfg(not(target_env = "gnu"))]
fn main() {
    std::process::exit(diagctl::main() as i32)
}
