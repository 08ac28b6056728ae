//! The right to dump: `flock(2)` on an open file description that the worker opened and passes down.
//!
//! The kernel decides who owns it and releases it when the last process with a copy of the description dies. Nothing here
//! compares clocks or pids to decide ownership; `lease.json` is for people, and for fencing off those who lost it.
//!
//! Owns: `<dir>/lease.lock` (permanent, never unlinked), `<dir>/lease.json`.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FlockOperation};
use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::exit_code::Exit;
use crate::fsio::{self, Durability, Spot};
use crate::sys;

/// `lease.json`: who was granted what. Kept after the lease has ended, with `ended` set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this record.
    pub schema: u32,
    /// The capture that was granted.
    pub capture: String,
    /// Counts grants; a later one has a higher number.
    pub generation: u64,
    /// The process that was granted the lease.
    pub pid: u32,
    /// Its start, in clock ticks since boot.
    pub start_ticks: u64,
    /// The boot in which pid, ticks and deadline count.
    pub boot_id: String,
    /// What the process does.
    pub role: String,
    /// Its name within the role.
    pub worker: String,
    /// The rule that was granted.
    pub rule: String,
    /// When, on CLOCK_BOOTTIME, in milliseconds.
    pub granted_boot_ms: u64,
    /// When the dump should be over, on CLOCK_BOOTTIME, in milliseconds.
    pub deadline_boot_ms: u64,
    /// Whether the holder gave it back.
    pub ended: bool,
}

/// The lease file as passed down by the worker.
#[derive(Debug)]
pub struct Lease {
    fd: RawFd,
    spot: Spot,
}

impl Lease {
    /// Checks that the descriptor is open and is the file at `<dir>/lease.lock`.
    pub fn inherited(fd: RawFd, dir: &Spot, owner: u32) -> Result<Self, Failure> {
        let lease = Self { fd, spot: dir.join("lease.lock") };
        let usage = |message: String, hint: &str| Err(Failure::new(Exit::Usage, message).hint(hint));
        if fd < 3 {
            return usage(
                format!("--lease-fd {fd} is a standard stream"),
                "open <dir>/lease.lock and pass its descriptor, 3 or higher",
            );
        }
        if rustix::io::fcntl_setfd(lease.borrow(), rustix::io::FdFlags::CLOEXEC).is_err() {
            return usage(
                format!("--lease-fd {fd} is not an open descriptor"),
                "the plugin must let the child inherit it (in Ruby: `spawn(…, fd => fd)`)",
            );
        }
        let passed =
            rustix::fs::fstat(lease.borrow()).map_err(|e| Failure::io("examine", lease.spot.path(), e.into()))?;
        let named = match lease.spot.stat() {
            Ok(named) => named,
            Err(e) => {
                return Err(Failure::io("examine", lease.spot.path(), e)
                    .hint("open the lease file with O_CREAT, in the store that --dir names"));
            }
        };
        let refuse = |why: &str, hint: &str| Err(Failure::failed(format!("{} {why}", lease.spot.display())).hint(hint));
        let kind = FileType::from_raw_mode(named.st_mode);
        if kind.is_symlink() {
            return refuse("is a symbolic link", "it was replaced; remove it, and diagctl creates a new one");
        }
        if !kind.is_file() {
            return refuse("is not a regular file", "it was replaced; remove it, and diagctl creates a new one");
        }
        if (passed.st_dev, passed.st_ino) != (named.st_dev, named.st_ino) {
            return refuse(
                &format!("is not the file that --lease-fd {fd} refers to"),
                "the file was replaced, or the descriptor belongs to another store; open the file again",
            );
        }
        if named.st_uid != owner {
            return refuse(
                &format!("is owned by uid {}, but the store by uid {owner}", named.st_uid),
                "chown it to the owner of the store",
            );
        }
        Ok(lease)
    }

    /// Opens the lease file itself, for a command that holds the lease on its own behalf.
    pub fn open(dir: &Spot, owner: u32) -> Result<(Self, File), Failure> {
        let (file, _) = fsio::open_or_create(&dir.join("lease.lock")).map_err(|e| {
            Failure::from(e).hint("it must be a regular file of the store's owner; a symbolic link is refused")
        })?;
        let lease = Self::inherited(file.as_raw_fd(), dir, owner)?;
        Ok((lease, file))
    }

    // `inherited` proves that the number is an open descriptor, and nothing in this process closes it while a Lease exists.
    fn borrow(&self) -> BorrowedFd<'_> {
        sys::borrow_fd(self.fd)
    }

    /// Takes the lease for this description; false when another description has it. It is tried more than once, because
    /// whoever looks with [`is_taken`] has a shared lock for an instant.
    pub fn try_take(&self) -> Result<bool, Failure> {
        for _ in 0..3 {
            if self.try_once()? {
                return Ok(true);
            }
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
        Ok(false)
    }

    fn try_once(&self) -> Result<bool, Failure> {
        match rustix::fs::flock(self.borrow(), FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(e) => Err(Failure::io("lock", self.spot.path(), e.into())),
        }
    }

    /// Ends the lease for every process that shares the description.
    pub fn release(&self) -> Result<(), Failure> {
        rustix::fs::flock(self.borrow(), FlockOperation::Unlock)
            .map_err(|e| Failure::io("unlock", self.spot.path(), e.into()))
    }

    /// Whether this very description holds the lock: the kernel lists the locks of a description in its fdinfo.
    /// Trying to lock again would not tell, for that succeeds on a description that holds it as on a free file.
    pub fn is_held(&self) -> Result<bool, Failure> {
        let path = PathBuf::from(format!("/proc/self/fdinfo/{}", self.fd));
        let text = crate::proc::read(&path).map_err(Failure::failed)?;
        Ok(text.lines().any(|line| {
            line.strip_prefix("lock:").is_some_and(|lock| {
                let mut words = lock.split_whitespace();
                words.any(|w| w == "FLOCK") && words.any(|w| w == "WRITE")
            })
        }))
    }

    /// Proves that the caller holds the lease for this capture; the record is its generation's.
    pub fn prove(&self, dir: &Spot, capture: &str) -> Result<Record, NotHolder> {
        let record = read_record(dir).map_err(NotHolder::Failure)?;
        let current = record.as_ref().map(|r| r.capture.clone());
        if !self.is_held().map_err(NotHolder::Failure)? {
            return Err(NotHolder::NotHeld { current });
        }
        match record {
            Some(record) if record.capture == capture && !record.ended => Ok(record),
            _ => Err(NotHolder::Stale { current }),
        }
    }
}

/// Why somebody may not write into a capture.
#[derive(Debug)]
pub enum NotHolder {
    /// The description does not hold the lock.
    NotHeld {
        /// The capture that the lease was last granted to.
        current: Option<String>,
    },
    /// It holds the lock, but for another capture.
    Stale {
        /// The capture that the lease was last granted to.
        current: Option<String>,
    },
    /// It cannot be told.
    Failure(Failure),
}

/// Whether anybody holds the lease of a store. It is tried with a shared lock on a description of our own, so that two who
/// look at the same time do not see each other.
pub fn is_taken(dir: &Spot) -> Result<bool, Failure> {
    let lock = dir.join("lease.lock");
    let file = match fsio::open_read(&lock) {
        Ok(file) => file,
        Err(e) if e.is_not_found() => return Ok(false),
        Err(e) if e.is_denied() => return is_listed(&lock),
        Err(e) => return Err(e.into()),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(e) => Err(Failure::io("lock", lock.path(), e.into())),
    }
}

// For those who may read the store but not open its locks, the kernel has a list: `1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF`.
// It leaves out processes of other pid namespaces.
fn is_listed(lock: &Spot) -> Result<bool, Failure> {
    let inode = fsio::stat(lock)?.st_ino;
    let locks = crate::proc::read(Path::new("/proc/locks")).map_err(Failure::failed)?;
    let is_it = |line: &str| {
        line.split_whitespace().nth(5).and_then(|file| file.rsplit(':').next()) == Some(&inode.to_string())
    };
    Ok(locks.lines().any(|line| line.contains("FLOCK") && line.contains("WRITE") && is_it(line)))
}

/// Reads `lease.json`. One that cannot be understood is as good as none: it never decides who owns the lease, and
/// nobody's generation matches it.
pub fn read_record(dir: &Spot) -> Result<Option<Record>, Failure> {
    match fsio::read_bounded(&dir.join("lease.json"), 64 << 10) {
        Ok(data) => Ok(parse(&data)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Understands `lease.json`.
pub fn parse(data: &[u8]) -> Option<Record> {
    serde_json::from_slice(data).ok()
}

/// Writes `lease.json`.
pub fn write_record(dir: &Spot, record: &Record) -> Result<(), Failure> {
    let data =
        serde_json::to_vec_pretty(record).map_err(|e| Failure::failed(format!("cannot encode lease.json: {e}")))?;
    Ok(fsio::write_atomic(&dir.join("lease.json"), &data, Durability::Volatile)?)
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
    fn one_description_holds_it_and_only_that_one_can_prove_it() {
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
    fn a_shared_duplicate_is_the_same_description() {
        let (_dir, store, owner) = store();
        let (first, file) = Lease::open(&store, owner).unwrap();
        first.try_take().unwrap();
        let copy = file.try_clone().unwrap();
        drop(file);
        let again = Lease::inherited(copy.as_raw_fd(), &store, owner).unwrap();
        assert!(again.is_held().unwrap());
    }

    #[test]
    fn what_is_not_the_lease_file_is_refused() {
        let (_dir, store, owner) = store();
        let (_, file) = Lease::open(&store, owner).unwrap();
        let path = store.path().join("lease.lock");
        assert!(Lease::inherited(1, &store, owner).unwrap_err().message.contains("standard stream"));
        assert!(Lease::inherited(9999, &store, owner).unwrap_err().message.contains("not an open"));
        assert!(Lease::inherited(file.as_raw_fd(), &store, owner + 1).is_err());
        fs::rename(&path, store.path().join("old")).unwrap();
        std::os::unix::fs::symlink("old", &path).unwrap();
        let error = Lease::inherited(file.as_raw_fd(), &store, owner).unwrap_err();
        assert!(error.message.contains("symbolic link"), "{error}");
        assert!(Lease::open(&store, owner).is_err());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        let error = Lease::inherited(file.as_raw_fd(), &store, owner).unwrap_err();
        assert!(error.message.contains("is not the file"), "{error}");
    }
}
