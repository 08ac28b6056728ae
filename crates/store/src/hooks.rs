//! Captures that the operator's hook is to be told about. The caller runs the hook; this module remembers who waits for it.
//!
//! ```text
//! hooks/lock    held by the process that runs the hook
//! hooks/<id>    a capture that waits, with the number of attempts
//! ```

use crate::error::Result;
use crate::id::Id;
use crate::layout::HOOKS;
use crate::{Store, layout};
use diagctl_fs::{self as fs, Durability, LockFile, Spot};

/// The most captures that wait. A hook that hangs is slower than the rules.
pub const MOST: usize = 64;

/// The most attempts to tell the hook about one capture. An attempt fails to end if its process is killed.
pub const ATTEMPTS: u32 = 3;

/// Adds a capture to those that wait. Returns false if too many wait already.
///
/// # Errors
///
/// If the directory cannot be created or written.
pub fn add(store: &Store, id: Id) -> Result<bool> {
    let dir = layout::own_directory(store, HOOKS)?;
    if waiting(store).len() >= MOST {
        return Ok(false);
    }
    fs::write_atomic(&dir.join(id.as_str()), b"0", Durability::Volatile)?;
    Ok(true)
}

/// Returns the captures that wait, oldest first.
pub fn waiting(store: &Store) -> Vec<Id> {
    let mut ids: Vec<Id> =
        fs::children(&store.path(HOOKS)).filter_map(|entry| Id::parse(entry.name.to_str()?)).collect();
    ids.sort_unstable();
    ids
}

/// The right to run the hook, held until dropped.
#[derive(Debug)]
pub struct Turn {
    dir: Spot,
    _lock: LockFile,
}

impl Turn {
    /// Takes the turn. Returns `None` while another process has it.
    ///
    /// # Errors
    ///
    /// If the lock cannot be opened.
    pub fn take(store: &Store) -> Result<Option<Self>> {
        let dir = layout::own_directory(store, HOOKS)?;
        Ok(LockFile::try_lock(&dir.join("lock"))?.map(|lock| Self { dir, _lock: lock }))
    }

    /// Counts an attempt. Returns false, and forgets the capture, if there were too many before.
    ///
    /// # Errors
    ///
    /// If the attempt cannot be recorded: a hook that kills its process would be run for ever.
    pub fn begin(&self, id: Id) -> Result<bool> {
        let file = self.dir.join(id.as_str());
        let before = fs::read_bounded(&file, 16).unwrap_or_default();
        let attempts: u32 = String::from_utf8_lossy(&before).parse().unwrap_or(0);
        if attempts >= ATTEMPTS {
            self.end(id)?;
            return Ok(false);
        }
        fs::write_atomic(&file, (attempts + 1).to_string().as_bytes(), Durability::Volatile)?;
        Ok(true)
    }

    /// Forgets a capture: the hook was told, or failed.
    ///
    /// # Errors
    ///
    /// If its file cannot be removed.
    pub fn end(&self, id: Id) -> Result<()> {
        Ok(fs::remove_file(&self.dir.join(id.as_str()))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, StoreOptions};

    fn id(n: usize) -> Id {
        format!("20260101T{n:09}Z-aaaaaaaa").parse().unwrap()
    }

    #[test]
    fn captures_wait_in_order_and_in_limited_number() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path().join("store")), Access::Create).unwrap();
        assert_eq!(waiting(&store), []);
        for n in (0..MOST).rev() {
            assert!(add(&store, id(n)).unwrap());
        }
        assert!(!add(&store, id(MOST)).unwrap());
        assert_eq!(waiting(&store), (0..MOST).map(id).collect::<Vec<_>>());
    }

    #[test]
    fn one_process_has_the_turn_and_a_capture_is_given_up_after_three_attempts() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path().join("store")), Access::Create).unwrap();
        add(&store, id(1)).unwrap();
        let turn = Turn::take(&store).unwrap().unwrap();
        assert!(Turn::take(&store).unwrap().is_none());
        assert_eq!([(); 3].map(|()| turn.begin(id(1)).unwrap()), [true; 3]);
        assert_eq!(waiting(&store), [id(1)]);
        assert!(!turn.begin(id(1)).unwrap());
        assert_eq!(waiting(&store), []);
        drop(turn);
        assert!(Turn::take(&store).unwrap().is_some());
    }
}
