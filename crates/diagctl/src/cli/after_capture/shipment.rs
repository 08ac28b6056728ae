//! Ships what waits, with `diagctl-remote ship --once`. One process at a time does so on a store.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cli::{Context, Failure, remote};
use crate::exit_code::Exit;
use crate::sys;
use crate::units::{duration, ms};
use diagctl_fs::{LockFile, printable, without_secrets};
use diagctl_observe::clock::Stopwatch;
use diagctl_store::shipping::{self, Waiting};
use diagctl_store::{Id, Store};

/// The most bytes that a failure quotes.
const SAID: u64 = 1000;

/// The time in which a process that was killed ends, unless the kernel holds it (a network filesystem whose server is gone).
const END: Duration = Duration::from_secs(10);

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
    let stall = cx.config().remote.as_ref().map_or(Duration::MAX, |remote| remote.stall_timeout);
    let known = shipping::outcome(store).failures;
    let shipped = remote::command(cx)
        .map_err(|failure| failure.message)
        .and_then(|command| execute(command, stall).unwrap_or_else(|error| Err(format!("diagctl-remote: {error}"))));
    if let Err(why) = shipped
        && shipping::outcome(store).failures == known
    {
        shipping::note_failure(store, &why);
    }
}

fn execute(mut command: Command, stall: Duration) -> io::Result<Result<(), String>> {
    command
        .args(["ship", "--once", "--unless-watched", "--progress"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    sys::die_with_parent(&mut command);
    let mut child = command.spawn()?;
    let said = child.stderr.take().map(|stderr| thread::spawn(move || beginning(stderr)));
    if !follow(&mut child, stall)? {
        child.kill()?;
        // A program that does not end is not waited for. The kernel kills it with this process.
        let since = Stopwatch::start();
        while child.try_wait()?.is_none() && since.elapsed() < END {
            thread::sleep(Duration::from_millis(10));
        }
        let time = duration(ms(stall));
        return Ok(Err(format!(
            "gave up: the remote confirmed nothing for {time}; the shipment after the next capture resumes"
        )));
    }
    let status = child.wait()?;
    if status.success() || status.code() == Some(Exit::Partial as i32) {
        return Ok(Ok(()));
    }
    let said = said.and_then(|thread| thread.join().ok()).unwrap_or_default();
    let first = BufReader::new(&*said).lines().map_while(Result::ok).next().unwrap_or_default();
    let first = printable(&without_secrets(first.trim_start_matches("diagctl: ")));
    Ok(Err(if first.is_empty() { format!("diagctl-remote ended with {status}") } else { first }))
}

// Reads to the end, so that the program does not wait for a reader.
fn beginning(mut stderr: impl Read) -> Vec<u8> {
    let mut said = Vec::new();
    let _ = stderr.by_ref().take(SAID).read_to_end(&mut said);
    let _ = io::copy(&mut stderr, &mut io::sink());
    said
}

// Waits until the program closes its stdout, on which it prints something whenever the remote has confirmed a file or a part. Returns false if that is too
// long ago.
fn follow(child: &mut Child, stall: Duration) -> io::Result<bool> {
    let Some(mut stdout) = child.stdout.take() else { return Ok(true) };
    let limit =
        Timespec { tv_sec: i64::try_from(stall.as_secs()).unwrap_or(i64::MAX), tv_nsec: stall.subsec_nanos().into() };
    let mut buffer = [0; 4096];
    loop {
        match poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
            Ok(0) => return Ok(false),
            Ok(_) if stdout.read(&mut buffer)? == 0 => return Ok(true),
            Ok(_) => {}
        }
    }
}
