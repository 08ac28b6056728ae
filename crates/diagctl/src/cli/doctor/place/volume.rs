//! Checks of the filesystem that the store is on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::StatVfsMountFlags;

use crate::cli::doctor::check::Check;
use crate::config::Config;
use crate::units::size;

/// With fewer free inodes, a store cannot take a capture and its housekeeping files.
const FEWEST_INODES: u64 = 64;

// Returns true if the filesystem of this device shows in its options that it gave up: ext4 since Linux 6.15, XFS, btrfs.
pub(super) fn is_shut_down(mountinfo: &str, device: u64) -> bool {
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    // `36 35 98:0 / /mnt rw,noatime shared:1 - ext4 /dev/root rw,emergency_ro`
    mountinfo.lines().filter(|line| line.split(' ').nth(2) == Some(&device)).any(|line| {
        let options = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').nth(2)).unwrap_or_default();
        options.split(',').any(|option| matches!(option, "emergency_ro" | "shutdown"))
    })
}

/// A mounted filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Volume {
    pub(super) magic: i64,
    pub(super) read_only: bool,
    /// Set if the filesystem has stopped writing after an error, which its mount flags need not show.
    pub(super) shut_down: bool,
    pub(super) free: u64,
    pub(super) total: u64,
    pub(super) free_inodes: u64,
    pub(super) inodes: u64,
}

impl Volume {
    pub(super) fn read(path: &Path, mountinfo: &str) -> Result<Self, String> {
        let failed = |e: rustix::io::Errno| format!("cannot examine the filesystem of {}: {e}", path.display());
        let magic = rustix::fs::statfs(path).map_err(failed)?.f_type;
        let stats = rustix::fs::statvfs(path).map_err(failed)?;
        Ok(Self {
            magic,
            read_only: stats.f_flag.contains(StatVfsMountFlags::RDONLY),
            shut_down: fs::metadata(path).is_ok_and(|meta| is_shut_down(mountinfo, meta.dev())),
            free: stats.f_bavail.saturating_mul(stats.f_frsize),
            total: stats.f_blocks.saturating_mul(stats.f_frsize),
            free_inodes: stats.f_favail,
            inodes: stats.f_files,
        })
    }

    pub(super) fn writable(&self) -> Check {
        if self.shut_down {
            let hint = "the kernel's log says why (`dmesg`); check the disk, then fsck and mount it again";
            let message = "the store's filesystem has stopped writing after an error (emergency read-only)";
            return Check::fail("store.writable", message, hint);
        }
        if self.read_only {
            let hint = "mount it read-write, or use another path in dir or DIAGCTL_DIR";
            return Check::fail("store.writable", "the store's filesystem is mounted read-only", hint);
        }
        Check::ok("store.writable", "the store's filesystem is mounted read-write")
    }

    // Filesystems without a fixed number of inodes (btrfs) report 0.
    pub(super) fn inodes(&self) -> Check {
        let id = "store.inodes";
        let check = if self.inodes > 0 && self.free_inodes < FEWEST_INODES {
            Check::fail(
                id,
                format!("{} inodes are free on the store's filesystem: no capture can be written", self.free_inodes),
                "delete files there, run `diagctl gc`, or give it more inodes",
            )
        } else if self.inodes > 0 && self.free_inodes < self.inodes / 100 {
            Check::warn(
                id,
                format!("{} of {} inodes are free on the store's filesystem", self.free_inodes, self.inodes),
                "find out what creates so many files; a capture needs about ten",
            )
        } else {
            Check::ok(id, "there are enough inodes")
        };
        check.seen("free", self.free_inodes).seen("total", self.inodes)
    }

    pub(super) fn space(&self, config: &Config) -> Check {
        let id = "store.space";
        let floor = config.guards.min_free_disk.of(self.total);
        let check = if self.free < floor {
            Check::fail(
                id,
                format!(
                    "{} are free on the store's filesystem, but guards.min_free_disk is {}: every capture is refused",
                    size(self.free),
                    size(floor)
                ),
                "make room, lower guards.min_free_disk, or put the store on a larger filesystem",
            )
        } else {
            Check::ok(id, format!("{} are free on the store's filesystem", size(self.free)))
        };
        check.seen("free_bytes", self.free).seen("total_bytes", self.total).seen("min_free_bytes", floor)
    }
}

pub(super) fn filesystem(volume: &Volume, forced: bool) -> Check {
    let id = "store.filesystem";
    // The numbers are from linux/magic.h.
    let name = match volume.magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlay",
        0x2fc1_2fc1 => "zfs",
        other => diagctl_store::unsafe_filesystem(other).unwrap_or("an unknown filesystem"),
    };
    let check = match name {
        _ if diagctl_store::unsafe_filesystem(volume.magic).is_some() => {
            let message = format!("the store is on {name}, where flock(2) may not keep two dumpers apart");
            if forced {
                Check::warn(id, format!("{message}; allow_network_filesystem forces it"), "prefer a local filesystem")
            } else {
                Check::fail(
                    id,
                    format!("{message}: every capture is refused"),
                    "use a local filesystem, or set allow_network_filesystem = true if the lock is known to work there",
                )
            }
        }
        "tmpfs" => Check::warn(
            id,
            "the store is on tmpfs: captures are lost at the next boot, and count as memory of the process that writes them",
            "put it on a disk, or keep retention.max_use well below the memory limit",
        ),
        "overlay" => Check::warn(
            id,
            "the store is on overlay, most likely the layer of a container: captures are lost with the container",
            "mount a volume (emptyDir, hostPath) and use a directory in it",
        ),
        _ => Check::ok(id, format!("the store is on {name}")),
    };
    check.seen("name", name).seen("magic", format!("{:#x}", volume.magic))
}
