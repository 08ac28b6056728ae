//! Protecting a capture from retention. A marker file in the capture's directory is authoritative; the index has a copy.

use crate::error::Result;
use crate::index::{self, Entry, PIN_FILE};
use crate::{Error, Id, Store, meta};
use diagctl_fs as fs;

/// Pins or unpins a capture. Returns true if it was pinned before.
pub fn set(store: &Store, id: Id, pinned: bool) -> Result<bool> {
    let dir = store.report_dir(&id);
    let marker = dir.join(PIN_FILE);
    let meta = meta::read(&dir)?;
    let was = match fs::stat(&marker) {
        Ok(_) => true,
        Err(e) if e.is_not_found() => false,
        Err(e) => return Err(e.into()),
    };
    let gone = |e: fs::Error| if dir.exists() { e.into() } else { Error::JustDeleted { id } };
    if pinned && !was {
        // The marker is empty, so it can be neither half-written nor a temporary file left by a killed `pin`. Another process
        // may be pinning the same capture.
        match fs::create_new(&marker).and_then(|file| fs::widen_like_parent(&file, &marker)) {
            Err(e) if !marker.is_file() => return Err(gone(e)),
            _ => fs::sync_dir(&dir).map_err(gone)?,
        }
    } else if !pinned && was {
        fs::remove_file(&marker).and_then(|()| fs::sync_dir(&dir)).map_err(gone)?;
    }
    // Appended even if nothing changed: an earlier `pin` may have been killed between the two writes.
    index::append_pinned(store, &Entry::of(store, &meta))?;
    Ok(was)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Meta;
    use crate::{Access, StoreOptions};

    #[test]
    fn pin_marker_and_index_agree_after_each_step() {
        let dir = tempfile::tempdir().unwrap();
        let id = "20260101T000000000Z-aaaaaaaa".parse().unwrap();
        let store = Store::open(StoreOptions::new(dir.path().join("store")), Access::Create).unwrap();
        fs::create_dir(&store.report_dir(&id), 0o700).unwrap();
        let meta = Meta { schema: 1, id, ..Meta::default() };
        std::fs::write(store.report_dir(&id).join("meta.json").path(), serde_json::to_vec(&meta).unwrap()).unwrap();
        for (pinned, was) in [(true, false), (true, true), (false, true), (false, false)] {
            assert_eq!(set(&store, id, pinned).unwrap(), was);
            assert_eq!(store.report_dir(&id).join(PIN_FILE).exists(), pinned);
            assert_eq!(index::Listing::all(&store).unwrap().entry(0).unwrap().pinned, pinned);
        }
        fs::remove(&store.report_dir(&id)).unwrap();
        assert!(set(&store, id, true).is_err());
    }
}
