//! The place of a store. A copy of a store, for example from a golden image, is a node of its own: with the names of the original it
//! would overwrite the original's manifests and obey its requests.
//!
//! ```text
//! remote/place    the machine and the directory for which the names in this store were made
//! ```

use diagctl_fs::{self as fs, Durability, Spot};
use diagctl_observe::proc::Proc;
use rustix::fs::{AtFlags, StatxFlags, statx};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::inbox;
use crate::manifest;

const FILE: &str = "place";

/// What a copy of a store does not share with the original.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Place {
    /// The machine ID and the name of the host. A container may have only the latter.
    machine: String,
    /// Inode of the store's directory.
    inode: u64,
    /// Time at which the directory was created, nanoseconds. Zero where the filesystem does not tell.
    born: i128,
    /// Device of the directory. Its number may change when the machine boots.
    device: u64,
    /// The boot in which the device had this number.
    boot: String,
}

/// Makes the store forget its names if they were made for another one. What is marked as shipped stays shipped.
pub fn settle(store: &Spot, remote: &Spot) -> Result<()> {
    let now = Place::of(store)?;
    let file = remote.join(FILE);
    let known: Option<Place> = fs::read_bounded(&file, 4096).ok().and_then(|data| serde_json::from_slice(&data).ok());
    if known.as_ref() == Some(&now) {
        return Ok(());
    }
    if !known.is_some_and(|known| known.is(&now)) {
        manifest::begin_anew(remote)?;
        inbox::forget_name(remote)?;
    }
    // A struct of texts and numbers can always be encoded. Written last: a shipper that is killed before does it again.
    Ok(fs::write_atomic(&file, &serde_json::to_vec(&now).unwrap_or_default(), Durability::Synced)?)
}

impl Place {
    fn of(store: &Spot) -> Result<Self> {
        let stat = fs::stat(store)?;
        let born = store.held().ok().and_then(|dir| statx(dir, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok());
        let born = born.filter(|found| found.stx_mask & StatxFlags::BTIME.bits() != 0).map(|found| found.stx_btime);
        let born = born.map_or(0, |time| i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec));
        let proc = Proc::default();
        let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let machine = format!("{} {}", id.trim(), proc.hostname());
        Ok(Self { machine, inode: stat.st_ino, born, device: stat.st_dev, boot: proc.boot_id() })
    }

    fn is(&self, other: &Self) -> bool {
        let directory = |place: &Self| (place.machine.clone(), place.inode, place.born);
        directory(self) == directory(other) && (self.boot != other.boot || self.device == other.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_the_same_in_its_directory_on_its_machine() {
        let here = Place { machine: "m web-1".into(), inode: 7, born: 1, device: 9, boot: "b".into() };
        let table = [
            (here.clone(), true),
            (Place { boot: "c".into(), device: 10, ..here.clone() }, true),
            (Place { device: 10, ..here.clone() }, false),
            (Place { inode: 8, ..here.clone() }, false),
            (Place { born: 2, ..here.clone() }, false),
            (Place { machine: "n web-1".into(), ..here.clone() }, false),
        ];
        for (other, expected) in table {
            assert_eq!(here.is(&other), expected, "{other:?}");
        }
    }
}
