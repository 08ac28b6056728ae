//! Replacing a file in one step.

use std::fs::File;
use std::io::{self, Write};

use crate::{Error, Result, Spot, create_new, random_hex, remove_file, rename, sync_dir, widen_like_parent};

/// The part of a write that survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Everything: the file is synced, then the directory that names it.
    Synced,
    /// Left to the kernel. Losing the file breaks no promise.
    Volatile,
}

/// Replaces a file in one step: readers see the old content or the new, never a part.
pub fn write_atomic(spot: &Spot, data: &[u8], durability: Durability) -> Result<()> {
    write_atomic_with(spot, durability, |file| file.write_all(data))
}

/// Does the same for content that is not in memory as a whole.
pub fn write_atomic_with(
    spot: &Spot,
    durability: Durability,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<()> {
    let parent = spot.parent()?;
    let temp = parent.join(format!(".tmp-{}", random_hex()?));
    let result = write_and_rename(&temp, spot, durability, write);
    if result.is_err() {
        // The rename failed, or the caller must not rely on it. The temporary file is of no use.
        let _ = remove_file(&temp);
    }
    result?;
    if durability == Durability::Synced {
        sync_dir(&parent)?;
    }
    Ok(())
}

fn write_and_rename(
    temp: &Spot,
    spot: &Spot,
    durability: Durability,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<()> {
    let mut file = create_new(temp)?;
    widen_like_parent(&file, temp)?;
    write(&mut file).map_err(|e| Error::io("write", spot.path(), e))?;
    if durability == Durability::Synced {
        file.sync_all().map_err(|e| Error::io("sync", spot.path(), e))?;
    }
    rename(temp, spot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use crate::create_dir;

    #[test]
    fn a_failed_replacement_leaves_the_old_content_and_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let target = Spot::hold(dir.path()).unwrap().join("target");
        create_dir(&target, 0o700).unwrap(); // a directory cannot be replaced by a file
        assert!(write_atomic(&target, b"x", Durability::Synced).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
