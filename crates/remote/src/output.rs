//! The only module that writes to stdout and stderr. The exit statuses are those of `diagctl`.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use diagctl_fs::printable;
use diagctl_observe::clock;
use diagctl_store::{Id, units};
use serde_json::{Value, json};

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

/// True if each line of the log is JSON. The log of a program has one form.
static STRUCTURED: AtomicBool = AtomicBool::new(false);

/// True if each confirmation of the remote is told on stdout, for the process that waits.
static PROGRESS: AtomicBool = AtomicBool::new(false);

/// Tells each further confirmation of the remote.
pub fn tell_progress() {
    PROGRESS.store(true, Ordering::Relaxed);
}

/// Tells that the remote has confirmed a file or a part.
pub fn progress() {
    if PROGRESS.load(Ordering::Relaxed) {
        let _ = writeln!(std::io::stdout());
    }
}

/// Makes each further line a JSON object on stdout: `at`, `level` and `message`, and what else is known.
pub fn log_as_json() {
    STRUCTURED.store(true, Ordering::Relaxed);
}

// Prints a line of the structured log. Returns false if the log is plain text.
fn log(level: &str, message: &str, more: Value) -> bool {
    if !STRUCTURED.load(Ordering::Relaxed) {
        return false;
    }
    let mut line = json!({ "at": clock::utc_now(), "level": level, "message": printable(message) });
    if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
        line.extend(more);
    }
    let _ = writeln!(std::io::stdout(), "{line}");
    true
}

/// Prints a line on stdout. A closed pipe stops no shipment.
pub fn say(text: &str) {
    let text = &*diagctl_fs::without_secrets(text);
    if !log("info", text, Value::Null) {
        let _ = writeln!(std::io::stdout(), "{}", printable(text));
    }
}

/// Says that a capture was shipped.
pub fn shipped(id: Id, files: usize, bytes: u64) {
    let text = format!("shipped {id} ({files} files, {})", units::size(bytes));
    if !log("info", &text, json!({ "event": "shipped", "id": id, "files": files, "bytes": bytes })) {
        say(&text);
    }
}

/// Prints a line on stdout that a program reads, which must get it.
pub fn say_raw(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{text}")
}

/// Prints a note on stderr.
pub fn note(text: &str) {
    let text = &*diagctl_fs::without_secrets(text);
    if log("warn", text, Value::Null) {
        return;
    }
    let _ = writeln!(std::io::stderr(), "diagctl: {}", printable(text));
}

/// Prints an error with its hint on stderr, and returns the exit status.
pub fn fail(error: &Error) -> Exit {
    let message = diagctl_fs::without_secrets(&error.to_string()).into_owned();
    let hint = error.hint().map(|hint| printable(&diagctl_fs::without_secrets(&hint)));
    let more = hint.as_ref().map_or(Value::Null, |hint| json!({ "hint": hint }));
    if !log("error", &message, more) {
        note(&message);
        if let Some(hint) = hint {
            let _ = writeln!(std::io::stderr(), "  hint: {hint}");
        }
    }
    match error {
        Error::Settings(_) | Error::NoSettings => Exit::Config,
        Error::NoCapture { .. } | Error::NoNode(_) | Error::NoRequest(_) => Exit::NoMatch,
        _ => Exit::Failed,
    }
}
