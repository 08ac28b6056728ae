//! The only module that writes to stdout and stderr. The exit statuses are those of `diagctl`.

use std::io::Write;
use std::process::ExitCode;

use diagctl_fs::printable;

use crate::error::Error;

/// The outcome of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything was done.
    Ok = 0,
    /// Nothing was done.
    Failed = 1,
    /// The settings cannot be used.
    Config = 3,
    /// There is no such capture.
    NoMatch = 4,
    /// A part was done.
    Partial = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Prints a line on stdout. A closed pipe stops no shipment.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", printable(text));
}

/// Prints a line on stdout that a program reads, which must get it.
pub fn say_raw(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{text}")
}

/// Prints a note on stderr.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "diagctl: {}", printable(text));
}

/// Prints an error with its hint on stderr, and returns the exit status.
pub fn fail(error: &Error) -> Exit {
    note(&error.to_string());
    if let Some(hint) = error.hint() {
        let _ = writeln!(std::io::stderr(), "  hint: {hint}");
    }
    match error {
        Error::Settings(_) | Error::NoSettings => Exit::Config,
        Error::NoCapture { .. } | Error::NoNode { .. } => Exit::NoMatch,
        _ => Exit::Failed,
    }
}
