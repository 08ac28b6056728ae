//! `staging/<id>/.holder-PID.json`: the processes that hold the lease for a capture: its dumper, and each `put` and `finalize`.
//!
//! The kernel releases the lease when its last holder dies. A holder that neither goes on nor dies keeps it, so each one leaves
//! its identity here, by which the next poll of any process can end it. Nothing here decides who owns the lease.

use crate::error::{Error, Result};
use diagctl_fs::{self as fs, Durability, Spot};
use diagctl_observe::ProcessId;
use diagctl_observe::proc::Proc;

const PREFIX: &str = ".holder-";

/// Registers this process. Nothing depends on it but the end of a process that hangs, so a failure is ignored.
pub fn register(staging: &Spot, proc: &Proc) {
    register_process(staging, proc, std::process::id());
}

/// Registers a process that this one has started.
pub fn register_process(staging: &Spot, proc: &Proc, pid: u32) {
    if let Ok(id) = proc.process_id(pid) {
        let _ = write(staging, &id);
    }
}

fn write(staging: &Spot, id: &ProcessId) -> Result<()> {
    let data = serde_json::to_vec(id).map_err(Error::encode("a holder"))?;
    Ok(fs::write_atomic(&staging.join(format!("{PREFIX}{}.json", id.pid)), &data, Durability::Volatile)?)
}

/// Lists the processes that registered themselves. Files that are torn or foreign are skipped.
pub fn list(staging: &Spot) -> Vec<ProcessId> {
    let names = fs::children(staging).map(|entry| entry.name.to_string_lossy().into_owned());
    names
        .filter(|name| name.starts_with(PREFIX) && name.ends_with(".json"))
        .filter_map(|name| serde_json::from_slice(&fs::read_bounded(&staging.join(name), 4096).ok()?).ok())
        .filter(|id: &ProcessId| id.pid > 1 && id.start_ticks > 0 && id.pid_ns > 0 && !id.boot_id.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_identities_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Spot::hold(dir.path()).unwrap();
        register(&staging, &Proc::default());
        for (name, text) in [
            (".holder-5.json", "{\"pid\":5,"),
            (".holder-6.json", "{\"pid\":6,\"start_ticks\":1}"),
            (".holder-7.json", "{\"pid\":1,\"start_ticks\":1,\"pid_ns\":1,\"boot_id\":\"b\"}"),
            (".grant.json", "{}"),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let found = list(&staging);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0], Proc::default().process_id(std::process::id()).unwrap());
    }
}
