//! Ships what waits, with `diagctl-remote ship --once`. One process at a time does so on a store.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use crate::cli::{Context, Failure, remote};
use crate::exit_code::Exit;
use crate::sys;
use diagctl_fs::{LockFile, printable, without_secrets};
use diagctl_store::shipping::{self, Waiting};
use diagctl_store::{Id, Store};

/// The most bytes that a failure quotes.
const SAID: u64 = 1000;

/// Ships until no capture waits that was published meanwhile. One that cannot be shipped waits for the next capture.
pub fn run(cx: &Context, store: &Store) -> Result<(), Failure> {
    if !cx.config().remote.as_ref().is_some_and(|remote| remote.after_capture) {
        return Ok(());
    }
    let lock = shipping::directory(store)?.join("after-capture.lock");
    let mut tried = BTreeSet::new();
    loop {
        let Some(turn) = LockFile::try_lock(&lock)? else { return Ok(()) };
        let before = ids(store)?;
        if shipping::is_watched(store) {
            return Ok(());
        }
        if !before.is_subset(&tried) {
            ship(cx, store);
            tried.extend(before);
        }
        drop(turn);
        // The process of a capture that was published before this moment may have found the lock taken, and ended.
        if ids(store)?.is_subset(&tried) {
            return Ok(());
        }
    }
}

fn ids(store: &Store) -> Result<BTreeSet<Id>, Failure> {
    Ok(shipping::waiting(store)?.iter().map(|Waiting { id, .. }| *id).collect())
}

// A failure is recorded, by the shipper itself or else here.
fn ship(cx: &Context, store: &Store) {
    let known = shipping::outcome(store).failures;
    let shipped = remote::command(cx)
        .map_err(|failure| failure.message)
        .and_then(|command| execute(command).unwrap_or_else(|error| Err(format!("diagctl-remote: {error}"))));
    if let Err(why) = shipped
        && shipping::outcome(store).failures == known
    {
        shipping::note_failure(store, &why);
    }
}

fn execute(mut command: Command) -> io::Result<Result<(), String>> {
    command
        .args(["ship", "--once", "--unless-watched"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    sys::die_with_parent(&mut command);
    let mut child = command.spawn()?;
    let mut said = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.by_ref().take(SAID).read_to_end(&mut said)?;
        // Read to the end, so that it does not wait for a reader.
        io::copy(&mut stderr, &mut io::sink())?;
    }
    let status = child.wait()?;
    if status.success() || status.code() == Some(Exit::Partial as i32) {
        return Ok(Ok(()));
    }
    let first = BufReader::new(&*said).lines().map_while(Result::ok).next().unwrap_or_default();
    let first = printable(&without_secrets(first.trim_start_matches("diagctl: ")));
    Ok(Err(if first.is_empty() { format!("diagctl-remote ended with {status}") } else { first }))
}
