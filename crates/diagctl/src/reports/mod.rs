//! Native reports: those that diagctl makes from outside the process, from `/proc` and the cgroup.
//!
//! No report carries command-line arguments or environment variables: they hold secrets.

mod cgroup;
mod fds;
mod process;
mod siblings;
mod smaps;
mod system;

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use crate::cgroup::CgroupRoot;
use crate::proc::Proc;

/// The roots and the process that reports are read from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// procfs.
    pub proc: &'a Proc,
    /// The cgroup mount.
    pub cgroups: &'a CgroupRoot,
    /// The process's pid.
    pub pid: u32,
}

impl Source<'_> {
    // Says what is needed where the kernel denies access to a process. The files of one that is not dumpable belong to root.
    fn why_denied(&self, error: &io::Error) -> String {
        if error.kind() != io::ErrorKind::PermissionDenied {
            return String::new();
        }
        let owner = fs::metadata(self.proc.pid(self.pid).join("smaps")).map_or(0, |meta| meta.uid());
        let user = self.proc.uid(self.pid);
        let me = rustix::process::geteuid().as_raw();
        match user {
            Some(user) if user != me => {
                format!("; the process runs as uid {user}, and diagctl as uid {me}: run both as one user")
            }
            Some(user) if user != owner => "; the process is not dumpable (a setuid program, file capabilities or \
                 PR_SET_DUMPABLE): start it without those, or give diagctl CAP_SYS_PTRACE"
                .into(),
            _ => "; a security module denies it, or CAP_SYS_PTRACE is needed".into(),
        }
    }
}

/// Opens a native report by name. The error says why the report cannot be made here.
pub fn open(name: &str, source: Source<'_>) -> Result<Box<dyn Read>, String> {
    let json = |value: serde_json::Value| -> Result<Box<dyn Read>, String> {
        let text = serde_json::to_string_pretty(&value).map_err(|e| e.to_string())? + "\n";
        Ok(Box::new(std::io::Cursor::new(text)))
    };
    match name {
        "smaps" | "smaps_rollup" => smaps::open(name, source),
        "process" => json(process::collect(source)?),
        "fds" => json(fds::collect(source)?),
        "cgroup" => json(cgroup::collect(source)?),
        "system" => json(system::collect(source)?),
        "siblings" => json(siblings::collect(source)?),
        other => Err(format!("{other} is not a native report")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diagctl_store::report_kind::{KINDS, Producer};

    #[test]
    fn every_native_report_works_for_the_current_process() {
        let (proc, cgroups) = (Proc::default(), CgroupRoot::default());
        let source = Source { proc: &proc, cgroups: &cgroups, pid: std::process::id() };
        for kind in KINDS.iter().filter(|kind| kind.producer == Producer::Native) {
            match open(kind.name, source) {
                Ok(mut data) => {
                    let mut text = String::new();
                    data.read_to_string(&mut text).unwrap();
                    assert!(text.len() > 20, "{}: {text}", kind.name);
                    if kind.extension == "json" {
                        serde_json::from_str::<serde_json::Value>(&text).unwrap();
                    }
                }
                // A machine may have no memory cgroup; all other sources always exist.
                Err(why) => assert!(kind.name == "cgroup", "{}: {why}", kind.name),
            }
        }
    }

    #[test]
    fn a_vanished_process_gives_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let (proc, cgroups) = (Proc::at(dir.path()), CgroupRoot::default());
        let source = Source { proc: &proc, cgroups: &cgroups, pid: 77 };
        for name in ["smaps", "process", "fds", "cgroup", "siblings"] {
            assert!(open(name, source).err().unwrap().contains("77"), "{name}");
        }
    }
}
