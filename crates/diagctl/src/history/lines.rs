//! The recorded polls by process and time, without the readings: most questions need few of those.

use std::cell::OnceCell;

use serde::Deserialize;

use super::Recorded;
use super::ended::{self, Ended};

/// The process and the time of one recorded poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head<'a> {
    /// The time of the poll, milliseconds on the store's time line.
    pub at: u64,
    /// The process.
    pub process: Key<'a>,
    /// Number of the line in the history.
    pub line: usize,
}

/// A process. A pid and a start can come again after a boot, and a pid in another container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key<'a> {
    /// The boot of the process's machine, or empty if unknown.
    pub boot_id: &'a str,
    /// The pid namespace in which the pid is valid.
    pub pid_ns: u64,
    /// The pid.
    pub pid: u32,
    /// The start, in clock ticks since boot.
    pub start_ticks: u64,
}

/// The history, read as far as somebody asks.
#[derive(Debug)]
pub struct Lines<'a> {
    heads: Vec<Head<'a>>,
    texts: Vec<&'a [u8]>,
    counted: Vec<OnceCell<Counted>>,
    notes: Vec<Ended>,
}

/// A cgroup's counter of kills by the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// The memory limit, bytes.
    pub limit: Option<u64>,
    /// The counter `oom_kill`.
    pub oom_kills: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Counters {
    limit: Option<u64>,
    counters: Counter,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Counter {
    oom_kill: Option<u64>,
}

impl<'a> Lines<'a> {
    /// Reads who polled, and when, from the files of the history. Lines that are torn or of another kind are skipped.
    pub fn of(files: &'a [impl AsRef<[u8]>]) -> Self {
        let mut lines = Self { heads: Vec::new(), texts: Vec::new(), counted: Vec::new(), notes: Vec::new() };
        for (number, text) in files.iter().flat_map(|file| split(file.as_ref())).enumerate() {
            let head = quick(text).or_else(|| if ended::is_note(text) { None } else { thorough(text) });
            if let Some(head) = head {
                lines.heads.push(Head { line: number, ..head });
                lines.texts.push(text);
            } else if ended::is_note(text) {
                lines.notes.extend(ended::parse(text, number));
            }
        }
        lines.counted.resize_with(lines.heads.len(), OnceCell::new);
        lines
    }

    /// The polls, in the order of the history.
    pub fn heads(&self) -> &[Head<'a>] {
        &self.heads
    }

    /// How processes ended, in the order of the history.
    pub fn notes(&self) -> &[Ended] {
        &self.notes
    }

    /// Returns the readings of a poll, by its place among the heads. `None` if the line is damaged.
    pub fn recorded(&self, place: usize) -> Option<Recorded> {
        serde_json::from_slice(self.texts.get(place)?).ok()
    }

    /// Returns the counters of a poll.
    pub fn counted(&self, place: usize) -> Counted {
        let (Some(cell), Some(text)) = (self.counted.get(place), self.texts.get(place)) else {
            return Counted::default();
        };
        *cell.get_or_init(|| {
            let Counters { limit, counters } = serde_json::from_slice(text).unwrap_or_default();
            Counted { limit, oom_kills: counters.oom_kill }
        })
    }
}

fn split(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = memchr::memchr_iter(b'\n', text).chain(std::iter::once(text.len()));
    ends.scan(0, |start, end| Some(&text[std::mem::replace(start, end + 1)..end]))
}

// The fields are where `append` puts them, at the beginning and in this order. Everything else takes the long way.
fn quick(text: &[u8]) -> Option<Head<'_>> {
    let (at, rest) = number(text.strip_prefix(b"{\"at\":")?)?;
    let (pid, rest) = number(rest.strip_prefix(b",\"pid\":")?)?;
    let (pid_ns, rest) = match rest.strip_prefix(b",\"pid_ns\":") {
        Some(rest) => number(rest)?,
        None => (0, rest),
    };
    let (start_ticks, rest) = number(rest.strip_prefix(b",\"start_ticks\":")?)?;
    let boot_id = match rest.strip_prefix(b",\"boot_id\":\"") {
        Some(rest) => {
            let end = rest.iter().take(64).position(|byte| *byte == b'"')?;
            std::str::from_utf8(&rest[..end]).ok().filter(|text| !text.contains('\\'))?
        }
        None if rest.starts_with(b",\"role\":") => "",
        None => return None,
    };
    // A torn line ends anywhere.
    let pid = u32::try_from(pid).ok().filter(|_| text.ends_with(b"}"))?;
    Some(Head { at, process: Key { boot_id, pid_ns, pid, start_ticks }, line: 0 })
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take(20).take_while(|byte| byte.is_ascii_digit()).count();
    let mut value = 0u64;
    for digit in text.get(..digits).filter(|digits| !digits.is_empty())? {
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    Some((value, &text[digits..]))
}

fn thorough(text: &[u8]) -> Option<Head<'_>> {
    let Recorded { at, pid, pid_ns, start_ticks, boot_id, .. } = serde_json::from_slice(text).ok()?;
    // As it stands in the line, which outlives what was parsed.
    let found = text.windows(boot_id.len().max(1)).find(|part| *part == boot_id.as_bytes());
    let boot_id = found.and_then(|part| std::str::from_utf8(part).ok()).unwrap_or("");
    Some(Head { at, process: Key { boot_id, pid_ns, pid, start_ticks }, line: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(boot_id: &str, pid_ns: u64) -> Recorded {
        Recorded {
            at: 1_795_861_522_539,
            pid: 42,
            pid_ns,
            start_ticks: 9,
            boot_id: boot_id.into(),
            role: "puma".into(),
            limit: Some(7),
            counters: [("oom_kill".to_owned(), 3)].into(),
            ..Recorded::default()
        }
    }

    #[test]
    fn a_head_says_what_the_whole_line_says() {
        for sample in [recorded("b-1", 4), recorded("", 4), recorded("b-1", 0), recorded("a\"b", 1)] {
            let text = serde_json::to_vec(&sample).unwrap();
            let text = [text];
            let lines = Lines::of(&text);
            let [head] = lines.heads() else { panic!("{sample:?}") };
            let boot_id = if sample.boot_id.contains('"') { "" } else { &sample.boot_id };
            let process = Key { boot_id, pid_ns: sample.pid_ns, pid: 42, start_ticks: 9 };
            assert_eq!(*head, Head { at: sample.at, process, line: 0 });
            assert_eq!(lines.recorded(0).as_ref(), Some(&sample));
            assert_eq!(lines.counted(0), Counted { limit: Some(7), oom_kills: Some(3) });
        }
    }

    #[test]
    fn the_long_way_reads_every_order_and_nothing_torn() {
        let other = br#"{"role":"puma","memory":{},"pid":42,"at":5,"boot_id":"b-1","start_ticks":9,"new":1}"#;
        let other = [other];
        let lines = Lines::of(&other);
        let process = Key { boot_id: "b-1", pid_ns: 0, pid: 42, start_ticks: 9 };
        assert_eq!(lines.heads(), [Head { at: 5, process, line: 0 }]);
        let whole = serde_json::to_vec(&recorded("b-1", 4)).unwrap();
        let process = Key { boot_id: "b-1", pid_ns: 4, pid: 42, start_ticks: 9 };
        for end in 0..whole.len() {
            // One that ends with a brace by chance still says who polled, and nothing else.
            let torn = [&whole[..end]];
            let lines = Lines::of(&torn);
            assert!(lines.heads().iter().all(|head| head.process == process && head.at == 1_795_861_522_539), "{end}");
            assert_eq!(lines.recorded(0), None, "{end}");
        }
        let two = [&whole[..60], b"\n", &whole[..], b"\n{}\n\n\xff\n"].concat();
        assert_eq!(Lines::of(&[&two]).heads().iter().map(|head| head.line).collect::<Vec<_>>(), [1]);
        for huge in ["{\"at\":99999999999999999999,\"pid\":1", "{\"at\":1,\"pid\":4294967296,\"start_ticks\":1}"] {
            assert_eq!(Lines::of(&[huge]).heads(), []);
        }
    }
}
