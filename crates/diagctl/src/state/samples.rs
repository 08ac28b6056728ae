//! The polling processes: the memory figures of one poll, and the last sample of each process.
//!
//! Owns `<dir>/samples/<pid>-<pid namespace>-<boot>.json`. These files are volatile: they are never synced, and losing one costs
//! one `for` period and the record of which process is largest. Everything that must survive is in `state.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::LAST_MS;
use diagctl_store::{MOST_BYTES, Process, ProcessId};

/// A process counts as gone if it has not polled for this many intervals.
const STALE_INTERVALS: u64 = 3;

/// The time that an event waits for its rule, in milliseconds, unless [`STALE_INTERVALS`] is longer.
const EVENT_LIFE_MS: u64 = 60_000;

/// Processes are forgotten if they have not polled for this long, in milliseconds.
pub const FORGET_AFTER_MS: u64 = 3_600_000;

/// The last sample of each polling process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// The samples by process.
    pub processes: BTreeMap<ProcessId, Sample>,
}

/// A process as of its last poll. Times are in milliseconds on the store's time line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The process's pid. Zero in samples of older versions, which have it in the name of the file only.
    #[serde(default)]
    pub pid: u32,
    /// The pid namespace in which the pid is valid.
    #[serde(default)]
    pub pid_ns: u64,
    /// The process's start, in clock ticks since boot.
    pub start_ticks: u64,
    /// The boot of the process's machine.
    #[serde(default)]
    pub boot_id: String,
    /// The role: `puma`, `sidekiq`, …
    pub role: String,
    /// The name within the role.
    pub name: String,
    /// Resident set, bytes.
    pub rss: u64,
    /// The time of the first poll.
    pub first_seen: u64,
    /// The time of the last poll.
    pub last_seen: u64,
    /// The time at which the next poll is expected.
    pub next_poll: u64,
    /// The verdict of the last poll.
    #[serde(default)]
    pub verdict: String,
    /// The reason for the verdict.
    #[serde(default)]
    pub reason: String,
    /// Set while a switch of the process is off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub switched_off: bool,
    /// Rules that could not be read, or that hold but refuse a capture, by name, with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refusals: BTreeMap<String, Refused>,
    /// Requests that the process refused at its last poll, by id. The reason is without that of the request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused_requests: BTreeMap<String, Refused>,
    /// The figures that triggers keep for this process, by rule and path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub marks: BTreeMap<String, Marks>,
    /// Events that the process named and that rules have not answered, by rule and event.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub named: BTreeMap<String, Named>,
    /// Rules whose condition holds, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holding: BTreeMap<String, Holding>,
}

/// The figures that the triggers of one rule keep for a process, by path within the rule.
pub type Marks = BTreeMap<String, Mark>;

/// Events that one rule has not answered, by name.
pub type Named = BTreeMap<String, NamedEvent>;

/// An event that waits for its rule. Times are on the store's time line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedEvent {
    /// The time at which the process named the event.
    pub at: u64,
    /// The time at which the event is given up.
    pub until: u64,
}

/// A figure with its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// The figure.
    pub value: f64,
    /// The time, on the store's time line.
    pub at: u64,
}

/// A refusal by a rule at the last poll.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// `skipped`, `pending`, `cooldown`, `throttled` or `guarded`.
    pub verdict: String,
    /// The guard that refused, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<String>,
    /// The reason, in one sentence.
    pub reason: String,
}

/// An uninterrupted series of polls at which a condition held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The time of the first poll in the series.
    pub since: u64,
    /// The time of the last poll in the series.
    pub last: u64,
}

impl Sample {
    /// Creates the sample of a process at a poll from the sample of its last poll. An old sample is dropped if it belongs to
    /// another process under the same pid, or if the process has been forgotten.
    pub fn at_poll(last: Option<&Self>, process: &Process, rss: u64, now_ms: u64) -> Self {
        let Process { id, role, name } = process;
        let last = last.filter(|last| {
            last.is_of(id) && last.role == *role && now_ms.saturating_sub(last.last_seen) < FORGET_AFTER_MS
        });
        let mut sample = last.cloned().unwrap_or_else(|| Self {
            role: role.clone(),
            first_seen: now_ms,
            last_seen: now_ms,
            ..Self::default()
        });
        let ProcessId { pid, pid_ns, start_ticks, boot_id } = id.clone();
        sample = Self { pid, pid_ns, start_ticks, boot_id, ..sample };
        // A process that polls late was dumping or stopped. Its events could not be answered meanwhile.
        let silent = now_ms.saturating_sub(sample.next_poll.max(sample.last_seen));
        sample.named.values_mut().flat_map(BTreeMap::values_mut).for_each(|event| event.until += silent);
        name.clone_into(&mut sample.name);
        sample.rss = rss;
        sample.switched_off = false;
        sample.last_seen = now_ms;
        sample.next_poll = now_ms;
        sample
    }

    // The same as `self.id().is(id)`, for every poll.
    fn is_of(&self, id: &ProcessId) -> bool {
        self.start_ticks == id.start_ticks
            && (self.pid_ns == 0 || (self.pid_ns, self.pid, &*self.boot_id) == (id.pid_ns, id.pid, &*id.boot_id))
    }

    /// The process.
    pub fn id(&self) -> ProcessId {
        ProcessId { pid: self.pid, pid_ns: self.pid_ns, start_ticks: self.start_ticks, boot_id: self.boot_id.clone() }
    }

    /// Parses the file of a sample. Returns `None` if a crash tore it or a number in it is implausible.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let moments = |sample: &Self| {
            let held = sample.holding.values().flat_map(|holding| [holding.since, holding.last]);
            let marks = sample.marks.values().flat_map(BTreeMap::values).map(|mark| mark.at);
            held.chain(marks).chain([sample.first_seen, sample.last_seen, sample.next_poll]).max().unwrap_or(0)
        };
        serde_json::from_slice(data).ok().filter(|sample| moments(sample) <= LAST_MS && sample.rss <= MOST_BYTES)
    }

    /// Returns true if the process is still expected to poll.
    pub fn is_fresh(&self, now_ms: u64, poll_ms: u64) -> bool {
        now_ms <= self.next_poll.saturating_add(STALE_INTERVALS * poll_ms)
    }

    /// Returns true if a switch or a pause forbade captures at the last poll.
    pub fn is_off(&self) -> bool {
        self.verdict == "disabled"
    }

    /// Records events that the process names at this poll and that the rule watches.
    pub fn name_events<'e>(&mut self, rule: &str, events: impl Iterator<Item = &'e str>, now_ms: u64, poll_ms: u64) {
        for event in events {
            let named = self.named.entry(rule.to_owned()).or_default();
            named.insert(event.to_owned(), NamedEvent { at: now_ms, until: now_ms + event_life(poll_ms) });
        }
    }

    /// Removes the expired events, and returns them.
    pub fn give_up_events(&mut self, rule: &str, now_ms: u64) -> Named {
        let Some(named) = self.named.get_mut(rule) else { return Named::new() };
        let (late, waiting) = std::mem::take(named).into_iter().partition(|(_, event)| event.until <= now_ms);
        *named = waiting;
        if named.is_empty() {
            self.named.remove(rule);
        }
        late
    }

    /// Extends the life of all events, so that the time in which another process had the lease does not count.
    pub fn keep_events(&mut self, now_ms: u64, poll_ms: u64) {
        let events = self.named.values_mut().flat_map(BTreeMap::values_mut);
        events.for_each(|event| event.until = event.until.max(now_ms + event_life(poll_ms)));
    }

    /// Records that a rule's condition holds, and returns the time since which it has held. A gap of more than three intervals
    /// starts a new series.
    pub fn hold(&mut self, rule: &str, now_ms: u64, poll_ms: u64) -> u64 {
        let holding = self.holding.entry(rule.to_owned()).or_insert(Holding { since: now_ms, last: now_ms });
        if now_ms.saturating_sub(holding.last) > STALE_INTERVALS * poll_ms {
            holding.since = now_ms;
        }
        holding.last = now_ms;
        holding.since
    }
}

fn event_life(poll_ms: u64) -> u64 {
    EVENT_LIFE_MS.max(STALE_INTERVALS * poll_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_pid_is_a_new_process_and_a_gap_resets_a_condition() {
        let process = |start_ticks| Process {
            id: ProcessId { pid: 1, pid_ns: 7, start_ticks, boot_id: "b".into() },
            role: "puma".into(),
            name: "worker-0".into(),
        };
        let mut sample = Sample::at_poll(None, &process(1), 10, 0);
        assert_eq!(sample.hold("r", 0, 10), 0);
        assert_eq!(sample.hold("r", 30, 10), 0);
        assert_eq!(sample.hold("r", 61, 10), 61);
        assert!(!Sample::at_poll(Some(&sample), &process(1), 10, 70).holding.is_empty());
        assert!(Sample::at_poll(Some(&sample), &process(2), 10, 70).holding.is_empty());
    }
}
