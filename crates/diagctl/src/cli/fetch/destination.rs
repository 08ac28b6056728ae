//! The destination of a fetched report: a new file that is moved into place when it is complete, or an existing special file
//! (device, FIFO, symbolic link) that is written to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::cli::error::Failure;
use crate::exit_code::Exit;
use crate::fsio::{self, NewFile, Spot};
use diagctl_store::units;

/// The treatment of an existing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// The file is replaced in one step.
    Replace,
    /// The file stays, and the command fails.
    Refuse,
}

/// A file that is being written. If it is dropped before [`Destination::finish`], nothing is left behind.
#[derive(Debug)]
pub struct Destination {
    path: PathBuf,
    existing: Existing,
    target: Target,
}

#[derive(Debug)]
enum Target {
    /// A file that gets its name when it is complete.
    New(NewFile),
    /// An existing special file.
    Given(File),
}

impl Destination {
    /// Prepares the destination. A special file is opened; a file to be replaced is not touched yet.
    pub fn open(path: &Path, existing: Existing, store: &Path) -> Result<Self, Failure> {
        if is_within(directory_of(path), store) {
            return Err(Failure::new(Exit::Usage, format!("{} is in the store itself", path.display()))
                .hint("write to another directory with -o"));
        }
        let failed = |e| Failure::output("write", path, e);
        let target = match fs::symlink_metadata(path) {
            Ok(_) if existing == Existing::Refuse => return Err(exists(path)),
            Ok(meta) if meta.is_dir() => {
                return Err(Failure::new(Exit::Usage, format!("{} is a directory", path.display())));
            }
            Ok(meta) if !meta.is_file() => Target::Given(open_existing(path)?),
            // Replacing it takes it away from its owner, who may wait for it.
            Ok(meta) if meta.uid() != rustix::process::geteuid().as_raw() => return Err(foreign(path, meta.uid())),
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => Target::New(NewFile::create(path, 0o600).map_err(failed)?),
        };
        Ok(Self { path: path.to_owned(), existing, target })
    }

    /// Fails if the filesystem has no room for so many bytes. A special file has its own limits.
    pub fn require_room(&self, bytes: u64) -> Result<(), Failure> {
        let Target::New(_) = self.target else { return Ok(()) };
        let dir = directory_of(&self.path);
        let space =
            rustix::fs::statvfs(dir).map_err(|e| Failure::output("examine the filesystem of", dir, e.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if bytes > free {
            let [bytes, free] = [bytes, free].map(units::size);
            let why = format!("{bytes} are needed, {free} are free");
            return Err(Failure::output("write", &self.path, io::Error::new(io::ErrorKind::StorageFull, why)));
        }
        Ok(())
    }

    /// Moves the file into place. Returns false if the data went into a special file instead.
    pub fn finish(self) -> Result<bool, Failure> {
        let Target::New(file) = self.target else { return Ok(false) };
        file.sync().map_err(|e| Failure::output("sync", &self.path, e))?;
        match self.existing {
            Existing::Replace => file.replace().map_err(|e| Failure::output("replace", &self.path, e))?,
            Existing::Refuse => match file.keep_existing() {
                Err(e) if e.is_existing() => return Err(exists(&self.path)),
                other => other?,
            },
        }
        Ok(true)
    }
}

// Opens a device, a FIFO or whatever a link leads to. What belongs to somebody else may be there to receive the data.
fn open_existing(path: &Path) -> Result<File, Failure> {
    let failed = |e| Failure::output("write", path, e);
    let check = |meta: fs::Metadata| {
        let ours = meta.uid() == rustix::process::geteuid().as_raw();
        let is_device = meta.file_type().is_char_device() || meta.file_type().is_block_device();
        if ours || is_device || is_own_descriptor(path) { Ok(()) } else { Err(foreign(path, meta.uid())) }
    };
    // Opening a FIFO waits for a reader, so it is looked at before, too.
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => check(other.map_err(failed)?)?,
    }
    let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    check(meta.clone())?;
    if meta.is_file() {
        file.set_len(0).map_err(failed)?;
    }
    Ok(file)
}

// A descriptor that the caller has opened already may belong to anybody.
fn is_own_descriptor(path: &Path) -> bool {
    ["/dev/stdout", "/dev/stderr"].iter().any(|own| path == Path::new(own))
        || ["/dev/fd/", "/proc/self/fd/"].iter().any(|dir| path.starts_with(dir))
}

fn foreign(path: &Path, uid: u32) -> Failure {
    Failure::failed(format!("{} belongs to somebody else (uid {uid})", path.display()))
        .hint("write to a new file, or to one of your own")
}

/// Returns true if a directory is the store or lies within it.
pub fn is_within(dir: &Path, store: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let Some(store) = identity(store) else { return false };
    // A directory that does not exist yet is created in one that does.
    let real = dir
        .ancestors()
        .find_map(|dir| fs::canonicalize(if dir.as_os_str().is_empty() { Path::new(".") } else { dir }).ok());
    real.is_some_and(|real| real.ancestors().any(|dir| identity(dir) == Some(store)))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Write for Destination {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match &mut self.target {
            Target::New(file) => file.write(data),
            Target::Given(file) => file.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::New(file) => file.flush(),
            Target::Given(file) => file.flush(),
        }
    }
}

/// Creates the directory for a whole capture. An existing directory is used only if `use_existing` is set.
pub fn create_dir(path: &Path, use_existing: bool, store: &Path) -> Result<(), Failure> {
    if is_within(path, store) {
        return Err(Failure::new(Exit::Usage, format!("{} is in the store itself", path.display()))
            .hint("write to another directory with -o"));
    }
    if !use_existing && fs::symlink_metadata(path).is_ok() {
        return Err(exists(path));
    }
    match fs::symlink_metadata(path) {
        // An existing directory keeps its mode.
        Ok(meta) if meta.is_dir() => Ok(()),
        _ => Ok(fsio::create_dir(&Spot::outside(path), 0o700)?),
    }
}

fn exists(path: &Path) -> Failure {
    Failure::failed(format!("{} already exists", path.display()))
        .hint("use --force to replace it, or -o to write elsewhere")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_only_by_a_complete_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        fs::write(&path, "old").unwrap();
        let mut file = Destination::open(&path, Existing::Replace, Path::new("/nowhere")).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(dir.path())), ("old", vec!["out".to_owned()]));
        let mut file = Destination::open(&path, Existing::Replace, Path::new("/nowhere")).unwrap();
        file.write_all(b"whole").unwrap();
        file.finish().unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(dir.path())), ("whole", vec!["out".to_owned()]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_is_never_overwritten_without_force_even_if_it_appears_late() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let mut file = Destination::open(&path, Existing::Refuse, Path::new("/nowhere")).unwrap();
        file.write_all(b"new").unwrap();
        fs::write(&path, "came between").unwrap();
        assert!(file.finish().unwrap_err().message.contains("already exists"));
        assert!(Destination::open(&path, Existing::Refuse, Path::new("/nowhere")).is_err());
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(dir.path()).len()), ("came between", 1));
        assert!(create_dir(dir.path(), false, Path::new("/nowhere")).is_err());
        create_dir(dir.path(), true, Path::new("/nowhere")).unwrap();
    }

    #[test]
    fn what_does_not_fit_is_refused_before_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = Destination::open(&dir.path().join("out"), Existing::Refuse, Path::new("/nowhere")).unwrap();
        file.require_room(1).unwrap();
        let failure = file.require_room(1 << 60).unwrap_err();
        assert!(failure.is_no_space() && failure.message.contains("1024.0 PiB are needed, "), "{}", failure.message);
        drop(file);
        assert_eq!(names(dir.path()), [""; 0]);
        let null = Destination::open(Path::new("/dev/null"), Existing::Replace, Path::new("/nowhere")).unwrap();
        null.require_room(u64::MAX).unwrap();
    }

    #[test]
    fn writing_to_a_link_or_device_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "longer than the new content").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        for path in [link.as_path(), Path::new("/dev/null")] {
            let mut file = Destination::open(path, Existing::Replace, Path::new("/nowhere")).unwrap();
            file.write_all(b"new").unwrap();
            file.finish().unwrap();
        }
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        assert!(Destination::open(dir.path(), Existing::Replace, Path::new("/nowhere")).is_err());
        assert!(Destination::open(&dir.path().join("no/such"), Existing::Replace, Path::new("/nowhere")).is_err());
    }

    #[test]
    fn nothing_is_written_into_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let (store, outside) = (dir.path().join("store"), dir.path().join("outside"));
        fs::create_dir_all(store.join("reports")).unwrap();
        fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&store, outside.join("link")).unwrap();
        let inside = [store.clone(), store.join("reports"), store.join("new/deep"), outside.join("link/reports")];
        for path in inside {
            assert!(is_within(&path, &store), "{}", path.display());
            assert!(Destination::open(&path.join("x"), Existing::Replace, &store).is_err());
            assert!(create_dir(&path.join("x"), true, &store).is_err());
        }
        for path in [outside.clone(), outside.join("new"), dir.path().to_owned()] {
            assert!(!is_within(&path, &store), "{}", path.display());
        }
        assert_eq!(names(&store), ["reports"]);
    }
}
