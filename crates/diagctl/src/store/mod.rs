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
//! The directory belongs to one user and nobody else can enter it, so no name beneath it can be planted by another.

pub mod commit;
pub mod events;
pub mod fetch;
pub mod grant;
pub mod index;
pub mod meta;
pub mod requests;
pub mod retention;
pub mod state_files;
pub mod sweep;
pub mod writer;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::error::Failure;
use crate::exit_code::Exit;
use crate::fsio::{self, Durability, LockFile};

/// The layout that this program writes.
const FORMAT: u32 = 1;

const SUBDIRS: [&str; 6] = ["staging", "reports", "requests", "samples", "quarantine", "trash"];

/// Names that may be in a directory that is about to become a store.
const HARMLESS: [&str; 3] = ["lease.lock", "state.lock", "lost+found"];

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
    dir: PathBuf,
    owner: u32,
    ours: bool,
    adopted: bool,
}

impl Store {
    /// Checks that the store is ours and safe to use, and creates or completes it where that is wanted. As root on a store
    /// that another user owns, the process first becomes that user.
    pub fn open(config: &Config, access: Access) -> Result<Self, Failure> {
        let dir = &config.dir;
        let meta = match fs::symlink_metadata(dir) {
            Ok(meta) => meta,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                if access != Access::Create {
                    return Err(missing(dir));
                }
                create_root(dir)?;
                fs::symlink_metadata(dir).map_err(|e| Failure::io("examine", dir, e))?
            }
            Err(e) => return Err(Failure::io("examine", dir, e)),
        };
        let refuse =
            |why: String, hint: String| Err(Failure::failed(format!("the store {} {why}", dir.display())).hint(hint));
        if meta.is_symlink() {
            return refuse("is a symbolic link".into(), "name the directory that it points to".into());
        }
        if !meta.is_dir() {
            return refuse("is not a directory".into(), "name another path in dir, DIAGCTL_DIR or --dir".into());
        }
        let mode = meta.mode() & 0o7777;
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
        let adopted = rustix::process::geteuid().is_root() && meta.uid() != 0;
        let ours = become_owner(dir, meta.uid(), access)?;
        let store = Self { dir: dir.clone(), owner: meta.uid(), ours, adopted };
        store.check_format(access, config, mode)?;
        Ok(store)
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
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
        let parent = fsio::parent_of(&self.dir)?;
        let mode = fs::metadata(parent).map_err(|e| Failure::io("examine", parent, e))?.mode();
        if !self.adopted || mode & 0o002 == 0 {
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

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where a capture is being written.
    pub fn staging(&self, id: &str) -> PathBuf {
        self.dir.join("staging").join(id)
    }

    /// Where a published capture is.
    pub fn report_dir(&self, id: &str) -> PathBuf {
        self.dir.join("reports").join(id)
    }

    /// Takes the lock that guards the small files. Hold it for milliseconds.
    pub fn lock(&self) -> Result<LockFile, Failure> {
        LockFile::lock(&self.path("state.lock"))
    }

    /// Free bytes for us, and the size, of the store's filesystem.
    pub fn space(&self) -> Result<(u64, u64), Failure> {
        space_at(&self.dir)
    }

    /// Why the store must not be used where it is: on this filesystem `flock` may not exclude other machines, and the operator
    /// has not forced it.
    pub fn unsafe_filesystem(&self, config: &Config) -> Result<Option<String>, Failure> {
        let stats =
            rustix::fs::statfs(&self.dir).map_err(|e| Failure::io("examine the filesystem of", &self.dir, e.into()))?;
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
    pub fn quarantine(&self, path: &Path, reason: &str) -> Result<(), Failure> {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let target = self.path("quarantine").join(format!("{name}.{}", fsio::random_hex()?));
        fsio::rename_noreplace(path, &target)?;
        events::record(self, &events::Event::quarantined(&name, reason));
        Ok(())
    }

    /// Puts something into the trash and unlinks it. Readers that have it open go on reading.
    pub fn discard(&self, path: &Path) -> Result<(), Failure> {
        let target = self.path("trash").join(fsio::random_hex()?);
        match fsio::rename_noreplace(path, &target) {
            Err(e) if e.is_not_found() => return Ok(()),
            other => other?,
        }
        fsio::remove(&target)
    }

    /// Unlinks what earlier deletions left in the trash when they were killed.
    pub fn empty_trash(&self) -> Result<(), Failure> {
        let trash = self.path("trash");
        fsio::require_dir(&trash, self.owner)?;
        let entries = fs::read_dir(&trash).map_err(|e| Failure::io("read", &trash, e))?;
        for entry in entries.flatten() {
            fsio::remove(&entry.path())?;
        }
        Ok(())
    }

    fn check_format(&self, access: Access, config: &Config, mode: u32) -> Result<(), Failure> {
        let path = self.path("FORMAT");
        let text = match fsio::read_bounded(&path, 64) {
            Ok(data) => String::from_utf8_lossy(&data).trim().to_owned(),
            Err(e) if e.is_not_found() => {
                return match access {
                    Access::Read => Err(missing(&self.dir)),
                    Access::Write | Access::Create => match self.initialise(config) {
                        // Somebody else has done it meanwhile, and what looked foreign is what a store has.
                        Err(_) if fsio::read_bounded(&path, 64).is_ok() => self.check_format(access, config, mode),
                        done => done,
                    },
                };
            }
            Err(e) => return Err(e),
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
                .hint("a newer diagctl wrote it: use that version"));
            }
            _ => {
                let shown = crate::error::quoted(&text);
                return Err(Failure::failed(format!("{} says {shown}, not {FORMAT}", path.display()))
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
                let path = self.path(name);
                if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o077 != 0) {
                    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o600));
                }
            }
        }
        Ok(())
    }

    /// The mode of directories in the store: its group's to read where the store's own directory is.
    pub fn directory_mode(&self) -> Result<u32, Failure> {
        let meta = fs::symlink_metadata(&self.dir).map_err(|e| Failure::io("examine", &self.dir, e))?;
        Ok(if meta.mode() & 0o050 == 0 { 0o700 } else { 0o2750 })
    }

    /// Where a capture is being written, made sure to be the directory that was made for it.
    pub fn own_staging(&self, id: &str) -> Result<PathBuf, Failure> {
        let path = self.staging(id);
        fsio::require_dir(&path, self.owner)?;
        Ok(path)
    }

    fn initialise(&self, config: &Config) -> Result<(), Failure> {
        if let Some(name) = foreign_entry(&self.dir)? {
            let why = format!("{} is neither empty nor a diagctl store: it has {name}", self.dir.display());
            return Err(Failure::failed(why)
                .hint("name a directory of its own in dir, DIAGCTL_DIR or --dir; it is created with mode 0700"));
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
        fsio::write_atomic(&self.path("FORMAT"), format!("{FORMAT}\n").as_bytes(), Durability::Synced)
    }

    fn apply_mode(&self, config: &Config) -> Result<(), Failure> {
        if let Some(group) = &config.group {
            let gid = group_id(group)?;
            std::os::unix::fs::chown(&self.dir, None, Some(gid)).map_err(|e| {
                Failure::io(&format!("give to group {group}"), &self.dir, e)
                    .hint("the store's owner must be a member of the group, or run the first command as root")
            })?;
        }
        // The set-group-id bit makes what is created beneath belong to the group too.
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(wanted_mode(config)))
            .map_err(|e| Failure::io("set the mode of", &self.dir, e))
    }
}

/// A name in a directory that keeps it from becoming a store, quoted.
pub fn foreign_entry(dir: &Path) -> Result<Option<String>, Failure> {
    let entries = fs::read_dir(dir).map_err(|e| Failure::io("read", dir, e))?;
    let foreign = entries.flatten().map(|entry| entry.file_name()).find(|name| {
        let known = SUBDIRS.iter().chain(&HARMLESS).any(|known| name == *known);
        !known && !name.to_str().is_some_and(|name| name.starts_with(".tmp-"))
    });
    Ok(foreign.map(|name| crate::error::quoted(&name.to_string_lossy())))
}

/// Free bytes for us, and the size, of the filesystem that holds a path.
pub fn space_at(path: &Path) -> Result<(u64, u64), Failure> {
    let stats = fs2::statvfs(path).map_err(|e| Failure::io("examine the filesystem of", path, e))?;
    Ok((stats.available_space(), stats.total_space()))
}

fn wanted_mode(config: &Config) -> u32 {
    if config.group.is_some() { 0o2750 } else { 0o700 }
}

fn missing(dir: &Path) -> Failure {
    Failure::failed(format!("there is no diagctl store at {}", dir.display())).hint(
        "name it with --dir, DIAGCTL_DIR or `dir` in the configuration; the first worker that polls creates it, \
         as does `diagctl run`",
    )
}

fn create_root(dir: &Path) -> Result<(), Failure> {
    let parent = fsio::parent_of(dir)?;
    if !parent.is_dir() {
        return Err(Failure::failed(format!(
            "cannot create the store {}: {} is not there",
            dir.display(),
            parent.display()
        ))
        .hint("create the parent directory, or name another path in dir, DIAGCTL_DIR or --dir"));
    }
    fsio::create_dir(dir, 0o700)
}

// As systemd-coredump does: what root writes into another user's store must be readable by that user.
// Returns whether this process now has the owner's rights; who is let in by the group may read without them.
fn become_owner(dir: &Path, owner: u32, access: Access) -> Result<bool, Failure> {
    let me = rustix::process::geteuid();
    if me.as_raw() == owner {
        return Ok(true);
    }
    if !me.is_root() {
        if access == Access::Read && fs::read_dir(dir).is_ok() {
            return Ok(false);
        }
        return Err(Failure::failed(format!(
            "the store {} is owned by uid {owner}, and this is uid {}",
            dir.display(),
            me.as_raw()
        ))
        .hint("run diagctl as that user or as root; workers of different users need a store each"));
    }
    let gid = fs::metadata(dir).map_err(|e| Failure::io("examine", dir, e))?.gid();
    let (uid, gid) = (rustix::process::Uid::from_raw(owner), rustix::process::Gid::from_raw(gid));
    // The calls are per thread. Commands that also need the caller's rights open the store in a thread of its own; in all
    // others there is but one.
    rustix::thread::set_thread_groups(&[gid])
        .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
        .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid))
        .map_err(|e| Failure::io(&format!("become uid {owner}, the owner of"), dir, e.into()))?;
    Ok(true)
}

fn group_id(name: &str) -> Result<u32, Failure> {
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
