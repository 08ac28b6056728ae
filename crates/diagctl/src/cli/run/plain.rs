//! A command that runs without a capture, because diagctl itself failed: the command comes first.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use super::Args;
use super::child::{cannot_run, hand_on};
use crate::cli::apart;
use crate::cli::error::Failure;
use crate::cli::output::{self, Done};
use crate::fsio::{self, Spot};
use crate::sys::Endings;
use diagctl_store::{Access, Store, StoreOptions};

/// The directory that a command gets where none can be made: nothing can be written to it.
const NOWHERE: &str = "/dev/null";

/// Tells the failure, and runs the command as if diagctl were not there. What it writes to DIAGCTL_CAPTURE_DIR is deleted. Ends with the
/// exit status of the failure.
pub fn run(dir: &Path, args: &Args, endings: Endings, failure: Failure) -> Result<Done, Failure> {
    let message = format!("the command runs without a capture: {}", failure.message);
    let exit = output::fail(&Failure { message, ..failure });
    let scratch = Scratch::new();
    let mut command = Command::new(&args.command[0]);
    command
        .args(&args.command[1..])
        .env("DIAGCTL_CAPTURE", "")
        .env("DIAGCTL_CAPTURE_DIR", &scratch.0)
        .stdin(Stdio::null());
    // With a capture, root becomes the owner of the store.
    if let Some((uid, gid)) = owner_to_be(dir) {
        command.uid(uid).gid(gid);
        let _ = std::os::unix::fs::chown(&scratch.0, Some(uid), Some(gid));
    }
    let mut child = command.spawn().map_err(|e| cannot_run(args, &e))?;
    let ended_by = Arc::new(AtomicI32::new(0));
    if let Err(failure) = hand_on(&child, endings, Arc::clone(&ended_by)) {
        output::note(&failure.message);
    }
    let status = child.wait();
    drop(scratch);
    match ended_by.load(Ordering::SeqCst) {
        0 => {}
        signal => endings.end_by(signal),
    }
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => output::note(&format!("the command failed ({status})")),
        Err(e) => output::note(&format!("cannot wait for the command: {e}")),
    }
    Ok(Done::silent().with_exit(exit))
}

// Returns the user and the group that root would become to write into the store, if the store is there and can be trusted.
fn owner_to_be(dir: &Path) -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let trusted = || {
        let store = Store::open(StoreOptions::new(dir.to_owned()), Access::Write).ok()?;
        store.require_trusted_owner().ok()
    };
    // Opening it makes a thread its owner.
    apart::run(trusted).ok()??;
    let stat = rustix::fs::stat(dir).ok()?;
    (stat.st_uid != 0).then_some((stat.st_uid, stat.st_gid))
}

// A directory that only this user can enter, deleted in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let made = fsio::random_hex().ok().and_then(|name| {
            let path = std::env::temp_dir().join(format!("diagctl-run-{name}"));
            fsio::create_dir(&Spot::outside(&path), 0o700).ok().map(|()| path)
        });
        Self(made.unwrap_or_else(|| NOWHERE.into()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.0 != Path::new(NOWHERE) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
