//! Renames that replace the target, and renames that refuse to.

use std::io;

use rustix::fs::RenameFlags;

use crate::{Error, Result, Spot, tree};

/// Renames a file, replacing any file at the target.
pub fn rename(from: &Spot, to: &Spot) -> Result<()> {
    rename_with(from, to, RenameFlags::empty()).map_err(|e| Error::io("replace", to.path(), e))
}

/// Renames a file without ever replacing anything at the target.
pub fn rename_noreplace(from: &Spot, to: &Spot) -> Result<()> {
    let moved = match try_rename_noreplace(from, to) {
        // Moving a directory also writes into it, because its `..` changes.
        Err(e)
            if e.kind() == io::ErrorKind::PermissionDenied && from.at(|dir, name| tree::regain(dir, name)).is_ok() =>
        {
            try_rename_noreplace(from, to)
        }
        other => other,
    };
    moved.map_err(|e| Error::io("move into place", to.path(), e))
}

fn try_rename_noreplace(from: &Spot, to: &Spot) -> io::Result<()> {
    match rename_with(from, to, RenameFlags::NOREPLACE) {
        // NFS and most FUSE filesystems support no flags. A check beforehand is just as good there: targets have random names
        // that the holder of a lock made.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput && to.exists() => Err(rustix::io::Errno::EXIST.into()),
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => rename_with(from, to, RenameFlags::empty()),
        other => other,
    }
}

fn rename_with(from: &Spot, to: &Spot, flags: RenameFlags) -> io::Result<()> {
    let mut renamed = Ok(());
    from.at(|from_dir, from_name| {
        renamed = to.at(|to_dir, to_name| match flags.is_empty() {
            true => rustix::fs::renameat(from_dir, from_name, to_dir, to_name),
            false => rustix::fs::renameat_with(from_dir, from_name, to_dir, to_name, flags),
        });
        Ok(())
    })?;
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create_dir;

    #[test]
    fn a_rename_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let held = Spot::hold(dir.path()).unwrap();
        let (a, b) = (held.join("a"), held.join("b"));
        create_dir(&a, 0o700).unwrap();
        create_dir(&b, 0o700).unwrap();
        assert!(rename_noreplace(&a, &b).is_err());
        assert!(a.exists() && b.exists());
        rename_noreplace(&a, &b.join("a")).unwrap();
        assert!(!a.exists() && b.join("a").is_dir());
    }
}
