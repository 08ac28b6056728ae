//! Files outside of a store, which people and other programs read. Paths are followed as the caller gave them.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::{Spot, random_hex, rename_noreplace};

/// A file that gets its name when it is whole: whoever reads that name sees what was there before, or all of the new content. If
/// it is dropped before, nothing is left behind. Where the filesystem supports `O_TMPFILE`, that is true even if the process is
/// killed.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    path: PathBuf,
    /// The name until it is whole, if it has one.
    temporary: Option<PathBuf>,
}

impl NewFile {
    /// Creates a file that is to be at this path, with this mode, which the umask restricts.
    ///
    /// # Errors
    ///
    /// If its directory is missing, or may not be written.
    pub fn create(path: &Path, mode: u32) -> io::Result<Self> {
        let path = path.to_owned();
        if let Some(file) = unnamed(directory_of(&path), mode) {
            return Ok(Self { file, path, temporary: None });
        }
        let temporary = temporary_for(&path)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        Ok(Self { file, path, temporary: Some(temporary) })
    }

    /// Sets its mode, whatever the umask.
    ///
    /// # Errors
    ///
    /// If the filesystem refuses.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.file.set_permissions(Permissions::from_mode(mode))
    }

    /// Waits until its content is on disk.
    ///
    /// # Errors
    ///
    /// If it cannot be written there.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Gives it its name, in place of what has it.
    ///
    /// # Errors
    ///
    /// If that cannot be replaced.
    pub fn replace(mut self) -> io::Result<()> {
        fs::rename(self.named()?, &self.path)?;
        self.temporary = None;
        Ok(())
    }

    /// Gives it its name if nothing has it.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if something has it.
    pub fn keep_existing(mut self) -> crate::Result<()> {
        let temporary = self.named().map_err(|e| crate::Error::io("write", &self.path, e))?;
        rename_noreplace(&Spot::outside(&temporary), &Spot::outside(&self.path))?;
        self.temporary = None;
        Ok(())
    }

    // Returns its temporary name, which it gets now if it has none.
    fn named(&mut self) -> io::Result<PathBuf> {
        if self.temporary.is_none() {
            let temporary = temporary_for(&self.path)?;
            let link = own_descriptors().join(self.file.as_raw_fd().to_string());
            rustix::fs::linkat(CWD, &link, CWD, &temporary, AtFlags::SYMLINK_FOLLOW)?;
            self.temporary = Some(temporary);
        }
        // It was set just now, or before.
        Ok(self.temporary.clone().unwrap_or_default())
    }
}

impl Write for NewFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.file.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // If the file cannot be removed, nothing more can be done.
            let _ = fs::remove_file(temporary);
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

// A name that no pattern of a collector or a configuration directory matches.
fn temporary_for(path: &Path) -> io::Result<PathBuf> {
    Ok(path.with_file_name(format!(".diagctl-{}", random_hex().map_err(io::Error::other)?)))
}

fn own_descriptors() -> &'static Path {
    Path::new("/proc/self/fd")
}

// Creates a file without a name. Returns `None` if the filesystem has no such files or the file could not be named later (see
// open(2), O_TMPFILE).
fn unnamed(dir: &Path, mode: u32) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, dir, flags, Mode::from_raw_mode(mode)).ok()?;
    own_descriptors().is_dir().then(|| File::from(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn with_a_temporary_name(path: &Path) -> NewFile {
        let mut file = NewFile::create(path, 0o600).unwrap();
        file.named().unwrap();
        file
    }

    #[test]
    fn a_name_has_the_old_content_until_the_new_is_whole_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        fs::write(&path, "old").unwrap();
        let unnamed = |path: &Path| NewFile::create(path, 0o600).unwrap();
        for create in [&unnamed as &dyn Fn(&Path) -> NewFile, &with_a_temporary_name] {
            let mut file = create(&path);
            file.write_all(b"half").unwrap();
            drop(file);
            assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(dir.path()).len()), ("old", 1));
        }
        let mut file = NewFile::create(&path, 0o600).unwrap();
        file.write_all(b"whole").unwrap();
        file.set_mode(0o644).unwrap();
        file.replace().unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(dir.path()).len()), ("whole", 1));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn what_came_meanwhile_is_kept_if_it_is_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        for create in [|path: &Path| NewFile::create(path, 0o600).unwrap(), with_a_temporary_name] {
            let mut file = create(&path);
            file.write_all(b"new").unwrap();
            fs::write(&path, "came between").unwrap();
            assert!(file.keep_existing().unwrap_err().is_existing());
            assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(dir.path()).len()), ("came between", 1));
            fs::remove_file(&path).unwrap();
        }
        NewFile::create(&path, 0o600).unwrap().keep_existing().unwrap();
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn a_directory_that_is_missing_is_an_error() {
        assert_eq!(NewFile::create(Path::new("/no/such/x"), 0o600).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
