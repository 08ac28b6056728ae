//! Checks of the store's directory and its filesystem: existence, safety and room.

mod volume;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use volume::{Volume, filesystem};

use super::check::Check;
use crate::config::Config;
use crate::fsio::{self, Spot};
use crate::proc::Proc;

/// The kind of an entry at a directory's path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Missing,
    Symlink,
    Directory,
    Other,
}

/// A directory, or the entry in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    kind: Kind,
    mode: u32,
    uid: u32,
    /// Set if it is a store already.
    is_store: bool,
    /// Set if it is mounted for this container alone, so that only its processes can get there.
    private_mount: bool,
}

impl Entry {
    fn read(path: &Path) -> Result<Self, String> {
        let of = |kind, mode, uid| Self {
            path: path.to_owned(),
            kind,
            mode,
            uid,
            is_store: path.join("FORMAT").is_file(),
            private_mount: false,
        };
        match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_symlink() => Ok(of(Kind::Symlink, 0, meta.uid())),
            Ok(meta) if meta.is_dir() => Ok(of(Kind::Directory, meta.mode() & 0o7777, meta.uid())),
            Ok(meta) => Ok(of(Kind::Other, meta.mode() & 0o7777, meta.uid())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(of(Kind::Missing, 0, 0)),
            Err(e) => Err(format!("cannot examine {}: {e}", path.display())),
        }
    }
}

/// Checks that the store can be used in its place. Changes nothing.
pub fn examine(proc: &Proc, config: &Config) -> Vec<Check> {
    let me = rustix::process::geteuid().as_raw();
    let entry = match Entry::read(&config.dir) {
        Ok(entry) => entry,
        Err(why) => {
            let hint = "run doctor as the user of the workers, or as root";
            return vec![Check::fail("store.directory", why, hint)];
        }
    };
    let real = fs::canonicalize(&config.dir).ok();
    let mut parents = ancestors(real.as_deref().unwrap_or(&config.dir));
    let private = private_mounts(proc);
    parents.iter_mut().for_each(|parent| parent.private_mount = private.contains(&parent.path));
    let mut checks = vec![directory(&entry, parents.first(), me), above(&entry, &parents)];
    // If the store is missing, its nearest existing ancestor is examined instead.
    let place = if entry.kind == Kind::Directory { Some(&entry) } else { parents.first() };
    let mountinfo = proc.read("self/mountinfo").unwrap_or_default();
    match place.map(|place| Volume::read(&place.path, &mountinfo)) {
        Some(Ok(volume)) => {
            checks.push(filesystem(&volume, config.allow_network_filesystem));
            checks.extend([volume.writable(), volume.inodes(), volume.space(config)]);
        }
        Some(Err(why)) => checks.push(Check::skip("store.filesystem", why)),
        None => {}
    }
    if entry.kind == Kind::Directory {
        checks.push(lock(&exclusion(&config.dir)));
        checks.push(rename(no_replace(&config.dir)));
    }
    checks
}

// Returns the directories that are mounted into this container: what is world-writable there is open to the container only. On a
// host, a mount point is open to everybody who logs in; Kubernetes hides its own.
fn private_mounts(proc: &Proc) -> Vec<PathBuf> {
    // PROC_PID_INIT_INO, the pid namespace of a host. See linux/proc_ns.h.
    const HOST: u64 = 0xEFFF_FFFC;
    let namespace = proc.pid_namespace();
    let in_container = namespace != 0 && namespace != HOST;
    let mounts = proc.read("self/mountinfo").unwrap_or_default();
    // `36 35 98:0 /root/in/its/filesystem /mount/point rw,noatime …`, with blanks as `\040`.
    let points = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(3);
        let (root, point) = (words.next()?, words.next()?);
        let is_private = in_container || root.contains("/volumes/kubernetes.io~");
        (is_private && point != "/").then(|| PathBuf::from(point.replace("\\040", " ")))
    });
    points.collect()
}

// Returns the ancestors that exist, the innermost first.
fn ancestors(path: &Path) -> Vec<Entry> {
    let entries = path.ancestors().skip(1).filter_map(|path| Entry::read(path).ok());
    entries.filter(|entry| entry.kind == Kind::Directory).collect()
}

fn directory(entry: &Entry, parent: Option<&Entry>, me: u32) -> Check {
    let id = "store.directory";
    let shown = entry.path.display();
    let create = format!("create it for the user of the workers: install -d -m 0700 -o USER {shown}");
    let check = match entry.kind {
        Kind::Missing => match parent {
            Some(parent) if entry.path.parent() != Some(&parent.path) => Check::fail(
                id,
                format!("neither {shown} nor its parent exists: diagctl creates only the last component"),
                create,
            ),
            Some(parent) if me != 0 && me != parent.uid && parent.mode & 0o002 == 0 => Check::fail(
                id,
                format!("{shown} does not exist, and uid {me} cannot create it in {}", parent.path.display()),
                create,
            ),
            _ => Check::warn(
                id,
                format!("{shown} does not exist yet; the first worker that polls tries to create it"),
                create,
            ),
        },
        Kind::Symlink => Check::fail(
            id,
            format!("{shown} is a symbolic link, which diagctl refuses"),
            "use the directory that it points to",
        ),
        Kind::Other => Check::fail(id, format!("{shown} is not a directory"), "use another path in dir or DIAGCTL_DIR"),
        Kind::Directory if entry.mode & 0o022 != 0 && entry.is_store && (me == 0 || me == entry.uid) => Check::warn(
            id,
            format!("{shown} has mode {:04o}: others could write to it. The next poll closes it again", entry.mode),
            "find out what opens it (an fsGroup does, at each mount); `diagctl status --explain` shows when it was closed",
        ),
        Kind::Directory if entry.mode & 0o022 != 0 => Check::fail(
            id,
            format!("{shown} has mode {:04o}: others could plant files in it, so every command refuses it", entry.mode),
            format!("make sure that nobody did, then run chmod 0700 {shown}"),
        ),
        Kind::Directory if me != 0 && me != entry.uid => Check::fail(
            id,
            format!("{shown} is owned by uid {}, and this is uid {me}: workers of this user are refused", entry.uid),
            "run the workers and doctor as the owner, or give each user a store; root switches to the owner",
        ),
        Kind::Directory if me == 0 && entry.uid != 0 => Check::ok(
            id,
            format!("{shown} is owned by uid {}; the workers must run as that user (this is root)", entry.uid),
        ),
        Kind::Directory => Check::ok(id, format!("{shown} belongs to this user, mode {:04o}", entry.mode)),
    };
    let check = check.seen("path", entry.path.display().to_string()).seen("exists", entry.kind != Kind::Missing);
    if entry.kind == Kind::Missing {
        check
    } else {
        check.seen("mode", format!("{:04o}", entry.mode)).seen("uid", entry.uid)
    }
}

// A user who may write to an ancestor can move the store away and put another in its place. With the sticky bit set, only the
// owner of an entry can do that. The danger then is only for a store that does not exist yet.
fn above(entry: &Entry, parents: &[Entry]) -> Check {
    let id = "store.parents";
    let missing = entry.kind == Kind::Missing;
    for (i, parent) in parents.iter().enumerate().filter(|(_, parent)| !parent.private_mount) {
        let shown = parent.path.display();
        let sticky = parent.mode & 0o1000 != 0;
        let first_to_come = missing && i == 0 && parent.mode & 0o002 != 0;
        let check = if parent.mode & 0o002 != 0 && !sticky {
            Check::fail(
                id,
                format!(
                    "{shown} is world-writable (mode {:04o}): anyone can replace the store with another directory",
                    parent.mode
                ),
                format!("run chmod o-w {shown}, or put the store elsewhere"),
            )
        } else if first_to_come {
            Check::warn(
                id,
                format!(
                    "anyone can create the store in {shown} (mode {:04o}) before the workers do, and lock them out",
                    parent.mode
                ),
                format!("create it beforehand: install -d -m 0700 -o USER {}", entry.path.display()),
            )
        } else if parent.mode & 0o020 != 0 && !sticky && parent.uid != entry.uid {
            Check::warn(
                id,
                format!(
                    "{shown} is group-writable (mode {:04o}): its group can replace the store with another directory",
                    parent.mode
                ),
                format!("run chmod g-w {shown}, unless its group may see the dumps"),
            )
        } else if parent.uid != 0 && parent.uid != entry.uid && !missing {
            Check::warn(
                id,
                format!("{shown} belongs to uid {}, who can replace the store with another directory", parent.uid),
                format!("put the store beneath directories of root or of uid {}", entry.uid),
            )
        } else {
            continue;
        };
        return check.seen("path", parent.path.display().to_string()).seen("mode", format!("{:04o}", parent.mode));
    }
    Check::ok(id, "nobody else can replace the store with another directory")
}

/// The outcome of locking one file through two descriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exclusion {
    /// The second lock was refused.
    Works,
    /// Both locks were granted.
    Broken,
    /// Another process holds the lock. Detecting that shows that locks work.
    Taken,
    /// The test was not possible.
    Unknown(String),
}

// Tries two descriptions of its own, the first with a shared lock. The lease itself is never taken, and a poll at this instant
// tries again (see `Lease::try_take`). Before there is a lease file, the directory is locked instead.
fn exclusion(dir: &Path) -> Exclusion {
    let lease = Spot::outside(&dir.join("lease.lock"));
    let open = || match fsio::open_read(&lease) {
        Err(e) if e.is_not_found() => File::open(dir).map_err(|e| e.to_string()),
        other => other.map_err(|e| e.to_string()),
    };
    let (first, second) = match (open(), open()) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(why), _) | (_, Err(why)) => return Exclusion::Unknown(why),
    };
    match rustix::fs::flock(&first, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Exclusion::Taken,
        Err(e) => return Exclusion::Unknown(format!("flock: {e}")),
    }
    match rustix::fs::flock(&second, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Exclusion::Broken,
        Err(rustix::io::Errno::WOULDBLOCK) => Exclusion::Works,
        Err(e) => Exclusion::Unknown(format!("flock: {e}")),
    }
}

fn lock(exclusion: &Exclusion) -> Check {
    let id = "store.lock";
    match exclusion {
        Exclusion::Works => Check::ok(id, "flock(2) excludes a second holder"),
        Exclusion::Taken => Check::ok(id, "flock(2) works: another process holds the lease"),
        Exclusion::Broken => Check::fail(
            id,
            "flock(2) lets two processes hold the lease at once: two workers could dump at the same time",
            "put the store on a local filesystem",
        ),
        Exclusion::Unknown(why) => Check::fail(
            id,
            format!("the lease file cannot be locked: {why}"),
            "lease.lock must be a regular file of the store's owner, on a filesystem with flock(2); move anything else away",
        ),
    }
}

// Renames between names that do not exist. The kernel reports that, unless the system call itself is unavailable.
fn no_replace(dir: &Path) -> Result<(), rustix::io::Errno> {
    let name = |name: &str| dir.join("staging").join(name);
    let (from, to) = (name(".doctor-no-such-file"), name(".doctor-no-such-file-either"));
    rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, rustix::fs::RenameFlags::NOREPLACE)
}

fn rename(answer: Result<(), rustix::io::Errno>) -> Check {
    use rustix::io::Errno;
    let id = "kernel.rename";
    match answer {
        Err(e @ (Errno::NOSYS | Errno::INVAL | Errno::PERM)) => Check::fail(
            id,
            format!("renameat2(2) with RENAME_NOREPLACE is not available ({e}): no capture can be published"),
            "it needs Linux 3.15, a filesystem that supports it, and a seccomp profile that allows it",
        ),
        _ => Check::ok(id, "renameat2(2) is available"),
    }
}

#[cfg(test)]
mod tests;
