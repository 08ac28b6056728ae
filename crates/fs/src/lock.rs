//! Locks that processes hold for milliseconds.

use std::fs::File;
use std::thread;
use std::time::Duration;

use diagctl_observe::clock::Stopwatch;
use fs2::FileExt;

use crate::{Error, Result, Spot, open_or_create};

/// How long to wait for the lock before reporting that its holder is stuck.
const PATIENCE_MS: u64 = 5_000;

/// Holds an exclusive `flock` on a permanent lock file until it is dropped.
#[derive(Debug)]
pub struct LockFile {
    // Closing the only copy of this description releases the lock.
    _file: File,
    since: Stopwatch,
}

impl LockFile {
    /// How long it has been held.
    pub fn held(&self) -> Duration {
        self.since.elapsed()
    }

    /// Waits for the lock, but not for ever: it is held for milliseconds unless its holder was stopped.
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
