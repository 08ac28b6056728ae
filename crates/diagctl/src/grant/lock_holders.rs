//! The processes that hold the lock of a store, as far as this user can see them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::fsio::Spot;
use crate::proc::Proc;

/// Finds the processes that hold a lock, by their descriptors, in the order of their pids. Compares descriptors by name first, which
/// cannot block, and then by inode. `fdinfo` tells which of them hold the lock, because a worker may have the file open without it.
/// Other users' processes, and those that are not dumpable, expose neither.
pub fn find(proc: &Proc, lock: &Spot) -> Vec<u32> {
    let Ok(wanted) = lock.stat() else { return Vec::new() };
    let holds = |pid: u32| {
        let dir = proc.pid(pid);
        let Ok(entries) = fs::read_dir(dir.join("fd")) else { return false };
        entries.flatten().any(|entry| {
            let named = fs::read_link(entry.path()).is_ok_and(|target| target.file_name() == lock.file_name());
            let same =
                || fs::metadata(entry.path()).is_ok_and(|m| (m.dev(), m.ino()) == (wanted.st_dev, wanted.st_ino));
            let info = || fs::read_to_string(dir.join("fdinfo").join(entry.file_name())).unwrap_or_default();
            named && same() && info().lines().any(|line| line.starts_with("lock:") && line.contains("FLOCK"))
        })
    };
    let mut pids: Vec<u32> = proc.pids().into_iter().filter(|pid| holds(*pid)).collect();
    pids.sort_unstable();
    pids
}

#[cfg(test)]
mod tests {
    use super::*;
    use diagctl_store::lease::Lease;

    #[test]
    fn the_lock_holder_is_found_among_processes_with_the_file_open() {
        let dir = tempfile::tempdir().unwrap();
        let owner = rustix::process::geteuid().as_raw();
        let dir = Spot::hold(dir.path()).unwrap();
        let (lease, _file) = Lease::open(&dir, owner).unwrap();
        let lock = dir.join("lease.lock");
        let me = |found: Vec<u32>| found.contains(&std::process::id());
        assert!(!me(find(&Proc::default(), &lock)));
        lease.try_take().unwrap();
        assert!(me(find(&Proc::default(), &lock)));
    }
}
