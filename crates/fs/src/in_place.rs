//! Files that are modified in place: caches and logs, never anything that must be intact after a crash.

use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, fchown};

use rustix::fs::OFlags;

use crate::file::open_to_write;
use crate::{Durability, Error, Result, Spot, remove_file, stat, widen_like_parent};

// Opens a file for writing in place. A write into a file with a second name would change the content under that name too. Such
// a file is therefore started anew, and the other name keeps the old content.
fn open_alone(spot: &Spot, more: OFlags) -> Result<(File, Metadata)> {
    let opened = open_to_write(spot, more)?;
    if opened.1.nlink() <= 1 {
        return Ok(opened);
    }
    remove_file(spot)?;
    open_to_write(spot, more)
}

/// Ensures that a file exists, with its directory's group and the rights that the group has there.
pub fn create_empty(spot: &Spot) -> Result<()> {
    let (file, _) = open_alone(spot, OFlags::empty())?;
    let dir = stat(&spot.parent()?)?;
    // A file that is older than the directory's group has another group.
    fchown(&file, None, Some(dir.st_gid)).map_err(|e| Error::io("set the group of", spot.path(), e))?;
    widen_like_parent(&file, spot)
}

/// Rewrites a small file in place. Cheaper than replacing it, but a crash can leave garbage. For caches that are written only
/// under a lock and whose loss does no harm.
pub fn overwrite(spot: &Spot, data: &[u8]) -> Result<()> {
    let (mut file, meta) = open_alone(spot, OFlags::empty())?;
    widen_like_parent(&file, spot)?;
    file.write_all(data).map_err(|e| Error::io("write", spot.path(), e))?;
    let length = data.len() as u64;
    if meta.len() > length {
        file.set_len(length).map_err(|e| Error::io("shorten", spot.path(), e))?;
    }
    Ok(())
}

/// Appends one line in a single write. If a crash left a torn last line, that line is ended first so that it cannot swallow the
/// new one.
pub fn append_line(spot: &Spot, line: &[u8], durability: Durability) -> Result<()> {
    let (mut file, _) = open_alone(spot, OFlags::APPEND)?;
    widen_like_parent(&file, spot)?;
    let mut data = Vec::with_capacity(line.len() + 2);
    if file.seek(SeekFrom::End(0)).map_err(|e| Error::io("read", spot.path(), e))? > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))
            .and_then(|_| file.read_exact(&mut last))
            .map_err(|e| Error::io("read", spot.path(), e))?;
        if last != *b"\n" {
            data.push(b'\n');
        }
    }
    data.extend_from_slice(line);
    data.push(b'\n');
    file.write_all(&data).map_err(|e| Error::io("append to", spot.path(), e))?;
    if durability == Durability::Synced {
        file.sync_all().map_err(|e| Error::io("sync", spot.path(), e))?;
    }
    Ok(())
}

/// Appends bytes in a single write, without looking at the content. Returns the new length of the file.
pub fn append_raw(spot: &Spot, data: &[u8]) -> Result<u64> {
    let (mut file, meta) = open_alone(spot, OFlags::APPEND)?;
    widen_like_parent(&file, spot)?;
    file.write_all(data).map_err(|e| Error::io("append to", spot.path(), e))?;
    Ok(meta.len() + data.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use crate::{remove, write_atomic};

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
    fn an_overwritten_file_has_exactly_the_new_content() {
        let (_dir, held) = here();
        let cache = held.join("cache");
        for content in ["long content", "short", "longer than before"] {
            overwrite(&cache, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(cache.path()).unwrap(), content);
        }
    }

    #[test]
    fn a_hard_linked_file_keeps_its_content() {
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
}
