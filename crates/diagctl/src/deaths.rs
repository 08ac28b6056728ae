//! Processes that polled and are gone without a goodbye: what is recorded about their last minutes.
//!
//! Pure: recorded polls and notes go in, deaths come out. Nothing is recorded for this at a poll, so a poll costs what it did.

mod end;
mod running;

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::history::{Head, Key, Lines, Recorded};

pub use end::{End, is_stop, signal};
use running::Running;

/// The polls that are shown of a process that is gone, milliseconds before its last one.
const LAST_MS: u64 = 600_000;

/// Processes whose last polls are this close ended together, milliseconds. Most restarts take no longer.
const TOGETHER_MS: u64 = 60_000;

/// A kill by the kernel is looked for in the polls up to this long after the last one, milliseconds.
const AFTERWARDS_MS: u64 = 300_000;

/// The most processes whose polls are asked for such a kill.
const WITNESSES: usize = 50;

/// A process that is gone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Death {
    /// The pid.
    pub pid: u32,
    /// The pid namespace in which the pid is valid.
    pub pid_ns: u64,
    /// The start, in clock ticks since boot.
    pub start_ticks: u64,
    /// The role.
    pub role: String,
    /// The name within the role.
    pub name: String,
    /// The time of the first and of the last recorded poll, milliseconds on the store's time line.
    pub first_ms: u64,
    /// The time of the last recorded poll.
    pub last_ms: u64,
    /// Resident set at the last poll, bytes.
    pub rss_bytes: u64,
    /// Largest resident set, bytes.
    pub peak_bytes: u64,
    /// The memory limit, bytes.
    pub limit_bytes: Option<u64>,
    /// Number of other processes that are gone, of which nobody knows why either, and whose last poll was within a minute of this one's.
    pub together: usize,
    /// Kills by the kernel that the cgroup counted between the last poll and later ones. `None` if nobody recorded them.
    pub oom_kills: Option<u64>,
    /// How it ended, as far as anybody noted that.
    #[serde(flatten)]
    pub end: End,
    /// The work at the last poll.
    #[serde(flatten)]
    pub running: Running,
    /// The last polls: time, and resident set in bytes.
    pub polls: Vec<(u64, u64)>,
}

impl Death {
    /// Says how the process ended, as far as that can be known.
    pub fn how(&self) -> String {
        how(&self.end, self.oom_kills, self.together)
    }
}

fn how(end: &End, oom_kills: Option<u64>, together: usize) -> String {
    if let Some(told) = end.told(oom_kills) {
        return told;
    }
    let guessed = match (oom_kills, together) {
        // The kernel killed a process of the cgroup. Nothing says that it was this one.
        (Some(1..), _) => end::POSSIBLY,
        (_, 1..) => "with others",
        (Some(0), 0) => "not oom_kill",
        (None, 0) => "unknown",
    };
    guessed.to_owned()
}

/// The processes that are gone without a goodbye, the last one first.
#[derive(Debug)]
pub struct Deaths<'a> {
    lines: &'a Lines<'a>,
    gone: Vec<Gone>,
    /// The places of the polls of each process.
    polls: Polls<'a>,
    /// The times of the last polls of those of which nobody knows how they ended, ascending.
    unknown: Vec<u64>,
    by_time: OnceCell<Vec<usize>>,
}

/// The places of the polls of each process among the heads of the history, in its order.
type Polls<'a> = HashMap<Key<'a>, Vec<usize>>;

/// A process that is gone, and the place of its last poll.
#[derive(Debug)]
struct Gone {
    last: usize,
    end: End,
}

impl<'a> Deaths<'a> {
    /// Finds them.
    pub fn find(lines: &'a Lines<'a>, is_alive: impl Fn(&Head<'_>) -> bool) -> Self {
        let polls = polls(lines);
        let mut gone = ended(lines, &polls, is_alive);
        gone.retain(|one| !one.end.is_goodbye());
        let head = |place: usize| lines.heads()[place];
        // One whose end is known is no sign of what ended the others.
        let unknown = gone.iter().rev().filter(|one| one.end.told(None).is_none());
        let unknown = unknown.map(|one| head(one.last).at).collect();
        Self { lines, gone, polls, unknown, by_time: OnceCell::new() }
    }

    /// Returns the number of those that polled since a time.
    pub fn since(&self, ms: u64) -> usize {
        self.gone.partition_point(|one| self.lines.heads()[one.last].at >= ms)
    }

    /// Returns the last poll of one with its place in the history, and says how it ended.
    pub fn last(&self, number: usize) -> Option<(usize, Head<'a>, String)> {
        let one = self.gone.get(number)?;
        let head = self.lines.heads()[one.last];
        let (oom_kills, together) = (self.oom_kills(one.last), self.together(one));
        Some((one.last, head, how(&one.end, oom_kills, together)))
    }

    /// Reads all polls of one. `None` beyond the last one, and if its polls are damaged.
    pub fn death(&self, number: usize) -> Option<Death> {
        let one = self.gone.get(number)?;
        let places = self.polls.get(&self.lines.heads()[one.last].process)?;
        let polls: Vec<_> = places.iter().filter_map(|place| self.lines.recorded(*place)).collect();
        let (first, last) = (polls.first()?, polls.last()?);
        let rss = |poll: &Recorded| poll.memory.get("rss").copied().unwrap_or(0);
        let recent = polls.iter().filter(|poll| last.at.saturating_sub(poll.at) <= LAST_MS);
        Some(Death {
            pid: last.pid,
            pid_ns: last.pid_ns,
            start_ticks: last.start_ticks,
            role: last.role.clone(),
            name: last.name.clone(),
            first_ms: first.at,
            last_ms: last.at,
            rss_bytes: rss(last),
            peak_bytes: polls.iter().map(rss).max().unwrap_or(0),
            limit_bytes: last.limit,
            together: self.together(one),
            oom_kills: self.oom_kills(one.last),
            end: one.end.clone(),
            running: Running::of(&last.gauges),
            polls: recent.map(|poll| (poll.at, rss(poll))).collect(),
        })
    }

    /// All of them, the last one first.
    pub fn iter(&self) -> impl Iterator<Item = Death> + '_ {
        (0..self.gone.len()).filter_map(|number| self.death(number))
    }

    // The process itself is one of them.
    fn together(&self, one: &Gone) -> usize {
        let at = self.lines.heads()[one.last].at;
        let from = self.unknown.partition_point(|time| *time < at.saturating_sub(TOGETHER_MS));
        let to = self.unknown.partition_point(|time| *time <= at.saturating_add(TOGETHER_MS));
        let own = usize::from(one.end.told(None).is_none());
        (to - from).saturating_sub(own)
    }

    // The path of the cgroup is not recorded. A process that polled before and after is in the same one if the limit is the same and
    // the counter of the process that is gone lies between its own; only such a process shows that nobody was killed. A process that
    // came later may be in a new cgroup, whose counter begins at zero: it can show a kill, and never that there was none.
    fn oom_kills(&self, last: usize) -> Option<u64> {
        let (head, own) = (self.lines.heads()[last], self.lines.counted(last));
        let before = own.oom_kills?;
        let time = |place: &usize| self.lines.heads()[*place].at;
        let by_time = self.by_time.get_or_init(|| {
            let mut places: Vec<usize> = (0..self.lines.heads().len()).collect();
            places.sort_by_key(time);
            places
        });
        let from = by_time.partition_point(|place| time(place) <= head.at);
        let to = by_time.partition_point(|place| time(place) <= head.at.saturating_add(AFTERWARDS_MS));
        let mut seen = HashSet::new();
        let latest = by_time[from..to].iter().rev().filter(|place| seen.insert(self.lines.heads()[**place].process));
        let rises = latest.take(WITNESSES).filter_map(|place| {
            let (process, counted) = (self.lines.heads()[*place].process, self.lines.counted(*place));
            let rise = counted.oom_kills?.checked_sub(before)?;
            if counted.limit != own.limit || process == head.process {
                return None;
            }
            let earlier = self.polls.get(&process)?.iter().rev().find(|place| time(place) <= head.at);
            match earlier.map(|place| self.lines.counted(*place)) {
                Some(earlier) => (earlier.limit == own.limit && earlier.oom_kills? <= before).then_some(rise),
                None => (rise > 0 && own.limit.is_some() && process.pid_ns == head.process.pid_ns).then_some(rise),
            }
        });
        rises.max()
    }
}

fn polls<'a>(lines: &Lines<'a>) -> Polls<'a> {
    let mut all: Polls<'_> = HashMap::new();
    for (place, head) in lines.heads().iter().enumerate() {
        all.entry(head.process).or_default().push(place);
    }
    all
}

// Those that have ended in whatever way, the last one first.
fn ended<'a>(lines: &Lines<'a>, polls: &Polls<'a>, is_alive: impl Fn(&Head<'_>) -> bool) -> Vec<Gone> {
    let mut ends = ends(lines, polls);
    let head = |place: usize| lines.heads()[place];
    let ended = polls.iter().filter_map(|(process, places)| {
        let last = *places.last()?;
        let end = ends.remove(process).unwrap_or_default();
        (!is_alive(&head(last))).then_some(Gone { last, end })
    });
    let mut ended: Vec<Gone> = ended.collect();
    ended.sort_unstable_by_key(|one| std::cmp::Reverse((head(one.last).at, head(one.last).process)));
    ended
}

/// Returns the last polls, the newest first, of the processes that polled since a time and are gone without a note of their parent.
pub fn without_parent<'a>(lines: &Lines<'a>, since_ms: u64, is_alive: impl Fn(&Head<'_>) -> bool) -> Vec<Recorded> {
    let ended = ended(lines, &polls(lines), |last| last.at < since_ms || is_alive(last));
    let unseen = ended.iter().filter(|one| !one.end.has_parent());
    unseen.filter_map(|one| lines.recorded(one.last)).collect()
}

// A parent that has reaped its child does not know its start: the note is about the last process of that pid before it. Notes do not
// name the boot either.
fn ends<'a>(lines: &Lines<'a>, all: &Polls<'a>) -> HashMap<Key<'a>, End> {
    let mut by_pid: HashMap<(u64, u32), Vec<(usize, Key<'a>)>> = HashMap::new();
    if !lines.notes().is_empty() {
        for (process, places) in all {
            let first = places.first().map_or(0, |place| lines.heads()[*place].line);
            by_pid.entry((process.pid_ns, process.pid)).or_default().push((first, *process));
        }
    }
    let mut ends: HashMap<Key<'a>, End> = HashMap::new();
    for note in lines.notes() {
        let candidates = by_pid.get(&(note.pid_ns, note.pid)).into_iter().flatten();
        let before = candidates.filter(|(first, process)| {
            *first < note.line && (note.start_ticks == 0 || note.start_ticks == process.start_ticks)
        });
        if let Some((_, process)) = before.max_by_key(|(first, _)| *first) {
            ends.entry(*process).or_default().add(note);
        }
    }
    ends
}

#[cfg(test)]
mod tests;
