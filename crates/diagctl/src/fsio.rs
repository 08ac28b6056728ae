//! File operations whose order matters: sync before rename, no symlink followed, no name that can be guessed.
//!
//! Every error carries what was being done and the path.

mod beneath;
mod tree;

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fs2::FileExt;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};

use crate::clock::Stopwatch;
use crate::error::Failure;

pub use beneath::Spot;
pub use tree::{Entry, children, list, occupied, occupied_tree, read_dir, remove};

/// How long anybody waits for a lock that is held for milliseconds before saying that its holder is stuck.
const LOCK_PATIENCE_MS: u64 = 5_000;

const OWNER_ONLY: Mode = Mode::RUSR.union(Mode::WUSR);

/// Opens a regular file for reading; a symlink, device, FIFO or directory in its place is refused.
pub fn open_read(spot: &Spot) -> Result<File, Failure> {
    Ok(open_to_read(spot)?.0)
}

fn open_to_read(spot: &Spot) -> Result<(File, Metadata), Failure> {
    // Without O_NONBLOCK whoever opens a FIFO waits for a writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = spot.open(flags, Mode::empty()).map_err(|e| Failure::io("open", spot.path(), e))?.into();
    let meta = require_regular(&file, spot)?;
    Ok((file, meta))
}

/// Opens a regular file that is there, to be read at any place, or written in place too. One that also has another name is
/// refused: what is written into it would be written into whatever that stands for.
pub fn open_existing(spot: &Spot, write: bool) -> Result<File, Failure> {
    let flags = OFlags::NONBLOCK | if write { OFlags::RDWR } else { OFlags::RDONLY };
    let file: File = spot.open(flags, Mode::empty()).map_err(|e| Failure::io("open", spot.path(), e))?.into();
    if require_regular(&file, spot)?.nlink() > 1 {
        return Err(Failure::failed(format!("{} has another name too", spot.display())));
    }
    Ok(file)
}

/// Creates a file that did not exist, for its owner only.
pub fn create_new(spot: &Spot) -> Result<File, Failure> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let file = spot.open(flags, OWNER_ONLY).map_err(|e| Failure::io("create", spot.path(), e))?;
    Ok(file.into())
}

/// Opens a regular file for reading and writing, and creates it where there is none.
pub fn open_or_create(spot: &Spot) -> Result<(File, Metadata), Failure> {
    open_to_write(spot, OFlags::empty())
}

fn open_to_write(spot: &Spot, more: OFlags) -> Result<(File, Metadata), Failure> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK | more;
    let file = spot.open(flags, OWNER_ONLY).map_err(|e| Failure::io("open", spot.path(), e))?.into();
    let meta = require_regular(&file, spot)?;
    Ok((file, meta))
}

// What is written into a file that also has another name is written into whatever that stands for. Everything that is written
// in place is a cache or a log: it begins anew, and the other name keeps what there was.
fn open_alone(spot: &Spot, more: OFlags) -> Result<(File, Metadata), Failure> {
    let opened = open_to_write(spot, more)?;
    if opened.1.nlink() <= 1 {
        return Ok(opened);
    }
    remove_file(spot)?;
    open_to_write(spot, more)
}

/// Makes sure that a file is there, of its directory's group and with the rights that this group has there.
pub fn create_empty(spot: &Spot) -> Result<(), Failure> {
    let (file, _) = open_alone(spot, OFlags::empty())?;
    let dir = stat(&spot.parent()?)?;
    // A file that was there before the directory was widened is of another group.
    std::os::unix::fs::fchown(&file, None, Some(dir.st_gid))
        .map_err(|e| Failure::io("set the group of", spot.path(), e))?;
    widen_like_parent(&file, spot)
}

/// What is there; of a symbolic link, the link.
pub fn stat(spot: &Spot) -> Result<rustix::fs::Stat, Failure> {
    spot.stat().map_err(|e| Failure::io("examine", spot.path(), e))
}

fn require_regular(file: &File, spot: &Spot) -> Result<Metadata, Failure> {
    let meta = file.metadata().map_err(|e| Failure::io("examine", spot.path(), e))?;
    if meta.is_file() {
        return Ok(meta);
    }
    Err(Failure::failed(format!("{} is not a regular file", spot.display()))
        .hint("something else was put in its place; move it away"))
}

/// Reads a whole file, refusing one that is larger than `max` bytes.
pub fn read_bounded(spot: &Spot, max: u64) -> Result<Vec<u8>, Failure> {
    let (file, meta) = open_to_read(spot)?;
    let length = meta.len();
    let mut data = Vec::new();
    // What is too large, and perhaps sparse, costs neither time nor memory.
    if length <= max {
        data.reserve(usize::try_from(length).unwrap_or(0) + 1);
        file.take(max + 1).read_to_end(&mut data).map_err(|e| Failure::io("read", spot.path(), e))?;
    }
    if length > max || data.len() as u64 > max {
        return Err(Failure::failed(format!("{} is larger than {max} bytes", spot.display()))
            .hint("this is not what diagctl wrote; move the file away"));
    }
    Ok(data)
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
pub fn write_atomic(spot: &Spot, data: &[u8], durability: Durability) -> Result<(), Failure> {
    write_atomic_with(spot, durability, |file| file.write_all(data))
}

/// The same for content that is not in memory as a whole.
pub fn write_atomic_with(
    spot: &Spot,
    durability: Durability,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), Failure> {
    let parent = spot.parent()?;
    let temp = parent.join(format!(".tmp-{}", random_hex()?));
    let result = write_and_rename(&temp, spot, durability, write);
    if result.is_err() {
        // The rename did not happen, or the caller must not trust it; a left-over temporary helps nobody.
        let _ = remove_file(&temp);
    }
    result?;
    if durability == Durability::Synced {
        sync_dir(&parent)?;
    }
    Ok(())
}

/// Rewrites a small file in place: cheaper than replacing it, and a crash in between leaves garbage. For caches that
/// are only written under a lock and whose garbage is as good as nothing.
pub fn overwrite(spot: &Spot, data: &[u8]) -> Result<(), Failure> {
    let (mut file, meta) = open_alone(spot, OFlags::empty())?;
    widen_like_parent(&file, spot)?;
    file.write_all(data).map_err(|e| Failure::io("write", spot.path(), e))?;
    let length = data.len() as u64;
    if meta.len() > length {
        file.set_len(length).map_err(|e| Failure::io("shorten", spot.path(), e))?;
    }
    Ok(())
}

fn write_and_rename(
    temp: &Spot,
    spot: &Spot,
    durability: Durability,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut file = create_new(temp)?;
    widen_like_parent(&file, temp)?;
    write(&mut file).map_err(|e| Failure::io("write", spot.path(), e))?;
    if durability == Durability::Synced {
        file.sync_all().map_err(|e| Failure::io("sync", spot.path(), e))?;
    }
    rename(temp, spot)
}

/// Gives a new file the group's right to read when its directory has it (`group = …` in the configuration).
pub fn widen_like_parent(file: &File, spot: &Spot) -> Result<(), Failure> {
    if stat(&spot.parent()?)?.st_mode & 0o040 != 0 {
        rustix::fs::fchmod(file, Mode::from_raw_mode(0o640))
            .map_err(|e| Failure::io("set the mode of", spot.path(), e.into()))?;
    }
    Ok(())
}

/// The directory that holds a path.
pub fn parent_of(path: &Path) -> Result<&Path, Failure> {
    path.parent().ok_or_else(|| Failure::failed(format!("{} has no parent directory", path.display())))
}

/// Syncs a directory, so that the names in it survive a power cut.
pub fn sync_dir(spot: &Spot) -> Result<(), Failure> {
    let synced = spot.open(tree::LISTED, Mode::empty()).and_then(|dir| File::from(dir).sync_all());
    synced.map_err(|e| Failure::io("sync", spot.path(), e))
}

/// Sets the mode of a directory.
pub fn set_dir_mode(spot: &Spot, mode: u32) -> Result<(), Failure> {
    let dir = spot.open(tree::LISTED, Mode::empty());
    dir.and_then(|dir| Ok(rustix::fs::fchmod(dir, Mode::from_raw_mode(mode))?))
        .map_err(|e| Failure::io("set the mode of", spot.path(), e))
}

/// Gives a directory to a group.
pub fn set_dir_group(spot: &Spot, gid: u32) -> io::Result<()> {
    std::os::unix::fs::fchown(spot.open(tree::LISTED, Mode::empty())?, None, Some(gid))
}

/// Makes a file its owner's alone.
pub fn close_to_others(spot: &Spot) -> Result<(), Failure> {
    let file = open_read(spot)?;
    rustix::fs::fchmod(file, OWNER_ONLY).map_err(|e| Failure::io("set the mode of", spot.path(), e.into()))
}

/// Creates one directory with the given mode; that it exists already is not an error.
pub fn create_dir(spot: &Spot, mode: u32) -> Result<(), Failure> {
    match spot.at(|dir, name| rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode))) {
        Ok(()) => set_dir_mode(spot, mode),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            if FileType::from_raw_mode(stat(spot)?.st_mode).is_dir() {
                return Ok(());
            }
            Err(Failure::failed(format!("{} is not a directory", spot.display()))
                .hint("something else was put in its place; move it away"))
        }
        Err(e) => Err(Failure::io("create", spot.path(), e)),
    }
}

/// Refuses anything but a real directory of this owner: what belongs to somebody else can be changed by somebody else.
pub fn require_dir(spot: &Spot, owner: u32) -> Result<(), Failure> {
    let stat = stat(spot)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind.is_dir() && stat.st_uid == owner {
        return Ok(());
    }
    let why = if kind.is_symlink() {
        "is a symbolic link, not a directory".to_owned()
    } else if kind.is_dir() {
        format!("is owned by uid {}, the store by uid {owner}", stat.st_uid)
    } else {
        "is not a directory".to_owned()
    };
    Err(Failure::failed(format!("{} {why}", spot.display()))
        .hint("something else was put in its place; nothing was done with it, move it away"))
}

/// Deletes a file, not a directory; that it is gone already is not an error.
pub fn remove_file(spot: &Spot) -> Result<(), Failure> {
    match spot.at(|dir, name| rustix::fs::unlinkat(dir, name, AtFlags::empty())) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::io("delete", spot.path(), e)),
        _ => Ok(()),
    }
}

/// Renames, in place of whatever file is at the target.
pub fn rename(from: &Spot, to: &Spot) -> Result<(), Failure> {
    rename_with(from, to, RenameFlags::empty()).map_err(|e| Failure::io("replace", to.path(), e))
}

/// Renames without ever replacing anything at the target.
pub fn rename_noreplace(from: &Spot, to: &Spot) -> Result<(), Failure> {
    let moved = match try_rename_noreplace(from, to) {
        // Who moves a directory writes into it: it has another above it then.
        Err(e)
            if e.kind() == io::ErrorKind::PermissionDenied && from.at(|dir, name| tree::regain(dir, name)).is_ok() =>
        {
            try_rename_noreplace(from, to)
        }
        other => other,
    };
    moved.map_err(|e| Failure::io("move into place", to.path(), e))
}

fn try_rename_noreplace(from: &Spot, to: &Spot) -> io::Result<()> {
    match rename_with(from, to, RenameFlags::NOREPLACE) {
        // NFS and most FUSE filesystems know no flags. The store's names are random, and made by the holder of a lock: a look
        // beforehand is as good there.
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

/// Appends one line in one write. A torn last line, left by a crash, is ended first so that it cannot swallow
/// the new one.
pub fn append_line(spot: &Spot, line: &[u8], durability: Durability) -> Result<(), Failure> {
    let (mut file, _) = open_alone(spot, OFlags::APPEND)?;
    widen_like_parent(&file, spot)?;
    let mut data = Vec::with_capacity(line.len() + 2);
    if file.seek(SeekFrom::End(0)).map_err(|e| Failure::io("read", spot.path(), e))? > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))
            .and_then(|_| file.read_exact(&mut last))
            .map_err(|e| Failure::io("read", spot.path(), e))?;
        if last != *b"\n" {
            data.push(b'\n');
        }
    }
    data.extend_from_slice(line);
    data.push(b'\n');
    file.write_all(&data).map_err(|e| Failure::io("append to", spot.path(), e))?;
    if durability == Durability::Synced {
        file.sync_all().map_err(|e| Failure::io("sync", spot.path(), e))?;
    }
    Ok(())
}

/// Appends bytes in one write, without a look at what is there; returns the file's length afterwards.
pub fn append_raw(spot: &Spot, data: &[u8]) -> Result<u64, Failure> {
    let (mut file, meta) = open_alone(spot, OFlags::APPEND)?;
    widen_like_parent(&file, spot)?;
    file.write_all(data).map_err(|e| Failure::io("append to", spot.path(), e))?;
    Ok(meta.len() + data.len() as u64)
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
    pub fn lock(spot: &Spot) -> Result<Self, Failure> {
        let (file, _) = open_or_create(spot)?;
        let waited = Stopwatch::start();
        loop {
            match FileExt::try_lock_exclusive(&file) {
                Ok(()) => return Ok(Self { _file: file, since: Stopwatch::start() }),
                Err(e) if e.raw_os_error() != fs2::lock_contended_error().raw_os_error() => {
                    return Err(Failure::io("lock", spot.path(), e));
                }
                Err(_) if waited.is_past(LOCK_PATIENCE_MS) => {
                    return Err(Failure::failed(format!(
                        "{} has been locked for {} by another process",
                        spot.display(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn here() -> (tempfile::TempDir, Spot) {
        let dir = tempfile::tempdir().unwrap();
        let held = Spot::hold(dir.path()).unwrap();
        (dir, held)
    }

    #[test]
    fn a_torn_last_line_does_not_swallow_the_next() {
        let (_dir, held) = here();
        let log = held.join("log");
        fs::write(log.path(), "{\"whole\":1}\n{\"tor").unwrap();
        append_line(&log, b"{\"next\":2}", Durability::Synced).unwrap();
        assert_eq!(fs::read_to_string(log.path()).unwrap(), "{\"whole\":1}\n{\"tor\n{\"next\":2}\n");
    }

    #[test]
    fn a_symlink_a_fifo_and_a_directory_are_not_read() {
        let (_dir, held) = here();
        let (link, fifo) = (held.join("link"), held.join("fifo"));
        fs::write(held.join("file").path(), "x").unwrap();
        std::os::unix::fs::symlink("file", link.path()).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, fifo.path(), FileType::Fifo, OWNER_ONLY, 0).unwrap();
        for spot in [held.clone(), Spot::outside(held.path())] {
            assert!(read_bounded(&spot.join("file"), 100).is_ok());
            assert!(read_bounded(&spot.join("link"), 100).is_err());
            assert!(read_bounded(&spot.join("fifo"), 100).unwrap_err().message.contains("not a regular file"));
            assert!(read_bounded(&spot, 100).is_err());
        }
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_content_and_no_temporary() {
        let (dir, held) = here();
        let target = held.join("target");
        create_dir(&target, 0o700).unwrap(); // a directory cannot be replaced by a file
        assert!(write_atomic(&target, b"x", Durability::Synced).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_overwritten_is_exactly_the_new_content() {
        let (_dir, held) = here();
        let cache = held.join("cache");
        for content in ["long content", "short", "longer than before"] {
            overwrite(&cache, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(cache.path()).unwrap(), content);
        }
    }

    #[test]
    fn a_file_that_also_has_another_name_keeps_its_content() {
        let (_dir, held) = here();
        for write in [
            |spot: &Spot| overwrite(spot, b"new"),
            |spot: &Spot| append_line(spot, b"new", Durability::Volatile),
            |spot: &Spot| append_raw(spot, b"new").map(drop),
            |spot: &Spot| write_atomic(spot, b"new", Durability::Volatile),
            create_empty,
        ] {
            let (victim, planted) = (held.join("victim"), held.join("planted"));
            fs::write(victim.path(), "precious").unwrap();
            fs::hard_link(victim.path(), planted.path()).unwrap();
            write(&planted).unwrap();
            assert_eq!(fs::read_to_string(victim.path()).unwrap(), "precious");
            assert!(!fs::read_to_string(planted.path()).unwrap().contains("precious"));
            remove(&planted).unwrap();
        }
    }

    #[test]
    fn a_rename_never_replaces() {
        let (_dir, held) = here();
        let (a, b) = (held.join("a"), held.join("b"));
        create_dir(&a, 0o700).unwrap();
        create_dir(&b, 0o700).unwrap();
        assert!(rename_noreplace(&a, &b).is_err());
        assert!(a.exists() && b.exists());
        rename_noreplace(&a, &b.join("a")).unwrap();
        assert!(!a.exists() && b.join("a").is_dir());
    }
}
