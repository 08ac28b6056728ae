//! The right to dump: `flock(2)` on an open file description that the worker opened and passes down.
//!
//! The kernel decides which process holds the lease, and releases it when the last process with a copy of the description dies.
//! Nothing here compares clocks or pids to decide ownership. `lease.json` is for people, and for fencing off former holders.
//!
//! Owns: `<dir>/lease.lock` (permanent, never unlinked), `<dir>/lease.json`.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FlockOperation};
use serde::{Deserialize, Serialize};

use crate::error::{BadDescriptor, BadLeaseFile, Error, Result};
use crate::id::Id;
use crate::process::ProcessId;
use crate::sys;
use diagctl_fs::{self as fs, Durability, Spot};

/// The contents of `lease.json`: the last grant. Kept after the lease has ended, with `ended` set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The schema version of this record.
    pub schema: u32,
    /// The capture that the lease was granted for.
    pub capture: Id,
    /// The generation of the grant. Later grants have higher numbers.
    pub generation: u64,
    /// The process that was granted the lease.
    pub pid: u32,
    /// The pid namespace in which the pid is valid. Missing in records of older versions.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pid_ns: u64,
    /// The process's start, in clock ticks since boot.
    pub start_ticks: u64,
    /// The boot in which the pid, the ticks and the times below are valid.
    pub boot_id: String,
    /// The process's role.
    pub role: String,
    /// Its name within the role.
    pub worker: String,
    /// The rule that was granted the capture.
    pub rule: String,
    /// The program of the process, as device and inode. A child that the process forked runs the same program. Missing in
    /// records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<(u64, u64)>,
    /// The time of the grant, CLOCK_BOOTTIME in milliseconds.
    pub granted_boot_ms: u64,
    /// The time at which the dump should be over, CLOCK_BOOTTIME in milliseconds.
    pub deadline_boot_ms: u64,
    /// Set when the holder has given the lease back.
    pub ended: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Record {
    /// The process that was granted the lease.
    pub fn process(&self) -> ProcessId {
        ProcessId { pid: self.pid, pid_ns: self.pid_ns, start_ticks: self.start_ticks, boot_id: self.boot_id.clone() }
    }
}

/// The lease file, as passed down by the worker.
#[derive(Debug)]
pub struct Lease {
    fd: RawFd,
    spot: Spot,
}

impl Lease {
    /// Checks that the descriptor is open and refers to `<dir>/lease.lock`.
    pub fn inherited(fd: RawFd, dir: &Spot, owner: u32) -> Result<Self> {
        let lease = Self { fd, spot: dir.join("lease.lock") };
        let unusable = |why| Error::LeaseDescriptor { fd, why };
        if fd < 3 {
            return Err(unusable(BadDescriptor::Standard));
        }
        if rustix::io::fcntl_setfd(lease.borrow(), rustix::io::FdFlags::CLOEXEC).is_err() {
            return Err(unusable(BadDescriptor::Closed));
        }
        let path = lease.spot.path();
        let passed = rustix::fs::fstat(lease.borrow()).map_err(|e| Error::io("examine", path, e))?;
        let named = lease.spot.stat().map_err(|e| Error::LeaseFile(fs::Error::io("examine", path, e)))?;
        let replaced = |why| Err(Error::LeaseReplaced { path: path.to_owned(), why });
        let kind = FileType::from_raw_mode(named.st_mode);
        if kind.is_symlink() {
            return replaced(BadLeaseFile::Symlink);
        }
        if !kind.is_file() {
            return replaced(BadLeaseFile::NotRegular);
        }
        if (passed.st_dev, passed.st_ino) != (named.st_dev, named.st_ino) {
            return replaced(BadLeaseFile::Another { fd });
        }
        if named.st_uid != owner {
            return replaced(BadLeaseFile::Owner { uid: named.st_uid, owner });
        }
        Ok(lease)
    }

    /// Opens the lease file, for a command that holds the lease on its own behalf.
    pub fn open(dir: &Spot, owner: u32) -> Result<(Self, File)> {
        let (file, _) = fs::open_or_create(&dir.join("lease.lock")).map_err(Error::OpenLease)?;
        let lease = Self::inherited(file.as_raw_fd(), dir, owner)?;
        Ok((lease, file))
    }

    // `inherited` proves that the number is an open descriptor, and nothing in this process closes it while a Lease exists.
    fn borrow(&self) -> BorrowedFd<'_> {
        sys::borrow_fd(self.fd)
    }

    /// Takes the lease for this description. Returns false if another description has it. Tries more than once, because a
    /// process that checks with [`is_taken`] holds a shared lock for an instant.
    pub fn try_take(&self) -> Result<bool> {
        for _ in 0..3 {
            if self.try_once()? {
                return Ok(true);
            }
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
        Ok(false)
    }

    fn try_once(&self) -> Result<bool> {
        match rustix::fs::flock(self.borrow(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(e) => Err(Error::io("lock", self.spot.path(), e)),
        }
    }

    /// Ends the lease for every process that shares the description.
    pub fn release(&self) -> Result<()> {
        rustix::fs::flock(self.borrow(), FlockOperation::Unlock).map_err(|e| Error::io("unlock", self.spot.path(), e))
    }

    /// Returns true if this description itself holds the lock. The kernel lists the locks of a description in its fdinfo. A
    /// second attempt to lock would prove nothing: it succeeds on a description that holds the lock, and also on a free file.
    pub fn is_held(&self) -> Result<bool> {
        let path = PathBuf::from(format!("/proc/self/fdinfo/{}", self.fd));
        let text = diagctl_observe::proc::read(&path)?;
        Ok(text.lines().any(|line| {
            line.strip_prefix("lock:").is_some_and(|lock| {
                let mut words = lock.split_whitespace();
                words.any(|w| w == "FLOCK") && words.any(|w| w == "WRITE")
            })
        }))
    }

    /// Proves that the caller holds the lease for this capture, and returns its record.
    pub fn prove(&self, dir: &Spot, capture: Id) -> std::result::Result<Record, NotHolder> {
        let record = read_record(dir).map_err(NotHolder::Unknown)?;
        let current = record.as_ref().map(|r| r.capture);
        if !self.is_held().map_err(NotHolder::Unknown)? {
            return Err(NotHolder::NotHeld { current });
        }
        match record {
            Some(record) if record.capture == capture && !record.ended => Ok(record),
            _ => Err(NotHolder::Stale { current }),
        }
    }
}

/// The reason why a caller may not write into a capture.
#[derive(Debug)]
pub enum NotHolder {
    /// The description does not hold the lock.
    NotHeld {
        /// The capture that the lease was last granted for.
        current: Option<Id>,
    },
    /// The description holds the lock, but for another capture.
    Stale {
        /// The capture that the lease was last granted for.
        current: Option<Id>,
    },
    /// The lease could not be examined.
    Unknown(Error),
}

/// Returns true if any process holds the lease of a store. Tries a shared lock on a description of its own, so that two
/// processes that check at the same time do not block each other.
pub fn is_taken(dir: &Spot) -> Result<bool> {
    let lock = dir.join("lease.lock");
    let file = match fs::open_read(&lock) {
        Ok(file) => file,
        Err(e) if e.is_not_found() => return Ok(false),
        Err(e) if e.is_denied() => return is_listed(&lock),
        Err(e) => return Err(e.into()),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(e) => Err(Error::io("lock", lock.path(), e)),
    }
}

// Reads the kernel's list of locks, for users who may read the store but not open its lock file: `1: FLOCK  ADVISORY  WRITE
// 4711 08:01:1234 0 EOF`. The list leaves out processes of other pid namespaces.
fn is_listed(lock: &Spot) -> Result<bool> {
    let inode = fs::stat(lock)?.st_ino;
    let locks = diagctl_observe::proc::read(Path::new("/proc/locks"))?;
    let is_it = |line: &str| {
        line.split_whitespace().nth(5).and_then(|file| file.rsplit(':').next()) == Some(&inode.to_string())
    };
    Ok(locks.lines().any(|line| line.contains("FLOCK") && line.contains("WRITE") && is_it(line)))
}

/// Reads `lease.json`. A record that cannot be parsed counts as none: it never decides ownership, and no generation matches it.
pub fn read_record(dir: &Spot) -> Result<Option<Record>> {
    match fs::read_bounded(&dir.join("lease.json"), 64 << 10) {
        Ok(data) => Ok(parse(&data)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Parses `lease.json`.
pub fn parse(data: &[u8]) -> Option<Record> {
    serde_json::from_slice(data).ok()
}

/// Writes `lease.json`.
pub fn write_record(dir: &Spot, record: &Record) -> Result<()> {
    let data = serde_json::to_vec_pretty(record).map_err(Error::encode("lease.json"))?;
    Ok(fs::write_atomic(&dir.join("lease.json"), &data, Durability::Volatile)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn store() -> (tempfile::TempDir, Spot, u32) {
        let dir = tempfile::tempdir().unwrap();
        let held = Spot::hold(dir.path()).unwrap();
        (dir, held, rustix::process::geteuid().as_raw())
    }

    #[test]
    fn only_one_description_holds_the_lease_and_can_prove_it() {
        let (_dir, store, owner) = store();
        let (first, _a) = Lease::open(&store, owner).unwrap();
        let (second, _b) = Lease::open(&store, owner).unwrap();
        assert!(!first.is_held().unwrap() && !is_taken(&store).unwrap());
        assert!(first.try_take().unwrap());
        assert!(!second.try_take().unwrap());
        assert!(first.is_held().unwrap() && !second.is_held().unwrap() && is_taken(&store).unwrap());
        first.release().unwrap();
        assert!(second.try_take().unwrap() && second.is_held().unwrap());
    }

    #[test]
    fn a_duplicated_descriptor_holds_the_same_lease() {
        let (_dir, store, owner) = store();
        let (first, file) = Lease::open(&store, owner).unwrap();
        first.try_take().unwrap();
        let copy = file.try_clone().unwrap();
        drop(file);
        let again = Lease::inherited(copy.as_raw_fd(), &store, owner).unwrap();
        assert!(again.is_held().unwrap());
    }

    #[test]
    fn other_files_are_refused_as_the_lease() {
        let (_dir, store, owner) = store();
        let (_, file) = Lease::open(&store, owner).unwrap();
        let path = store.path().join("lease.lock");
        assert!(Lease::inherited(1, &store, owner).unwrap_err().to_string().contains("standard stream"));
        assert!(Lease::inherited(9999, &store, owner).unwrap_err().to_string().contains("not an open"));
        assert!(Lease::inherited(file.as_raw_fd(), &store, owner + 1).is_err());
        fs::rename(&path, store.path().join("old")).unwrap();
        std::os::unix::fs::symlink("old", &path).unwrap();
        let error = Lease::inherited(file.as_raw_fd(), &store, owner).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        assert!(Lease::open(&store, owner).is_err());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        let error = Lease::inherited(file.as_raw_fd(), &store, owner).unwrap_err();
        assert!(error.to_string().contains("is not the file"), "{error}");
    }
}
