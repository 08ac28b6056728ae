//! A directory as the remote: a disk of its own, or a share that several machines mount.
//!
//! Others may write to it. So every name is reached from the directory itself, which is opened anew for each operation, and no symbolic link
//! on the way is followed.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use diagctl_fs::{Spot, random_hex};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use crate::error::{Error, Result};
use crate::keys::Object;

/// The file that a remote has, and an empty mount point has not.
const MARK: &str = ".diagctl";
/// The beginning of the name of a file that is not complete.
const TEMPORARY: &str = ".tmp-";
/// The age from which on such a file is taken for a leftover, milliseconds.
const UNFINISHED_MS: u64 = 24 * 3600 * 1000;

/// The directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The filesystem (`st_dev`) that [`Directory::mark`] found. Another one in its place is that of the mount point of a share that has gone away.
    /// The inode is not compared: some shares number theirs anew.
    marked: Cell<Option<u64>>,
}

impl<P: Into<PathBuf>> From<P> for Directory {
    fn from(path: P) -> Self {
        Self { path: path.into(), marked: Cell::new(None) }
    }
}

impl Directory {
    /// The path in the URL.
    pub fn path(&self) -> &Path {
        &self.path
    }

    // Opens the directory. A share that is not mounted must not become a directory of the node's own disk, where shipped captures would be lost
    // with the node. The operator may name it by a link.
    fn root(&self) -> Result<Spot> {
        let path = fs::canonicalize(&self.path).map_err(failed("open", &self.path))?;
        let root = Spot::hold(&path).map_err(failed("open", &self.path))?;
        let found = root.stat().map_err(failed("open", &self.path))?;
        if !FileType::from_raw_mode(found.st_mode).is_dir() {
            return Err(failed("use", &self.path)(io::ErrorKind::NotADirectory.into()));
        }
        match self.marked.get() {
            Some(marked) if marked != found.st_dev => Err(Error::Unmounted { path: self.path.clone() }),
            _ => Ok(root),
        }
    }

    /// Leaves a mark in the directory, and from then on takes nothing on another filesystem in its place. Fails if captures were sent to it before, and it has
    /// neither them nor the mark: then it is a mount point without its share.
    pub fn mark(&self, has_captures: bool) -> Result<()> {
        let before = self.marked.take();
        let marked = self.root().and_then(|root| self.mark_in(&root, has_captures));
        self.marked.set(marked.as_ref().ok().copied().or(before));
        marked.map(drop)
    }

    fn mark_in(&self, root: &Spot, has_captures: bool) -> Result<u64> {
        self.require_used(root, has_captures)?;
        if !root.join(MARK).exists() {
            let mut mark = Unfinished::create(root, MARK)?;
            mark.write(
                b"Captures of diagctl. Without this file the directory is taken for a mount point without its share.\n",
            )?;
            mark.finish()?;
        }
        Ok(root.stat().map_err(failed("examine", &self.path))?.st_dev)
    }

    /// Fails as [`Directory::mark`] does, and changes nothing.
    pub fn require_share(&self, has_captures: bool) -> Result<()> {
        self.require_used(&self.root()?, has_captures)
    }

    fn require_used(&self, root: &Spot, has_captures: bool) -> Result<()> {
        if has_captures && !is_used(root) { Err(Error::Unmounted { path: self.path.clone() }) } else { Ok(()) }
    }

    /// Returns false if nothing was ever sent to the directory: it may be a mount point without its share.
    pub fn is_used(&self) -> bool {
        self.root().is_ok_and(|root| is_used(&root))
    }

    /// Returns the first directory on the way to a key that this user must write to and may not, with the uid of its owner.
    pub fn closed(&self, key: &str) -> Option<(PathBuf, u32)> {
        let parents = key.match_indices('/').map(|(at, _)| self.path.join(&key[..at]));
        let mut there: Vec<PathBuf> = parents.take_while(|parent| parent.exists()).collect();
        if there.is_empty() {
            there.push(self.path.clone());
        }
        there.into_iter().find_map(|parent| {
            let allowed = rustix::fs::access(&parent, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK);
            let owner = fs::metadata(&parent).ok()?.uid();
            (allowed == Err(rustix::io::Errno::ACCESS)).then_some((parent, owner))
        })
    }

    /// Returns true if it is on the filesystem of another directory, or `None` if one of them cannot be examined.
    pub fn shares_a_disk_with(&self, other: &Path) -> Option<bool> {
        Some(fs::metadata(&self.path).ok()?.dev() == fs::metadata(other).ok()?.dev())
    }

    /// Begins a file.
    pub fn create(&self, key: &str) -> Result<Unfinished> {
        Unfinished::create(&self.root()?, key)
    }

    /// Writes a file, so that it is whole or not there.
    pub fn write(&self, key: &str, data: &[u8]) -> Result<()> {
        let mut file = self.create(key)?;
        file.write(data)?;
        file.finish()
    }

    /// Opens a file.
    pub fn open(&self, key: &str) -> Result<File> {
        let spot = self.root()?.join(key);
        open(&spot).map_err(failed("read", spot.path()))
    }

    /// Reads a file piece by piece, or returns `None` if there is none.
    pub fn pour(&self, key: &str, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<Option<()>> {
        let spot = self.root()?.join(key);
        let mut file = match open(&spot) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed("read", spot.path()))?,
        };
        let mut chunk = vec![0; 128 << 10];
        loop {
            match file.read(&mut chunk).map_err(failed("read", spot.path()))? {
                0 => return Ok(Some(())),
                read => sink(&chunk[..read])?,
            }
        }
    }

    /// Returns the files at any depth under `area`, of the directories that are wanted. What is neither a file nor a directory is among them: if
    /// it stands for a manifest, it must be missed when it is read.
    pub fn list(&self, area: &str, is_wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Object>> {
        let mut found = Vec::new();
        walk(&self.root()?, area, &|key| !name_of(key).starts_with('.') && is_wanted(key), |key, stat| {
            found.push(object(key, stat));
            Ok(())
        })?;
        Ok(found)
    }

    /// Examines a file, or returns `None` if there is none.
    pub fn stat(&self, key: &str) -> Result<Option<Object>> {
        let spot = self.root()?.join(key);
        match spot.stat() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            found => Ok(Some(object(key.to_owned(), &found.map_err(failed("examine", spot.path()))?))),
        }
    }

    /// Deletes what writers that were killed have left unfinished under `area` for a day.
    pub fn sweep(&self, area: &str, now_ms: u64) -> Result<()> {
        let is_left = |name: &str| name.starts_with(TEMPORARY);
        let root = self.root()?;
        walk(&root, area, &|key| is_left(name_of(key)) || !name_of(key).starts_with('.'), |key, stat| {
            let age_ms = now_ms.saturating_sub(written_ms(stat));
            if is_left(name_of(&key)) && age_ms > UNFINISHED_MS { delete(&root, &key) } else { Ok(()) }
        })
    }

    /// Deletes a file, and its directories that are empty by then. One that is gone is deleted.
    pub fn delete(&self, key: &str) -> Result<()> {
        delete(&self.root()?, key)
    }
}

/// A file that is being written. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub struct Unfinished {
    file: File,
    temporary: Spot,
    target: Spot,
}

impl Unfinished {
    // Creates its directories, too.
    fn create(root: &Spot, key: &str) -> Result<Self> {
        for (at, _) in key.match_indices('/') {
            let dir = root.join(&key[..at]);
            match dir.at(|dir, name| rustix::fs::mkdirat(dir, name, Mode::RWXU)) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed("create", dir.path())(e)),
                _ => {}
            }
        }
        let target = root.join(key);
        let create = failed("create", target.path());
        let temporary = format!("{TEMPORARY}{}", random_hex()?);
        let temporary =
            root.join(key.rsplit_once('/').map_or_else(|| temporary.clone(), |(dir, _)| format!("{dir}/{temporary}")));
        let file = temporary.open(OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR);
        Ok(Self { file: file.map_err(create)?.into(), temporary, target })
    }

    /// Writes the next bytes.
    pub fn write(&mut self, data: &[u8]) -> Result<()> {
        self.file.write_all(data).map_err(failed("write", self.target.path()))
    }

    /// Puts the file in its place.
    pub fn finish(self) -> Result<()> {
        let path = self.target.path();
        self.file.sync_all().map_err(failed("sync", path))?;
        let temporary = self.temporary.file_name().unwrap_or_default();
        let renamed = self.target.at(|dir, name| rustix::fs::renameat(dir, temporary, dir, name));
        renamed.map_err(failed("write", path))?;
        let dir =
            self.target.at(|dir, _| rustix::fs::openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()));
        dir.and_then(|dir| File::from(dir).sync_all()).map_err(failed("sync", path))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // A leftover harms nobody: readers ignore it. After `finish` there is none.
        let _ = self.temporary.at(|dir, name| rustix::fs::unlinkat(dir, name, AtFlags::empty()));
    }
}

fn is_used(root: &Spot) -> bool {
    root.join(MARK).exists() || root.join("captures").exists()
}

// Another machine may have put anything there: a link out of the directory, or a pipe that never ends.
fn open(spot: &Spot) -> io::Result<File> {
    let file = File::from(spot.open(OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

fn object(key: String, stat: &Stat) -> Object {
    let version = format!("{}.{:09} {}", stat.st_mtime, stat.st_mtime_nsec, stat.st_ino);
    Object { key, bytes: u64::try_from(stat.st_size).unwrap_or(0), version, written_ms: written_ms(stat) }
}

fn written_ms(stat: &Stat) -> u64 {
    u64::try_from(stat.st_mtime).unwrap_or(0).saturating_mul(1000)
}

fn name_of(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

fn walk(
    root: &Spot,
    area: &str,
    is_wanted: &dyn Fn(&str) -> bool,
    mut visit: impl FnMut(String, &Stat) -> Result<()>,
) -> Result<()> {
    let mut left = vec![area.to_owned()];
    while let Some(name) = left.pop() {
        let dir = root.join(&name);
        let entries = match diagctl_fs::list(&dir) {
            Err(e) if e.is_not_found() => continue,
            listed => listed.map_err(unlisted(dir.path()))?,
        };
        for entry in entries {
            let Ok(inner) = entry.map_err(unlisted(dir.path()))?.name.into_string() else { continue };
            let key = format!("{name}/{inner}");
            if !is_wanted(&key) {
                continue;
            }
            match root.join(&key).stat() {
                // Deleted meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed("examine", dir.path())(e)),
                Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => left.push(key),
                Ok(stat) => visit(key, &stat)?,
            }
        }
    }
    Ok(())
}

fn unlisted(path: &Path) -> impl FnOnce(diagctl_fs::Error) -> Error {
    let failed = failed("list", path);
    |error| match error.os() {
        Some(os) => failed(os.raw_os_error().map_or_else(|| os.kind().into(), io::Error::from_raw_os_error)),
        None => error.into(),
    }
}

fn delete(root: &Spot, key: &str) -> Result<()> {
    let spot = root.join(key);
    match spot.at(|dir, name| rustix::fs::unlinkat(dir, name, AtFlags::empty())) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("delete", spot.path())(e)),
        _ => {}
    }
    // A directory that is not empty stays, as it should.
    let remove = |dir: &str| root.join(dir).at(|dir, name| rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)).is_ok();
    let mut parents = key.rmatch_indices('/').map(|(at, _)| &key[..at]);
    while parents.next().is_some_and(remove) {}
    Ok(())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path: PathBuf = path.to_owned();
    move |source| {
        let is_link = source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
        let source = if is_link { io::Error::other("a symbolic link is not followed") } else { source };
        Error::Directory { action, path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn read(dir: &Directory, key: &str) -> Result<Option<Vec<u8>>> {
        let mut data = Vec::new();
        let keep = |chunk: &[u8]| {
            data.extend_from_slice(chunk);
            Ok(())
        };
        Ok(dir.pour(key, keep)?.map(|()| data))
    }

    #[test]
    fn a_file_that_is_refused_or_cut_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let dir = Directory::from(root.path());
        let key = "captures/one/meta.json";
        dir.create(key).unwrap().write(b"abc").unwrap();
        assert_eq!(read(&dir, key).unwrap(), None);
        assert_eq!(fs::read_dir(root.path().join("captures/one")).unwrap().count(), 0);
        dir.write(key, b"abc").unwrap();
        assert_eq!(read(&dir, key).unwrap().unwrap(), b"abc");
    }

    #[test]
    fn no_link_leads_out_of_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let (share, victim) = (root.path().join("share"), root.path().join("victim"));
        fs::create_dir_all(share.join("captures")).unwrap();
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("file"), "precious").unwrap();
        symlink(&victim, share.join("captures/day")).unwrap();
        symlink(victim.join("file"), share.join("captures/link")).unwrap();
        // The operator may name the share itself by a link.
        symlink(&share, root.path().join("named")).unwrap();
        let dir = Directory::from(root.path().join("named"));
        let told = |result: Result<()>| result.unwrap_err().to_string();
        for key in ["captures/day/file", "captures/link"] {
            assert!(told(read(&dir, key).map(drop)).contains("is not followed"), "{key}");
        }
        assert!(told(dir.write("captures/day/new", b"x")).contains("is not followed"));
        assert!(dir.delete("captures/day/file").is_err() && dir.list("captures/day", &|_| true).is_err());
        let listed: Vec<String> = dir.list("captures", &|_| true).unwrap().into_iter().map(|found| found.key).collect();
        assert_eq!(listed.len(), 2, "what cannot be read is not passed over: {listed:?}");
        // The link itself goes.
        dir.write("captures/link", b"new").unwrap();
        dir.delete("captures/day").unwrap();
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
        assert_eq!(fs::read(victim.join("file")).unwrap(), b"precious");
        assert_eq!(read(&dir, "captures/link").unwrap().unwrap(), b"new");
    }

    #[test]
    fn nothing_is_written_to_the_directory_below_a_share_that_has_gone_away() {
        let root = tempfile::tempdir().unwrap();
        let (share, elsewhere) = (root.path().join("share"), root.path().join("elsewhere"));
        fs::create_dir(&share).unwrap();
        let dir = Directory::from(share.as_path());
        dir.mark(false).unwrap();
        dir.write("captures/one", b"x").unwrap();
        // As if it were unmounted: what has its name is on another filesystem.
        fs::rename(&share, elsewhere).unwrap();
        fs::create_dir(&share).unwrap();
        dir.marked.set(dir.marked.get().map(|marked| marked + 1));
        let two = || dir.write("captures/two", b"x");
        for result in [two(), dir.mark(true), two(), read(&dir, "captures/one").map(drop)] {
            assert!(matches!(result, Err(Error::Unmounted { .. })), "{result:?}");
        }
        assert_eq!(fs::read_dir(&share).unwrap().count(), 0);
        // It was emptied on purpose.
        fs::create_dir(share.join("captures")).unwrap();
        dir.mark(true).unwrap();
        two().unwrap();
    }
}
