//! The user and the group that a store belongs to.

use std::path::Path;

use rustix::fs::Stat;

use super::Access;
use crate::error::{Error, Result};
use diagctl_fs::{self as fs, Spot};

pub(super) fn create_root(dir: &Path) -> Result<()> {
    require_parent(dir)?;
    Ok(fs::create_dir(&Spot::outside(dir), 0o700)?)
}

fn require_parent(dir: &Path) -> Result<&Path> {
    let parent = fs::parent_of(dir)?;
    if !parent.is_dir() {
        return Err(Error::NoParent { dir: dir.to_owned(), parent: parent.to_owned() });
    }
    Ok(parent)
}

// Root becomes the only user that could create this directory: the owner of its parent directory. Where several users could, any
// of them may be the one that the workers run as.
pub(super) fn become_owner_to_be(dir: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let parent = require_parent(dir)?;
    let stat = rustix::fs::stat(parent).map_err(|e| Error::io("examine", parent, e))?;
    if stat.st_mode & 0o022 != 0 {
        return Err(Error::OwnerUnknown { dir: dir.to_owned(), parent: parent.to_owned() });
    }
    if stat.st_uid == 0 { Ok(()) } else { become_user(dir, &stat) }
}

// Like systemd-coredump, writes into another user's store as that user, so that the user can read the files. Returns true if this
// process now has the owner's rights. A user who has access through the group may read without them.
pub(super) fn become_owner(dir: &Spot, stat: &Stat, access: Access) -> Result<bool> {
    let owner = stat.st_uid;
    let me = rustix::process::geteuid();
    if me.as_raw() == owner {
        return Ok(true);
    }
    if !me.is_root() {
        if access == Access::Read && fs::list(dir).is_ok() {
            return Ok(false);
        }
        return Err(Error::Owned { dir: dir.path().to_owned(), owner, uid: me.as_raw() });
    }
    become_user(dir.path(), stat)?;
    Ok(true)
}

fn become_user(dir: &Path, stat: &Stat) -> Result<()> {
    let (uid, gid) = (rustix::process::Uid::from_raw(stat.st_uid), rustix::process::Gid::from_raw(stat.st_gid));
    // The calls are per thread. Commands that also need the caller's rights open the store in a separate thread. All other
    // commands have a single thread.
    rustix::thread::set_thread_groups(&[gid])
        .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
        .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid))
        .map_err(|e| Error::Become { uid: stat.st_uid, dir: dir.to_owned(), source: e.into() })
}

/// Returns the id of a group, which is given by its name or its number.
pub fn group_id(name: &str) -> Result<u32> {
    // A container has the group that Kubernetes gave it, but no entry for it in /etc/group.
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let path = Path::new("/etc/group");
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    text.lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
        })
        .ok_or_else(|| Error::NoGroup { name: name.to_owned() })
}
