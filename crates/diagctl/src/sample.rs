//! What is known of the polling processes: memory figures of one poll, and the last sample of each process.
//!
//! Owns `<dir>/samples/<pid>.json`, which are volatile: they are never synced, and losing one costs one `for` period and the
//! knowledge of which process is largest. What must survive is in `state.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cgroup::{CgroupRoot, MemoryCgroup};
use crate::clock::LAST_MS;
use crate::proc::Proc;
use crate::proc::figure;
use crate::state::MOST_BYTES;

/// A process that has not polled for this many intervals counts as gone.
const STALE_INTERVALS: u64 = 3;

/// An event waits for its rule this long, or [`STALE_INTERVALS`] where that is longer. Milliseconds.
const EVENT_LIFE_MS: u64 = 60_000;

/// Processes that have not polled for this long are forgotten. Milliseconds.
pub const FORGET_AFTER_MS: u64 = 3_600_000;

/// A memory figure that a trigger can look at. All in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Metric {
    /// Resident set of the process.
    Rss,
    /// Its share of what it shares (`Pss` of smaps_rollup; costs a page-table walk).
    Pss,
    /// What only it has (`Private_Clean + Private_Dirty` of smaps_rollup).
    Uss,
    /// Its anonymous memory (`RssAnon`).
    Anon,
    /// The cgroup's `current − inactive_file`.
    WorkingSet,
    /// The host's `MemTotal − MemAvailable`.
    HostUsed,
    /// Resident set of the parent process.
    ParentRss,
}

impl Metric {
    /// Every one.
    pub const ALL: [Self; 7] =
        [Self::Rss, Self::Pss, Self::Uss, Self::Anon, Self::WorkingSet, Self::HostUsed, Self::ParentRss];

    /// Its name in reasons and observed values.
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

    /// Whether it is a figure of the polling process.
    pub fn is_of_process(self) -> bool {
        !matches!(self, Self::WorkingSet | Self::HostUsed | Self::ParentRss)
    }
}

/// The figures that a poll needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Memory figures.
    pub metrics: Vec<Metric>,
    /// What shares are of: the limit and the host's memory.
    pub whole: bool,
    /// What a further process could use, for the headroom guard.
    pub available: bool,
    /// The counters of the cgroup's `memory.events`.
    pub counters: bool,
    /// Memory stalls, of the cgroup and the host.
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
    /// What was read, or why it could not be.
    pub figures: BTreeMap<Metric, Result<u64, String>>,
    /// The lowest memory limit of the process's cgroup and those above it.
    pub limit: Option<u64>,
    /// The host's memory.
    pub host_total: u64,
    /// What a further process could use before only the reserve of the limit or the host is left; all there is where it was not
    /// read.
    pub available: u64,
}

impl Memory {
    /// Reads the figures that are asked for, and only those: some walk page tables, and the kernel sums a cgroup's
    /// statistics up anew for every reader. What cannot be read becomes a reason in its place.
    pub fn read(proc: &Proc, cgroups: &CgroupRoot, pid: u32, wanted: &Wanted) -> Self {
        let mut memory = Self { available: u64::MAX, ..Self::default() };
        memory.set(Metric::Rss, proc.rss(pid));
        for metric in &wanted.metrics {
            let value = match metric {
                Metric::Rss | Metric::WorkingSet | Metric::HostUsed => continue,
                Metric::Anon => proc.figure(pid, "status", "RssAnon"),
                Metric::Pss => proc.figure(pid, "smaps_rollup", "Pss"),
                Metric::Uss => private(proc, pid),
                Metric::ParentRss => proc.stat(pid).and_then(|stat| proc.rss(stat.ppid)),
            };
            memory.set(*metric, value);
        }
        if wanted.cgroup() {
            memory.read_cgroup(cgroups.memory_of(proc, pid), wanted);
        }
        if wanted.host() {
            memory.read_host(proc);
        }
        memory
    }

    fn read_cgroup(&mut self, cgroup: Result<MemoryCgroup, String>, wanted: &Wanted) {
        self.limit = cgroup.as_ref().ok().and_then(MemoryCgroup::limit);
        if !wanted.available && !wanted.metrics.contains(&Metric::WorkingSet) {
            return;
        }
        if wanted.available
            && let Some(room) = cgroup.as_ref().ok().and_then(|group| group.available(reserve))
        {
            self.available = self.available.min(room);
        }
        self.set(Metric::WorkingSet, cgroup.and_then(|group| group.working_set()));
    }

    fn read_host(&mut self, proc: &Proc) {
        let (total, available) = proc.host_memory();
        self.host_total = total.unwrap_or(0);
        let left = available.as_ref().map_or(0, |free| free.saturating_sub(reserve(self.host_total)));
        self.available = self.available.min(left);
        self.set(Metric::HostUsed, available.map(|free| self.host_total.saturating_sub(free)));
    }

    /// Puts a figure in.
    pub fn set(&mut self, metric: Metric, value: Result<u64, String>) {
        self.figures.insert(metric, value);
    }

    /// A figure, or why there is none.
    pub fn get(&self, metric: Metric) -> Result<u64, String> {
        self.figures.get(&metric).cloned().unwrap_or_else(|| Err(format!("{} was not read", metric.name())))
    }

    /// What 100 % is of for a metric: the memory limit, or the host's memory where there is none.
    pub fn whole(&self, metric: Metric) -> u64 {
        match (metric, self.limit) {
            (Metric::HostUsed, _) | (_, None) => self.host_total,
            (_, Some(limit)) if self.host_total == 0 => limit,
            // A limit above the memory that there is limits nothing.
            (_, Some(limit)) => limit.min(self.host_total),
        }
    }
}

fn private(proc: &Proc, pid: u32) -> Result<u64, String> {
    let text = crate::proc::read(&proc.pid(pid).join("smaps_rollup"))?;
    let of = |key| figure(&text, key).unwrap_or(0);
    Ok(of("Private_Clean").saturating_add(of("Private_Dirty")))
}

/// What is kept free of a limit (or of the host's memory): a twentieth, 32 MiB at least and 256 MiB at most. A worker that writes
/// while its child shares its memory copies some hundred megabytes a second at most, and looks ten times a second.
pub fn reserve(limit: u64) -> u64 {
    (limit / 20).clamp(32 << 20, 256 << 20)
}

/// The last samples of polling processes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// By pid.
    pub processes: BTreeMap<u32, Sample>,
}

/// One process as it was at its last poll. Times are on the store's time line, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Its start, in clock ticks since boot.
    pub start_ticks: u64,
    /// What it does: `puma`, `sidekiq`, …
    pub role: String,
    /// Its name within the role.
    pub name: String,
    /// Resident set, bytes.
    pub rss: u64,
    /// First poll.
    pub first_seen: u64,
    /// Last poll.
    pub last_seen: u64,
    /// When its next poll is expected.
    pub next_poll: u64,
    /// What it was answered last.
    #[serde(default)]
    pub verdict: String,
    /// And why.
    #[serde(default)]
    pub reason: String,
    /// Rules that could not be read, or would not let a capture through although their condition holds, and why, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refusals: BTreeMap<String, Refused>,
    /// What triggers remember of this process, by rule and path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub marks: BTreeMap<String, Marks>,
    /// Events that it named and rules have yet to answer, by rule and event.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub named: BTreeMap<String, Named>,
    /// Rules whose condition holds, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holding: BTreeMap<String, Holding>,
}

/// What the triggers of one rule remember of a process, by path within the rule.
pub type Marks = BTreeMap<String, Mark>;

/// Events that one rule has yet to answer, by name.
pub type Named = BTreeMap<String, NamedEvent>;

/// An event that waits for its rule. On the store's time line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedEvent {
    /// When the process named it.
    pub at: u64,
    /// When it is given up.
    pub until: u64,
}

/// A figure and its moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// The figure.
    pub value: f64,
    /// On the store's time line.
    pub at: u64,
}

/// How a rule refused at the last poll.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// `skipped`, `pending`, `cooldown`, `throttled` or `guarded`.
    pub verdict: String,
    /// The guard, when it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<String>,
    /// One sentence.
    pub reason: String,
}

/// Since when a condition has held at every poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The first of the uninterrupted polls.
    pub since: u64,
    /// The last one.
    pub last: u64,
}

impl Sample {
    /// The sample of a process at a poll, given that of its last poll. One that was taken of another process under the same
    /// pid, or so long ago that it is forgotten, is left behind.
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
        // A process that polls late was dumping or stopped: nobody could answer its events meanwhile.
        let silent = now_ms.saturating_sub(sample.next_poll.max(sample.last_seen));
        sample.named.values_mut().flat_map(BTreeMap::values_mut).for_each(|event| event.until += silent);
        name.clone_into(&mut sample.name);
        sample.rss = rss;
        sample.last_seen = now_ms;
        sample.next_poll = now_ms;
        sample
    }

    /// Understands the file of a sample; nothing where a crash tore it, or a number in it cannot be.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let moments = |sample: &Self| {
            let held = sample.holding.values().flat_map(|holding| [holding.since, holding.last]);
            let marks = sample.marks.values().flat_map(BTreeMap::values).map(|mark| mark.at);
            held.chain(marks).chain([sample.first_seen, sample.last_seen, sample.next_poll]).max().unwrap_or(0)
        };
        serde_json::from_slice(data).ok().filter(|sample| moments(sample) <= LAST_MS && sample.rss <= MOST_BYTES)
    }

    /// Whether it can still be expected to poll.
    pub fn is_fresh(&self, now_ms: u64, poll_ms: u64) -> bool {
        now_ms <= self.next_poll.saturating_add(STALE_INTERVALS * poll_ms)
    }

    /// Takes in the events that the process names at this poll, of those that a rule looks at.
    pub fn name_events<'e>(&mut self, rule: &str, events: impl Iterator<Item = &'e str>, now_ms: u64, poll_ms: u64) {
        for event in events {
            let named = self.named.entry(rule.to_owned()).or_default();
            named.insert(event.to_owned(), NamedEvent { at: now_ms, until: now_ms + event_life(poll_ms) });
        }
    }

    /// Takes out the events for which a rule has had its time; with the moment at which each was named.
    pub fn give_up_events(&mut self, rule: &str, now_ms: u64) -> Named {
        let Some(named) = self.named.get_mut(rule) else { return Named::new() };
        let (late, waiting) = std::mem::take(named).into_iter().partition(|(_, event)| event.until <= now_ms);
        *named = waiting;
        if named.is_empty() {
            self.named.remove(rule);
        }
        late
    }

    /// Lets the time in which somebody else had the lease not count.
    pub fn keep_events(&mut self, now_ms: u64, poll_ms: u64) {
        let events = self.named.values_mut().flat_map(BTreeMap::values_mut);
        events.for_each(|event| event.until = event.until.max(now_ms + event_life(poll_ms)));
    }

    /// Notes that a rule's condition holds, and returns since when. A gap of more than three intervals starts anew.
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
    fn shares_are_of_the_limit_where_there_is_one_and_of_the_host_elsewhere() {
        let mut memory = Memory { limit: None, host_total: 1000, ..Memory::default() };
        assert_eq!(memory.whole(Metric::Rss), 1000);
        memory.limit = Some(400);
        assert_eq!((memory.whole(Metric::Rss), memory.whole(Metric::HostUsed)), (400, 1000));
    }

    #[test]
    fn figures_come_from_proc_and_what_is_missing_says_so() {
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
    fn a_reused_pid_is_a_new_process_and_a_gap_starts_a_condition_anew() {
        let mut sample = Sample::at_poll(None, 1, "puma", "worker-0", 10, 0);
        assert_eq!(sample.hold("r", 0, 10), 0);
        assert_eq!(sample.hold("r", 30, 10), 0);
        assert_eq!(sample.hold("r", 61, 10), 61);
        assert!(!Sample::at_poll(Some(&sample), 1, "puma", "worker-0", 10, 70).holding.is_empty());
        assert!(Sample::at_poll(Some(&sample), 2, "puma", "worker-0", 10, 70).holding.is_empty());
    }
}
