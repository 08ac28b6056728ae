//! Operations on single directories: create, sync, check, and measure the free space of their filesystem.

use std::fs::File;
use std::io;
use std::os::unix::fs::fchown;
use std::path::Path;

use rustix::fs::{FileType, Mode};

use crate::tree::LISTED;
use crate::{Error, NotOurs, Result, Spot, stat};

/// Returns the directory that contains a path.
pub fn parent_of(path: &Path) -> Result<&Path> {
    path.parent().ok_or_else(|| Error::NoParent { path: path.to_owned() })
}

/// Syncs a directory, so that the names in it survive a power cut.
pub fn sync_dir(spot: &Spot) -> Result<()> {
    let synced = spot.open(LISTED, Mode::empty()).and_then(|dir| File::from(dir).sync_all());
    synced.map_err(|e| Error::io("sync", spot.path(), e))
}

/// Sets the mode of a directory.
pub fn set_dir_mode(spot: &Spot, mode: u32) -> Result<()> {
    let dir = spot.open(LISTED, Mode::empty());
    dir.and_then(|dir| Ok(rustix::fs::fchmod(dir, Mode::from_raw_mode(mode))?))
        .map_err(|e| Error::io("set the mode of", spot.path(), e))
}

/// Gives a directory to a group.
pub fn set_dir_group(spot: &Spot, gid: u32) -> io::Result<()> {
    fchown(spot.open(LISTED, Mode::empty())?, None, Some(gid))
}

/// Creates a directory with the given mode. Succeeds if it exists already.
pub fn create_dir(spot: &Spot, mode: u32) -> Result<()> {
    match spot.at(|dir, name| rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode))) {
        Ok(()) => set_dir_mode(spot, mode),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            if FileType::from_raw_mode(stat(spot)?.st_mode).is_dir() {
                return Ok(());
            }
            Err(Error::InTheWay { path: spot.path().to_owned() })
        }
        Err(e) => Err(Error::io("create", spot.path(), e)),
    }
}

/// Refuses anything but a real directory of this owner, because another user could change its contents.
pub fn require_dir(spot: &Spot, owner: u32) -> Result<()> {
    let stat = stat(spot)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind.is_dir() && stat.st_uid == owner {
        return Ok(());
    }
    let found = if kind.is_symlink() {
        NotOurs::Symlink
    } else if kind.is_dir() {
        NotOurs::Owner { uid: stat.st_uid, expected: owner }
    } else {
        NotOurs::NotDirectory
    };
    Err(Error::NotOurs { path: spot.path().to_owned(), found })
}

/// Returns the free bytes for this user, and the size, of the filesystem of a held directory. Uses the descriptor: `fs2` takes
/// a path, which could lead to another filesystem by then.
pub fn space(dir: &Spot) -> Result<(u64, u64)> {
    let stats = dir.held().and_then(|dir| Ok(rustix::fs::fstatvfs(dir)?));
    let stats = stats.map_err(|e| Error::io("examine the filesystem of", dir.path(), e))?;
    Ok((stats.f_bavail.saturating_mul(stats.f_frsize), stats.f_blocks.saturating_mul(stats.f_frsize)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn only_a_real_directory_of_the_owner_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let held = Spot::hold(dir.path()).unwrap();
        create_dir(&held.join("dir"), 0o700).unwrap();
        create_dir(&held.join("dir"), 0o700).unwrap();
        fs::write(held.join("file").path(), "").unwrap();
        symlink("dir", held.join("link").path()).unwrap();
        let us = fs::metadata(dir.path()).unwrap().uid();
        let found = |name: &str, owner| match require_dir(&held.join(name), owner) {
            Ok(()) => None,
            Err(Error::NotOurs { found, .. }) => Some(found),
            Err(e) => panic!("{e}"),
        };
        assert_eq!(found("dir", us), None);
        assert_eq!(found("dir", us + 1), Some(NotOurs::Owner { uid: us, expected: us + 1 }));
        assert_eq!(found("file", us), Some(NotOurs::NotDirectory));
        assert_eq!(found("link", us), Some(NotOurs::Symlink));
        assert!(matches!(create_dir(&held.join("file"), 0o700), Err(Error::InTheWay { .. })));
        assert!(matches!(create_dir(&held.join("link"), 0o700), Err(Error::InTheWay { .. })));
    }

    #[test]
    fn free_space_is_read_through_a_held_directory_only() {
        let dir = tempfile::tempdir().unwrap();
        let held = Spot::hold(dir.path()).unwrap();
        let (free, size) = space(&held).unwrap();
        assert!(free <= size && size > 0, "{free} of {size}");
        assert!(space(&held.join("x")).is_err());
    }
}
