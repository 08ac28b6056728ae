//! The identity of a process among all containers of a machine and across its boots.
//!
//! A pid is a number within one pid namespace: two containers that share a directory may both have a process 1. Sources:
//! pid_namespaces(7), proc(5) on `ns/pid` and on `NSpid` in `status`.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::proc::{Proc, read};

/// Identifies a process: no other process on any machine has the same values. A field that an older record does not have is zero
/// or empty, and matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessId {
    /// The pid in its own pid namespace.
    pub pid: u32,
    /// The pid namespace, as the inode number of `/proc/PID/ns/pid`. The kernel reuses the numbers of namespaces that have ended.
    #[serde(skip_serializing_if = "is_zero")]
    pub pid_ns: u64,
    /// The start of the process, in clock ticks since boot.
    pub start_ticks: u64,
    /// The boot of the machine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub boot_id: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The state of a process that somebody else has recorded, as far as it can be seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It runs, under this pid here. A container's processes have other pids on its host.
    Here(u32),
    /// It has ended.
    Gone,
    /// It belongs to another container or another machine, and cannot be seen from here.
    Elsewhere,
}

impl ProcessId {
    /// Returns true if both are the same process, as far as both records tell.
    pub fn is(&self, other: &Self) -> bool {
        self.pid == other.pid
            && self.start_ticks == other.start_ticks
            && (self.pid_ns == other.pid_ns || self.pid_ns == 0 || other.pid_ns == 0)
            && (self.boot_id == other.boot_id || self.boot_id.is_empty() || other.boot_id.is_empty())
    }

    /// A short text that is different for every process: `1@3277/4026531836/0b8ff41a`.
    pub fn key(&self) -> String {
        format!("{}@{}/{}/{}", self.pid, self.start_ticks, self.pid_ns, self.boot())
    }

    /// The first part of the boot id, which is enough for a name.
    pub fn boot(&self) -> &str {
        self.boot_id.split('-').next().unwrap_or_default()
    }
}

impl Proc {
    /// The pid namespace of this process, in which `/proc` names processes; zero if it cannot be read.
    pub fn pid_namespace(&self) -> u64 {
        self.namespace("self")
    }

    /// The identity of a process that is visible here. For a process of a container that is seen from its host, these are the
    /// pid and the namespace that it knows itself by.
    pub fn process_id(&self, pid: u32) -> Result<ProcessId> {
        let start_ticks = self.stat(pid)?.start_ticks;
        let (here, there) = (self.pid_namespace(), self.namespace(&pid.to_string()));
        let inner = (there != 0 && there != here).then(|| self.innermost_pid(pid)).flatten();
        let (pid, pid_ns) = inner.map_or((pid, here), |inner| (inner, there));
        Ok(ProcessId { pid, pid_ns, start_ticks, boot_id: self.boot_id() })
    }

    /// Looks for a process.
    pub fn presence(&self, of: &ProcessId) -> Presence {
        let here = self.pid_namespace();
        if !of.boot_id.is_empty() && of.boot_id != self.boot_id() {
            return Presence::Elsewhere;
        }
        if of.pid_ns == 0 || here == 0 || of.pid_ns == here {
            return if self.is_alive(of.pid, of.start_ticks) { Presence::Here(of.pid) } else { Presence::Gone };
        }
        // Namespaces within ours are visible, but under other pids, and only to their owner and to root.
        let mut seen = false;
        for pid in self.pids() {
            if self.namespace(&pid.to_string()) == of.pid_ns {
                seen = true;
                if self.innermost_pid(pid) == Some(of.pid) && self.is_alive(pid, of.start_ticks) {
                    return Presence::Here(pid);
                }
            }
        }
        if seen { Presence::Gone } else { Presence::Elsewhere }
    }

    fn namespace(&self, process: &str) -> u64 {
        fs::metadata(self.path(process).join("ns/pid")).map_or(0, |meta| meta.ino())
    }

    fn innermost_pid(&self, pid: u32) -> Option<u32> {
        let status = read(&self.pid(pid).join("status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().next_back()?.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree;

    fn id(pid: u32, pid_ns: u64, start_ticks: u64, boot: &str) -> ProcessId {
        ProcessId { pid, pid_ns, start_ticks, boot_id: boot.into() }
    }

    #[test]
    fn equal_pids_in_two_containers_or_two_boots_are_two_processes() {
        let one = id(1, 7, 50, "a-b");
        let others = [id(2, 7, 50, "a-b"), id(1, 8, 50, "a-b"), id(1, 7, 51, "a-b"), id(1, 7, 50, "b-b")];
        for other in others {
            assert!(!one.is(&other) && one.key() != other.key(), "{other:?}");
        }
        assert!(one.is(&one.clone()));
        assert!(one.is(&id(1, 0, 50, "")), "an older record names neither the namespace nor the boot");
        assert_eq!(one.key(), "1@50/7/a");
    }

    #[test]
    fn this_process_is_here_and_nobody_has_its_pid_elsewhere() {
        let proc = Proc::default();
        let me = proc.process_id(std::process::id()).unwrap();
        assert!(me.pid_ns > 0 && !me.boot_id.is_empty());
        assert_eq!(proc.presence(&me), Presence::Here(std::process::id()));
        assert_eq!(proc.presence(&ProcessId { start_ticks: 1, ..me.clone() }), Presence::Gone);
        assert_eq!(proc.presence(&ProcessId { pid_ns: 1, ..me.clone() }), Presence::Elsewhere);
        assert_eq!(proc.presence(&ProcessId { boot_id: "another".into(), ..me }), Presence::Elsewhere);
    }

    // A container's process 1 is process 4711 on its host. Inode numbers stand in for those of namespaces.
    #[test]
    fn a_containers_process_is_found_from_its_host() {
        let stat = |ticks: u32| format!("9 (ruby) S 8 1 1 0 -1 0 0 0 0 0 1 1 0 0 20 0 1 0 {ticks} 0 0");
        let dir = tree(&[
            ("self/ns/pid", ""),
            ("sys/kernel/random/boot_id", "a-b\n"),
            ("1/stat", &stat(1)),
            ("4711/stat", &stat(50)),
            ("4711/status", "Name:\truby\nNSpid:\t4711\t1\n"),
            ("4711/ns/pid", ""),
            ("4712/stat", &stat(60)),
        ]);
        std::fs::create_dir_all(dir.path().join("1/ns")).unwrap();
        std::fs::hard_link(dir.path().join("self/ns/pid"), dir.path().join("1/ns/pid")).unwrap();
        let proc = Proc::at(dir.path());
        let container = std::fs::metadata(dir.path().join("4711/ns/pid")).unwrap().ino();
        let inner = proc.process_id(4711).unwrap();
        assert_eq!(inner, id(1, container, 50, "a-b"));
        assert_eq!(proc.presence(&inner), Presence::Here(4711));
        assert_eq!(proc.presence(&id(2, container, 50, "a-b")), Presence::Gone);
        assert_eq!(proc.presence(&id(1, container, 51, "a-b")), Presence::Gone);
        assert_eq!(proc.presence(&id(1, container + 1_000_000, 50, "a-b")), Presence::Elsewhere);
        assert_eq!(proc.process_id(1).unwrap(), id(1, proc.pid_namespace(), 1, "a-b"));
        assert_eq!(proc.process_id(4712).unwrap().pid, 4712, "its namespace cannot be read");
    }
}
