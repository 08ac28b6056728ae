//! What a worker looks at while its dumper runs, so that a dump is given up before memory is full and not the worker.
//!
//! `acquire` names the files and the thresholds in its grant; the worker reads them. So only one side knows how the two
//! versions of cgroups tell their figures.

use std::path::PathBuf;

use serde::Serialize;

use crate::cgroup::CgroupRoot;
use crate::proc::Proc;
use crate::sample::reserve;

/// One limit that the dump must stay below.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Watch {
    /// Whose limit, for a sentence.
    of: String,
    /// The dump is given up when less than this is free, bytes.
    reserve: u64,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Figures {
    /// Free is `limit − (used − droppable)`.
    Cgroup {
        limit: u64,
        /// A file that holds a number.
        used: PathBuf,
        /// A file of lines `key number`.
        stat: PathBuf,
        /// The key in it: page cache that can be dropped at once.
        droppable: &'static str,
    },
    /// Free is `MemAvailable` of this file.
    Host { meminfo: PathBuf },
}

/// Everything that bounds the memory of a process: the levels of its cgroup and those above, and the host.
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
    fn every_limit_on_the_way_up_and_the_host_are_watched() {
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
