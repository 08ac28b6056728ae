//! Everything that triggers look at in one poll, read once: memory, cgroup events, pressure, what the application
//! handed in, and what commands answered. What cannot be read is a reason in the figure's place.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::cgroup::CgroupRoot;
use crate::config::Rule;
use crate::proc::Proc;
use crate::sample::{Memory, Wanted};
use crate::trigger::Trigger;

/// Whose stalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// The process's cgroup.
    Cgroup,
    /// The whole machine.
    Host,
}

impl Scope {
    /// As it is called in reasons.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Host => "host",
        }
    }
}

/// Stalled time since boot, microseconds (`total=` of a PSI file).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// At least one task was stalled.
    pub some: u64,
    /// All tasks were.
    pub full: u64,
}

/// What a command of the operator's answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecAnswer {
    /// Whether it ended with status 0.
    pub holds: bool,
    /// Whether it could be run at all.
    pub ran: bool,
    /// How it ended.
    pub how: String,
    /// Whether it ran for an earlier poll.
    #[serde(skip)]
    pub past: bool,
}

/// The readings of one poll.
#[derive(Clone, Debug, PartialEq)]
pub struct Readings {
    /// Of the process, its cgroup and the host.
    pub memory: Memory,
    /// Counters of the cgroup's `memory.events`.
    pub counters: Result<BTreeMap<String, u64>, String>,
    /// Memory stalls.
    pub stalls: BTreeMap<Scope, Result<Stalls, String>>,
    /// Numbers that the application handed in.
    pub gauges: BTreeMap<String, f64>,
    /// Events that the application named.
    pub events: BTreeSet<String>,
    /// Answers of commands, by rule and path: for this poll, else the last one.
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
            execs: BTreeMap::new(),
        }
    }
}

impl Readings {
    /// The same with all memory figures that guards look at as well.
    pub fn with_available_memory(&self, proc: &Proc, cgroups: &CgroupRoot, pid: u32, rules: &[Rule]) -> Self {
        let metrics = rules.iter().flat_map(|rule| rule.trigger.metrics()).collect();
        let wanted = Wanted { metrics, whole: true, available: true };
        Self { memory: Memory::read(proc, cgroups, pid, &wanted), ..self.clone() }
    }

    /// Reads what the rules look at, and no more.
    pub fn take(proc: &Proc, cgroups: &CgroupRoot, pid: u32, rules: &[Rule]) -> Self {
        let mut wanted = Wanted::default();
        let (mut counters, mut stalls) = (false, false);
        for rule in rules {
            wanted.metrics.extend(rule.trigger.metrics());
            wanted.whole |= rule.trigger.is_about_a_share();
            rule.trigger.visit(&mut |trigger| {
                counters |= matches!(trigger, Trigger::MemoryEvent(_));
                stalls |= matches!(trigger, Trigger::MemoryPressure(_));
            });
        }
        wanted.metrics.sort_unstable();
        wanted.metrics.dedup();
        let mut readings = Self { memory: Memory::read(proc, cgroups, pid, &wanted), ..Self::default() };
        if counters {
            readings.counters = cgroups.memory_of(proc, pid).and_then(|group| group.events());
        }
        if stalls {
            let host = proc.read("pressure/memory").and_then(|text| parse_stalls("/proc/pressure/memory", &text));
            let cgroup = cgroups.memory_of(proc, pid).and_then(|group| {
                let path = group.dir().join("memory.pressure");
                parse_stalls(&path.display().to_string(), &crate::proc::read(&path)?)
            });
            readings.stalls.insert(Scope::Host, host);
            readings.stalls.insert(Scope::Cgroup, cgroup);
        }
        readings
    }
}

/// PSI `some avg10` of the CPU, percent: of the process's cgroup where it has the figure, else of the host. The host's also
/// has the stalls of neighbours at their own quotas. `None` where the kernel has no PSI.
pub fn cpu_pressure(proc: &Proc, cgroups: &CgroupRoot, pid: u32) -> Option<(Scope, f64)> {
    let figure = |text: String| -> Option<f64> {
        let line = text.lines().find(|line| line.starts_with("some"))?;
        line.split_whitespace().find_map(|word| word.strip_prefix("avg10=")?.parse().ok())
    };
    let cgroup = || crate::proc::read(&cgroups.memory_of(proc, pid).ok()?.dir().join("cpu.pressure")).ok();
    let own = cgroup().and_then(figure).map(|percent| (Scope::Cgroup, percent));
    own.or_else(|| Some((Scope::Host, figure(proc.read("pressure/cpu").ok()?)?)))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`, a line a kind.
pub fn parse_stalls(path: &str, text: &str) -> Result<Stalls, String> {
    let total = |kind: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(kind))?;
        line.split_whitespace().find_map(|word| word.strip_prefix("total=")?.parse::<u64>().ok())
    };
    match (total("some"), total("full")) {
        (Some(some), Some(full)) => Ok(Stalls { some, full }),
        _ => Err(format!("{path} is not in the form of PSI")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Metric;

    // A node as cgroup v2 shows it, and one poll of a process in it.
    #[test]
    fn every_trigger_finds_its_figures_in_a_tree_of_cgroup_v2() {
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
        let readings = Readings::take(&proc, &CgroupRoot::at(&dir.path().join("cg")), 9, &config.rules);
        let page = crate::sys::page_size();
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

    #[test]
    fn cpu_pressure_is_the_cgroups_and_the_hosts_where_it_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let (proc, cgroups) = (Proc::at(&dir.path().join("proc")), CgroupRoot::at(&dir.path().join("cg")));
        assert_eq!(cpu_pressure(&proc, &cgroups, 9), None);
        write("proc/pressure/cpu", "some avg10=94.91 avg60=1.00 avg300=0.00 total=9\n");
        write("proc/9/cgroup", "0::/pod\n");
        write("cg/cgroup.controllers", "memory");
        write("cg/pod/memory.current", "1\n");
        assert_eq!(cpu_pressure(&proc, &cgroups, 9), Some((Scope::Host, 94.91)));
        write("cg/pod/cpu.pressure", "some avg10=0.25 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 total=0\n");
        assert_eq!(cpu_pressure(&proc, &cgroups, 9), Some((Scope::Cgroup, 0.25)));
    }

    #[test]
    fn psi_is_read_and_anything_else_is_a_reason() {
        let text = "some avg10=1.00 avg60=0.50 avg300=0.10 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=11\n";
        assert_eq!(parse_stalls("p", text), Ok(Stalls { some: 77, full: 11 }));
        assert!(parse_stalls("p", "garbage").unwrap_err().contains("p is not"));
    }
}
