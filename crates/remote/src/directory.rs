//! A directory as the remote: a disk of its own, or a share that several machines mount.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use diagctl_fs::random_hex;

use crate::error::{Error, Result};

/// Returns the directory if it exists. A share that is not mounted must not become a directory of the node's own disk, where shipped
/// captures would be lost with the node.
pub fn require(dir: &Path) -> Result<&Path> {
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => Ok(dir),
        Ok(_) => Err(failed("use", dir)(io::ErrorKind::NotADirectory.into())),
        Err(e) => Err(failed("open", dir)(e)),
    }
}

/// Writes a file, so that it is whole or not there.
pub fn write(path: &Path, data: &[u8]) -> Result<()> {
    copy(path, &mut &*data, |_| Ok(()))
}

/// Writes a file from a source. `judge` may refuse it after it was read to its end.
pub fn copy(path: &Path, source: &mut dyn Read, judge: impl FnOnce(u64) -> Result<()>) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    fs::create_dir_all(dir).map_err(failed("create", dir))?;
    let temporary = dir.join(format!(".tmp-{}", random_hex()?));
    let done = fill(&temporary, source).and_then(|bytes| {
        judge(bytes)?;
        fs::rename(&temporary, path).map_err(failed("write", path))
    });
    if done.is_err() {
        // A leftover harms nobody: readers ignore it.
        let _ = fs::remove_file(&temporary);
        return done;
    }
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))
}

fn fill(temporary: &Path, source: &mut dyn Read) -> Result<u64> {
    let open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary);
    let mut file = open.map_err(failed("create", temporary))?;
    let bytes = io::copy(source, &mut file).map_err(failed("write", temporary))?;
    file.flush().and_then(|()| file.sync_all()).map_err(failed("sync", temporary))?;
    Ok(bytes)
}

/// Reads a whole file, or returns `None` if there is none.
pub fn read(path: &Path) -> Result<Option<Bytes>> {
    match fs::read(path) {
        Ok(data) => Ok(Some(data.into())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("read", path)(e)),
    }
}

/// Returns the names and the sizes of the files at any depth under `prefix`.
pub fn list(dir: &Path, prefix: &str) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    let mut left = vec![prefix.to_owned()];
    while let Some(name) = left.pop() {
        let path = dir.join(&name);
        let entries = match fs::read_dir(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            read => read.map_err(failed("list", &path))?,
        };
        for entry in entries {
            let entry = entry.map_err(failed("list", &path))?;
            let Ok(inner) = entry.file_name().into_string() else { continue };
            let inner_name = format!("{name}/{inner}");
            match entry.metadata().map_err(failed("examine", &path))? {
                _ if inner.starts_with('.') => {}
                meta if meta.is_dir() => left.push(inner_name),
                meta if meta.is_file() => found.push((inner_name, meta.len())),
                _ => {}
            }
        }
    }
    Ok(found)
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
        struct Cut;
        impl Read for Cut {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("cut"))
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("captures/one/meta.json");
        assert!(copy(&path, &mut Cut, |_| Ok(())).is_err());
        assert!(copy(&path, &mut &b"abc"[..], |_| Err(Error::NoSettings)).is_err());
        assert_eq!((read(&path).unwrap(), fs::read_dir(path.parent().unwrap()).unwrap().count()), (None, 0));
        write(&path, b"abc").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), &b"abc"[..]);
    }
}
