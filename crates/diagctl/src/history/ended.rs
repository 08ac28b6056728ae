//! How processes ended, as they themselves, their parents or their killers noted it between the recorded polls.

use serde::{Deserialize, Serialize};

/// A note is recognized by this within the first bytes of its line.
const MARK: &[u8] = b"\"ended\":{";

/// How a process ended. Whatever is not known is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Ended {
    /// The pid.
    pub pid: u32,
    /// The pid namespace in which the pid is valid.
    pub pid_ns: u64,
    /// The start, in clock ticks since boot. Zero if no poll of the process is recorded.
    pub start_ticks: u64,
    /// The writer of the note.
    pub by: By,
    /// The exit status.
    pub exit: Option<i32>,
    /// The signal that ended the process, or that asked it to end.
    pub signal: Option<i32>,
    /// The class of the exception that ended the process.
    pub error: Option<String>,
    /// Set if the kernel killed a process of the cgroup because of its memory limit at that time.
    pub oom_kill: bool,
    /// The time within which that kill was counted, milliseconds. `None` if it is not known.
    pub oom_window_ms: Option<u64>,
    /// The name of a worker killer.
    pub killer: Option<String>,
    /// Number of the line in the history.
    #[serde(skip)]
    pub line: usize,
}

/// The writer of a note.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The process itself, at its exit.
    Process,
    /// Its parent, which has its exit status.
    Parent,
    /// A worker killer that announced itself.
    Killer,
    /// Another writer, of a later version.
    #[default]
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Note {
    ended: Ended,
}

/// A parent's word on the end of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ParentNote {
    /// The pid.
    pub pid: u32,
    /// The pid namespace in which the pid is valid.
    pub pid_ns: u64,
    /// The start, in clock ticks since boot.
    pub start_ticks: u64,
    /// The exit status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Set if the parent knows that the kernel killed it because of its memory limit.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub oom_kill: bool,
}

/// Formats a note of a parent, as the processes themselves write theirs.
pub(super) fn format(at: u64, note: &ParentNote) -> String {
    let mut ended = serde_json::json!({ "by": "parent" });
    if let (Some(ended), Ok(serde_json::Value::Object(fields))) = (ended.as_object_mut(), serde_json::to_value(note)) {
        ended.extend(fields);
        if note.oom_kill {
            // It needs no time within which the kill was counted: it was no guess.
            ended.insert("oom_window_ms".to_owned(), 0.into());
        }
    }
    serde_json::json!({ "at": at, "ended": ended }).to_string()
}

/// Returns true if a line is a note.
pub(super) fn is_note(line: &[u8]) -> bool {
    line.get(..40).unwrap_or(line).windows(MARK.len()).any(|part| part == MARK)
}

/// Parses a note.
pub(super) fn parse(line: &[u8], number: usize) -> Option<Ended> {
    let Note { ended } = serde_json::from_slice(line).ok()?;
    Some(Ended { line: number, ..ended })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_of_a_later_version_is_read_as_far_as_it_is_understood() {
        let line = br#"{"at":6,"ended":{"by":"somebody","pid":7,"pid_ns":5,"new":1}}"#;
        assert!(is_note(line));
        assert_eq!(parse(line, 3), Some(Ended { pid: 7, pid_ns: 5, line: 3, ..Ended::default() }));
        let parent = br#"{"at":2,"ended":{"by":"parent","pid":7,"signal":9,"oom_kill":true,"oom_window_ms":900}}"#;
        let ended = parse(parent, 0).unwrap();
        assert_eq!((ended.by, ended.signal, ended.oom_window_ms), (By::Parent, Some(9), Some(900)));
    }

    #[test]
    fn a_note_of_a_parent_is_read_back() {
        let note = ParentNote { pid: 7, pid_ns: 4, start_ticks: 9, signal: Some(9), oom_kill: true, exit: None };
        let line = format(1_795_861_522_539, &note);
        assert!(is_note(line.as_bytes()), "{line}");
        let expected = Ended {
            pid: 7,
            pid_ns: 4,
            start_ticks: 9,
            by: By::Parent,
            signal: Some(9),
            oom_kill: true,
            oom_window_ms: Some(0),
            ..Ended::default()
        };
        assert_eq!(parse(line.as_bytes(), 0), Some(expected));
    }

    #[test]
    fn a_torn_note_is_passed_over_and_no_note_is_a_poll() {
        let text = "{\"at\":2,\"ended\":{\"by\":\"par\n{\"at\":4,\"ended\":{\"pid\":7}}";
        let notes: Vec<_> = text.split('\n').filter_map(|line| parse(line.as_bytes(), 0)).collect();
        assert_eq!(notes.len(), 1);
        assert_eq!(crate::history::parse(text.as_bytes()).count(), 0);
    }
}
