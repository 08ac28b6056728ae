//! Directory listings and whole trees. They use descriptors all the way down, so that a link put in the place of a directory is
//! not followed.
//!
//! walkdir is not used: it opens every directory by path and follows a link that has replaced a directory since its entry was
//! read. With `remove`, a user who may write to the store could then have files outside the store deleted.

use std::ffi::{CStr, CString, OsString};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, DirEntry, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::{Error, NotOurs, Spot};

/// The flags for opening a file to look for holes in it.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// The flags for opening a directory to list it.
pub const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An iterator over the entries of a directory, which are read on demand. Ends after an error.
pub struct Listing {
    dir: Dir,
    spot: Spot,
}

/// An entry of a directory, with its name and kind. A symbolic link is not followed.
#[derive(Debug)]
pub struct Entry {
    /// The name without the directory.
    pub name: OsString,
    /// The kind: file, directory, or other.
    pub kind: FileType,
}

impl Iterator for Listing {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = next_in(&mut self.dir)?.and_then(|entry| {
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            Ok(Entry { name, kind: kind_of(self.dir.fd()?, &entry)? })
        });
        Some(entry.map_err(|e| Error::io("read", self.spot.path(), e)))
    }
}

/// Lists a directory.
pub fn list(spot: &Spot) -> Result<Listing, Error> {
    let dir = spot.open(LISTED, Mode::empty()).and_then(|fd| Ok(Dir::new(fd)?));
    let dir = dir.map_err(|e| Error::io("read", spot.path(), e))?;
    Ok(Listing { dir, spot: spot.clone() })
}

/// Returns every entry of a directory, or an error if reading stops early: an entry that was not read must not count as absent.
pub fn read_dir(spot: &Spot) -> Result<Vec<Entry>, Error> {
    list(spot)?.collect()
}

/// Returns the entries of a directory that can be read, for callers that can work with fewer.
pub fn children(spot: &Spot) -> impl Iterator<Item = Entry> + use<> {
    list(spot).into_iter().flatten().flatten()
}

/// Deletes a file, or a directory with all its contents. Succeeds if it is gone already.
pub fn remove(spot: &Spot) -> Result<(), Error> {
    let removed = spot.at(|dir, name| match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => remove_tree(dir, name),
        other => other,
    });
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|e| Error::io("delete", spot.path(), e)),
    }
}

// Keeps a stack of open directories. The depth of a tree is limited only by the number of descriptors, and running out is an
// error.
fn remove_tree(parent: BorrowedFd<'_>, name: &Path) -> Result<(), Errno> {
    let name = CString::new(name.as_os_str().as_encoded_bytes()).map_err(|_| Errno::INVAL)?;
    let open_to_empty = |dir: BorrowedFd<'_>, name: &CStr| {
        regain(dir, name)?;
        open_in(dir, name)
    };
    let mut open = vec![(open_to_empty(parent, &name)?, name)];
    while let Some((dir, _)) = open.last_mut() {
        let Some(entry) = next_in(dir).transpose()? else {
            let Some((_, name)) = open.pop() else { break };
            let above = match open.last() {
                Some((dir, _)) => dir.fd()?,
                None => parent,
            };
            rustix::fs::unlinkat(above, &name, AtFlags::REMOVEDIR)?;
            continue;
        };
        match rustix::fs::unlinkat(dir.fd()?, entry.file_name(), AtFlags::empty()) {
            Err(Errno::ISDIR) => {
                let inner = open_to_empty(dir.fd()?, entry.file_name())?;
                open.push((inner, entry.file_name().to_owned()));
            }
            // Another process is deleting the tree too.
            Err(Errno::NOENT) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Gives the owner all rights to a directory again. Some commands leave directories that are not writable (a cache of Go
/// modules, for example), but to move a directory or delete from it takes that right. If it belongs to another user, the
/// caller's next operation fails.
pub fn regain(dir: BorrowedFd<'_>, name: impl Arg + Copy) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = rustix::io::retry_on_intr(|| rustix::fs::openat(dir, name, flags, Mode::empty()))?;
    let mode = rustix::fs::fstat(&held)?.st_mode & 0o7777;
    if mode & 0o700 != 0o700 {
        // Goes through /proc, because fchmod(2) accepts no descriptor that was opened without any rights.
        let _ = rustix::fs::chmod(format!("/proc/self/fd/{}", held.as_raw_fd()), Mode::from_raw_mode(mode | 0o700));
    }
    Ok(())
}

/// Removes permissions from everything in a directory; `keep` are the bits that may stay. Fails at the first entry that belongs to
/// somebody else. Symbolic links, and files with another name elsewhere, stay as they are.
pub fn restrict_tree(spot: &Spot, owner: u32, keep: u32) -> Result<(), Error> {
    walk(spot, |held, stat, path| {
        if stat.st_uid != owner {
            let found = NotOurs::Owner { uid: stat.st_uid, expected: owner };
            return Err(Error::NotOurs { path: path.to_owned(), found });
        }
        let mode = stat.st_mode & 0o7777;
        if mode & keep != mode && is_single(stat) {
            set_mode(held, mode & keep).map_err(|e| Error::io("restrict", path, e))?;
        }
        Ok(ControlFlow::Continue(()))
    })
    .map(drop)
}

/// Gives everything of this owner in a directory to a group, which may then read it. Leaves out the files of these names.
/// Symbolic links, and files with another name elsewhere, stay as they are. Stops after `most` changes, and returns false then: another
/// call goes on.
pub fn share_tree(spot: &Spot, owner: u32, gid: u32, except: &[&str], most: usize) -> Result<bool, Error> {
    let mut left = most;
    let whole = walk(spot, |held, stat, path| {
        let is_excepted = path.file_name().is_some_and(|name| except.iter().any(|except| name == *except));
        let more = if FileType::from_raw_mode(stat.st_mode).is_dir() { 0o2050 } else { 0o040 };
        let is_shared = stat.st_gid == gid && stat.st_mode & more == more;
        if stat.st_uid != owner || is_excepted || is_shared || !is_single(stat) {
            return Ok(ControlFlow::Continue(()));
        }
        let Some(after) = left.checked_sub(1) else { return Ok(ControlFlow::Break(())) };
        left = after;
        let group = Some(rustix::fs::Gid::from_raw(gid));
        rustix::fs::chownat(held, "", None, group, AtFlags::EMPTY_PATH)
            .and_then(|()| set_mode(held, stat.st_mode & 0o7777 | more))
            .map_err(|e| Error::io("share", path, e))?;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(whole.is_continue())
}

fn is_single(stat: &Stat) -> bool {
    let kind = FileType::from_raw_mode(stat.st_mode);
    kind.is_dir() || (kind.is_file() && stat.st_nlink == 1)
}

// Goes through /proc, because fchmod(2) accepts no descriptor that was opened without any rights.
fn set_mode(held: &OwnedFd, mode: u32) -> Result<(), Errno> {
    rustix::fs::chmod(format!("/proc/self/fd/{}", held.as_raw_fd()), Mode::from_raw_mode(mode))
}

// Visits everything in a directory, a directory before what is in it, until a visit ends the walk.
fn walk(spot: &Spot, mut visit: impl FnMut(&OwnedFd, &Stat, &Path) -> Visited) -> Visited {
    let failed = |e: Errno, at: &Path| Error::io("examine", at, e);
    let top = spot.open(LISTED, Mode::empty()).and_then(|fd| Ok(Dir::new(fd)?));
    let mut open = vec![(top.map_err(|e| Error::io("read", spot.path(), e))?, spot.path().to_owned())];
    while let Some((dir, path)) = open.last_mut() {
        let Some(entry) = next_in(dir).transpose().map_err(|e| failed(e, path))? else {
            open.pop();
            continue;
        };
        let name = entry.file_name();
        let path = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let fd = dir.fd().map_err(|e| failed(e, &path))?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held = match rustix::io::retry_on_intr(|| rustix::fs::openat(fd, name, flags, Mode::empty())) {
            Err(Errno::NOENT) => continue,
            other => other.map_err(|e| failed(e, &path))?,
        };
        let stat = rustix::fs::fstat(&held).map_err(|e| failed(e, &path))?;
        if visit(&held, &stat, &path)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            match open_in(fd, name) {
                Err(Errno::NOENT) => {}
                inner => open.push((inner.map_err(|e| failed(e, &path))?, path)),
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

type Visited = Result<ControlFlow<()>, Error>;

/// Returns the size of a file for accounting, in whole 4 KiB blocks. It is known at once and the same on every filesystem,
/// whereas allocated blocks are unknown until the data is written back. Holes in a file count as data here.
pub fn occupied(len: u64) -> u64 {
    len.div_ceil(4096) * 4096
}

/// Returns the size of a whole tree for accounting, directories included. Entries that vanish during the walk count as nothing.
pub fn occupied_tree(spot: &Spot) -> u64 {
    let Ok(stat) = spot.stat() else { return 0 };
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mut sum = occupied_by(kind, &stat, || spot.open(READ, Mode::empty()).ok());
    let top = kind.is_dir().then(|| spot.open(LISTED, Mode::empty()).ok().and_then(|fd| Dir::new(fd).ok())).flatten();
    let mut open: Vec<Dir> = top.into_iter().collect();
    while let Some(dir) = open.last_mut() {
        let Some(Ok(entry)) = next_in(dir) else {
            open.pop();
            continue;
        };
        let Ok(fd) = dir.fd() else { continue };
        let Ok(stat) = rustix::fs::statat(fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let open_file = || rustix::fs::openat(fd, entry.file_name(), READ, Mode::empty()).ok();
        sum += occupied_by(kind, &stat, open_file);
        if kind.is_dir()
            && let Ok(inner) = open_in(fd, entry.file_name())
        {
            open.push(inner);
        }
    }
    sum
}

// A directory of very many names takes more than one block. A sparse file counts by what is allocated.
fn occupied_by(kind: FileType, stat: &Stat, open: impl FnOnce() -> Option<OwnedFd>) -> u64 {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let allocated = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    if kind.is_dir() {
        return occupied(size.max(1));
    }
    if !kind.is_file() {
        return 4096;
    }
    // Fewer blocks than bytes may also mean that the data is not yet written back, or compressed by the filesystem.
    let has_hole = || {
        let hole = open().and_then(|file| rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(0)).ok());
        hole.is_some_and(|hole| hole < size)
    };
    if allocated < size && has_hole() { occupied(allocated) } else { occupied(size) }
}

fn open_in(dir: BorrowedFd<'_>, name: &CStr) -> Result<Dir, Errno> {
    Dir::new(rustix::io::retry_on_intr(|| rustix::fs::openat(dir.as_fd(), name, LISTED, Mode::empty()))?)
}

// Returns the next entry, without `.` and `..`.
fn next_in(dir: &mut Dir) -> Option<Result<DirEntry, Errno>> {
    dir.find(|entry| entry.as_ref().map_or(true, |entry| !matches!(entry.file_name().to_bytes(), b"." | b"..")))
}

// Some filesystems do not return the kind along with the name.
fn kind_of(dir: BorrowedFd<'_>, entry: &DirEntry) -> Result<FileType, Errno> {
    if entry.file_type() != FileType::Unknown {
        return Ok(entry.file_type());
    }
    let stat = rustix::fs::statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    // Creates a tree with every kind of entry, and links to a victim.
    fn tree() -> (tempfile::TempDir, Spot) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("tree/deep/deeper")).unwrap();
        fs::create_dir(dir.path().join("victim")).unwrap();
        fs::write(dir.path().join("victim/file"), vec![0; 10_000]).unwrap();
        fs::write(dir.path().join("tree/deep/file"), vec![0; 4097]).unwrap();
        symlink(dir.path().join("victim"), dir.path().join("tree/deep/link")).unwrap();
        symlink(dir.path().join("victim/file"), dir.path().join("tree/link")).unwrap();
        let held = Spot::hold(dir.path()).unwrap();
        (dir, held)
    }

    #[test]
    fn disk_usage_of_a_tree_excludes_link_targets() {
        let (_dir, held) = tree();
        // Three directories, two links, and a file of two blocks.
        assert_eq!(occupied_tree(&held.join("tree")), 5 * 4096 + 8192);
        assert_eq!(occupied_tree(&held.join("tree/link")), 4096);
        assert_eq!(occupied_tree(&held.join("gone")), 0);
    }

    #[test]
    fn sparse_files_count_by_what_they_occupy_and_large_directories_by_their_size() {
        let dir = tempfile::tempdir().unwrap();
        let held = Spot::hold(dir.path()).unwrap();
        let file = fs::File::create(dir.path().join("sparse")).unwrap();
        file.set_len(1 << 30).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[1; 5000], 1 << 29).unwrap();
        let sparse = occupied_tree(&held.join("sparse"));
        assert!((8192..1 << 20).contains(&sparse), "{sparse}");
        fs::write(dir.path().join("whole"), vec![1; 100_000]).unwrap();
        assert_eq!(occupied_tree(&held.join("whole")), 102_400, "known before it is written back");
        fs::create_dir(dir.path().join("names")).unwrap();
        for n in 0..1000 {
            fs::write(dir.path().join(format!("names/{n:0200}")), "").unwrap();
        }
        let names = fs::metadata(dir.path().join("names")).unwrap();
        assert_eq!(occupied_tree(&held.join("names")), occupied(names.len()));
    }

    #[test]
    fn a_restricted_tree_keeps_its_links_and_refuses_strangers() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let (dir, held) = tree();
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o7777;
        let us = fs::metadata(dir.path()).unwrap().uid();
        fs::hard_link(dir.path().join("victim/file"), dir.path().join("tree/deep/other-name")).unwrap();
        for (path, mode) in
            [("tree/deep", 0o2770), ("tree/deep/file", 0o660), ("victim", 0o777), ("victim/file", 0o666)]
        {
            fs::set_permissions(dir.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        assert!(matches!(restrict_tree(&held.join("tree"), us + 1, 0o700), Err(Error::NotOurs { .. })));
        restrict_tree(&held.join("tree"), us, 0o2750).unwrap();
        assert_eq!([mode("tree/deep"), mode("tree/deep/file")], [0o2750, 0o640]);
        restrict_tree(&held.join("tree"), us, 0o700).unwrap();
        assert_eq!([mode("tree/deep"), mode("tree/deep/file")], [0o700, 0o600]);
        assert_eq!([mode("victim"), mode("victim/file")], [0o777, 0o666]);
    }

    #[test]
    fn deleting_a_tree_spares_link_targets() {
        let (dir, held) = tree();
        remove(&held.join("tree")).unwrap();
        remove(&held.join("tree")).unwrap();
        assert_eq!(read_dir(&held).unwrap().into_iter().map(|entry| entry.name).collect::<Vec<_>>(), ["victim"]);
        assert_eq!(fs::read(dir.path().join("victim/file")).unwrap().len(), 10_000);
    }

    #[test]
    fn a_tree_is_shared_in_steps() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};

        let dir = tempfile::tempdir().unwrap();
        let meta = std::fs::metadata(dir.path()).unwrap();
        let (owner, gid) = (meta.uid(), meta.gid());
        for name in ["a", "b", "c"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("file"), "").unwrap();
            for path in [dir.path().join(name).join("file"), dir.path().join(name)] {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
            }
        }
        std::fs::write(dir.path().join("lock"), "").unwrap();
        let share = |most| share_tree(&Spot::outside(dir.path()), owner, gid, &["lock"], most).unwrap();
        assert_eq!([share(4), share(1), share(1), share(1), share(0)], [false, false, true, true, true]);
    }
}
