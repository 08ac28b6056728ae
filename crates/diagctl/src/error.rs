//! Errors as people meet them: what failed, on which path or value, why, and what to do.
//!
//! Modules below `cli` return [`Failure`]; `cli` turns one into text on stderr and an exit status.

use std::fmt;
use std::io;
use std::path::Path;

use crate::exit_code::Exit;

/// A failure with the exit status that belongs to it and, where there is one, a hint.
#[derive(Debug)]
pub struct Failure {
    /// The status with which the process ends.
    pub exit: Exit,
    /// What failed and why, one sentence that names the thing and the value.
    pub message: String,
    /// What the reader can do about it.
    pub hint: Option<String>,
    /// The operating system's error, kept so that callers can ask for its kind.
    pub source: Option<io::Error>,
}

impl Failure {
    /// A failure of the given kind.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None, source: None }
    }

    /// A plain failure, exit status 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// An operating-system error with what was being done and on which path.
    pub fn io(action: &str, path: &Path, source: io::Error) -> Self {
        Self {
            exit: Exit::Failed,
            message: format!("cannot {action} {}: {source}", printable(&path.to_string_lossy())),
            hint: hint_for(&source),
            source: Some(source),
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether the device, or the user's quota on it, is full.
    pub fn is_no_space(&self) -> bool {
        self.source
            .as_ref()
            .is_some_and(|e| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// Whether it is not permitted.
    pub fn is_denied(&self) -> bool {
        self.source.as_ref().is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Whether there is something at the path already.
    pub fn is_existing(&self) -> bool {
        self.source.as_ref().is_some_and(|e| e.kind() == io::ErrorKind::AlreadyExists)
    }

    /// Whether the path does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source.as_ref().is_some_and(|e| e.kind() == io::ErrorKind::NotFound)
    }
}

fn hint_for(source: &io::Error) -> Option<String> {
    match source.kind() {
        io::ErrorKind::PermissionDenied => Some("run diagctl as the user that owns the store, or as root".into()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("make room on this filesystem, or lower [retention] max_use and run `diagctl gc`".into())
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            Some("the store must be on a writable filesystem; set dir or DIAGCTL_DIR".into())
        }
        _ => None,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}

/// Whether a character makes a terminal do something, or reorders what is on a line.
pub fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A value from outside in quotes, as errors name it: printable like all of them, and not longer than a line.
pub fn quoted(value: &str) -> String {
    const SHOWN: usize = 120;
    match value.char_indices().nth(SHOWN) {
        None => format!("{value:?}"),
        Some((end, _)) => format!("{:?}… ({} bytes)", &value[..end], value.len()),
    }
}

/// Text from outside (paths, names, messages) made safe to print: control characters, and the Unicode
/// characters that reorder a line, are shown as escapes, so nothing can steer a terminal or forge a line.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
