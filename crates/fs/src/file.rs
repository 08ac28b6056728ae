//! Operations on single files. Only regular files are opened, and new files are accessible only to their owner.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::{Error, Result, Spot};

pub(crate) const OWNER_ONLY: Mode = Mode::RUSR.union(Mode::WUSR);

/// Opens a regular file for reading. Refuses a symlink, device, FIFO or directory.
pub fn open_read(spot: &Spot) -> Result<File> {
    Ok(open_to_read(spot)?.0)
}

fn open_to_read(spot: &Spot) -> Result<(File, Metadata)> {
    // Without O_NONBLOCK, opening a FIFO waits for a writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = spot.open(flags, Mode::empty()).map_err(|e| Error::io("open", spot.path(), e))?.into();
    let meta = require_regular(&file, spot)?;
    Ok((file, meta))
}

/// Opens an existing regular file for reading at any offset, and optionally for writing in place. Refuses a file with a second
/// name, because a write would change the content under that name too.
pub fn open_existing(spot: &Spot, write: bool) -> Result<File> {
    let flags = OFlags::NONBLOCK | if write { OFlags::RDWR } else { OFlags::RDONLY };
    let file: File = spot.open(flags, Mode::empty()).map_err(|e| Error::io("open", spot.path(), e))?.into();
    if require_regular(&file, spot)?.nlink() > 1 {
        return Err(Error::Linked { path: spot.path().to_owned() });
    }
    Ok(file)
}

/// Creates a new file that only its owner can access. Fails if it exists.
pub fn create_new(spot: &Spot) -> Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let file = spot.open(flags, OWNER_ONLY).map_err(|e| Error::io("create", spot.path(), e))?;
    Ok(file.into())
}

/// Opens a regular file for reading and writing, and creates it if it does not exist.
pub fn open_or_create(spot: &Spot) -> Result<(File, Metadata)> {
    open_to_write(spot, OFlags::empty())
}

pub(crate) fn open_to_write(spot: &Spot, more: OFlags) -> Result<(File, Metadata)> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK | more;
    let file = spot.open(flags, OWNER_ONLY).map_err(|e| Error::io("open", spot.path(), e))?.into();
    let meta = require_regular(&file, spot)?;
    Ok((file, meta))
}

fn require_regular(file: &File, spot: &Spot) -> Result<Metadata> {
    let meta = file.metadata().map_err(|e| Error::io("examine", spot.path(), e))?;
    if meta.is_file() {
        return Ok(meta);
    }
    Err(Error::NotRegular { path: spot.path().to_owned() })
}

/// Returns an entry's metadata. For a symbolic link, that of the link itself.
pub fn stat(spot: &Spot) -> Result<rustix::fs::Stat> {
    spot.stat().map_err(|e| Error::io("examine", spot.path(), e))
}

/// Reads a whole file. Refuses a file larger than `max` bytes.
pub fn read_bounded(spot: &Spot, max: u64) -> Result<Vec<u8>> {
    let (file, meta) = open_to_read(spot)?;
    let length = meta.len();
    let mut data = Vec::new();
    // A file that is too large, and perhaps sparse, must cost neither time nor memory.
    if length <= max {
        data.reserve(usize::try_from(length).unwrap_or(0) + 1);
        file.take(max + 1).read_to_end(&mut data).map_err(|e| Error::io("read", spot.path(), e))?;
    }
    if length > max || data.len() as u64 > max {
        return Err(Error::TooLarge { path: spot.path().to_owned(), max });
    }
    Ok(data)
}

/// Gives a new file's group the right to read, if its directory gives the group that right.
pub fn widen_like_parent(file: &File, spot: &Spot) -> Result<()> {
    if stat(&spot.parent()?)?.st_mode & 0o040 != 0 {
        rustix::fs::fchmod(file, Mode::from_raw_mode(0o640))
            .map_err(|e| Error::io("set the mode of", spot.path(), e))?;
    }
    Ok(())
}

/// Removes all rights to a file from everybody but its owner.
pub fn close_to_others(spot: &Spot) -> Result<()> {
    let file = open_read(spot)?;
    rustix::fs::fchmod(file, OWNER_ONLY).map_err(|e| Error::io("set the mode of", spot.path(), e))
}

/// Deletes a file, but not a directory. Succeeds if it is gone already.
pub fn remove_file(spot: &Spot) -> Result<()> {
    match spot.at(|dir, name| rustix::fs::unlinkat(dir, name, AtFlags::empty())) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("delete", spot.path(), e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use rustix::fs::FileType;

    #[test]
    fn a_symlink_a_fifo_and_a_directory_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let held = Spot::hold(dir.path()).unwrap();
        let (link, fifo) = (held.join("link"), held.join("fifo"));
        fs::write(held.join("file").path(), "x").unwrap();
        std::os::unix::fs::symlink("file", link.path()).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, fifo.path(), FileType::Fifo, OWNER_ONLY, 0).unwrap();
        for spot in [held.clone(), Spot::outside(held.path())] {
            assert!(read_bounded(&spot.join("file"), 100).is_ok());
            assert!(read_bounded(&spot.join("link"), 100).is_err());
            assert!(matches!(read_bounded(&spot.join("fifo"), 100), Err(Error::NotRegular { .. })));
            assert!(read_bounded(&spot, 100).is_err());
        }
    }
}
