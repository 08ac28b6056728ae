//! Everything that triggers look at in one poll, read once: memory, cgroup events, pressure, values from the application, and
//! the answers of commands. A figure that cannot be read is replaced by the reason.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use diagctl_observe::pressure::{self, Scope, Stalls};

use crate::cgroup::CgroupRoot;
use crate::proc::Proc;
use crate::rules::memory::{Memory, Wanted};

/// The answer of an operator's command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecAnswer {
    /// Set if the command exited with status 0.
    pub holds: bool,
    /// Set if the command could be run at all.
    pub ran: bool,
    /// A description of how the command ended.
    pub how: String,
    /// Set if the command ran for an earlier poll.
    #[serde(skip)]
    pub past: bool,
}

/// The readings of one poll.
#[derive(Clone, Debug, PartialEq)]
pub struct Readings {
    /// The memory figures of the process, its cgroup and the host.
    pub memory: Memory,
    /// Counters of the cgroup's `memory.events`.
    pub counters: Result<BTreeMap<String, u64>, String>,
    /// Memory stalls, by scope.
    pub stalls: BTreeMap<Scope, Result<Stalls, String>>,
    /// Numbers that the application reported.
    pub gauges: BTreeMap<String, f64>,
    /// Events that the application named.
    pub events: BTreeSet<String>,
    /// The event that the caller waits for an answer to.
    pub awaited: Option<String>,
    /// Answers of commands, by rule and path: those of this poll, otherwise the last ones.
    pub execs: BTreeMap<String, ExecAnswer>,
}

impl Default for Readings {
    fn default() -> Self {
        Self {
            memory: Memory::default(),
            counters: Err("memory.events was not read".into()),
            stalls: BTreeMap::new(),
            gauges: BTreeMap::new(),
            events: BTreeSet::new(),
            awaited: None,
            execs: BTreeMap::new(),
        }
    }
}

impl Readings {
    /// Adds the memory figures that guards need.
    pub fn with_available_memory(&self, proc: &Proc, cgroups: &CgroupRoot, pid: u32, wanted: Wanted) -> Self {
        let wanted = Wanted { whole: true, available: true, ..wanted };
        Self { memory: Memory::read(proc, cgroups, pid, &wanted), ..self.clone() }
    }

    /// Reads only the wanted figures.
    pub fn take(proc: &Proc, cgroups: &CgroupRoot, pid: u32, wanted: &Wanted) -> Self {
        let mut readings = Self { memory: Memory::read(proc, cgroups, pid, wanted), ..Self::default() };
        if wanted.counters {
            readings.counters = cgroups.memory_of(proc, pid).and_then(|group| group.events()).map_err(String::from);
        }
        if wanted.stalls {
            let host = pressure::memory_of_host(proc).map_err(String::from);
            let group = cgroups.memory_of(proc, pid);
            let cgroup = group.and_then(|group| pressure::memory_of_cgroup(&group)).map_err(String::from);
            readings.stalls.insert(Scope::Host, host);
            readings.stalls.insert(Scope::Cgroup, cgroup);
        }
        readings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::memory::Metric;

    // A node as cgroup v2 presents it, and one poll of a process in it.
    #[test]
    fn every_trigger_reads_its_figures_from_cgroup_v2() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("proc/meminfo", "MemTotal: 8000 kB\nMemAvailable: 2000 kB\n"),
            (
                "proc/pressure/memory",
                "some avg10=0 avg60=0 avg300=0 total=500\nfull avg10=0 avg60=0 avg300=0 total=50\n",
            ),
            ("proc/9/cgroup", "0::/pod\n"),
            ("proc/9/stat", "9 (ruby) S 8 1 1 0 -1 0 0 0 0 0 1 1 0 0 20 0 1 0 77 0 0"),
            ("proc/9/statm", "500 100 10 1 0 80 0\n"),
            ("proc/8/statm", "500 40 10 1 0 80 0\n"),
            ("proc/9/status", "RssAnon: 300 kB\n"),
            ("proc/9/smaps_rollup", "Pss: 200 kB\nPrivate_Clean: 10 kB\nPrivate_Dirty: 20 kB\n"),
            ("cg/cgroup.controllers", "memory"),
            ("cg/pod/memory.max", "4096000\n"),
            ("cg/pod/memory.current", "3000000\n"),
            ("cg/pod/memory.stat", "inactive_file 1000000\n"),
            ("cg/pod/memory.events", "low 0\nhigh 1\nmax 7\noom 0\noom_kill 0\n"),
            (
                "cg/pod/memory.pressure",
                "some avg10=0 avg60=0 avg300=0 total=900\nfull avg10=0 avg60=0 avg300=0 total=90\n",
            ),
        ];
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let rules = r#"
            [[rules]]
            name = "all"
            reports = ["smaps"]
            trigger.any = [
              { memory_usage = { above = "80%" } }, { memory_usage = { metric = "anon", above = "1GiB" } },
              { memory_usage = { metric = "pss", above = "1GiB" } }, { memory_usage = { metric = "uss", above = "1GiB" } },
              { memory_usage = { of = "cgroup", above = "80%" } }, { memory_usage = { of = "host", above = "80%" } },
              { memory_growth = { diff = "30%", baseline = "primary" } }, { high_water = { step = "1MiB" } },
              { memory_projection = { margin = "10%" } }, { memory_event = { events = ["max"] } },
              { memory_pressure = { above = "10%" } },
            ]
        "#;
        let (config, _) = crate::config::parse(rules).unwrap();
        let proc = Proc::at(&dir.path().join("proc"));
        let readings = Readings::take(&proc, &CgroupRoot::at(&dir.path().join("cg")), 9, &config.wanted());
        let page = diagctl_observe::page_size();
        let expected = [
            (Metric::Rss, 100 * page),
            (Metric::Anon, 300 << 10),
            (Metric::Pss, 200 << 10),
            (Metric::Uss, 30 << 10),
            (Metric::WorkingSet, 2_000_000),
            (Metric::HostUsed, 6000 << 10),
            (Metric::ParentRss, 40 * page),
        ];
        for (metric, bytes) in expected {
            assert_eq!(readings.memory.get(metric), Ok(bytes), "{}", metric.name());
        }
        assert_eq!(readings.memory.limit, Some(4_096_000));
        assert_eq!(readings.counters.unwrap()["max"], 7);
        assert_eq!(readings.stalls[&Scope::Cgroup], Ok(Stalls { some: 900, full: 90 }));
        assert_eq!(readings.stalls[&Scope::Host], Ok(Stalls { some: 500, full: 50 }));
    }
}
