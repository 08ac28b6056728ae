//! File operations whose order matters: sync before rename, no symlink followed, no name that can be guessed.
//!
//! Every error carries what was being done and the path.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use fs2::FileExt;
use rustix::fs::{CWD, OFlags, RenameFlags};

use crate::clock::Stopwatch;
use crate::error::Failure;

/// How long anybody waits for a lock that is held for milliseconds before saying that its holder is stuck.
const LOCK_PATIENCE_MS: u64 = 5_000;

#[expect(clippy::cast_possible_wrap, reason = "open(2) flags are small and positive")]
fn no_follow() -> i32 {
    OFlags::NOFOLLOW.bits() as i32 | OFlags::NONBLOCK.bits() as i32
}

/// Opens a regular file for reading; a symlink, device, FIFO or directory in its place is refused.
pub fn open_read(path: &Path) -> Result<File, Failure> {
    let file =
        OpenOptions::new().read(true).custom_flags(no_follow()).open(path).map_err(|e| Failure::io("open", path, e))?;
    require_regular(&file, path)?;
    Ok(file)
}

/// Creates a file that did not exist, for its owner only.
pub fn create_new(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(no_follow())
        .open(path)
        .map_err(|e| Failure::io("create", path, e))
}

fn open_or_create(path: &Path, append: bool) -> Result<File, Failure> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .append(append)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow())
        .open(path)
        .map_err(|e| Failure::io("open", path, e))?;
    require_regular(&file, path)?;
    Ok(file)
}

/// Makes sure that a file is there, of its directory's group and with the rights that this group has there.
pub fn create_empty(path: &Path) -> Result<(), Failure> {
    let file = open_or_create(path, false)?;
    let parent = parent_of(path)?;
    let dir = fs::symlink_metadata(parent).map_err(|e| Failure::io("examine", parent, e))?;
    // A file that was there before the directory was widened is of another group.
    std::os::unix::fs::fchown(&file, None, Some(dir.gid())).map_err(|e| Failure::io("set the group of", path, e))?;
    widen_like_parent(&file, path)
}

fn require_regular(file: &File, path: &Path) -> Result<(), Failure> {
    let meta = file.metadata().map_err(|e| Failure::io("examine", path, e))?;
    if meta.is_file() {
        return Ok(());
    }
    Err(Failure::failed(format!("{} is not a regular file", path.display()))
        .hint("something else was put in its place; move it away"))
}

/// Reads a whole file, refusing one that is larger than `max` bytes.
pub fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, Failure> {
    let file = open_read(path)?;
    let length = file.metadata().map_or(0, |meta| meta.len());
    let mut data = Vec::new();
    // What is too large, and perhaps sparse, costs neither time nor memory.
    if length <= max {
        data.reserve(usize::try_from(length).unwrap_or(0) + 1);
        file.take(max + 1).read_to_end(&mut data).map_err(|e| Failure::io("read", path, e))?;
    }
    if length > max || data.len() as u64 > max {
        return Err(Failure::failed(format!("{} is larger than {max} bytes", path.display()))
            .hint("this is not what diagctl wrote; move the file away"));
    }
    Ok(data)
}

/// The entries of a directory. Where reading it breaks off that is an error: what was not seen must not pass for absent.
pub fn read_dir(path: &Path) -> Result<Vec<fs::DirEntry>, Failure> {
    fs::read_dir(path).and_then(Iterator::collect).map_err(|e| Failure::io("read", path, e))
}

/// Whether a write has to survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Synced: file first, then the directory that names it.
    Synced,
    /// Left to the kernel; losing it loses nothing that was promised.
    Volatile,
}

/// Replaces a file in one step: readers see the old content or the new, never a part.
pub fn write_atomic(path: &Path, data: &[u8], durability: Durability) -> Result<(), Failure> {
    let parent = parent_of(path)?;
    let temp = parent.join(format!(".tmp-{}", random_hex()?));
    let result = write_and_rename(&temp, path, data, durability);
    if result.is_err() {
        // The rename did not happen, or the caller must not trust it; a left-over temporary helps nobody.
        let _ = fs::remove_file(&temp);
    }
    result?;
    if durability == Durability::Synced {
        sync_dir(parent)?;
    }
    Ok(())
}

/// Rewrites a small file in place: cheaper than replacing it, and a crash in between leaves garbage. For caches that
/// are only written under a lock and whose garbage is as good as nothing.
pub fn overwrite(path: &Path, data: &[u8]) -> Result<(), Failure> {
    let mut file = open_or_create(path, false)?;
    widen_like_parent(&file, path)?;
    file.write_all(data).map_err(|e| Failure::io("write", path, e))?;
    let length = data.len() as u64;
    if file.metadata().is_ok_and(|meta| meta.len() > length) {
        file.set_len(length).map_err(|e| Failure::io("shorten", path, e))?;
    }
    Ok(())
}

fn write_and_rename(temp: &Path, path: &Path, data: &[u8], durability: Durability) -> Result<(), Failure> {
    let mut file = create_new(temp)?;
    widen_like_parent(&file, temp)?;
    file.write_all(data).map_err(|e| Failure::io("write", path, e))?;
    if durability == Durability::Synced {
        file.sync_all().map_err(|e| Failure::io("sync", path, e))?;
    }
    fs::rename(temp, path).map_err(|e| Failure::io("replace", path, e))
}

/// Gives a new file the group's right to read when its directory has it (`group = …` in the configuration).
pub fn widen_like_parent(file: &File, path: &Path) -> Result<(), Failure> {
    let parent = parent_of(path)?;
    let dir = fs::symlink_metadata(parent).map_err(|e| Failure::io("examine", parent, e))?;
    if dir.mode() & 0o040 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o640)).map_err(|e| Failure::io("set the mode of", path, e))?;
    }
    Ok(())
}

/// The directory that holds a path.
pub fn parent_of(path: &Path) -> Result<&Path, Failure> {
    path.parent().ok_or_else(|| Failure::failed(format!("{} has no parent directory", path.display())))
}

/// Syncs a directory, so that the names in it survive a power cut.
pub fn sync_dir(path: &Path) -> Result<(), Failure> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| Failure::io("sync", path, e))
}

/// Creates one directory with the given mode; that it exists already is not an error.
pub fn create_dir(path: &Path, mode: u32) -> Result<(), Failure> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(|e| Failure::io("set the mode of", path, e)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let meta = fs::symlink_metadata(path).map_err(|e| Failure::io("examine", path, e))?;
            if meta.is_dir() {
                return Ok(());
            }
            Err(Failure::failed(format!("{} is not a directory", path.display()))
                .hint("something else was put in its place; move it away"))
        }
        Err(e) => Err(Failure::io("create", path, e)),
    }
}

/// Refuses anything but a real directory of this owner: what is done beneath a path must not be done elsewhere because
/// somebody put a symbolic link in its place.
pub fn require_dir(path: &Path, owner: u32) -> Result<(), Failure> {
    let meta = fs::symlink_metadata(path).map_err(|e| Failure::io("examine", path, e))?;
    if meta.is_dir() && meta.uid() == owner {
        return Ok(());
    }
    let why = if meta.is_symlink() {
        "is a symbolic link, not a directory".to_owned()
    } else if meta.is_dir() {
        format!("is owned by uid {}, the store by uid {owner}", meta.uid())
    } else {
        "is not a directory".to_owned()
    };
    Err(Failure::failed(format!("{} {why}", path.display()))
        .hint("something else was put in its place; nothing was done with it, move it away"))
}

/// Deletes a file, or a directory with everything in it; that it is gone already is not an error.
pub fn remove(path: &Path) -> Result<(), Failure> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|e| Failure::io("delete", path, e)),
    }
}

/// Renames without ever replacing anything at the target.
pub fn rename_noreplace(from: &Path, to: &Path) -> Result<(), Failure> {
    let moved = match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // NFS and most FUSE filesystems know no flags. The store's names are random, and made by the holder of a lock: a look
        // beforehand is as good there.
        Err(rustix::io::Errno::INVAL) if fs::symlink_metadata(to).is_ok() => Err(rustix::io::Errno::EXIST),
        Err(rustix::io::Errno::INVAL) => rustix::fs::rename(from, to),
        other => other,
    };
    moved.map_err(|e| Failure::io("move into place", to, e.into()))
}

/// Appends one line in one write. A torn last line, left by a crash, is ended first so that it cannot swallow
/// the new one.
pub fn append_line(path: &Path, line: &[u8], durability: Durability) -> Result<(), Failure> {
    let mut file = open_or_create(path, true)?;
    widen_like_parent(&file, path)?;
    let mut data = Vec::with_capacity(line.len() + 2);
    if file.seek(SeekFrom::End(0)).map_err(|e| Failure::io("read", path, e))? > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))
            .and_then(|_| file.read_exact(&mut last))
            .map_err(|e| Failure::io("read", path, e))?;
        if last != *b"\n" {
            data.push(b'\n');
        }
    }
    data.extend_from_slice(line);
    data.push(b'\n');
    file.write_all(&data).map_err(|e| Failure::io("append to", path, e))?;
    if durability == Durability::Synced {
        file.sync_all().map_err(|e| Failure::io("sync", path, e))?;
    }
    Ok(())
}

/// Appends bytes in one write, without a look at what is there; returns the file's length afterwards.
pub fn append_raw(path: &Path, data: &[u8]) -> Result<u64, Failure> {
    let mut file = open_or_create(path, true)?;
    widen_like_parent(&file, path)?;
    file.write_all(data).map_err(|e| Failure::io("append to", path, e))?;
    file.metadata().map(|meta| meta.len()).map_err(|e| Failure::io("examine", path, e))
}

/// Holds an exclusive `flock` on a permanent lock file until it is dropped.
#[derive(Debug)]
pub struct LockFile {
    // Closing the only copy of this description releases the lock.
    _file: File,
    since: Stopwatch,
}

impl LockFile {
    /// How long it has been held.
    pub fn held(&self) -> std::time::Duration {
        self.since.elapsed()
    }

    /// Waits for the lock, but not for ever: it is held for milliseconds unless its holder was stopped.
    pub fn lock(path: &Path) -> Result<Self, Failure> {
        let file = open_or_create(path, false)?;
        let waited = Stopwatch::start();
        loop {
            match FileExt::try_lock_exclusive(&file) {
                Ok(()) => return Ok(Self { _file: file, since: Stopwatch::start() }),
                Err(e) if e.raw_os_error() != fs2::lock_contended_error().raw_os_error() => {
                    return Err(Failure::io("lock", path, e));
                }
                Err(_) if waited.is_past(LOCK_PATIENCE_MS) => {
                    return Err(Failure::failed(format!(
                        "{} has been locked for {} by another process",
                        path.display(),
                        crate::units::duration(waited.ms())
                    ))
                    .hint("a stopped diagctl process holds it; find it with `fuser` and resume or kill it"));
                }
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        }
    }
}

/// Eight hexadecimal digits from the kernel's random source.
pub fn random_hex() -> Result<String, Failure> {
    Ok(format!("{:08x}", random_u64()? as u32))
}

/// A random number from the kernel.
pub fn random_u64() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Failure::failed(format!("cannot get random bytes from the kernel: {e}")))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// What a file occupies for accounting: whole 4 KiB blocks, known at once and the same on every filesystem
/// (allocated blocks are not known before the data is written back).
pub fn occupied(len: u64) -> u64 {
    len.div_ceil(4096) * 4096
}

/// What a whole tree occupies, directories included. Entries that vanish while it is walked count nothing.
pub fn occupied_tree(path: &Path) -> u64 {
    walkdir::WalkDir::new(path)
        .follow_links(false)
        .follow_root_links(false)
        .into_iter()
        .filter_map(Result::ok)
        .filter_map(|entry| entry.metadata().ok())
        .map(|meta| if meta.is_file() { occupied(meta.len()) } else { 4096 })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_does_not_swallow_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "{\"whole\":1}\n{\"tor").unwrap();
        append_line(&path, b"{\"next\":2}", Durability::Synced).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"whole\":1}\n{\"tor\n{\"next\":2}\n");
    }

    #[test]
    fn a_symlink_a_fifo_and_a_directory_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
        assert!(read_bounded(&link, 100).is_err());
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(read_bounded(&fifo, 100).unwrap_err().message.contains("not a regular file"));
        assert!(read_bounded(dir.path(), 100).is_err());
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_content_and_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        fs::create_dir(&target).unwrap(); // a directory cannot be replaced by a file
        assert!(write_atomic(&target, b"x", Durability::Synced).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_overwritten_is_exactly_the_new_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        for content in ["long content", "short", "longer than before"] {
            overwrite(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_rename_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir(&a).unwrap();
        fs::create_dir(&b).unwrap();
        assert!(rename_noreplace(&a, &b).is_err());
        assert!(a.exists() && b.exists());
    }
}
