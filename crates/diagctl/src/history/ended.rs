//! How processes ended, as they themselves, their parents or their killers noted it between the recorded polls.

use std::collections::BTreeMap;

use serde::Deserialize;

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
    /// The name of a worker killer.
    pub killer: Option<String>,
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

#[derive(Default, Deserialize)]
#[serde(default)]
struct Seen {
    pid: u32,
    pid_ns: u64,
    start_ticks: u64,
}

/// Returns the notes. A parent that has reaped its child does not know its start: the note is about the last process of that pid
/// before it.
pub(super) fn parse(data: &[u8]) -> Vec<Ended> {
    let lines = || data.split(|byte| *byte == b'\n');
    let is_note = |line: &[u8]| line.get(..40).unwrap_or(line).windows(MARK.len()).any(|part| part == MARK);
    if !lines().any(is_note) {
        return Vec::new();
    }
    let mut seen: BTreeMap<(u64, u32), u64> = BTreeMap::new();
    let mut notes = Vec::new();
    for line in lines() {
        if is_note(line) {
            let Ok(Note { mut ended }) = serde_json::from_slice(line) else { continue };
            if ended.start_ticks == 0 {
                ended.start_ticks = seen.get(&(ended.pid_ns, ended.pid)).copied().unwrap_or(0);
            }
            notes.push(ended);
        } else if let Ok(poll) = serde_json::from_slice::<Seen>(line) {
            seen.insert((poll.pid_ns, poll.pid), poll.start_ticks);
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(text: &str) -> Vec<(u64, By, Option<i32>, Option<i32>)> {
        parse(text.as_bytes()).iter().map(|note| (note.start_ticks, note.by, note.exit, note.signal)).collect()
    }

    #[test]
    fn a_note_without_a_start_is_about_the_last_process_of_that_pid_before_it() {
        let text = r#"
            {"at":1,"pid":7,"pid_ns":4,"start_ticks":50,"role":"puma","memory":{}}
            {"at":2,"ended":{"by":"parent","pid":7,"pid_ns":4,"signal":9}}
            {"at":3,"pid":7,"pid_ns":4,"start_ticks":90,"role":"puma","memory":{}}
            {"at":4,"ended":{"by":"process","pid":7,"pid_ns":4,"start_ticks":90,"exit":0}}
            {"at":5,"ended":{"by":"parent","pid":8,"pid_ns":4,"exit":1}}
            {"at":6,"ended":{"by":"somebody","pid":7,"pid_ns":5,"new":1}}"#;
        let expected = [
            (50, By::Parent, None, Some(9)),
            (90, By::Process, Some(0), None),
            (0, By::Parent, Some(1), None),
            (0, By::Other, None, None),
        ];
        assert_eq!(notes(&text.replace("            ", "")), expected);
    }

    #[test]
    fn a_torn_note_is_passed_over_and_no_note_is_a_poll() {
        let text = "{\"at\":2,\"ended\":{\"by\":\"par\n{\"at\":4,\"ended\":{\"pid\":7}}";
        assert_eq!(notes(text).len(), 1);
        assert_eq!(crate::history::parse(text.as_bytes()).count(), 0);
    }
}
