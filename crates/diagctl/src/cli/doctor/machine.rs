//! Checks of the machine and of the limits on processes: cgroup, memory, kernel settings, process and file limits.

use std::collections::BTreeMap;

use super::check::Check;
use crate::cgroup::{CgroupRoot, MemoryCgroup};
use crate::config::Config;
use crate::proc::Proc;
use crate::rules::guard::{self, Figures};
use crate::rules::memory::{Memory, Wanted};
use crate::rules::trigger::Trigger;
use crate::state::schedule::State;
use crate::units::size;

/// The number of tasks that a capture runs at once: `acquire`, the forked dumper, `put` with its watchdog, `finalize`.
const TASKS_OF_A_CAPTURE: u64 = 5;

/// With fewer tasks left, anything else that the application starts may fail during a capture.
const TASKS_COMFORTABLE: u64 = 32;

/// A process to examine: one that polls, or this one if none is known.
#[derive(Clone, Debug)]
pub struct Subject {
    pub pid: u32,
    /// The name for messages: `puma worker-0 (pid 7)`.
    pub name: String,
    pub role: String,
    pub rss: u64,
    pub uid: Option<u32>,
}

/// The limits on one subject.
#[derive(Clone, Debug, Default)]
struct Surroundings {
    cgroup: Option<MemoryCgroup>,
    no_cgroup: String,
    limit: Option<u64>,
    oom_group: Option<String>,
    /// Tasks in the cgroup, and the maximum.
    pids: Option<(u64, u64)>,
    /// Tasks of the user, and the maximum.
    tasks: Option<(u64, u64)>,
    file_size: Option<u64>,
    swapped: u64,
}

/// Runs every check of the machine and its processes.
pub fn examine(proc: &Proc, cgroups: &CgroupRoot, subjects: &[Subject], config: &Config) -> Vec<Check> {
    let tasks = tasks_by_user(proc, subjects);
    let surroundings: Vec<(&Subject, Surroundings)> =
        subjects.iter().map(|subject| (subject, read(proc, cgroups, subject, &tasks))).collect();
    let mut checks = vec![
        cgroup(&surroundings),
        oom_group(&surroundings),
        tasks_left(&surroundings),
        file_size(&surroundings, config),
        swap(&surroundings),
    ];
    let meminfo = proc.meminfo().unwrap_or_default();
    let mode = proc.read("sys/vm/overcommit_memory").unwrap_or_default();
    let largest = subjects.iter().map(|subject| subject.rss).max().unwrap_or(0);
    checks.push(overcommit(mode.trim(), &meminfo, largest));
    checks.push(pressure(proc.read("pressure/memory").is_ok(), config));
    checks
}

fn read(proc: &Proc, cgroups: &CgroupRoot, subject: &Subject, tasks: &BTreeMap<u32, u64>) -> Surroundings {
    let cgroup = cgroups.memory_of(proc, subject.pid);
    let limits = crate::proc::read(&proc.pid(subject.pid).join("limits")).unwrap_or_default();
    let most = soft_limit(&limits, "Max processes").filter(|_| subject.uid != Some(0));
    Surroundings {
        no_cgroup: cgroup.as_ref().err().map_or_else(String::new, ToString::to_string),
        limit: cgroup.as_ref().ok().and_then(MemoryCgroup::limit),
        oom_group: cgroup.as_ref().ok().and_then(MemoryCgroup::oom_group).map(|dir| dir.display().to_string()),
        pids: cgroup.as_ref().ok().and_then(MemoryCgroup::pids),
        tasks: most.zip(subject.uid).map(|(most, uid)| (tasks.get(&uid).copied().unwrap_or(0), most)),
        file_size: soft_limit(&limits, "Max file size"),
        swapped: proc.figure(subject.pid, "status", "VmSwap").unwrap_or(0),
        cgroup: cgroup.ok(),
    }
}

// Reads lines like `Max processes             127000               127000               processes`.
fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

// RLIMIT_NPROC counts all threads of the user, wherever they run; root has no such limit.
fn tasks_by_user(proc: &Proc, subjects: &[Subject]) -> BTreeMap<u32, u64> {
    let mut tasks = BTreeMap::new();
    if subjects.iter().all(|subject| subject.uid.is_none_or(|uid| uid == 0)) {
        return tasks;
    }
    for pid in proc.pids() {
        let Ok(status) = crate::proc::read(&proc.pid(pid).join("status")) else { continue };
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
        let uid = field("Uid:").and_then(|uid| uid.parse::<u32>().ok());
        let threads = field("Threads:").and_then(|threads| threads.parse::<u64>().ok());
        if let (Some(uid), Some(threads)) = (uid, threads) {
            *tasks.entry(uid).or_insert(0) += threads;
        }
    }
    tasks
}

fn cgroup(all: &[(&Subject, Surroundings)]) -> Check {
    let id = "cgroup";
    let Some((subject, s)) = all.first() else { return Check::skip(id, "there is no process to check") };
    let version = s.cgroup.as_ref().map_or(0, |group| if group.is_v2() { 2 } else { 1 });
    let check = match (version, s.limit) {
        (0, _) => Check::warn(
            id,
            format!(
                "{}: {}; shares refer to the host's memory, and cgroup triggers are skipped",
                subject.name, s.no_cgroup
            ),
            "mount the cgroup filesystem in the container, or use triggers of the process or the host",
        ),
        (_, None) => {
            Check::ok(id, format!("cgroup v{version} without a memory limit; shares refer to the host's memory"))
        }
        (_, Some(limit)) => Check::ok(id, format!("cgroup v{version}, memory limit {}", size(limit))),
    };
    check.seen("version", version).seen("limit_bytes", s.limit).seen("process", subject.name.clone())
}

fn oom_group(all: &[(&Subject, Surroundings)]) -> Check {
    let id = "cgroup.oom_group";
    let Some((subject, dir)) = all.iter().find_map(|(subject, s)| Some((subject, s.oom_group.as_ref()?))) else {
        return Check::ok(
            id,
            "when memory runs out, the kernel kills one process, the dumper first (oom_score_adj 1000)",
        );
    };
    Check::warn(
        id,
        format!(
            "memory.oom.group is 1 in {dir}: when memory runs out, the kernel kills the whole group, {} and its dumper included",
            subject.name
        ),
        "leave headroom (guards.memory_headroom), or set memory.oom.group to 0 (kubelet: singleProcessOOMKill: true)",
    )
    .seen("cgroup", dir.clone())
}

fn tasks_left(all: &[(&Subject, Surroundings)]) -> Check {
    let id = "limits.processes";
    let tightest = all
        .iter()
        .flat_map(|(subject, s)| {
            let of = |what, pair: Option<(u64, u64)>| {
                pair.map(|(now, most)| (most.saturating_sub(now), what, now, most, *subject))
            };
            [of("pids.max of its cgroup", s.pids), of("RLIMIT_NPROC of its user", s.tasks)]
        })
        .flatten()
        .min_by_key(|(left, ..)| *left);
    let Some((left, what, now, most, subject)) = tightest else {
        return Check::ok(id, "the number of processes is not limited");
    };
    let message = format!("{}: {now} of {most} tasks ({what})", subject.name);
    let hint = "raise the limit, or find out what starts so many threads and processes";
    let check = if left < TASKS_OF_A_CAPTURE {
        Check::fail(id, format!("{message}: a capture needs {TASKS_OF_A_CAPTURE} at once, so fork fails"), hint)
    } else if left < TASKS_COMFORTABLE {
        Check::warn(id, format!("{message}: a capture needs {TASKS_OF_A_CAPTURE} at once"), hint)
    } else {
        Check::ok(id, message)
    };
    check.seen("left", left).seen("limit", what)
}

fn file_size(all: &[(&Subject, Surroundings)], config: &Config) -> Check {
    let id = "limits.file_size";
    let Some((subject, limit)) = all.iter().find_map(|(subject, s)| Some((subject, s.file_size?))) else {
        return Check::ok(id, "file size is not limited");
    };
    let message = format!("{}: RLIMIT_FSIZE is {}", subject.name, size(limit));
    let check = if limit < config.retention.max_use {
        Check::warn(
            id,
            format!("{message}: a larger report kills its writer and fails"),
            "raise it (ulimit -f unlimited, LimitFSIZE=infinity)",
        )
    } else {
        Check::ok(id, message)
    };
    check.seen("limit_bytes", limit)
}

fn swap(all: &[(&Subject, Surroundings)]) -> Check {
    let id = "memory.swap";
    match all.iter().max_by_key(|(_, s)| s.swapped).filter(|(_, s)| s.swapped >= 64 << 20) {
        Some((subject, s)) => Check::warn(
            id,
            format!("{} of {} are swapped out: a heap dump reads them back in", size(s.swapped), subject.name),
            "dumps will be slow and push other memory out; add memory, or keep the process from swapping",
        )
        .seen("swapped_bytes", s.swapped),
        None => Check::ok(id, "no process is swapped out to a noticeable degree"),
    }
}

fn overcommit(mode: &str, meminfo: &BTreeMap<String, u64>, largest: u64) -> Check {
    let id = "memory.overcommit";
    if mode != "2" {
        return Check::ok(id, "fork does not reserve memory (vm.overcommit_memory is not 2)").seen("mode", mode);
    }
    let figure = |key: &str| meminfo.get(key).copied().unwrap_or(0);
    let left = figure("CommitLimit").saturating_sub(figure("Committed_AS"));
    let message = format!(
        "vm.overcommit_memory is 2: a fork reserves all writable memory of a process; {} can be reserved, the largest process has {}",
        size(left),
        size(largest)
    );
    let hint =
        "raise vm.overcommit_ratio or add swap, set vm.overcommit_memory to 0 or 1, or set snapshot = \"in_process\"";
    let check = if left < largest {
        Check::fail(id, format!("{message}: its fork fails with ENOMEM"), hint)
    } else {
        Check::warn(id, message, hint)
    };
    check.seen("mode", mode).seen("left_bytes", left)
}

fn pressure(readable: bool, config: &Config) -> Check {
    let id = "pressure";
    let mut wanted: Vec<String> = Vec::new();
    for rule in &config.rules {
        rule.trigger.visit(&mut |trigger| {
            if matches!(trigger, Trigger::MemoryPressure(_)) {
                wanted.push(format!("rule {}", rule.name));
            }
        });
    }
    if config.guards.max_cpu_pressure.is_some() {
        wanted.push("guards.max_cpu_pressure".into());
    }
    match (readable, wanted.as_slice()) {
        (true, _) => Check::ok(id, "pressure accounting (PSI) is available"),
        (false, []) => Check::ok(id, "pressure accounting (PSI) is not available, and nothing needs it"),
        (false, _) => Check::warn(
            id,
            format!("pressure accounting (PSI) is not available: {} cannot work", wanted.join(", ")),
            "boot with psi=1 (CONFIG_PSI), or remove them",
        ),
    }
    .seen("available", readable)
}

/// Runs the guards of this configuration for the largest process.
pub fn guards(config: &Config, state: &State, largest: Option<&Subject>, figures: &Figures) -> Vec<Check> {
    let verdict = |id, reports: &[&str], harm| {
        let reports: Vec<_> = reports.iter().filter_map(|name| diagctl_store::ReportName::parse(name)).collect();
        let cost = |name: &str| state.costs.get(&format!("{}/{name}", largest.map_or("", |s| &s.role))).copied();
        match guard::check(&config.guards, figures, &reports, cost) {
            // This condition passes by itself, and the `clock` check reports it.
            Some(refusal) if refusal.guard != "clock" => Check::warn(
                id,
                format!("{harm} would be refused now, guard {}: {}", refusal.guard, refusal.reason),
                "`diagctl config show` shows the settings of the guard",
            )
            .seen("guard", refusal.guard),
            _ => Check::ok(id, format!("no guard refuses {harm}")),
        }
    };
    vec![
        verdict("guards", &["smaps"], "a capture"),
        verdict("guards.heap_dump", &["heap_dump"], "a heap dump of the largest process"),
    ]
}

/// Reads the figures for the guards.
pub fn figures(proc: &Proc, cgroups: &CgroupRoot, subject: &Subject, disk: (u64, u64)) -> Figures {
    let wanted = Wanted { whole: true, available: true, ..Wanted::default() };
    let memory = Memory::read(proc, cgroups, subject.pid, &wanted);
    Figures {
        rss: subject.rss,
        available_memory: memory.available,
        free_disk: disk.0,
        total_disk: disk.1,
        // A condition that passes within seconds is no finding.
        cpu_pressure: None,
        clock_stepped_back_ms: None,
    }
}

#[cfg(test)]
mod tests;
