//! The memory figures that triggers and guards need, read from the process, its cgroup and the host.

use std::collections::BTreeMap;

use diagctl_observe::cgroup::{CgroupRoot, MemoryCgroup};
use diagctl_observe::proc::{Proc, figure};
use serde::{Deserialize, Serialize};

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
}
