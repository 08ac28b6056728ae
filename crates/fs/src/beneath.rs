//! Names beneath a directory that is held open.
//!
//! The directory is opened once and examined through that descriptor. Every later operation starts there and follows no
//! symbolic link on the way. If another process swaps a directory above or inside it between a check and a use, the operation
//! fails or is unaffected, but is never redirected elsewhere.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{Errno, retry_on_intr};

use crate::Error;

const HOLD: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

// False once openat2(2) has failed: kernels before 5.6 lack it, and older seccomp filters answer EPERM.
static HAS_OPENAT2: AtomicBool = AtomicBool::new(true);

#[derive(Debug)]
struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

/// A file or directory beneath a directory that is held open. Outside any store, an ordinary path, of which only the last
/// component is not followed.
#[derive(Clone, Debug)]
pub struct Spot {
    root: Option<Arc<Root>>,
    /// The whole path, for messages.
    path: PathBuf,
}

impl Spot {
    /// Opens a directory and holds it open. If the path is not a directory, whatever is there is held, and [`Spot::stat`]
    /// describes it.
    pub fn hold(path: &Path) -> io::Result<Self> {
        let fd = retry_on_intr(|| rustix::fs::openat(CWD, path, HOLD, Mode::empty()))?;
        // Without a slash at the end, so that paths can be compared as bytes.
        let path = path.components().as_path().to_owned();
        Ok(Self { root: Some(Arc::new(Root { fd, path: path.clone() })), path })
    }

    /// Creates a spot for an ordinary path.
    pub fn outside(path: &Path) -> Self {
        Self { root: None, path: path.to_owned() }
    }

    /// Returns the whole path, for people and other programs. Must not be used to open the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Displays the path in messages.
    pub fn display(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    /// Returns the name in its directory.
    pub fn file_name(&self) -> Option<&OsStr> {
        self.path.file_name()
    }

    /// Returns the spot of an entry in this directory.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> Self {
        Self { root: self.root.clone(), path: self.path.join(name) }
    }

    /// Returns the directory that contains this spot.
    pub fn parent(&self) -> Result<Self, Error> {
        let parent = self.path.parent();
        let parent = parent.filter(|_| self.root.as_ref().is_none_or(|root| root.path != self.path));
        let parent = parent.ok_or_else(|| Error::NoParent { path: self.path.clone() })?;
        Ok(Self { root: self.root.clone(), path: parent.to_owned() })
    }

    /// Opens the file. A symbolic link is refused; beneath a held directory, anywhere in the name.
    pub fn open(&self, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match &self.root {
            None => Ok(retry_on_intr(|| rustix::fs::openat(CWD, &self.path, flags, mode))?),
            Some(root) => Ok(open_beneath(root.fd.as_fd(), self.name_beneath(root)?, flags, mode)?),
        }
    }

    /// Calls `act` with the containing directory, held open, and the name in it. For system calls that cannot be told to follow
    /// no links.
    pub fn at<T>(&self, act: impl FnOnce(BorrowedFd<'_>, &Path) -> rustix::io::Result<T>) -> io::Result<T> {
        let Some(root) = &self.root else { return Ok(act(CWD, &self.path)?) };
        let whole = self.name_beneath(root)?;
        let (Some(dir), Some(name)) = (whole.parent(), whole.file_name()) else { return Err(Errno::BUSY.into()) };
        if dir.as_os_str().is_empty() {
            return Ok(act(root.fd.as_fd(), Path::new(name))?);
        }
        let dir = open_beneath(root.fd.as_fd(), dir, HOLD | OFlags::DIRECTORY, Mode::empty())?;
        Ok(act(dir.as_fd(), Path::new(name))?)
    }

    /// Returns the descriptor of a held directory, for questions about its filesystem.
    pub fn held(&self) -> io::Result<BorrowedFd<'_>> {
        let root = self.root.as_ref().filter(|root| root.path.as_os_str() == self.path.as_os_str());
        root.map(|root| root.fd.as_fd()).ok_or_else(|| Errno::BADF.into())
    }

    /// Returns the entry's metadata. For a symbolic link, that of the link itself.
    pub fn stat(&self) -> io::Result<Stat> {
        match self.held() {
            Ok(held) => Ok(rustix::fs::fstat(held)?),
            Err(_) => self.at(|dir, name| rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)),
        }
    }

    /// Returns false only if nothing is there. While that cannot be told, a pin marker protects and a capture is not gone.
    pub fn exists(&self) -> bool {
        !self.stat().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Returns true only if a regular file is certainly there. While that cannot be told, no marker permits a deletion.
    pub fn is_file(&self) -> bool {
        self.stat().is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file())
    }

    /// Returns true if a directory is there.
    pub fn is_dir(&self) -> bool {
        self.stat().is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
    }

    fn name_beneath(&self, root: &Root) -> Result<&Path, Errno> {
        // Nearly every path is the root's, a slash, and plain names. Comparing bytes takes a tenth of the time.
        let bytes = self.path.as_os_str().as_bytes().strip_prefix(root.path.as_os_str().as_bytes());
        if let Some(name) = bytes.and_then(|rest| rest.strip_prefix(b"/"))
            && name.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
        {
            return Ok(Path::new(OsStr::from_bytes(name)));
        }
        let name = self.path.strip_prefix(&root.path).map_err(|_| Errno::XDEV)?;
        let plain = name.components().all(|part| matches!(part, Component::Normal(_)));
        if plain { Ok(name) } else { Err(Errno::XDEV) }
    }
}

fn open_beneath(root: BorrowedFd<'_>, name: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    if name.as_os_str().is_empty() {
        return retry_on_intr(|| rustix::fs::openat(root, ".", flags, mode));
    }
    if HAS_OPENAT2.load(Ordering::Relaxed) {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match retry_on_intr(|| rustix::fs::openat2(root, name, flags, mode, resolve)) {
            // If EPERM has another cause, the walk fails with it as well.
            Err(Errno::NOSYS | Errno::PERM) => HAS_OPENAT2.store(false, Ordering::Relaxed),
            other => return other,
        }
    }
    walk_beneath(root, name, flags, mode)
}

// Opens one component after the other. As strict as openat2(2) for names without `..`, and no other names occur.
fn walk_beneath(root: BorrowedFd<'_>, name: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let mut held: Option<OwnedFd> = None;
    let mut parts = name.components().peekable();
    while let Some(part) = parts.next() {
        let dir = held.as_ref().map_or(root, |held| held.as_fd());
        let part: &Path = part.as_ref();
        if parts.peek().is_none() {
            return retry_on_intr(|| rustix::fs::openat(dir, part, flags, mode));
        }
        held = Some(retry_on_intr(|| rustix::fs::openat(dir, part, HOLD | OFlags::DIRECTORY, Mode::empty()))?);
    }
    Err(Errno::NOENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    // Returns a directory to be held, with links that lead out of it and a victim beside it.
    fn scene() -> (tempfile::TempDir, Spot) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("held/a/b")).unwrap();
        fs::write(dir.path().join("held/a/b/file"), "ours").unwrap();
        fs::create_dir(dir.path().join("victim")).unwrap();
        fs::write(dir.path().join("victim/file"), "precious").unwrap();
        symlink("../victim", dir.path().join("held/out")).unwrap();
        symlink("a", dir.path().join("held/within")).unwrap();
        symlink("b/file", dir.path().join("held/a/last")).unwrap();
        let held = Spot::hold(&dir.path().join("held")).unwrap();
        (dir, held)
    }

    #[test]
    fn openat2_and_its_fallback_open_the_same_names() {
        let (_dir, held) = scene();
        let root = held.root.as_ref().unwrap();
        for (name, may) in [
            ("a", true),
            ("a/b", true),
            ("a/b/file", true),
            ("a/b/file/x", false),
            ("a/none", false),
            ("out", false),
            ("out/file", false),
            ("within", false),
            ("within/b/file", false),
            ("a/last", false),
        ] {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            for (how, open) in [("openat2", open_beneath as fn(_, &_, _, _) -> _), ("a walk", walk_beneath)] {
                let opened: Result<OwnedFd, Errno> = open(root.fd.as_fd(), Path::new(name), flags, Mode::empty());
                assert_eq!(opened.is_ok(), may, "{name} by {how}: {opened:?}");
            }
        }
        assert!(HAS_OPENAT2.load(Ordering::Relaxed), "the kernel that runs this test has openat2");
    }

    #[test]
    fn slashes_and_dots_in_a_path_do_not_matter() {
        let (dir, _) = scene();
        for form in ["held/", "./held//", "held/."] {
            let held = Spot::hold(Path::new(&format!("{}/{form}", dir.path().display()))).unwrap();
            assert!(held.is_dir() && held.held().is_ok(), "{form}");
            for name in ["a/b/file", "a//b/file", "a/./b/file", "a/b/file/"] {
                assert!(held.join(name).exists(), "{form} {name}");
            }
            assert!(held.join("a").parent().unwrap().held().is_ok(), "{form}");
        }
        assert!(Spot::hold(Path::new("/")).unwrap().join("proc/self").exists());
    }

    #[test]
    fn no_name_escapes_the_held_directory() {
        let (dir, held) = scene();
        for name in ["..", "../victim/file", "a/../../victim/file", "a/../a", "/etc", "."] {
            let spot = held.join(name);
            let refused = |result: io::Result<()>| assert!(result.is_err(), "{name}");
            // `.` is the directory itself and not a name in it.
            if name != "." {
                refused(spot.open(OFlags::RDONLY, Mode::empty()).map(drop));
                refused(spot.stat().map(drop));
            }
            refused(spot.at(|dir, name| rustix::fs::unlinkat(dir, name, AtFlags::empty())));
        }
        refused_through_links(&held);
        assert_eq!(fs::read_to_string(dir.path().join("victim/file")).unwrap(), "precious");
    }

    fn refused_through_links(held: &Spot) {
        for name in ["out/file", "within/b/file"] {
            assert!(held.join(name).stat().is_err(), "{name}");
            assert!(held.join(name).at(|dir, name| rustix::fs::unlinkat(dir, name, AtFlags::empty())).is_err());
        }
        assert!(held.join("out").exists() && !held.join("out").is_dir());
    }

    #[test]
    fn a_held_directory_stays_the_same_when_its_path_is_reused() {
        let (dir, held) = scene();
        fs::rename(held.path(), dir.path().join("moved")).unwrap();
        symlink("victim", held.path()).unwrap();
        assert!(held.is_dir());
        assert!(held.join("a/b/file").exists());
        assert!(!held.join("file").exists());
    }

    // The kernel refuses the name, which stands for any call that fails.
    #[test]
    fn a_call_that_fails_is_neither_an_absence_nor_a_file() {
        let (_dir, held) = scene();
        let unknown = held.join("x".repeat(300));
        assert!(unknown.exists() && !unknown.is_file());
        let absent = held.join("absent");
        assert!(!absent.exists() && !absent.is_file());
        let file = held.join("a/b/file");
        assert!(file.exists() && file.is_file());
    }
}
