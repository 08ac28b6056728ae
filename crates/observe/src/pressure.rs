//! Pressure stall information (PSI): how long tasks waited for memory or CPU.
//!
//! Source: Documentation/accounting/psi.rst.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup::{CgroupRoot, MemoryCgroup};
use crate::proc::{Proc, read};
use crate::{Error, Result};

/// The tasks whose stalls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// The process's cgroup.
    Cgroup,
    /// The whole machine.
    Host,
}

impl Scope {
    /// Its name in messages.
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

/// PSI `some avg10` of the CPU, in percent: of the process's cgroup if it has the figure, else of the host. The host's figure
/// includes stalls of neighbours at their own quotas. `None` if the kernel has no PSI.
pub fn cpu_pressure(proc: &Proc, cgroups: &CgroupRoot, pid: u32) -> Option<(Scope, f64)> {
    let figure = |text: String| -> Option<f64> {
        let line = text.lines().find(|line| line.starts_with("some"))?;
        line.split_whitespace().find_map(|word| word.strip_prefix("avg10=")?.parse().ok())
    };
    let cgroup = || read(&cgroups.memory_of(proc, pid).ok()?.dir().join("cpu.pressure")).ok();
    let own = cgroup().and_then(figure).map(|percent| (Scope::Cgroup, percent));
    own.or_else(|| Some((Scope::Host, figure(proc.read("pressure/cpu").ok()?)?)))
}

/// Memory stalls of the whole machine.
pub fn memory_of_host(proc: &Proc) -> Result<Stalls> {
    memory(proc.path("pressure/memory"))
}

/// Memory stalls in a cgroup.
pub fn memory_of_cgroup(group: &MemoryCgroup) -> Result<Stalls> {
    memory(group.dir().join("memory.pressure"))
}

fn memory(path: PathBuf) -> Result<Stalls> {
    parse_stalls(&read(&path)?).ok_or(Error::Format { path, format: "PSI" })
}

/// Parses `some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`, one line for each kind.
pub fn parse_stalls(text: &str) -> Option<Stalls> {
    let total = |kind: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(kind))?;
        line.split_whitespace().find_map(|word| word.strip_prefix("total=")?.parse::<u64>().ok())
    };
    Some(Stalls { some: total("some")?, full: total("full")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_pressure_is_read_from_the_cgroup_or_else_the_host() {
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
    fn psi_is_parsed_and_malformed_files_give_a_reason() {
        let text = "some avg10=1.00 avg60=0.50 avg300=0.10 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=11\n";
        assert_eq!(parse_stalls(text), Some(Stalls { some: 77, full: 11 }));
        let dir = crate::testing::tree(&[("pressure/memory", "garbage")]);
        let why = memory_of_host(&Proc::at(dir.path())).unwrap_err().to_string();
        assert!(why.ends_with("pressure/memory is not in the form of PSI"), "{why}");
    }
}
