//! The report directory: who may use it, what is where.
//!
//! ```text
//! FORMAT                 the version of this layout
//! lease.lock lease.json  see `lease`
//! state.lock state.json samples/<pid>.json   see `state` and `sample`; state.lock guards every small file
//! requests/              on-demand requests, one file each
//! staging/<id>/          a capture being written
//! reports/<id>/          published captures, the truth
//! index.jsonl            a cache over reports/*/meta.json
//! events.jsonl           last verdicts and deletions, bounded
//! quarantine/ trash/     what is not trusted, and what is being deleted
//! ```
//! The directory belongs to one user and nobody else can enter it, so no name beneath it can be planted by another. It is
//! held open while a command works: everything in it is reached from there, whatever becomes of its path.

pub mod commit;
pub mod events;
pub mod fetch;
pub mod grant;
pub mod index;
pub mod meta;
pub mod requests;
pub mod retention;
pub mod state_files;
pub mod stock;
pub mod sweep;
pub mod writer;

use std::fs;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Stat};

use crate::config::Config;
use crate::error::Failure;
use crate::exit_code::Exit;
use crate::fsio::{self, Durability, LockFile, Spot};

/// The layout that this program writes.
const FORMAT: u32 = 1;

const SUBDIRS: [&str; 6] = ["staging", "reports", "requests", "samples", "quarantine", "trash"];

/// Names that may be in a directory that is about to become a store.
const HARMLESS: [&str; 3] = ["lease.lock", "state.lock", "lost+found"];

/// What a store has besides. Where its locks are, too, nobody else made them: they are of a store that was removed in part, while
/// a process that polls wrote into it.
const LEFT: [&str; 9] = [
    "state.json",
    "lease.json",
    "index.jsonl",
    "events.jsonl",
    "samples.jsonl",
    "samples.1.jsonl",
    "execs.json",
    "config.good.toml",
    "config.cache",
];

/// What a command is going to do with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Look.
    Read,
    /// Change what is there.
    Write,
    /// Change, and create the store if there is none.
    Create,
}

/// An open store.
#[derive(Clone, Debug)]
pub struct Store {
    dir: Spot,
    owner: u32,
    ours: bool,
    adopted: bool,
}

impl Store {
    /// Checks that the store is ours and safe to use, and creates or completes it where that is wanted. As root on a store
    /// that another user owns, the process first becomes that user.
    pub fn open(config: &Config, access: Access) -> Result<Self, Failure> {
        let path = &config.dir;
        let dir = match Spot::hold(path) {
            Ok(dir) => dir,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                if access != Access::Create {
                    return Err(missing(path));
                }
                create_root(path)?;
                Spot::hold(path).map_err(|e| Failure::io("open", path, e))?
            }
            Err(e) => return Err(Failure::io("open", path, e)),
        };
        Self::open_held(dir, config, access)
    }

    /// The same for a directory that is held open already.
    pub fn open_held(dir: Spot, config: &Config, access: Access) -> Result<Self, Failure> {
        let stat = fsio::stat(&dir)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let refuse =
            |why: String, hint: String| Err(Failure::failed(format!("the store {} {why}", dir.display())).hint(hint));
        if kind.is_symlink() {
            return refuse("is a symbolic link".into(), "use the directory that it points to".into());
        }
        if !kind.is_dir() {
            return refuse("is not a directory".into(), "use another path in dir, DIAGCTL_DIR or --dir".into());
        }
        let mode = stat.st_mode & 0o7777;
        if mode & 0o022 != 0 {
            let whom = if mode & 0o002 != 0 { "world" } else { "group" };
            return refuse(
                format!("is {whom}-writable (mode {mode:04o}): others could plant files in it"),
                format!(
                    "make sure that nobody did, then `chmod 0700 {}`, or use a new directory inside it",
                    dir.display()
                ),
            );
        }
        let adopted = rustix::process::geteuid().is_root() && stat.st_uid != 0;
        let ours = become_owner(&dir, &stat, access)?;
        let store = Self { dir, owner: stat.st_uid, ours, adopted };
        store.check_format(access, config, mode)?;
        Ok(store)
    }

    /// Its directory.
    pub fn dir(&self) -> &Spot {
        &self.dir
    }

    /// The uid that owns it.
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// Whether this process has the owner's rights. A member of the store's group may only read.
    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// Refuses to put what is taken from processes here, where root gave up its identity for the sake of a directory that anybody
    /// could have made: who made it would read the dump.
    pub fn require_trusted_owner(&self) -> Result<(), Failure> {
        if !self.adopted {
            return Ok(());
        }
        // Where it really is, not what its path says by now.
        let parent = self.dir.held().and_then(|dir| Ok(rustix::fs::statat(dir, "..", AtFlags::SYMLINK_NOFOLLOW)?));
        let parent = parent.map_err(|e| Failure::io("examine the parent directory of", self.dir.path(), e))?;
        if parent.st_mode & 0o002 == 0 {
            return Ok(());
        }
        Err(Failure::failed(format!(
            "the store {} is owned by uid {} and lies in a world-writable directory: anybody could have made it, and would \
             read what root dumps there",
            self.dir.display(),
            self.owner
        ))
        .hint("use a directory that only root can create, or run as the user that owns the store"))
    }

    /// Something in it.
    pub fn path(&self, name: &str) -> Spot {
        self.dir.join(name)
    }

    /// Where a capture is being written.
    pub fn staging(&self, id: &str) -> Spot {
        self.dir.join("staging").join(id)
    }

    /// Where a published capture is.
    pub fn report_dir(&self, id: &str) -> Spot {
        self.dir.join("reports").join(id)
    }

    /// Takes the lock that guards the small files. Hold it for milliseconds.
    pub fn lock(&self) -> Result<LockFile, Failure> {
        Ok(LockFile::lock(&self.path("state.lock"))?)
    }

    /// Free bytes for us, and the size, of the store's filesystem.
    pub fn space(&self) -> Result<(u64, u64), Failure> {
        space_of(&self.dir)
    }

    /// Why the store must not be used where it is: on this filesystem `flock` may not exclude other machines, and the operator
    /// has not forced it.
    pub fn unsafe_filesystem(&self, config: &Config) -> Result<Option<String>, Failure> {
        let stats = self.dir.held().and_then(|dir| Ok(rustix::fs::fstatfs(dir)?));
        let stats = stats.map_err(|e| Failure::io("examine the filesystem of", self.dir.path(), e))?;
        let name = unsafe_filesystem(stats.f_type).filter(|_| !config.allow_network_filesystem);
        Ok(name.map(|name| {
            format!(
                "the store {} is on {name}, where flock(2) may not keep two dumpers apart; use a local filesystem, or set \
                 allow_network_filesystem = true if the lock is known to work there",
                self.dir.display()
            )
        }))
    }

    /// Moves something that is not trusted out of the way, under a name that says what it was.
    pub fn quarantine(&self, spot: &Spot, reason: &str) -> Result<(), Failure> {
        // With what is added to it, it is still a name.
        const SAID: usize = 60;
        let name = spot.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let said: String = name.chars().take(SAID).collect();
        let target = self.path("quarantine").join(format!("{said}.{}", fsio::random_hex()?));
        fsio::rename_noreplace(spot, &target)?;
        events::record(self, &events::Event::quarantined(&name, reason));
        Ok(())
    }

    /// Puts something into the trash and unlinks it. Readers that have it open go on reading.
    pub fn discard(&self, spot: &Spot) -> Result<(), Failure> {
        match self.throw_away(spot)? {
            Some(thrown) => Ok(fsio::remove(&thrown)?),
            None => Ok(()),
        }
    }

    /// The same for what a command may have filled, with what is not ours to delete: that stays in the trash, where it counts
    /// against the cap, and stops no capture.
    pub fn clear_away(&self, spot: &Spot) -> Result<(), Failure> {
        if let Some(thrown) = self.throw_away(spot)? {
            let _ = fsio::remove(&thrown);
        }
        Ok(())
    }

    // Where it is then; nothing if it was gone already.
    fn throw_away(&self, spot: &Spot) -> Result<Option<Spot>, Failure> {
        let target = self.path("trash").join(fsio::random_hex()?);
        match fsio::rename_noreplace(spot, &target) {
            Err(e) if e.is_not_found() => Ok(None),
            other => Ok(other.map(|()| Some(target))?),
        }
    }

    /// Unlinks what earlier deletions left in the trash when they were killed, as far as it can be unlinked.
    pub fn empty_trash(&self) -> Result<(), Failure> {
        let trash = self.path("trash");
        fsio::require_dir(&trash, self.owner)?;
        for entry in fsio::list(&trash)?.flatten() {
            let _ = fsio::remove(&trash.join(entry.name));
        }
        Ok(())
    }

    fn check_format(&self, access: Access, config: &Config, mode: u32) -> Result<(), Failure> {
        let path = self.path("FORMAT");
        let text = match fsio::read_bounded(&path, 64) {
            Ok(data) => String::from_utf8_lossy(&data).trim().to_owned(),
            Err(e) if e.is_not_found() => {
                return match access {
                    Access::Read => Err(missing(self.dir.path())),
                    Access::Write | Access::Create => match self.initialise(config) {
                        // Somebody else has done it meanwhile, and what looked foreign is what a store has.
                        Err(_) if fsio::read_bounded(&path, 64).is_ok() => self.check_format(access, config, mode),
                        done => done,
                    },
                };
            }
            Err(e) => return Err(e.into()),
        };
        match text.parse::<u32>() {
            Ok(FORMAT) => {}
            _ if text.len() > 1 && text.bytes().all(|b| b.is_ascii_digit())
                || text.parse::<u32>().is_ok_and(|n| n > FORMAT) =>
            {
                return Err(Failure::new(
                    Exit::NewerStore,
                    format!("the store {} has format {text}; this diagctl knows format {FORMAT}", self.dir.display()),
                )
                .hint("a newer diagctl wrote it; use that version"));
            }
            _ => {
                let shown = crate::error::quoted(&text);
                return Err(Failure::failed(format!("{} contains {shown}, not {FORMAT}", path.display()))
                    .hint(format!("if this is a diagctl store, write {FORMAT} into that file")));
            }
        }
        let wanted = wanted_mode(config);
        if access != Access::Read && mode != wanted {
            self.apply_mode(config)?;
        }
        self.check_directories(access, config)
    }

    // Each must be a real directory of ours: everything is done by paths through them. One that was removed is made anew.
    fn check_directories(&self, access: Access, config: &Config) -> Result<(), Failure> {
        for name in SUBDIRS {
            let path = self.path(name);
            match fsio::require_dir(&path, self.owner) {
                Err(e) if e.is_not_found() && access == Access::Read => {}
                Err(e) if e.is_not_found() => fsio::create_dir(&path, wanted_mode(config))?,
                other => other?,
            }
        }
        if config.group.is_some() && access != Access::Read {
            for name in ["lease.lock", "state.lock"] {
                // flock(2) asks no more than that a file can be opened: who may only read must not be able to lock. Earlier
                // versions opened them to the group.
                let lock = self.path(name);
                if lock.stat().is_ok_and(|stat| stat.st_mode & 0o077 != 0) {
                    let _ = fsio::close_to_others(&lock);
                }
            }
        }
        Ok(())
    }

    /// The mode of directories in the store: its group's to read where the store's own directory is.
    pub fn directory_mode(&self) -> Result<u32, Failure> {
        Ok(if fsio::stat(&self.dir)?.st_mode & 0o050 == 0 { 0o700 } else { 0o2750 })
    }

    /// Where a capture is being written, made sure to be the directory that was made for it.
    pub fn own_staging(&self, id: &str) -> Result<Spot, Failure> {
        let staging = self.staging(id);
        fsio::require_dir(&staging, self.owner)?;
        Ok(staging)
    }

    fn initialise(&self, config: &Config) -> Result<(), Failure> {
        if let Some(name) = foreign_entry(&self.dir)? {
            let why = format!("{} is neither empty nor a diagctl store: it contains {name}", self.dir.display());
            return Err(Failure::failed(why)
                .hint("set dir, DIAGCTL_DIR or --dir to a directory of its own; diagctl creates it with mode 0700"));
        }
        self.apply_mode(config)?;
        for name in SUBDIRS {
            fsio::create_dir(&self.path(name), wanted_mode(config))?;
        }
        if config.group.is_some() {
            // Whoever may read the store may ask who holds the lease, from the first command on.
            for name in ["lease.lock", "state.lock"] {
                fsio::create_empty(&self.path(name))?;
            }
        }
        // Last, and synced: a store with this file is complete.
        Ok(fsio::write_atomic(&self.path("FORMAT"), format!("{FORMAT}\n").as_bytes(), Durability::Synced)?)
    }

    fn apply_mode(&self, config: &Config) -> Result<(), Failure> {
        if let Some(group) = &config.group {
            let gid = group_id(group)?;
            fsio::set_dir_group(&self.dir, gid).map_err(|e| {
                Failure::io(&format!("give to group {group}"), self.dir.path(), e)
                    .hint("the store's owner must be a member of the group, or run the first command as root")
            })?;
        }
        // The set-group-id bit makes what is created beneath belong to the group too.
        Ok(fsio::set_dir_mode(&self.dir, wanted_mode(config))?)
    }
}

/// A name in a directory that keeps it from becoming a store, quoted.
pub fn foreign_entry(dir: &Spot) -> Result<Option<String>, Failure> {
    let names: Vec<_> = fsio::list(dir)?.flatten().map(|entry| entry.name).collect();
    let left: &[&str] = if names.iter().any(|name| name == "state.lock") { &LEFT } else { &[] };
    let foreign = names.iter().find(|name| {
        let known = SUBDIRS.iter().chain(&HARMLESS).chain(left).any(|known| *name == *known);
        !known && !name.to_str().is_some_and(|name| name.starts_with(".tmp-"))
    });
    Ok(foreign.map(|name| crate::error::quoted(&name.to_string_lossy())))
}

/// Free bytes for us, and the size, of the filesystem of a directory that is held open.
pub fn space_of(dir: &Spot) -> Result<(u64, u64), Failure> {
    Ok(fsio::space(dir)?)
}

fn wanted_mode(config: &Config) -> u32 {
    if config.group.is_some() { 0o2750 } else { 0o700 }
}

fn missing(dir: &Path) -> Failure {
    Failure::failed(format!("there is no diagctl store at {}", dir.display())).hint(
        "set --dir, DIAGCTL_DIR or `dir` in the configuration; the first worker that polls creates the store, \
         as does `diagctl run`",
    )
}

fn create_root(dir: &Path) -> Result<(), Failure> {
    let parent = fsio::parent_of(dir)?;
    if !parent.is_dir() {
        return Err(Failure::failed(format!(
            "cannot create the store {}: {} does not exist",
            dir.display(),
            parent.display()
        ))
        .hint("create the parent directory, or use another path in dir, DIAGCTL_DIR or --dir"));
    }
    Ok(fsio::create_dir(&Spot::outside(dir), 0o700)?)
}

// As systemd-coredump does: what root writes into another user's store must be readable by that user.
// Returns whether this process now has the owner's rights; who is let in by the group may read without them.
fn become_owner(dir: &Spot, stat: &Stat, access: Access) -> Result<bool, Failure> {
    let owner = stat.st_uid;
    let me = rustix::process::geteuid();
    if me.as_raw() == owner {
        return Ok(true);
    }
    if !me.is_root() {
        if access == Access::Read && fsio::list(dir).is_ok() {
            return Ok(false);
        }
        return Err(Failure::failed(format!(
            "the store {} is owned by uid {owner}, and this is uid {}",
            dir.display(),
            me.as_raw()
        ))
        .hint("run diagctl as that user or as root; give the workers of each user their own store"));
    }
    let (uid, gid) = (rustix::process::Uid::from_raw(owner), rustix::process::Gid::from_raw(stat.st_gid));
    // The calls are per thread. Commands that also need the caller's rights open the store in a thread of its own; in all
    // others there is but one.
    rustix::thread::set_thread_groups(&[gid])
        .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
        .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid))
        .map_err(|e| Failure::io(&format!("become uid {owner}, the owner of"), dir.path(), e.into()))?;
    Ok(true)
}

/// The number of a group.
pub fn group_id(name: &str) -> Result<u32, Failure> {
    let path = Path::new("/etc/group");
    let text = fs::read_to_string(path).map_err(|e| Failure::io("read", path, e))?;
    text.lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
        })
        .ok_or_else(|| {
            Failure::new(Exit::Config, format!("group: there is no group {name:?} on this machine"))
                .hint("create it, or remove `group` from the configuration")
        })
}

/// The name of a filesystem on which `flock` may not exclude other machines, by its magic number.
pub fn unsafe_filesystem(magic: i64) -> Option<&'static str> {
    // From linux/magic.h and the filesystems' own sources.
    match magic {
        0x6969 => Some("NFS"),
        0xff53_4d42 | 0xfe53_4d42 => Some("SMB/CIFS"),
        0x0102_1997 => Some("9p"),
        0x6573_5546 => Some("FUSE"),
        0x6a65_6a63 => Some("virtiofs"),
        _ => None,
    }
}
