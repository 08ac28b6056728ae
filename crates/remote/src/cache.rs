//! The read cache: files of captures that were fetched, named after their SHA-256, and the views that commands read.
//!
//! ```text
//! blobs/<sha256>     a file of a capture, whole and checked
//! views/<random>/    a store with the captures of one command, of links to blobs
//! ```
//!
//! A name is a checksum, and a file is checked again before each use, so a stale or a damaged one is never served.
//!
//! Whoever works on a view, or receives a file (`blobs/.tmp-<random>`), holds a shared lock (flock) on it. The next command removes what
//! nobody has locked: it was left by a command that was killed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use diagctl_fs::random_hex;
use diagctl_observe::clock;
use diagctl_store::{units, writer};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Age after which the leftovers of commands that were killed are removed where the filesystem has no locks.
const LEFTOVER: Duration = Duration::from_secs(86_400);

/// The space that is left on the filesystem, bytes.
const LEAVE: u64 = 256 << 20;

/// The directory.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
    most: u64,
}

/// A file on its way into the cache. It is removed unless it is kept.
#[derive(Debug)]
pub struct Incoming {
    path: PathBuf,
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl Cache {
    /// Opens the cache, or creates it. Nobody else may be able to read it.
    pub fn open(dir: &Path, most: u64) -> Result<Self> {
        let cache = Self { dir: dir.to_owned(), most };
        for path in [dir.to_owned(), cache.blobs(), cache.views()] {
            DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed(&path))?;
            let found = fs::symlink_metadata(&path).map_err(failed(&path))?;
            let refuse = |why: String| Err(Error::Cache { path: path.clone(), why });
            if !found.is_dir() {
                return refuse("it is not a directory".into());
            }
            if found.uid() != rustix::process::geteuid().as_raw() {
                return refuse(format!("it belongs to uid {}", found.uid()));
            }
            if found.mode() & 0o077 != 0 {
                return refuse(format!("others may use it (mode {:04o})", found.mode() & 0o7777));
            }
        }
        Ok(cache)
    }

    /// Creates an empty directory for a view. It is this command's while the file is open.
    pub fn new_view(&self) -> Result<(PathBuf, File)> {
        self.sweep();
        loop {
            let view = self.views().join(random_hex()?);
            DirBuilder::new().mode(0o700).create(&view).map_err(failed(&view))?;
            let opened = File::open(&view);
            if is_own(opened.as_ref().ok(), &view) {
                return Ok((view.clone(), opened.map_err(failed(&view))?));
            }
        }
    }

    /// Links a file into a view. Returns false if the cache does not have it; one that is damaged is removed.
    pub fn link(&self, sha256: &str, bytes: u64, to: &Path) -> Result<bool> {
        let blob = self.blob(sha256)?;
        let Ok(file) = File::open(&blob) else { return Ok(false) };
        if !is_whole(&file, sha256, bytes) {
            fs::remove_file(&blob).map_err(failed(&blob))?;
            return Ok(false);
        }
        // Its time says when it was used last. Without it, the file goes earlier.
        let _ = file.set_modified(now());
        match fs::hard_link(&blob, to) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(true),
            // A filesystem without hard links.
            Err(_) => fs::copy(&blob, to).map(|_| true).map_err(failed(to)),
            Ok(()) => Ok(true),
        }
    }

    /// Removes what was not used for longest until so many bytes fit. Fails if the filesystem has no room for them.
    pub fn make_room(&self, bytes: u64) -> Result<()> {
        let mut blobs: Vec<(SystemTime, u64, PathBuf)> = files(&self.blobs()).collect();
        blobs.sort();
        let mut total: u64 = blobs.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, size, path) in blobs {
            if total.saturating_add(bytes) <= self.most {
                break;
            }
            // Whoever reads it goes on with his link.
            if fs::remove_file(&path).is_ok() {
                total -= size;
            }
        }
        let space = rustix::fs::statvfs(&self.dir).map_err(|e| failed(&self.dir)(e.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let needed = bytes.saturating_add(LEAVE);
        if needed > free {
            let [needed, bytes, leave, free] = [needed, bytes, LEAVE, free].map(units::size);
            let why = format!("{needed} are needed, {bytes} for files and {leave} that stay free; {free} are free");
            return Err(Error::Cache { path: self.dir.clone(), why });
        }
        Ok(())
    }

    /// Begins to receive a file.
    pub fn receive(&self) -> Result<Incoming> {
        loop {
            let path = self.blobs().join(format!(".tmp-{}", random_hex()?));
            let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).to_owned();
            let file = options.open(&path).map_err(failed(&path))?;
            if is_own(Some(&file), &path) {
                return Ok(Incoming { path, file, hash: Sha256::new(), bytes: 0 });
            }
        }
    }

    /// Keeps a file that was received whole. Returns the difference if it is not the one that was expected.
    pub fn keep(&self, incoming: Incoming, sha256: &str, bytes: u64) -> Result<Option<String>> {
        let found = writer::hex(&incoming.hash.clone().finalize());
        if incoming.bytes != bytes {
            return Ok(Some(format!("it has {} bytes, {bytes} were recorded", incoming.bytes)));
        }
        if !found.eq_ignore_ascii_case(sha256) {
            return Ok(Some(format!("it has sha256 {found}, {sha256} was recorded")));
        }
        let blob = self.blob(sha256)?;
        fs::rename(&incoming.path, &blob).map_err(failed(&blob))?;
        Ok(None)
    }

    // A name that is not a checksum could be a path.
    fn blob(&self, sha256: &str) -> Result<PathBuf> {
        if sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(self.blobs().join(sha256.to_ascii_lowercase()));
        }
        Err(Error::Cache { path: self.dir.clone(), why: "a checksum is no SHA-256".into() })
    }

    fn blobs(&self) -> PathBuf {
        self.dir.join("blobs")
    }

    fn views(&self) -> PathBuf {
        self.dir.join("views")
    }

    // A leftover costs room until the next time.
    fn sweep(&self) {
        let now = now();
        let is_old = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age > LEFTOVER);
        for entry in fs::read_dir(self.views()).into_iter().flatten().flatten() {
            let (path, at) = (entry.path(), entry.metadata().and_then(|found| found.modified()));
            let unlocked = locked_alone(&path);
            if unlocked.is_some() || at.is_ok_and(is_old) {
                let _ = fs::remove_dir_all(path);
            }
        }
        let is_temporary = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        for (at, _, path) in files(&self.blobs()) {
            if !is_temporary(&path) {
                continue;
            }
            let unlocked = locked_alone(&path);
            if unlocked.is_some() || is_old(at) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

impl Incoming {
    /// Adds a piece.
    pub fn add(&mut self, data: &[u8]) -> Result<()> {
        self.hash.update(data);
        self.bytes += data.len() as u64;
        self.file.write_all(data).map_err(failed(&self.path))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Gone if it was kept.
        let _ = fs::remove_file(&self.path);
    }
}

// Takes the lock of what was just created. Returns false if a sweep was faster. Where there are no locks, nothing is swept early.
fn is_own(file: Option<&File>, path: &Path) -> bool {
    let Some(file) = file else { return path.exists() };
    if flock(file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK) {
        return false;
    }
    let is_same = |there: fs::Metadata| file.metadata().is_ok_and(|held| held.ino() == there.ino());
    fs::symlink_metadata(path).is_ok_and(is_same)
}

// Returns what has no owner, locked, so that nobody becomes its owner.
fn locked_alone(path: &Path) -> Option<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
        .ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(file)
}

fn now() -> SystemTime {
    let wall_ms = u64::try_from(clock::Reading::take(String::new()).wall_ms).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_millis(wall_ms)
}

fn files(dir: &Path) -> impl Iterator<Item = (SystemTime, u64, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let found = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some((found.modified().ok()?, found.len(), entry.path()))
    })
}

fn is_whole(mut file: &File, sha256: &str, bytes: u64) -> bool {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 128 << 10];
    let mut read = 0;
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return read == bytes && writer::hex(&hash.finalize()).eq_ignore_ascii_case(sha256),
            Ok(n) => {
                hash.update(&chunk[..n]);
                read += n as u64;
            }
            Err(_) => return false,
        }
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Cache { path, why: source.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha256(data: &[u8]) -> String {
        let mut hash = Sha256::new();
        hash.update(data);
        writer::hex(&hash.finalize())
    }

    fn store(cache: &Cache, data: &[u8]) -> String {
        let mut incoming = cache.receive().unwrap();
        incoming.add(data).unwrap();
        assert_eq!(cache.keep(incoming, &sha256(data), data.len() as u64).unwrap(), None);
        sha256(data)
    }

    #[test]
    fn only_what_matches_its_checksum_is_kept_or_served() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("a/b"), 1 << 20).unwrap();
        let name = store(&cache, b"abc");
        let to = dir.path().join("link");
        assert!(cache.link(&name, 3, &to).unwrap());
        assert_eq!(fs::read(&to).unwrap(), b"abc");

        let mut other = cache.receive().unwrap();
        other.add(b"abd").unwrap();
        assert!(cache.keep(other, &name, 3).unwrap().unwrap().contains("was recorded"));
        assert_eq!(fs::read_dir(cache.blobs()).unwrap().count(), 1, "nothing is left of what was refused");

        fs::write(cache.blob(&name).unwrap(), "abd").unwrap();
        assert!(!cache.link(&name, 3, &dir.path().join("again")).unwrap());
        assert_eq!(fs::read_dir(cache.blobs()).unwrap().count(), 0, "a damaged one is removed");
        assert!(cache.link("../../etc/passwd", 3, &to).is_err());
    }

    #[test]
    fn what_nobody_holds_any_more_goes_with_the_next_command_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache"), 1 << 20).unwrap();
        let name = store(&cache, b"abc");
        let ((left, lock), held) = (cache.new_view().unwrap(), cache.new_view().unwrap());
        fs::write(left.join("FORMAT"), "1").unwrap();
        drop(lock);
        // Of another command, while the one that made it has ended.
        let (handed_over, lock) = cache.new_view().unwrap();
        let taken = File::open(&handed_over).unwrap();
        flock(&taken, FlockOperation::LockShared).unwrap();
        drop(lock);
        let incoming = cache.receive().unwrap();
        let killed = cache.blobs().join(".tmp-0");
        fs::write(&killed, "half").unwrap();
        cache.sweep();
        let there = [&left, &killed, &held.0, &handed_over, &incoming.path, &cache.blob(&name).unwrap()];
        assert_eq!(there.map(|path| path.exists()), [false, false, true, true, true, true]);
        drop((held.1, taken));
        cache.sweep();
        assert_eq!(fs::read_dir(cache.views()).unwrap().count(), 0);
    }

    #[test]
    fn room_is_made_by_what_was_not_used_for_longest() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache"), 10).unwrap();
        let names = [b"aaaa", b"bbbb"].map(|data| store(&cache, data));
        let old = now() - Duration::from_secs(60);
        File::open(cache.blob(&names[1]).unwrap()).unwrap().set_modified(old).unwrap();
        cache.make_room(4).unwrap();
        assert_eq!(names.map(|name| cache.blob(&name).unwrap().exists()), [true, false]);
        assert!(cache.make_room(u64::MAX).unwrap_err().to_string().contains("are needed"));
    }

    #[test]
    fn a_directory_that_others_may_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        DirBuilder::new().mode(0o755).create(&path).unwrap();
        assert!(Cache::open(&path, 1).unwrap_err().to_string().contains("others may use it (mode 0755)"));
        std::os::unix::fs::symlink("/tmp", dir.path().join("link")).unwrap();
        assert!(Cache::open(&dir.path().join("link"), 1).unwrap_err().to_string().contains("not a directory"));
    }
}
