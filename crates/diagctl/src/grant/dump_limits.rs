//! The memory limits that a worker watches while its dumper runs. The dump is given up before memory is full and the worker is
//! killed.
//!
//! `acquire` names the files and the thresholds in its grant, and the worker reads them. Only one side has to know how the two
//! versions of cgroups present their figures.

use std::path::PathBuf;

use serde::Serialize;

use crate::cgroup::CgroupRoot;
use crate::proc::Proc;
use crate::rules::memory::reserve;

/// One limit that the dump must stay below.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Watch {
    /// The owner of the limit, as named in messages.
    of: String,
    /// Free memory below which the dump is given up, bytes.
    reserve: u64,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Figures {
    /// Free memory is `limit − (used − droppable)`.
    Cgroup {
        limit: u64,
        /// A file that contains a number.
        used: PathBuf,
        /// A file with lines of the form `key number`.
        stat: PathBuf,
        /// The key in `stat`: page cache that can be dropped at once.
        droppable: &'static str,
    },
    /// Free memory is `MemAvailable` in this file.
    Host { meminfo: PathBuf },
}

/// Returns everything that limits the memory of a process: its cgroup, the cgroups above it, and the host.
pub fn of(proc: &Proc, cgroups: &CgroupRoot, pid: u32) -> Vec<Watch> {
    let mut watches = Vec::new();
    if let Ok(group) = cgroups.memory_of(proc, pid) {
        for (dir, limit) in group.levels() {
            let (used, stat, droppable) = group.working_set_files(dir);
            let figures = Figures::Cgroup { limit, used, stat, droppable };
            watches.push(Watch { of: format!("cgroup {}", dir.display()), reserve: reserve(limit), figures });
        }
    }
    let (total, _) = proc.host_memory();
    let figures = Figures::Host { meminfo: proc.path("meminfo") };
    watches.push(Watch { of: "the host".into(), reserve: reserve(total.unwrap_or(0)), figures });
    watches
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_reserve_is_a_twentieth_within_bounds() {
        let table = [(64 * MIB, 32), (512 * MIB, 32), (2048 * MIB, 102), (64 << 30, 256), (0, 32)];
        for (limit, expected) in table {
            assert_eq!(reserve(limit) / MIB, expected, "of {limit}");
        }
    }

    #[test]
    fn every_ancestor_limit_and_the_host_are_watched() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("proc/9/cgroup", "0::/pod/app\n"),
            ("proc/meminfo", "MemTotal: 2048000 kB\nMemAvailable: 100 kB\n"),
            ("cg/cgroup.controllers", "memory"),
            ("cg/pod/memory.max", "1073741824\n"),
            ("cg/pod/app/memory.max", "max\n"),
        ];
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let proc = Proc::at(&dir.path().join("proc"));
        let watches = of(&proc, &CgroupRoot::at(&dir.path().join("cg")), 9);
        let pod = dir.path().join("cg/pod");
        let expected = serde_json::json!([
            { "of": format!("cgroup {}", pod.display()), "reserve": 53_687_091, "limit": 1_073_741_824_u64,
              "used": pod.join("memory.current"), "stat": pod.join("memory.stat"), "droppable": "inactive_file" },
            { "of": "the host", "reserve": 104_857_600, "meminfo": dir.path().join("proc/meminfo") },
        ]);
        assert_eq!(serde_json::to_value(&watches).unwrap(), expected);
    }
}
