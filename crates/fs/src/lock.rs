//! Locks that are held for milliseconds.

use std::fs::File;
use std::thread;
use std::time::Duration;

use diagctl_observe::clock::Stopwatch;
use fs2::FileExt;

use crate::{Error, Result, Spot, open_or_create};

/// The time to wait for a lock before its holder counts as stuck, in milliseconds.
const PATIENCE_MS: u64 = 5_000;

/// An exclusive `flock` on a permanent lock file, held until dropped.
#[derive(Debug)]
pub struct LockFile {
    // The lock is released when this only copy of the description is closed.
    _file: File,
    since: Stopwatch,
}

impl LockFile {
    /// Returns the time since the lock was taken.
    pub fn held(&self) -> Duration {
        self.since.elapsed()
    }

    /// Takes the lock if nobody holds it. Such a lock may be held for long.
    pub fn try_lock(spot: &Spot) -> Result<Option<Self>> {
        let (file, _) = open_or_create(spot)?;
        match FileExt::try_lock_exclusive(&file) {
            Ok(()) => Ok(Some(Self { _file: file, since: Stopwatch::start() })),
            Err(e) if e.raw_os_error() == fs2::lock_contended_error().raw_os_error() => Ok(None),
            Err(e) => Err(Error::io("lock", spot.path(), e)),
        }
    }

    /// Waits for the lock, up to a time limit: it is held for milliseconds unless its holder was stopped.
    pub fn lock(spot: &Spot) -> Result<Self> {
        let (file, _) = open_or_create(spot)?;
        let waited = Stopwatch::start();
        loop {
            match FileExt::try_lock_exclusive(&file) {
                Ok(()) => return Ok(Self { _file: file, since: Stopwatch::start() }),
                Err(e) if e.raw_os_error() != fs2::lock_contended_error().raw_os_error() => {
                    return Err(Error::io("lock", spot.path(), e));
                }
                Err(_) if waited.is_past(PATIENCE_MS) => {
                    return Err(Error::Locked { path: spot.path().to_owned(), waited: waited.elapsed() });
                }
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}
