//! A cache of the merged, checked configuration, kept in the store. To parse and check TOML takes several times as long as
//! everything else that an idle poll does. The cache is valid only while the file is unchanged: same file, same length, same
//! change time. The format is postcard's binary form, which is read ten times as fast as JSON; no other program reads it. A
//! cache that cannot be read, or whose leading checksum does not match, is rebuilt.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Config;
use super::error::{Error, Result};
use crate::fsio::{self, Spot};
use crate::seal;

/// The version of the format: that of the program, and a number that goes up whenever a configuration is encoded in another way.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "/9");

/// The name of the cache file in the store.
const FILE: &str = "config.cache";

#[derive(Debug, Serialize, Deserialize)]
struct Cached {
    file: Identity,
    /// Set if the file itself sets `enabled`.
    enabled_given: bool,
    config: Config,
}

/// The identity of a configuration file at one time.
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
    /// Returns the identity of a file as it is now; `None` if there is no such file.
    pub fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self {
            version: VERSION.to_owned(),
            path: path.to_owned(),
            device: meta.dev(),
            inode: meta.ino(),
            length: meta.len(),
            // Unlike the modification time, the change time cannot be set back.
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// Returns the cached configuration if it belongs to this exact file, and true if the file itself sets `enabled`.
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

/// Returns true if the data can be decoded, whatever file it belongs to. Skips the checksum, which would reject everything
/// else.
#[cfg(any(test, fuzzing))]
pub fn is_readable(data: &[u8]) -> bool {
    decode(data).is_some()
}

/// Caches a configuration. The identity must be from before the file was read, so that a change in between is a miss next time.
pub fn write(dir: &Spot, identity: Identity, config: &Config, enabled_given: bool) -> Result<()> {
    let cached = Cached { file: identity, enabled_given, config: config.clone() };
    let data = postcard::to_stdvec(&cached).map_err(|source| Error::Encode { file: FILE, source })?;
    let sealed = [&seal::crc(&data).to_le_bytes()[..], &data].concat();
    Ok(fsio::write_atomic(&dir.join(FILE), &sealed, fsio::Durability::Volatile)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EXAMPLE, parse};

    #[test]
    fn the_cache_holds_the_whole_configuration_of_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("diagctl.toml");
        std::fs::write(&file, EXAMPLE).unwrap();
        let (mut config, _) = parse(EXAMPLE).unwrap();
        let identity = Identity::of(&file).unwrap();
        let store = Spot::hold(dir.path()).unwrap();
        write(&store, identity.clone(), &config, true).unwrap();
        // Only fields for display are left out.
        for rule in &mut config.rules {
            rule.origins.clear();
            rule.declared_trigger.clear();
        }
        assert_eq!(read(&store, &identity), Some((config, true)));
        std::fs::write(&file, EXAMPLE.replace("10s", "20s")).unwrap();
        assert_eq!(read(&store, &Identity::of(&file).unwrap()), None);
    }
}
