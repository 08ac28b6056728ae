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

use std::cell::Cell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// The bytes that this command will still write.
    reserved: Arc<AtomicU64>,
}

/// Room on the filesystem for bytes that are not written yet.
#[derive(Debug)]
pub struct Reserved {
    all: Arc<AtomicU64>,
    left: Cell<u64>,
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
        let cache = Self { dir: dir.to_owned(), most, reserved: Arc::default() };
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
            // Another command may have put a good one in its place.
            if is_same(&file, &blob) {
                match fs::remove_file(&blob) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(&blob)(e)),
                    _ => {}
                }
            }
            return Ok(false);
        }
        // Its time says when it was used last. Without it, the file goes earlier.
        let _ = file.set_modified(now());
        place(&file, &blob, to)?;
        Ok(true)
    }

    /// Removes what was not used for longest until so many bytes fit, and reserves room for them. Fails, and removes nothing, if the
    /// filesystem would have no room for them all the same.
    pub fn make_room(&self, bytes: u64) -> Result<Reserved> {
        // Others may receive what has a dot.
        let mut blobs: Vec<Blob> = files(&self.blobs()).filter(|blob| !is_temporary(&blob.path)).collect();
        // One that is longer than the whole cache would drive out all others.
        blobs.sort_by_key(|blob| (blob.bytes <= self.most, blob.used));
        let reserved = self.reserved.load(Ordering::Relaxed);
        let mut total = blobs.iter().map(|blob| blob.bytes).fold(reserved, u64::saturating_add);
        let mut removed = Vec::new();
        for blob in blobs {
            if total.saturating_add(bytes) <= self.most || bytes > self.most {
                break;
            }
            total -= blob.bytes;
            removed.push(blob);
        }
        let freed = removed.iter().filter(|blob| blob.links == 1).map(|blob| blob.bytes).sum();
        self.require_space(bytes, freed)?;
        for blob in removed {
            // Whoever reads it goes on with his link. It may be gone.
            let _ = fs::remove_file(&blob.path);
        }
        self.reserve(bytes)
    }

    /// Reserves room on the filesystem for bytes that do not go into the cache.
    pub fn reserve(&self, bytes: u64) -> Result<Reserved> {
        self.require_space(bytes, 0)?;
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
        Ok(Reserved { all: self.reserved.clone(), left: Cell::new(bytes) })
    }

    // Fails if there is no room for so many bytes beside those that are reserved, once so many are freed.
    fn require_space(&self, bytes: u64, freed: u64) -> Result<()> {
        let space = rustix::fs::statvfs(&self.dir).map_err(|e| failed(&self.dir)(e.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let bytes = bytes.saturating_add(self.reserved.load(Ordering::Relaxed));
        let needed = bytes.saturating_add(LEAVE);
        if needed > free.saturating_add(freed) {
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

    /// Keeps a file that was received whole, and links it into a view. Returns the difference if it is not the one that was expected.
    pub fn keep(&self, incoming: Incoming, sha256: &str, bytes: u64, to: &Path) -> Result<Option<String>> {
        let found = writer::hex(&incoming.hash.clone().finalize());
        if incoming.bytes != bytes {
            return Ok(Some(format!("it has {} bytes, {bytes} were recorded", incoming.bytes)));
        }
        if !found.eq_ignore_ascii_case(sha256) {
            return Ok(Some(format!("it has sha256 {found}, {sha256} was recorded")));
        }
        let blob = self.blob(sha256)?;
        // First: as soon as it has its name, another command may remove it.
        place(&incoming.file, &incoming.path, to)?;
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
            if is_left(&path, at.is_ok_and(is_old)).is_some() {
                let _ = fs::remove_dir_all(path);
            }
        }
        for blob in files(&self.blobs()).filter(|blob| is_temporary(&blob.path)) {
            if is_left(&blob.path, is_old(blob.used)).is_some() {
                let _ = fs::remove_file(blob.path);
            }
        }
    }
}

impl Reserved {
    /// Gives back the room of bytes that were written.
    pub fn written(&self, bytes: usize) {
        let written = self.left.get().min(bytes as u64);
        self.left.set(self.left.get() - written);
        self.all.fetch_sub(written, Ordering::Relaxed);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.all.fetch_sub(self.left.get(), Ordering::Relaxed);
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
    is_same(file, path)
}

// Returns true if a path leads to an open file.
fn is_same(file: &File, path: &Path) -> bool {
    let place = |found: fs::Metadata| (found.dev(), found.ino());
    fs::symlink_metadata(path).map(place).ok() == file.metadata().map(place).ok()
}

// Links an open file, which has a name, to another one. It has been checked, and may have lost its name since.
fn place(mut file: &File, name: &Path, to: &Path) -> Result<()> {
    match fs::hard_link(name, to) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(_) => {
            let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
            file.rewind().and_then(|()| io::copy(&mut file, &mut create()?)).map(drop).map_err(failed(to))
        }
        Ok(()) => Ok(()),
    }
}

/// A leftover, locked where there are locks, so that nobody becomes its owner.
struct Left {
    _lock: Option<File>,
}

// Tells whether something has no owner. Its age counts only where no lock can tell: the clock may have been set.
fn is_left(path: &Path, is_old: bool) -> Option<Left> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(path) else {
        return is_old.then_some(Left { _lock: None });
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Some(Left { _lock: Some(file) }),
        Err(Errno::WOULDBLOCK) => None,
        Err(_) => is_old.then_some(Left { _lock: None }),
    }
}

// Names of files that are being received begin with a dot.
fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

fn now() -> SystemTime {
    let wall_ms = u64::try_from(clock::Reading::take(String::new()).wall_ms).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_millis(wall_ms)
}

/// A file of the cache.
struct Blob {
    path: PathBuf,
    bytes: u64,
    /// Time of the last use.
    used: SystemTime,
    /// The number of its names: a view may have it, too.
    links: u64,
}

fn files(dir: &Path) -> impl Iterator<Item = Blob> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let found = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some(Blob { path: entry.path(), bytes: found.len(), used: found.modified().ok()?, links: found.nlink() })
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
        let to = cache.views().join(random_hex().unwrap());
        assert_eq!(cache.keep(incoming, &sha256(data), data.len() as u64, &to).unwrap(), None);
        assert_eq!(fs::read(&to).unwrap(), data);
        fs::remove_file(to).unwrap();
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
        assert!(cache.keep(other, &name, 3, &dir.path().join("other")).unwrap().unwrap().contains("was recorded"));
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
    fn what_cannot_fit_removes_nothing_and_neither_does_what_another_command_receives() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache"), 10).unwrap();
        let name = store(&cache, b"aaaa");
        let mut incoming = cache.receive().unwrap();
        incoming.add(b"bbbbbbbbbbbb").unwrap();
        assert!(cache.make_room(8 << 40).is_err());
        cache.make_room(11).unwrap();
        cache.make_room(6).unwrap();
        assert!(cache.blob(&name).unwrap().exists() && incoming.path.exists());
        cache.make_room(7).unwrap();
        assert!(!cache.blob(&name).unwrap().exists() && incoming.path.exists());
        let to = dir.path().join("b");
        assert_eq!(cache.keep(incoming, &sha256(b"bbbbbbbbbbbb"), 12, &to).unwrap(), None);
        // The one that is longer than the cache goes first, although it was used last.
        let name = store(&cache, b"aaaa");
        cache.make_room(6).unwrap();
        assert!(cache.blob(&name).unwrap().exists());
    }

    #[test]
    fn room_is_promised_once() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache"), u64::MAX).unwrap();
        let space = rustix::fs::statvfs(dir.path()).unwrap();
        let most = (space.f_bavail * space.f_frsize - LEAVE) / 10 * 7;
        let first = cache.reserve(most).unwrap();
        assert!(cache.reserve(most).is_err() && cache.make_room(most).is_err());
        // What is written is missing on the filesystem.
        first.written(usize::try_from(most / 10 * 9).unwrap());
        drop(cache.make_room(most).unwrap());
        first.written(usize::MAX);
        drop(first);
        assert_eq!(cache.reserved.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn commands_that_find_a_damaged_file_at_once_all_get_a_good_one() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache"), 1 << 20).unwrap();
        let data = vec![b'x'; 100_000];
        let name = store(&cache, &data);
        let command = |number: usize, round: usize| {
            let to = dir.path().join(format!("{round}-{number}"));
            if !cache.link(&name, 100_000, &to).unwrap() {
                let mut incoming = cache.receive().unwrap();
                incoming.add(&data).unwrap();
                assert_eq!(cache.keep(incoming, &name, 100_000, &to).unwrap(), None);
            }
            assert!(fs::read(to).unwrap() == data);
        };
        for round in 0..20 {
            fs::write(cache.blobs().join(".damaged"), "damaged").unwrap();
            fs::rename(cache.blobs().join(".damaged"), cache.blob(&name).unwrap()).unwrap();
            std::thread::scope(|scope| {
                for number in 0..12 {
                    scope.spawn(move || command(number, round));
                }
            });
        }
    }

    #[test]
    fn a_checked_file_that_loses_its_name_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (name, to) = (dir.path().join("name"), dir.path().join("to"));
        fs::write(&name, "abc").unwrap();
        let file = File::open(&name).unwrap();
        fs::remove_file(&name).unwrap();
        place(&file, &name, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"abc");
        place(&file, &name, &to).unwrap_err();
    }

    #[test]
    fn what_is_locked_stays_however_old_it_looks() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache"), 1 << 20).unwrap();
        let (view, lock) = cache.new_view().unwrap();
        let incoming = cache.receive().unwrap();
        let long_ago = now() - LEFTOVER * 2;
        lock.set_modified(long_ago).unwrap();
        incoming.file.set_modified(long_ago).unwrap();
        cache.sweep();
        assert!(view.exists() && incoming.path.exists());
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
