//! The configuration as it was last read, checked and merged, kept in the store: to read TOML anew and check it takes several
//! times as long as everything else that an idle poll does. It is used only while it is the file as it was: same file, same
//! length, same moment of its last change. It is in postcard's binary form, which is read ten times as fast as JSON; nobody
//! else reads it, and one that cannot be read, or has not the checksum that stands before it, is made anew.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Config;
use crate::error::Failure;
use crate::fsio::{self, Spot};
use crate::seal;

/// `config.cache`, in the store.
const FILE: &str = "config.cache";

#[derive(Debug, Serialize, Deserialize)]
struct Cached {
    file: Identity,
    /// Whether the file itself says `enabled`.
    enabled_given: bool,
    config: Config,
}

/// Which file, as it was when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    version: String,
    path: PathBuf,
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Identity {
    /// Of a file as it is now; `None` when there is no such file.
    pub fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            path: path.to_owned(),
            device: meta.dev(),
            inode: meta.ino(),
            length: meta.len(),
            // Unlike the modification time, nobody can set it back.
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// The configuration that the file held when it was this very file, and whether it says `enabled`.
pub fn read(dir: &Spot, identity: &Identity) -> Option<(Config, bool)> {
    let data = fsio::read_bounded(&dir.join(FILE), 4 << 20).ok()?;
    let (check, data) = data.split_first_chunk()?;
    if u32::from_le_bytes(*check) != seal::crc(data) {
        return None;
    }
    let cached = decode(data)?;
    (cached.file == *identity).then_some((cached.config, cached.enabled_given))
}

fn decode(data: &[u8]) -> Option<Cached> {
    postcard::from_bytes(data).ok()
}

/// Whether this can be understood, whatever file it is about. Without the checksum, which would keep everything else out.
#[cfg(any(test, fuzzing))]
pub fn is_readable(data: &[u8]) -> bool {
    decode(data).is_some()
}

/// Keeps a configuration. The identity is that from before the file was read: a change in between is a miss next time.
pub fn write(dir: &Spot, identity: Identity, config: &Config, enabled_given: bool) -> Result<(), Failure> {
    let cached = Cached { file: identity, enabled_given, config: config.clone() };
    let data = postcard::to_stdvec(&cached).map_err(|e| Failure::failed(format!("cannot encode {FILE}: {e}")))?;
    let sealed = [&seal::crc(&data).to_le_bytes()[..], &data].concat();
    Ok(fsio::write_atomic(&dir.join(FILE), &sealed, fsio::Durability::Volatile)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EXAMPLE, parse};

    #[test]
    fn what_is_kept_is_the_whole_configuration_of_that_very_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("diagctl.toml");
        std::fs::write(&file, EXAMPLE).unwrap();
        let (mut config, _) = parse(EXAMPLE).unwrap();
        let identity = Identity::of(&file).unwrap();
        let store = Spot::hold(dir.path()).unwrap();
        write(&store, identity.clone(), &config, true).unwrap();
        // Only what is for showing is left out.
        for rule in &mut config.rules {
            rule.origins.clear();
            rule.declared_trigger.clear();
        }
        assert_eq!(read(&store, &identity), Some((config, true)));
        std::fs::write(&file, EXAMPLE.replace("10s", "20s")).unwrap();
        assert_eq!(read(&store, &Identity::of(&file).unwrap()), None);
    }
}
