//! The store's directory: its layout, its owner and the access to it.
//!
//! ```text
//! FORMAT                 the version of this layout
//! lease.lock lease.json  see `lease`
//! state.lock state.json samples/   see `state` and `sample`; state.lock guards every small file
//! requests/              on-demand requests, one file each
//! inbox/                 orders of the group's members, if they may leave any
//! requests.json          the requests that a poll considers when there are very many
//! staging/<id>/          a capture being written
//! reports/<id>/          published captures, authoritative
//! index.jsonl            a cache over reports/*/meta.json
//! catalog.bin            a packed cache with running totals
//! events.jsonl           the latest verdicts, deletions and failures, bounded
//! remote/                see `shipping`, if captures are shipped
//! quarantine/ trash/     untrusted files, and files being deleted
//! ```
//! The directory belongs to one user and nobody else can enter it, so nobody else can plant a name in it. A command holds the
//! directory open while it works, and reaches everything from there, even if the path comes to mean another directory.

mod foreign;
mod owner;

pub use foreign::foreign_entry;
pub use owner::group_id;
use rustix::fs::{AtFlags, FileType};

use crate::error::{Error, Result, Unfit};
use crate::events;
use crate::id::Id;
use crate::inbox::{self, INBOX};
use crate::layout::{FORMAT, SUBDIRS};
use crate::options::StoreOptions;
use diagctl_fs::{self as fs, Durability, LockFile, Spot};
use owner::{become_owner, become_owner_to_be, create_root};

/// The access to a store that a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Change an existing store.
    Write,
    /// Change the store, or create it if it does not exist.
    Create,
    /// Do the same on behalf of the workers, which are other processes. Root creates a store only where its owner is clear,
    /// because a store of root's would lock out workers that run as another user.
    CreateForWorkers,
}

impl Access {
    fn creates(self) -> bool {
        matches!(self, Self::Create | Self::CreateForWorkers)
    }
}

/// Files and directories that one opening gives to the store's group. They take less than a second.
const SHARED_AT_ONCE: usize = 20_000;

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
    /// Checks that the store is ours and safe to use, and with [`Access::Create`] creates it. If root opens a store that another
    /// user owns, the process first becomes that user.
    pub fn open(options: StoreOptions, access: Access) -> Result<Self> {
        let path = &options.dir;
        let dir = match Spot::hold(path) {
            Ok(dir) => dir,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                if !access.creates() {
                    return Err(Error::NoStore { dir: path.clone() });
                }
                if access == Access::CreateForWorkers {
                    become_owner_to_be(path)?;
                }
                create_root(path)?;
                Spot::hold(path).map_err(|e| Error::io("open", path, e))?
            }
            Err(e) => return Err(Error::io("open", path, e)),
        };
        Self::open_held(dir, options, access)
    }

    /// Does the same for a directory that is already held open.
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
        let euid = rustix::process::geteuid();
        let is_open = mode & 0o022 != 0;
        // The owner's own store may be closed again. Any other directory may be meant to be open.
        if is_open && (dir.join("FORMAT").stat().is_err() || !(euid.is_root() || euid.as_raw() == stat.st_uid)) {
            let by = if mode & 0o002 != 0 { "world" } else { "group" };
            return refuse(Unfit::Writable { by, mode });
        }
        let adopted = euid.is_root() && stat.st_uid != 0;
        let ours = become_owner(&dir, &stat, access)?;
        let store = Self { dir, owner: stat.st_uid, ours, adopted, options };
        // Reading changes nothing.
        let mode = match access {
            Access::Read => mode,
            _ if is_open => store.close(mode)?,
            _ => store.leave_group(stat.st_gid, mode)?,
        };
        store.check_format(access, mode)?;
        Ok(store)
    }

    // Kubernetes gives all files of a volume to the pod's `fsGroup` and makes them group-writable, anew at each mount. Nobody else
    // can enter the store while its files are restricted. Whatever somebody else has put there stays a reason to refuse it.
    fn close(&self, mode: u32) -> Result<u32> {
        const CLOSED: u32 = 0o700;
        fs::set_dir_mode(&self.dir, CLOSED)?;
        // Orders belong to their senders, who can repeat them.
        fs::children(&self.path(INBOX)).for_each(|entry| drop(fs::remove(&self.path(INBOX).join(&entry.name))));
        let keep = if self.options.group.is_some() { 0o2750 } else { CLOSED };
        if let Err(refusal) = fs::restrict_tree(&self.dir, self.owner, keep) {
            fs::set_dir_mode(&self.dir, mode)?;
            return Err(refusal.into());
        }
        let what = format!("the store had mode {mode:04o}, so others could write to it; it is closed to them again");
        events::record(self, &events::Event::about("closed", "", &what));
        Ok(CLOSED)
    }

    // Closes a store that is shared with another group than the operator wants by now, and gives it to that group. It is opened again
    // when everything in it is shared; until then each opening goes on with that.
    fn leave_group(&self, gid: u32, mode: u32) -> Result<u32> {
        const CLOSED: u32 = 0o700;
        // A group that is gone from the machine is told by `config check`.
        let wanted = self.options.group.as_deref().and_then(|group| group_id(group).ok());
        if !self.ours || mode == CLOSED || wanted.is_none_or(|wanted| wanted == gid) {
            return Ok(mode);
        }
        fs::set_dir_mode(&self.dir, CLOSED)?;
        if let Err(refusal) = self.give_to_group() {
            fs::set_dir_mode(&self.dir, mode)?;
            return Err(refusal);
        }
        Ok(CLOSED)
    }

    fn give_to_group(&self) -> Result<Option<u32>> {
        let Some(group) = &self.options.group else { return Ok(None) };
        let gid = group_id(group)?;
        fs::set_dir_group(&self.dir, gid).map_err(|source| Error::GiveToGroup {
            group: group.clone(),
            dir: self.dir.path().to_owned(),
            source,
        })?;
        Ok(Some(gid))
    }

    /// Returns the store's directory.
    pub fn dir(&self) -> &Spot {
        &self.dir
    }

    /// Returns the settings with which the store was opened.
    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// Returns the uid of the store's owner.
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// Returns true if this process has the owner's rights. A member of the store's group may only read.
    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// Fails if root became the owner of a store whose parent directory is world-writable. Anybody could have made such a store,
    /// and would read the dumps in it.
    pub fn require_trusted_owner(&self) -> Result<()> {
        if !self.adopted {
            return Ok(());
        }
        // Examines the real parent directory, not the one in the path, which may have changed.
        let parent = self.dir.held().and_then(|dir| Ok(rustix::fs::statat(dir, "..", AtFlags::SYMLINK_NOFOLLOW)?));
        let parent = parent.map_err(|e| Error::io("examine the parent directory of", self.dir.path(), e))?;
        if parent.st_mode & 0o002 == 0 {
            return Ok(());
        }
        Err(Error::Untrusted { dir: self.dir.path().to_owned(), owner: self.owner })
    }

    /// Returns the path of a name in the store.
    pub fn path(&self, name: &str) -> Spot {
        self.dir.join(name)
    }

    /// Returns the directory in which a capture is written.
    pub fn staging(&self, id: &Id) -> Spot {
        self.dir.join("staging").join(id.as_str())
    }

    /// Returns the directory of a published capture.
    pub fn report_dir(&self, id: &Id) -> Spot {
        self.dir.join("reports").join(id.as_str())
    }

    /// Takes the lock that guards the small files. Hold the lock for milliseconds only.
    pub fn lock(&self) -> Result<LockFile> {
        Ok(LockFile::lock(&self.path("state.lock"))?)
    }

    /// Returns the free bytes available to us and the total size of the store's filesystem.
    pub fn space(&self) -> Result<(u64, u64)> {
        space_of(&self.dir)
    }

    /// Returns the reason why the filesystem is unsafe for a store, if it is: `flock` may not exclude other machines there, and
    /// the operator has not allowed such filesystems.
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
                    Access::Write | Access::Create | Access::CreateForWorkers => match self.initialise() {
                        // Another process has created the store meanwhile, and the foreign names were its files.
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

    // Each must be a real directory of ours, because every path leads through one of them. A missing directory is created.
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
            self.open_inbox()?;
            for name in ["lease.lock", "state.lock"] {
                // flock(2) only needs a file that can be opened, so a user who may only read must not be able to open the lock
                // files. Closes lock files that an older version opened to the group.
                let lock = self.path(name);
                if lock.stat().is_ok_and(|stat| stat.st_mode & 0o077 != 0) {
                    let _ = fs::close_to_others(&lock);
                }
            }
        }
        Ok(())
    }

    // Makes the inbox as writable as the operator allows.
    fn open_inbox(&self) -> Result<()> {
        let inbox = self.path(INBOX);
        let wanted = if self.options.orders { inbox::MODE } else { self.wanted_mode() };
        match fs::require_dir(&inbox, self.owner) {
            Err(e) if e.is_not_found() && self.options.orders => Ok(fs::create_dir(&inbox, wanted)?),
            Err(e) if e.is_not_found() => Ok(()),
            Ok(()) if inbox.stat().is_ok_and(|stat| stat.st_mode & 0o7777 != wanted) => {
                Ok(fs::set_dir_mode(&inbox, wanted)?)
            }
            other => Ok(other?),
        }
    }

    /// Returns the mode for directories in the store: readable by the group if the store's own directory is.
    pub fn directory_mode(&self) -> Result<u32> {
        Ok(if fs::stat(&self.dir)?.st_mode & 0o050 == 0 { 0o700 } else { 0o2750 })
    }

    /// Returns the directory in which a capture is written, after a check that it is a real directory of the owner.
    pub fn own_staging(&self, id: &Id) -> Result<Spot> {
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
            // A user who may read the store may ask for the lease's holder, so the files must exist from the start.
            for name in ["lease.lock", "state.lock"] {
                fs::create_empty(&self.path(name))?;
            }
            self.open_inbox()?;
        }
        // Written last and synced: a store with this file is complete.
        Ok(fs::write_atomic(&self.path("FORMAT"), format!("{FORMAT}\n").as_bytes(), Durability::Synced)?)
    }

    fn wanted_mode(&self) -> u32 {
        if self.options.group.is_some() { 0o2750 } else { 0o700 }
    }

    fn apply_mode(&self) -> Result<()> {
        if let Some(gid) = self.give_to_group()? {
            // A store that is older than the key. The mode comes last: whoever sees it finds everything shared. In a large store the next
            // opening goes on.
            if !fs::share_tree(&self.dir, self.owner, gid, &["lease.lock", "state.lock"], SHARED_AT_ONCE)? {
                return Ok(());
            }
        }
        // With the set-group-id bit, everything created in the directory belongs to the group.
        Ok(fs::set_dir_mode(&self.dir, self.wanted_mode())?)
    }
}

/// Returns the free bytes available to us and the total size of a held directory's filesystem.
pub fn space_of(dir: &Spot) -> Result<(u64, u64)> {
    Ok(fs::space(dir)?)
}

/// Returns the name of a filesystem on which `flock` may not exclude other machines, by its magic number.
pub fn unsafe_filesystem(magic: i64) -> Option<&'static str> {
    // The numbers are from linux/magic.h and the sources of the filesystems.
    match magic {
        0x6969 => Some("NFS"),
        0xff53_4d42 | 0xfe53_4d42 => Some("SMB/CIFS"),
        0x0102_1997 => Some("9p"),
        0x6573_5546 => Some("FUSE"),
        0x6a65_6a63 => Some("virtiofs"),
        _ => None,
    }
}
