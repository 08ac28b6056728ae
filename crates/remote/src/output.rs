//! The only module that writes to stdout and stderr. The exit statuses are those of `diagctl`.

use std::io::Write;
use std::process::ExitCode;
use std::sync::OnceLock;
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
    /// A newer version wrote it.
    Newer = 6,
    /// Ctrl-C: 128 and the number of the signal, as in a shell.
    Interrupted = 130,
    /// The same for SIGTERM.
    Terminated = 143,
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

/// Prints the next step after a note.
pub fn hint(text: &str) {
    let text = &*diagctl_fs::without_secrets(text);
    if !log("warn", text, Value::Null) {
        let _ = writeln!(std::io::stderr(), "  hint: {}", printable(text));
    }
}

/// Prints a note with a command between backquotes, which gets the global options that were given.
pub fn note_command(text: &str) {
    note(&pasteable(text, OPTIONS.get().map_or("", String::as_str)));
}

/// The global options of the command that has started this program, for the commands that it suggests.
static OPTIONS: OnceLock<String> = OnceLock::new();

/// Suggests each further command with these options.
pub fn suggest_with(options: &str) {
    OPTIONS.get_or_init(|| options.to_owned());
}

// Commands between backquotes that are for the remote need the same configuration. Those of a node have their own.
fn pasteable(hint: &str, options: &str) -> String {
    let parts = hint.split('`').enumerate().map(|(i, part)| match part.strip_prefix("diagctl ") {
        Some(command) if i % 2 == 1 && part.contains("--remote") && !options.is_empty() => {
            format!("diagctl {options} {command}")
        }
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("`")
}

/// Prints an error with its hint on stderr, and returns the exit status.
pub fn fail(error: &Error) -> Exit {
    let message = diagctl_fs::without_secrets(&error.to_string()).into_owned();
    let hint = error.hint().map(|hint| pasteable(&hint, OPTIONS.get().map_or("", String::as_str)));
    let hint = hint.map(|hint| printable(&diagctl_fs::without_secrets(&hint)));
    let more = hint.as_ref().map_or(Value::Null, |hint| json!({ "hint": hint }));
    if !log("error", &message, more) {
        note(&message);
        if let Some(hint) = hint {
            let _ = writeln!(std::io::stderr(), "  hint: {hint}");
        }
    }
    match error {
        Error::Settings(_) | Error::NoSettings | Error::NoAccount { .. } => Exit::Config,
        Error::NoCapture { .. } | Error::NoNode(_) | Error::NoRequest(_) => Exit::NoMatch,
        Error::Newer { .. } => Exit::Newer,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggested_command_for_the_remote_has_the_options_that_were_given() {
        let hint = "`diagctl list --remote` shows them, while `diagctl ship --watch` runs";
        let expected = "`diagctl --config x.toml list --remote` shows them, while `diagctl ship --watch` runs";
        assert_eq!((pasteable(hint, "--config x.toml"), pasteable(hint, "")), (expected.into(), hint.into()));
    }
}
