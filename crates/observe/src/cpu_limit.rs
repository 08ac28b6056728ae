//! The CPU limit of a process, and the CPU time that everything under that limit has used.
//!
//! Source: Documentation/scheduler/sched-bwc.rst. All threads of a group that has used up its quota stand still until the period
//! is over, whatever their nice values.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cgroup::{CgroupRoot, Group, counter, number};
use crate::proc::{Proc, read};

/// A limit on CPU time.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuLimit {
    /// Quota divided by period: the number of CPUs that may be busy on average.
    pub cpus: f64,
    // The file with the CPU time of the group that has the limit: cpu.stat, or on v1 cpuacct.usage.
    usage: PathBuf,
    v2: bool,
}

impl CgroupRoot {
    /// The tightest limit of a process's group and those above it; `None` if its use cannot be read.
    pub fn cpu_limit_of(&self, proc: &Proc, pid: u32) -> Option<CpuLimit> {
        let group = self.group_of(proc, pid, "cpu").ok()?;
        let limits = group.and_above().filter_map(|dir| Some((cpus(dir, group.v2)?, dir)));
        let (cpus, dir) = limits.min_by(|(a, _), (b, _)| a.total_cmp(b))?;
        let usage = if group.v2 { dir.join("cpu.stat") } else { self.accounted_in(proc, pid, &group, dir)? };
        let limit = CpuLimit { cpus, usage, v2: group.v2 };
        limit.used().is_some().then_some(limit)
    }

    // On v1 another controller counts CPU time. Its groups are the same if both are mounted together, as they mostly are.
    fn accounted_in(&self, proc: &Proc, pid: u32, limited: &Group, dir: &Path) -> Option<PathBuf> {
        let counted = self.group_of(proc, pid, "cpuacct").ok()?;
        let same = counted.mount.join(dir.strip_prefix(&limited.mount).ok()?);
        counted.dir.starts_with(&same).then(|| same.join("cpuacct.usage"))
    }
}

impl CpuLimit {
    /// CPU time since the group was created.
    pub fn used(&self) -> Option<Duration> {
        if self.v2 {
            return Some(Duration::from_micros(counter(&read(&self.usage).ok()?, "usage_usec")?));
        }
        Some(Duration::from_nanos(read(&self.usage).ok()?.trim().parse().ok()?))
    }
}

fn cpus(dir: &Path, v2: bool) -> Option<f64> {
    let (quota, period) = if v2 {
        let text = read(&dir.join("cpu.max")).ok()?;
        let (quota, period) = text.trim().split_once(' ')?;
        (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?)
    } else {
        // No limit is -1, which is no number here.
        (number(dir, "cpu.cfs_quota_us").ok()?, number(dir, "cpu.cfs_period_us").ok()?)
    };
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a second")]
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree;

    #[test]
    fn the_tightest_limit_counts_with_the_usage_of_its_subtree() {
        let dir = tree(&[
            ("proc/9/cgroup", "0::/pod/app\n"),
            ("cg/cgroup.controllers", "cpu memory"),
            ("cg/cpu.stat", "usage_usec 900\n"),
            ("cg/pod/cpu.max", "150000 100000\n"),
            ("cg/pod/cpu.stat", "usage_usec 777\nuser_usec 700\nnr_throttled 3\n"),
            ("cg/pod/app/cpu.max", "400000 100000\n"),
            ("cg/pod/app/cpu.stat", "usage_usec 5\n"),
        ]);
        let limit = of(&dir).unwrap();
        assert!((limit.cpus - 1.5).abs() < 1e-9, "{limit:?}");
        assert_eq!(limit.used(), Some(Duration::from_micros(777)));
    }

    #[test]
    fn v1_reads_the_cpu_hierarchy() {
        let files = [
            ("proc/9/cgroup", "3:cpuacct:/pod\n2:cpu:/pod\n0::/\n"),
            ("cg/cpu/pod/cpu.cfs_quota_us", "50000\n"),
            ("cg/cpu/pod/cpu.cfs_period_us", "100000\n"),
            ("cg/cpuacct/pod/cpuacct.usage", "123000\n"),
        ];
        let dir = tree(&files);
        let limit = of(&dir).unwrap();
        assert!((limit.cpus - 0.5).abs() < 1e-9, "{limit:?}");
        assert_eq!(limit.used(), Some(Duration::from_micros(123)));
        assert_eq!(of(&tree(&files[..3])), None, "its use cannot be told");
    }

    #[test]
    fn no_limit_is_none() {
        let v2 = [("proc/9/cgroup", "0::/pod\n"), ("cg/cgroup.controllers", "cpu"), ("cg/pod/cpu.max", "max 100000\n")];
        let v1 = [
            ("proc/9/cgroup", "2:cpu:/\n"),
            ("cg/cpu/cpu.cfs_quota_us", "-1\n"),
            ("cg/cpu/cpu.cfs_period_us", "100000\n"),
            ("cg/cpuacct/cpuacct.usage", "1\n"),
        ];
        assert_eq!((of(&tree(&v2)), of(&tree(&v1)), of(&tree(&[]))), (None, None, None));
    }

    fn of(dir: &tempfile::TempDir) -> Option<CpuLimit> {
        CgroupRoot::at(&dir.path().join("cg")).cpu_limit_of(&Proc::at(&dir.path().join("proc")), 9)
    }
}
