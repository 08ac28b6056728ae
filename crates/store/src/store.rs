//! The report directory: who may use it, what is where.
//!
//! ```text
//! FORMAT                 the version of this layout
//! lease.lock lease.json  see `lease`
//! state.lock state.json samples/<pid>.json   see `state` and `sample`; state.lock guards every small file
//! requests/              on-demand requests, one file each
//! requests.json          what a poll looks at of very many of them
//! staging/<id>/          a capture being written
//! reports/<id>/          published captures, the truth
//! index.jsonl            a cache over reports/*/meta.json
//! catalog.bin            another, packed, with running totals
//! events.jsonl           last verdicts and deletions, bounded
//! quarantine/ trash/     what is not trusted, and what is being deleted
//! ```
//! The directory belongs to one user and nobody else can enter it, so no name beneath it can be planted by another. It is
//! held open while a command works: everything in it is reached from there, whatever becomes of its path.

use std::path::Path;

use rustix::fs::{AtFlags, FileType, Stat};

use crate::error::{Error, Result, Unfit};
use crate::layout::{FORMAT, HARMLESS, LEFT, SUBDIRS};
use crate::options::StoreOptions;
use diagctl_fs::{self as fs, Durability, LockFile, Spot};

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
    pub(crate) options: StoreOptions,
}

impl Store {
    /// Checks that the store is ours and safe to use, and creates or completes it where that is wanted. As root on a store
    /// that another user owns, the process first becomes that user.
    pub fn open(options: StoreOptions, access: Access) -> Result<Self> {
        let path = &options.dir;
        let dir = match Spot::hold(path) {
            Ok(dir) => dir,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                if access != Access::Create {
                    return Err(Error::NoStore { dir: path.clone() });
                }
                create_root(path)?;
                Spot::hold(path).map_err(|e| Error::io("open", path, e))?
            }
            Err(e) => return Err(Error::io("open", path, e)),
        };
        Self::open_held(dir, options, access)
    }

    /// The same for a directory that is held open already.
    pub fn open_held(dir: Spot, options: StoreOptions, access: Access) -> Result<Self> {
        let stat = fs::stat(&dir)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let refuse = |found| Err(Error::NotOurs { dir: dir.path().to_owned(), found });
        if kind.is_symlink() {
            return refuse(Unfit::Symlink);
        }
        if !kind.is_dir() {
            return refuse(Unfit::NotDirectory);
        }
        let mode = stat.st_mode & 0o7777;
        if mode & 0o022 != 0 {
            let by = if mode & 0o002 != 0 { "world" } else { "group" };
            return refuse(Unfit::Writable { by, mode });
        }
        let adopted = rustix::process::geteuid().is_root() && stat.st_uid != 0;
        let ours = become_owner(&dir, &stat, access)?;
        let store = Self { dir, owner: stat.st_uid, ours, adopted, options };
        store.check_format(access, mode)?;
        Ok(store)
    }

    /// Its directory.
    pub fn dir(&self) -> &Spot {
        &self.dir
    }

    /// The settings that it was opened with.
    pub fn options(&self) -> &StoreOptions {
        &self.options
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
    pub fn require_trusted_owner(&self) -> Result<()> {
        if !self.adopted {
            return Ok(());
        }
        // Where it really is, not what its path says by now.
        let parent = self.dir.held().and_then(|dir| Ok(rustix::fs::statat(dir, "..", AtFlags::SYMLINK_NOFOLLOW)?));
        let parent = parent.map_err(|e| Error::io("examine the parent directory of", self.dir.path(), e))?;
        if parent.st_mode & 0o002 == 0 {
            return Ok(());
        }
        Err(Error::Untrusted { dir: self.dir.path().to_owned(), owner: self.owner })
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
    pub fn lock(&self) -> Result<LockFile> {
        Ok(LockFile::lock(&self.path("state.lock"))?)
    }

    /// Free bytes for us, and the size, of the store's filesystem.
    pub fn space(&self) -> Result<(u64, u64)> {
        space_of(&self.dir)
    }

    /// Why the store must not be used where it is: on this filesystem `flock` may not exclude other machines, and the operator
    /// has not forced it.
    pub fn unsafe_filesystem(&self) -> Result<Option<String>> {
        let stats = self.dir.held().and_then(|dir| Ok(rustix::fs::fstatfs(dir)?));
        let stats = stats.map_err(|e| Error::io("examine the filesystem of", self.dir.path(), e))?;
        let name = unsafe_filesystem(stats.f_type).filter(|_| !self.options.allow_network_filesystem);
        Ok(name.map(|name| {
            format!(
                "the store {} is on {name}, where flock(2) may not keep two dumpers apart; use a local filesystem, or set \
                 allow_network_filesystem = true if the lock is known to work there",
                self.dir.display()
            )
        }))
    }

    fn check_format(&self, access: Access, mode: u32) -> Result<()> {
        let path = self.path("FORMAT");
        let text = match fs::read_bounded(&path, 64) {
            Ok(data) => String::from_utf8_lossy(&data).trim().to_owned(),
            Err(e) if e.is_not_found() => {
                return match access {
                    Access::Read => Err(Error::NoStore { dir: self.dir.path().to_owned() }),
                    Access::Write | Access::Create => match self.initialise() {
                        // Somebody else has done it meanwhile, and what looked foreign is what a store has.
                        Err(_) if fs::read_bounded(&path, 64).is_ok() => self.check_format(access, mode),
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
                return Err(Error::NewerFormat { dir: self.dir.path().to_owned(), found: text, known: FORMAT });
            }
            _ => return Err(Error::UnknownFormat { path: path.path().to_owned(), found: text, known: FORMAT }),
        }
        let wanted = self.wanted_mode();
        if access != Access::Read && mode != wanted {
            self.apply_mode()?;
        }
        self.check_directories(access)
    }

    // Each must be a real directory of ours: everything is done by paths through them. One that was removed is made anew.
    fn check_directories(&self, access: Access) -> Result<()> {
        for name in SUBDIRS {
            let path = self.path(name);
            match fs::require_dir(&path, self.owner) {
                Err(e) if e.is_not_found() && access == Access::Read => {}
                Err(e) if e.is_not_found() => fs::create_dir(&path, self.wanted_mode())?,
                other => other?,
            }
        }
        if self.options.group.is_some() && access != Access::Read {
            for name in ["lease.lock", "state.lock"] {
                // flock(2) asks no more than that a file can be opened: who may only read must not be able to lock. Earlier
                // versions opened them to the group.
                let lock = self.path(name);
                if lock.stat().is_ok_and(|stat| stat.st_mode & 0o077 != 0) {
                    let _ = fs::close_to_others(&lock);
                }
            }
        }
        Ok(())
    }

    /// The mode of directories in the store: its group's to read where the store's own directory is.
    pub fn directory_mode(&self) -> Result<u32> {
        Ok(if fs::stat(&self.dir)?.st_mode & 0o050 == 0 { 0o700 } else { 0o2750 })
    }

    /// Where a capture is being written, made sure to be the directory that was made for it.
    pub fn own_staging(&self, id: &str) -> Result<Spot> {
        let staging = self.staging(id);
        fs::require_dir(&staging, self.owner)?;
        Ok(staging)
    }

    fn initialise(&self) -> Result<()> {
        if let Some(name) = foreign_entry(&self.dir)? {
            return Err(Error::Foreign { dir: self.dir.path().to_owned(), name });
        }
        self.apply_mode()?;
        for name in SUBDIRS {
            fs::create_dir(&self.path(name), self.wanted_mode())?;
        }
        if self.options.group.is_some() {
            // Whoever may read the store may ask who holds the lease, from the first command on.
            for name in ["lease.lock", "state.lock"] {
                fs::create_empty(&self.path(name))?;
            }
        }
        // Last, and synced: a store with this file is complete.
        Ok(fs::write_atomic(&self.path("FORMAT"), format!("{FORMAT}\n").as_bytes(), Durability::Synced)?)
    }

    fn wanted_mode(&self) -> u32 {
        if self.options.group.is_some() { 0o2750 } else { 0o700 }
    }

    fn apply_mode(&self) -> Result<()> {
        if let Some(group) = &self.options.group {
            let gid = group_id(group)?;
            fs::set_dir_group(&self.dir, gid).map_err(|source| Error::GiveToGroup {
                group: group.clone(),
                dir: self.dir.path().to_owned(),
                source,
            })?;
        }
        // The set-group-id bit makes what is created beneath belong to the group too.
        Ok(fs::set_dir_mode(&self.dir, self.wanted_mode())?)
    }
}

/// A name in a directory that keeps it from becoming a store, quoted.
pub fn foreign_entry(dir: &Spot) -> Result<Option<String>> {
    let names: Vec<_> = fs::list(dir)?.flatten().map(|entry| entry.name).collect();
    let foreign = names.iter().find(|name| {
        let known = SUBDIRS.iter().chain(&HARMLESS).chain(&LEFT).any(|known| *name == *known);
        !known && !name.to_str().is_some_and(|name| name.starts_with(".tmp-"))
    });
    Ok(foreign.map(|name| diagctl_fs::quoted(&name.to_string_lossy())))
}

/// Free bytes for us, and the size, of the filesystem of a directory that is held open.
pub fn space_of(dir: &Spot) -> Result<(u64, u64)> {
    Ok(fs::space(dir)?)
}

fn create_root(dir: &Path) -> Result<()> {
    let parent = fs::parent_of(dir)?;
    if !parent.is_dir() {
        return Err(Error::NoParent { dir: dir.to_owned(), parent: parent.to_owned() });
    }
    Ok(fs::create_dir(&Spot::outside(dir), 0o700)?)
}

// As systemd-coredump does: what root writes into another user's store must be readable by that user.
// Returns whether this process now has the owner's rights; who is let in by the group may read without them.
fn become_owner(dir: &Spot, stat: &Stat, access: Access) -> Result<bool> {
    let owner = stat.st_uid;
    let me = rustix::process::geteuid();
    if me.as_raw() == owner {
        return Ok(true);
    }
    if !me.is_root() {
        if access == Access::Read && fs::list(dir).is_ok() {
            return Ok(false);
        }
        return Err(Error::Owned { dir: dir.path().to_owned(), owner, uid: me.as_raw() });
    }
    let (uid, gid) = (rustix::process::Uid::from_raw(owner), rustix::process::Gid::from_raw(stat.st_gid));
    // The calls are per thread. Commands that also need the caller's rights open the store in a thread of its own; in all
    // others there is but one.
    rustix::thread::set_thread_groups(&[gid])
        .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
        .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid))
        .map_err(|e| Error::Become { uid: owner, dir: dir.path().to_owned(), source: e.into() })?;
    Ok(true)
}

/// The number of a group.
pub fn group_id(name: &str) -> Result<u32> {
    let path = Path::new("/etc/group");
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    text.lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
        })
        .ok_or_else(|| Error::NoGroup { name: name.to_owned() })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_nothing_but_names_of_a_store_becomes_one_and_any_other_is_refused() {
        let table: [(&[&str], Option<&str>); 6] = [
            (&[], None),
            (&["lost+found"], None),
            (&["samples.jsonl"], None),
            (&["state.lock", "index.jsonl", ".tmp-1"], None),
            (&["index.jsonl", "notes"], Some("\"notes\"")),
            (&["wp-config.php"], Some("\"wp-config.php\"")),
        ];
        for (names, foreign) in table {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("store");
            fs::create_dir(&Spot::outside(&root), 0o700).unwrap();
            names.iter().for_each(|name| std::fs::write(root.join(name), "x").unwrap());
            let opened = Store::open(StoreOptions::new(&root), Access::Create);
            match (opened, foreign) {
                (Ok(_), None) => assert!(root.join("FORMAT").is_file(), "{names:?}"),
                (Err(Error::Foreign { name, .. }), Some(foreign)) => {
                    assert_eq!(name, foreign);
                    assert!(!root.join("FORMAT").exists());
                }
                (other, _) => panic!("{names:?}: {other:?}"),
            }
        }
    }
}
