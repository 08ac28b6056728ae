//! The command of `diagctl run`, and its end.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::Args;
use crate::cli::Context;
use crate::cli::error::{Failure, quoted};
use crate::fsio::{self, Spot};
use crate::operator_command;
use crate::sys::Endings;
use diagctl_store::ReportName;
use diagctl_store::commit::Told;
use diagctl_store::staging::{self, Grant};
use diagctl_store::writer::{self, Room};
use diagctl_store::{Store, holders};

/// The end of a command that was killed at the deadline.
pub(super) const OVERDUE: &str = "killed: it was not done within guards.deadline";

pub(super) fn execute(
    cx: &Context,
    store: &Store,
    grant: &Grant,
    args: &Args,
    lease: &File,
    (endings, ended_by): (Endings, &Arc<AtomicI32>),
) -> Result<Told, Failure> {
    let id = &grant.meta.id;
    let staging = store.own_staging(id)?;
    // The command inherits the description as well: if diagctl is killed, the lease lasts as long as the command runs.
    let inherited = lease.try_clone().context("cannot duplicate the lease")?;
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).context("cannot hand the lease down")?;
    let mut child = Command::new(&args.command[0])
        .args(&args.command[1..])
        .env("DIAGCTL_CAPTURE", id.as_str())
        .env("DIAGCTL_CAPTURE_DIR", staging.path())
        .stdin(Stdio::null())
        .stdout(if args.report.is_some() { Stdio::piped() } else { Stdio::inherit() })
        .spawn()
        .map_err(|e| {
            // The failure is an event, too, and so names no argument.
            let given = args.command[0].to_string_lossy();
            let (program, cut) = given.split_once(char::is_whitespace).map_or((&*given, ""), |(word, _)| (word, "…"));
            Failure::failed(format!("cannot run {}{cut}: {e}", quoted(program)))
                .hint("give the program and its arguments after --, each as a word of its own")
        })?;
    drop(inherited);
    holders::register_process(&staging, &cx.proc, child.id());
    hand_on(&child, endings, Arc::clone(ended_by))?;
    let overdue = end_at_the_deadline(cx.config().guards.deadline);
    let mut stored = Ok(());
    let how = |status: ExitStatus| {
        if overdue.load(Ordering::SeqCst) { OVERDUE.to_owned() } else { status.to_string() }
    };
    if let (Some(name), Some(stdout)) = (grant.planned.first(), child.stdout.take()) {
        let mut room = Room::of(store, grant)?;
        let form = store.options().file_type(name);
        let end = Cell::new(None);
        // A command that was killed printed half a report.
        let killed = || end.get().filter(|status: &ExitStatus| status.signal().is_some());
        let cut_off = || killed().map(|status| format!("the command was cut off ({})", how(status)));
        let mut printed = Printed { stdout, child: &mut child, end: &end };
        stored = writer::store_as(&mut room, &staging, name, &form, &mut printed, &cut_off).map(drop);
    }
    let status = child.wait().context("cannot wait for the command")?;
    let mut told = Told::default();
    // An empty report counts if it was asked for, but a capture without any report does not.
    if !produced(&store.own_staging(id)?, grant.planned.first(), status.success())? {
        stored?;
        return Err(Failure::failed(format!("the command produced nothing ({})", how(status))).hint(
            match grant.planned.is_empty() {
                true => "write files to DIAGCTL_CAPTURE_DIR, or store stdout with --report NAME",
                false => "run the command by hand: it printed nothing and wrote no file to DIAGCTL_CAPTURE_DIR",
            },
        ));
    }
    if !status.success() {
        told.labels.insert("exit_status".into(), how(status));
    }
    Ok(told)
}

/// What a command prints. It ends with the command: until then nothing is known to be whole.
struct Printed<'a> {
    stdout: ChildStdout,
    child: &'a mut Child,
    end: &'a Cell<Option<ExitStatus>>,
}

impl Read for Printed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stdout.read(buffer)? {
            0 if !buffer.is_empty() => {
                self.end.set(Some(self.child.wait()?));
                Ok(0)
            }
            n => Ok(n),
        }
    }
}

// Kills everything that the command has started once the deadline is over. Returns whether that has happened. The command holds
// the lease, so nobody else can capture while it hangs.
pub(super) fn end_at_the_deadline(deadline: Duration) -> Arc<AtomicBool> {
    let overdue = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&overdue);
    // Orphans of the command become children of this process, so that none escapes.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    std::thread::spawn(move || {
        std::thread::sleep(deadline);
        told.store(true, Ordering::SeqCst);
        operator_command::kill_remains();
    });
    overdue
}

// Forwards signals that would end this process to the command. Uses a descriptor of the command, because its pid may be reused
// by then. Signals from the terminal are not forwarded: the command has received them already.
pub(super) fn hand_on(child: &Child, endings: Endings, ended_by: Arc<AtomicI32>) -> Result<(), Failure> {
    let command =
        rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty()).context("cannot watch the command")?;
    let watch = move || {
        loop {
            let (signal, by_terminal) = endings.wait();
            ended_by.store(signal, Ordering::SeqCst);
            if let Some(signal) = Signal::from_named_raw(signal).filter(|_| !by_terminal) {
                // The command may have ended already.
                let _ = rustix::process::pidfd_send_signal(&command, signal);
            }
        }
    };
    std::thread::Builder::new().spawn(watch).context("cannot start a thread")?;
    Ok(())
}

pub(super) fn produced(staging: &Spot, report: Option<&ReportName>, empty_counts: bool) -> Result<bool, Failure> {
    let noted = report.map(|name| staging::read_sidecar(staging, name)).transpose()?.flatten();
    if noted.as_ref().is_some_and(|report| report.file.is_some() && (empty_counts || report.raw_bytes > 0)) {
        return Ok(true);
    }
    let own = noted.and_then(|report| report.file).unwrap_or_default();
    let mut names = fsio::list(staging)?.flatten().map(|entry| entry.name);
    Ok(names.any(|name| !name.as_encoded_bytes().starts_with(b".") && name != *own))
}
