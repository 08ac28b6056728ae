//! A directory as the remote: a disk of its own, or a share that several machines mount.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use diagctl_fs::random_hex;

use crate::error::{Error, Result};
use crate::keys::Object;

/// The file that a remote has, and an empty mount point has not.
const MARK: &str = ".diagctl";
/// The beginning of the name of a file that is not complete.
const TEMPORARY: &str = ".tmp-";
/// The age from which on such a file is taken for a leftover, milliseconds.
const UNFINISHED_MS: u64 = 24 * 3600 * 1000;

/// Returns the directory if it exists. A share that is not mounted must not become a directory of the node's own disk, where shipped
/// captures would be lost with the node.
pub fn require(dir: &Path) -> Result<&Path> {
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => Ok(dir),
        Ok(_) => Err(failed("use", dir)(io::ErrorKind::NotADirectory.into())),
        Err(e) => Err(failed("open", dir)(e)),
    }
}

/// Leaves a mark in the directory. Fails if captures were sent to it before, and it has neither them nor the mark: then it is a mount
/// point without its share.
pub fn mark(dir: &Path, has_captures: bool) -> Result<()> {
    let mark = require(dir)?.join(MARK);
    if mark.exists() {
        return Ok(());
    }
    require_share(dir, has_captures)?;
    write(
        &mark,
        b"Captures of diagctl. Without this file the directory is taken for a mount point without its share.\n",
    )
}

/// Fails as [`mark`] does, and changes nothing.
pub fn require_share(dir: &Path, has_captures: bool) -> Result<()> {
    if has_captures && !is_used(require(dir)?) { Err(Error::Unmounted { path: dir.into() }) } else { Ok(()) }
}

/// Returns false if nothing was ever sent to the directory: it may be a mount point without its share.
pub fn is_used(dir: &Path) -> bool {
    dir.join(MARK).exists() || dir.join("captures").exists()
}

/// Returns the first directory on the way to a key that this user must write to and may not, with the uid of its owner.
pub fn closed(dir: &Path, key: &str) -> Option<(PathBuf, u32)> {
    let parents = key.match_indices('/').map(|(at, _)| dir.join(&key[..at]));
    let mut there: Vec<PathBuf> = parents.take_while(|parent| parent.exists()).collect();
    if there.is_empty() {
        there.push(dir.to_owned());
    }
    there.into_iter().find_map(|parent| {
        let allowed = rustix::fs::access(&parent, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK);
        let owner = fs::metadata(&parent).ok()?.uid();
        (allowed == Err(rustix::io::Errno::ACCESS)).then_some((parent, owner))
    })
}

/// Returns true if both are on one filesystem, or `None` if one of them cannot be examined.
pub fn share_a_disk(one: &Path, other: &Path) -> Option<bool> {
    Some(fs::metadata(one).ok()?.dev() == fs::metadata(other).ok()?.dev())
}

/// Writes a file, so that it is whole or not there.
pub fn write(path: &Path, data: &[u8]) -> Result<()> {
    let mut file = Unfinished::create(path)?;
    file.write(data)?;
    file.finish()
}

/// A file that is being written. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub struct Unfinished {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
}

impl Unfinished {
    /// Begins a file, and creates its directory.
    pub fn create(path: &Path) -> Result<Self> {
        let dir = path.parent().unwrap_or(path);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create", dir))?;
        let temporary = dir.join(format!("{TEMPORARY}{}", random_hex()?));
        let open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
        let file = open.map_err(failed("create", path))?;
        Ok(Self { file, temporary, path: path.to_owned() })
    }

    /// Writes the next bytes.
    pub fn write(&mut self, data: &[u8]) -> Result<()> {
        self.file.write_all(data).map_err(failed("write", &self.path))
    }

    /// Puts the file in its place.
    pub fn finish(self) -> Result<()> {
        let dir = self.path.parent().unwrap_or(&self.path);
        self.file.sync_all().map_err(failed("sync", &self.path))?;
        fs::rename(&self.temporary, &self.path).map_err(failed("write", &self.path))?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // A leftover harms nobody: readers ignore it. After `finish` there is none.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Reads a file piece by piece, or returns `None` if there is none.
pub fn pour(path: &Path, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<Option<()>> {
    let mut file = match open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed("read", path))?,
    };
    let mut chunk = vec![0; 128 << 10];
    loop {
        match file.read(&mut chunk).map_err(failed("read", path))? {
            0 => return Ok(Some(())),
            read => sink(&chunk[..read])?,
        }
    }
}

// Another machine may have put anything there: a link out of the directory, or a pipe that never ends.
fn open(path: &Path) -> io::Result<File> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

/// Returns the files at any depth under `area`, of the directories that are wanted.
pub fn list(dir: &Path, area: &str, is_wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Object>> {
    let mut found = Vec::new();
    walk(dir, area, &|key| !name_of(key).starts_with('.') && is_wanted(key), |key, meta| {
        found.push(object(key, meta));
        Ok(())
    })?;
    Ok(found)
}

/// Examines a file, or returns `None` if there is none.
pub fn stat(dir: &Path, key: &str) -> Result<Option<Object>> {
    let path = dir.join(key);
    match fs::symlink_metadata(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        found => Ok(Some(object(key.to_owned(), &found.map_err(failed("examine", &path))?))),
    }
}

fn object(key: String, meta: &fs::Metadata) -> Object {
    let written_ms = u64::try_from(meta.mtime()).unwrap_or(0).saturating_mul(1000);
    let version = format!("{}.{:09} {}", meta.mtime(), meta.mtime_nsec(), meta.ino());
    Object { key, bytes: meta.len(), version, written_ms }
}

/// Deletes what writers that were killed have left unfinished under `area` for a day.
pub fn sweep(dir: &Path, area: &str, now_ms: u64) -> Result<()> {
    let is_left = |name: &str| name.starts_with(TEMPORARY);
    walk(dir, area, &|key| is_left(name_of(key)) || !name_of(key).starts_with('.'), |key, meta| {
        let age_ms = now_ms.saturating_sub(u64::try_from(meta.mtime()).unwrap_or(0).saturating_mul(1000));
        if is_left(name_of(&key)) && age_ms > UNFINISHED_MS { delete(dir, &key) } else { Ok(()) }
    })
}

fn name_of(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

fn walk(
    dir: &Path,
    area: &str,
    is_wanted: &dyn Fn(&str) -> bool,
    mut visit: impl FnMut(String, &fs::Metadata) -> Result<()>,
) -> Result<()> {
    let mut left = vec![area.to_owned()];
    while let Some(name) = left.pop() {
        let path = dir.join(&name);
        let entries = match fs::read_dir(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            read => read.map_err(failed("list", &path))?,
        };
        for entry in entries {
            let entry = entry.map_err(failed("list", &path))?;
            let Ok(inner) = entry.file_name().into_string() else { continue };
            let key = format!("{name}/{inner}");
            if !is_wanted(&key) {
                continue;
            }
            match entry.metadata() {
                // Deleted meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed("examine", &path)(e)),
                Ok(meta) if meta.is_dir() => left.push(key),
                Ok(meta) if meta.is_file() => visit(key, &meta)?,
                Ok(_) => {}
            }
        }
    }
    Ok(())
}

/// Deletes a file, and its directories that are empty by then. One that is gone is deleted.
pub fn delete(dir: &Path, key: &str) -> Result<()> {
    let path = dir.join(key);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("delete", &path)(e)),
        _ => {}
    }
    let mut parent = path.parent();
    // A directory that is not empty stays, as it should.
    while let Some(empty) = parent.filter(|parent| *parent != dir && fs::remove_dir(parent).is_ok()) {
        parent = empty.parent();
    }
    Ok(())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path: PathBuf = path.to_owned();
    move |source| Error::Directory { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_refused_or_cut_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("captures/one/meta.json");
        Unfinished::create(&path).unwrap().write(b"abc").unwrap();
        assert_eq!(
            (pour(&path, |_| Ok(())).unwrap(), fs::read_dir(path.parent().unwrap()).unwrap().count()),
            (None, 0)
        );
        write(&path, b"abc").unwrap();
        let mut data = Vec::new();
        let keep = |chunk: &[u8]| {
            data.extend_from_slice(chunk);
            Ok(())
        };
        pour(&path, keep).unwrap();
        assert_eq!(data, b"abc");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(pour(&link, |_| Ok(())).is_err(), "a link leads out of the directory");
    }
}
