//! The producer that writes a report into the stdin of `put`: this process's parent. The end of the input is the end of the report
//! only if the producer lives; otherwise the kernel has closed the pipe, and half a report would pass for a whole one.

use std::io::{self, Read};

use diagctl_fs::Spot;
use diagctl_observe::{Presence, ProcessId};
use diagctl_store::holders;
use diagctl_store::staging::{Grant, Snapshot};

use crate::proc::Proc;

/// The input of a producer. If the producer has died, the end of the input is an error.
pub struct Produced<R> {
    input: R,
    proc: Proc,
    parent: Option<u32>,
    /// The program of the parent: if it executes another one, the pipe ends, too.
    image: Option<[u64; 3]>,
    dumper: Option<ProcessId>,
}

impl<R: Read> Produced<R> {
    /// Watches the parent of this process, and the process to which the capture was granted. That one may have died before this
    /// process could learn who its parent was.
    pub fn new(input: R, proc: &Proc, dumper: Option<ProcessId>) -> Self {
        let parent = parent();
        let image = parent.and_then(|pid| proc.image(pid).ok().flatten());
        Self { input, proc: proc.clone(), parent, image, dumper }
    }

    fn lives(&self) -> bool {
        let Some(pid) = self.parent else { return true };
        let is_there = |id: &ProcessId| match self.proc.presence(id) {
            Presence::Here(pid) => self.is_whole(pid),
            Presence::Gone => false,
            Presence::Elsewhere => true,
        };
        let is_same = || self.image.is_none() || self.proc.image(pid).map_or(true, |image| image == self.image);
        parent() == self.parent && self.is_whole(pid) && is_same() && self.dumper.as_ref().is_none_or(is_there)
    }

    // The kernel sets the flag before it closes the descriptors, and only then gives the children to another parent.
    fn is_whole(&self, pid: u32) -> bool {
        // A process that may not be looked at (hidepid) still has children only while it lives.
        self.proc.stat(pid).map_or(true, |stat| !stat.is_ending && stat.state != 'Z')
    }
}

/// Returns the process that makes the reports of a capture, if it is known: the worker itself, or the registered dumper, which leads
/// the group of this process.
pub fn dumper(grant: &Grant, staging: &Spot, proc: &Proc) -> Option<ProcessId> {
    match grant.snapshot {
        Snapshot::InProcess => Some(grant.meta.process()),
        Snapshot::Fork => {
            let group = proc.stat(std::process::id()).ok()?.pgrp;
            holders::list(staging).into_iter().find(|id| id.pid == group && id.pid != std::process::id())
        }
    }
}

fn parent() -> Option<u32> {
    rustix::process::getppid().and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok())
}

impl<R: Read> Read for Produced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer)? {
            0 if !buffer.is_empty() && !self.lives() => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "its producer died before the end of the report"))
            }
            n => Ok(n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_input_counts_only_while_the_producer_lives() {
        let proc = Proc::default();
        let image = parent().and_then(|pid| proc.image(pid).unwrap());
        let me = proc.process_id(std::process::id()).unwrap();
        let gone = ProcessId { start_ticks: me.start_ticks + 1, ..me.clone() };
        let elsewhere = ProcessId { boot_id: "another".into(), ..gone.clone() };
        let table = [
            (parent(), image, None, true),
            (parent(), None, Some(me), true),
            (parent(), None, Some(gone), false),
            (parent(), None, Some(elsewhere), true),
            (parent(), Some([1; 3]), None, false),
            (Some(u32::MAX), None, None, false),
        ];
        for (parent, image, dumper, expected) in table {
            let why = format!("{parent:?} {image:?} {dumper:?}");
            let input = Produced { input: &b"text"[..], proc: proc.clone(), parent, image, dumper };
            let mut text = String::new();
            let read = io::BufReader::new(input).read_to_string(&mut text);
            assert_eq!(
                read.map_err(|e| e.kind()),
                if expected { Ok(4) } else { Err(io::ErrorKind::UnexpectedEof) },
                "{why}"
            );
        }
    }
}
