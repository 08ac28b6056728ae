//! The polling processes: the memory figures of one poll, and the last sample of each process.
//!
//! Owns `<dir>/samples/<pid>.json`. These files are volatile: they are never synced, and losing one costs one `for` period and
//! the record of which process is largest. Everything that must survive is in `state.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cgroup::{CgroupRoot, MemoryCgroup};
use crate::clock::LAST_MS;
use crate::proc::Proc;
use crate::proc::figure;
use diagctl_store::MOST_BYTES;

/// A process counts as gone if it has not polled for this many intervals.
const STALE_INTERVALS: u64 = 3;

/// The time that an event waits for its rule, in milliseconds, unless [`STALE_INTERVALS`] is longer.
const EVENT_LIFE_MS: u64 = 60_000;

/// Processes are forgotten if they have not polled for this long, in milliseconds.
pub const FORGET_AFTER_MS: u64 = 3_600_000;

/// A memory figure that a trigger can watch. All figures are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Metric {
    /// Resident set of the process.
    Rss,
    /// Proportional set size: the private memory and a share of the shared memory (`Pss` of smaps_rollup; costs a page-table
    /// walk).
    Pss,
    /// Unique set size: the private memory (`Private_Clean + Private_Dirty` of smaps_rollup).
    Uss,
    /// Anonymous memory of the process (`RssAnon`).
    Anon,
    /// The cgroup's `current − inactive_file`.
    WorkingSet,
    /// The host's `MemTotal − MemAvailable`.
    HostUsed,
    /// Resident set of the parent process.
    ParentRss,
}

impl Metric {
    /// All metrics.
    pub const ALL: [Self; 7] =
        [Self::Rss, Self::Pss, Self::Uss, Self::Anon, Self::WorkingSet, Self::HostUsed, Self::ParentRss];

    /// Returns the name in reasons and observed values.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rss => "rss",
            Self::Pss => "pss",
            Self::Uss => "uss",
            Self::Anon => "anon",
            Self::WorkingSet => "cgroup_working_set",
            Self::HostUsed => "host_used",
            Self::ParentRss => "parent_rss",
        }
    }

    /// Returns true if the figure belongs to the polling process.
    pub fn is_of_process(self) -> bool {
        !matches!(self, Self::WorkingSet | Self::HostUsed | Self::ParentRss)
    }
}

/// The figures that a poll needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The memory figures.
    pub metrics: Vec<Metric>,
    /// Set if percentages need the limit and the host's memory.
    pub whole: bool,
    /// Set if the headroom guard needs the memory that another process could use.
    pub available: bool,
    /// Set if a trigger needs the counters of the cgroup's `memory.events`.
    pub counters: bool,
    /// Set if a trigger needs the memory stalls of the cgroup and the host.
    pub stalls: bool,
}

impl Wanted {
    fn cgroup(&self) -> bool {
        self.whole || self.available || self.metrics.contains(&Metric::WorkingSet)
    }

    fn host(&self) -> bool {
        self.whole || self.available || self.metrics.contains(&Metric::HostUsed)
    }
}

/// The memory figures of one poll.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The figures, each with a reason in its place if it could not be read.
    pub figures: BTreeMap<Metric, Result<u64, String>>,
    /// The lowest memory limit of the process's cgroup and the cgroups above it.
    pub limit: Option<u64>,
    /// The host's total memory.
    pub host_total: u64,
    /// The memory that another process could use before only the reserve of the limit or of the host is left; `u64::MAX` if it
    /// was not read.
    pub available: u64,
}

impl Memory {
    /// Reads only the figures that are asked for: some walk page tables, and the kernel sums up a cgroup's statistics anew for
    /// every reader. A figure that cannot be read is replaced by the reason.
    pub fn read(proc: &Proc, cgroups: &CgroupRoot, pid: u32, wanted: &Wanted) -> Self {
        let mut memory = Self { available: u64::MAX, ..Self::default() };
        memory.set(Metric::Rss, proc.rss(pid).map_err(String::from));
        for metric in &wanted.metrics {
            let value = match metric {
                Metric::Rss | Metric::WorkingSet | Metric::HostUsed => continue,
                Metric::Anon => proc.figure(pid, "status", "RssAnon"),
                Metric::Pss => proc.figure(pid, "smaps_rollup", "Pss"),
                Metric::Uss => private(proc, pid),
                Metric::ParentRss => proc.stat(pid).and_then(|stat| proc.rss(stat.ppid)),
            };
            memory.set(*metric, value.map_err(String::from));
        }
        if wanted.cgroup() {
            memory.read_cgroup(cgroups.memory_of(proc, pid), wanted);
        }
        if wanted.host() {
            memory.read_host(proc);
        }
        memory
    }

    fn read_cgroup(&mut self, cgroup: diagctl_observe::Result<MemoryCgroup>, wanted: &Wanted) {
        self.limit = cgroup.as_ref().ok().and_then(MemoryCgroup::limit);
        if !wanted.available && !wanted.metrics.contains(&Metric::WorkingSet) {
            return;
        }
        if wanted.available
            && let Some(room) = cgroup.as_ref().ok().and_then(|group| group.available(reserve))
        {
            self.available = self.available.min(room);
        }
        self.set(Metric::WorkingSet, cgroup.and_then(|group| group.working_set()).map_err(String::from));
    }

    fn read_host(&mut self, proc: &Proc) {
        let (total, available) = proc.host_memory();
        self.host_total = total.unwrap_or(0);
        let left = available.as_ref().map_or(0, |free| free.saturating_sub(reserve(self.host_total)));
        self.available = self.available.min(left);
        self.set(Metric::HostUsed, available.map(|free| self.host_total.saturating_sub(free)).map_err(String::from));
    }

    /// Sets a figure.
    pub fn set(&mut self, metric: Metric, value: Result<u64, String>) {
        self.figures.insert(metric, value);
    }

    /// Returns a figure, or the reason why there is none.
    pub fn get(&self, metric: Metric) -> Result<u64, String> {
        self.figures.get(&metric).cloned().unwrap_or_else(|| Err(format!("{} was not read", metric.name())))
    }

    /// Returns the whole that percentages of a metric refer to: the memory limit, or the host's memory if there is no limit.
    pub fn whole(&self, metric: Metric) -> u64 {
        match (metric, self.limit) {
            (Metric::HostUsed, _) | (_, None) => self.host_total,
            (_, Some(limit)) if self.host_total == 0 => limit,
            // A limit above the host's memory limits nothing.
            (_, Some(limit)) => limit.min(self.host_total),
        }
    }
}

fn private(proc: &Proc, pid: u32) -> diagctl_observe::Result<u64> {
    let text = crate::proc::read(&proc.pid(pid).join("smaps_rollup"))?;
    let of = |key| figure(&text, key).unwrap_or(0);
    Ok(of("Private_Clean").saturating_add(of("Private_Dirty")))
}

/// The memory kept free under a limit or on the host, in bytes: a twentieth, at least 32 MiB and at most 256 MiB. A worker that
/// writes while its child shares its memory copies at most some hundred megabytes a second, and checks ten times a second.
pub fn reserve(limit: u64) -> u64 {
    (limit / 20).clamp(32 << 20, 256 << 20)
}

/// The last sample of each polling process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// The samples by pid.
    pub processes: BTreeMap<u32, Sample>,
}

/// A process as of its last poll. Times are in milliseconds on the store's time line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The process's start, in clock ticks since boot.
    pub start_ticks: u64,
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
    /// Rules that could not be read, or that hold but refuse a capture, by name, with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refusals: BTreeMap<String, Refused>,
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
    pub fn at_poll(last: Option<&Self>, start_ticks: u64, role: &str, name: &str, rss: u64, now_ms: u64) -> Self {
        let last = last.filter(|last| {
            last.start_ticks == start_ticks
                && last.role == role
                && now_ms.saturating_sub(last.last_seen) < FORGET_AFTER_MS
        });
        let mut sample = last.cloned().unwrap_or_else(|| Self {
            start_ticks,
            role: role.to_owned(),
            first_seen: now_ms,
            last_seen: now_ms,
            ..Self::default()
        });
        // A process that polls late was dumping or stopped. Its events could not be answered meanwhile.
        let silent = now_ms.saturating_sub(sample.next_poll.max(sample.last_seen));
        sample.named.values_mut().flat_map(BTreeMap::values_mut).for_each(|event| event.until += silent);
        name.clone_into(&mut sample.name);
        sample.rss = rss;
        sample.last_seen = now_ms;
        sample.next_poll = now_ms;
        sample
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
    use std::fs;

    #[test]
    fn percentages_refer_to_the_limit_or_else_to_the_host() {
        let mut memory = Memory { limit: None, host_total: 1000, ..Memory::default() };
        assert_eq!(memory.whole(Metric::Rss), 1000);
        memory.limit = Some(400);
        assert_eq!((memory.whole(Metric::Rss), memory.whole(Metric::HostUsed)), (400, 1000));
    }

    #[test]
    fn figures_come_from_proc_and_missing_ones_have_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let proc = Proc::at(dir.path());
        fs::create_dir(dir.path().join("7")).unwrap();
        fs::write(dir.path().join("meminfo"), "MemTotal: 1000 kB\nMemAvailable: 400 kB\n").unwrap();
        fs::write(dir.path().join("7/status"), "Name:\tx\n").unwrap();
        fs::write(dir.path().join("7/statm"), "900 75 10 1 0 80 0\n").unwrap();
        fs::write(dir.path().join("7/smaps_rollup"), "Pss: 200 kB\nPrivate_Clean: 10 kB\nPrivate_Dirty: 20 kB\n")
            .unwrap();
        let wanted = Wanted { metrics: Metric::ALL.to_vec(), whole: true, available: true, ..Wanted::default() };
        let memory = Memory::read(&proc, &CgroupRoot::at(dir.path()), 7, &wanted);
        assert_eq!(memory.get(Metric::Rss), Ok(75 * diagctl_observe::page_size()));
        assert_eq!(memory.get(Metric::Uss), Ok(30 * 1024));
        assert_eq!(memory.get(Metric::Pss), Ok(200 * 1024));
        assert_eq!(memory.get(Metric::HostUsed), Ok(600 * 1024));
        assert!(memory.get(Metric::Anon).unwrap_err().contains("no RssAnon"));
        assert!(memory.get(Metric::WorkingSet).is_err());
    }

    #[test]
    fn a_reused_pid_is_a_new_process_and_a_gap_resets_a_condition() {
        let mut sample = Sample::at_poll(None, 1, "puma", "worker-0", 10, 0);
        assert_eq!(sample.hold("r", 0, 10), 0);
        assert_eq!(sample.hold("r", 30, 10), 0);
        assert_eq!(sample.hold("r", 61, 10), 61);
        assert!(!Sample::at_poll(Some(&sample), 1, "puma", "worker-0", 10, 70).holding.is_empty());
        assert!(Sample::at_poll(Some(&sample), 2, "puma", "worker-0", 10, 70).holding.is_empty());
    }
}
