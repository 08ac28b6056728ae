//! The turn of a shipper. One works on a store at a time; another waits for it, says so, and takes over when it ends.

use std::time::Duration;

use diagctl_fs::{LockFile, Spot};
use diagctl_observe::clock::Stopwatch;
use diagctl_store::{Store, shipping};

use crate::error::{Error, Result};
use crate::output;

/// The time between two attempts.
const AGAIN: Duration = Duration::from_secs(1);

/// The behaviour of a shipper while another one is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It waits for ever: it stands by.
    Endless,
    /// It waits for so long, or until the other one has shipped what waits now.
    For(Duration),
}

/// Waits for the turn. Returns `None` if the other shipper does the work.
///
/// # Errors
///
/// If the lock cannot be tried, or another shipper holds it for too long.
pub async fn take(store: &Store, patience: Patience, unless_watched: bool) -> Result<Option<LockFile>> {
    let spot = shipping::lock(store)?;
    let since = Stopwatch::start();
    let mut waiting = None;
    loop {
        if let Some(lock) = LockFile::try_lock(&spot)? {
            return Ok(Some(lock));
        }
        let is_watched = shipping::is_watched(store);
        if unless_watched && is_watched {
            return Ok(None);
        }
        let waiting = match &mut waiting {
            Some(waiting) => waiting,
            none => {
                // After a capture nobody reads it, and the first line counts as the reason of a failure.
                if !unless_watched {
                    output::note(&format!("waiting for {}, which ships the captures of this store", holder(&spot)));
                }
                none.insert(shipping::waiting(store)?)
            }
        };
        if let Patience::For(limit) = patience {
            let now = shipping::waiting(store)?;
            let left = waiting.iter().filter(|capture| now.iter().any(|other| other.id == capture.id)).count();
            if is_watched && left == 0 {
                output::say(&format!("nothing to ship: {} has shipped everything", holder(&spot)));
                return Ok(None);
            }
            if since.elapsed() >= limit {
                return Err(Error::Busy { holder: holder(&spot), waited: limit, waiting: now.len() });
            }
        }
        // A sign of life for the process that waits for this one.
        output::progress();
        tokio::time::sleep(AGAIN).await;
    }
}

// Another user's process, or one in another container, has no pid here.
fn holder(lock: &Spot) -> String {
    let pid = lock.stat().ok().and_then(|stat| {
        let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
        holders(&locks, stat.st_ino).find(|pid| is_shipper(*pid))
    });
    pid.map_or_else(|| "another shipper".to_owned(), |pid| format!("the shipper with pid {pid}"))
}

// The number of the device is not that of stat(2) on every filesystem.
fn holders(locks: &str, inode: u64) -> impl Iterator<Item = u32> {
    locks.lines().filter_map(move |line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = words.as_slice() else { return None };
        (file.rsplit(':').next()?.parse() == Ok(inode)).then(|| pid.parse().ok())?
    })
}

fn is_shipper(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("diagctl-remote"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_by_its_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:99 0 EOF\n2: FLOCK  ADVISORY  WRITE 12 fe:00:99 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 14 fe:00:99 0 EOF\n3: FLOCK  ADVISORY  WRITE 13 fe:00:98 0 EOF\n";
        assert_eq!(holders(locks, 99).collect::<Vec<_>>(), [12]);
        assert_eq!(holders(locks, 97).count(), 0);
    }
}
