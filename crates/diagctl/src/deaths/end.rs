//! What is known about the end of one process, from all notes about it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::history::{By, Ended};

/// Signals that ask a process to end. Whoever follows one was stopped and did not die.
const STOPS: [i32; 4] = [1, 2, 3, 15];

/// Names of the signals that end a process.
const NAMES: [(i32, &str); 14] = [
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (4, "SIGILL"),
    (5, "SIGTRAP"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (11, "SIGSEGV"),
    (14, "SIGALRM"),
    (15, "SIGTERM"),
    (24, "SIGXCPU"),
    (31, "SIGSYS"),
];

/// How a process ended, as far as anybody noted that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct End {
    /// Set if the process said that it ends by itself.
    #[serde(skip)]
    said: bool,
    /// The exit status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The class of the exception that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Set if the kernel killed a process of the cgroup because of its memory limit at that time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub oom_kill: bool,
    /// The worker killer that announced itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub killer: Option<String>,
}

impl End {
    // What the parent saw is the truth about status and signal, whatever the process said before.
    fn add(&mut self, note: &Ended) {
        match note.by {
            By::Process => {
                self.said = true;
                self.error.clone_from(&note.error);
                (self.exit, self.signal) = (self.exit.or(note.exit), self.signal.or(note.signal));
            }
            By::Parent => (self.exit, self.signal, self.oom_kill) = (note.exit, note.signal, note.oom_kill),
            By::Killer => self.killer.clone_from(&note.killer),
            By::Other => {}
        }
    }

    /// Returns true if the process was stopped, and neither failed nor was killed for its size.
    pub fn is_goodbye(&self) -> bool {
        let stopped = match (self.exit, self.signal) {
            (_, Some(signal)) => STOPS.contains(&signal),
            (Some(status), None) => status == 0,
            (None, None) => self.said,
        };
        stopped && self.error.is_none() && self.killer.is_none()
    }

    /// Says how the process ended, if anybody noted that.
    pub fn told(&self) -> Option<String> {
        if let Some(killer) = &self.killer {
            return Some(format!("by {killer}"));
        }
        if self.oom_kill {
            return Some("oom_kill".into());
        }
        match (&self.error, self.signal, self.exit) {
            (_, Some(signal), _) if !STOPS.contains(&signal) => Some(format!("killed ({})", name(signal))),
            (Some(error), ..) => Some(error.clone()),
            (_, Some(signal), _) => Some(format!("killed ({})", name(signal))),
            (_, _, Some(status)) => Some(format!("exit status {status}")),
            _ => None,
        }
    }
}

fn name(signal: i32) -> String {
    let known = NAMES.iter().find(|(number, _)| *number == signal);
    known.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}

/// Puts together what is noted about each process, by pid namespace, pid and start.
pub(super) fn by_process(notes: &[Ended]) -> BTreeMap<(u64, u32, u64), End> {
    let mut ends: BTreeMap<_, End> = BTreeMap::new();
    for note in notes {
        ends.entry((note.pid_ns, note.pid, note.start_ticks)).or_default().add(note);
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(by: By, exit: Option<i32>, signal: Option<i32>) -> Ended {
        Ended { by, exit, signal, ..Ended::default() }
    }

    #[test]
    fn a_stop_is_no_death_and_every_other_end_is_told() {
        let error = |class: &str| Ended { error: Some(class.into()), ..note(By::Process, None, None) };
        let killer = Ended { killer: Some("puma_worker_killer".into()), ..note(By::Killer, None, None) };
        let oom = Ended { oom_kill: true, ..note(By::Parent, None, Some(9)) };
        let (said, parent) =
            (|exit, signal| note(By::Process, exit, signal), |exit, signal| note(By::Parent, exit, signal));
        // (notes, what is told; empty if it is a goodbye)
        let table: [(Vec<Ended>, &str); 12] = [
            (vec![said(Some(0), None)], ""),
            (vec![said(None, Some(15))], ""),
            (vec![parent(Some(0), None)], ""),
            (vec![said(Some(0), None), parent(None, Some(15))], ""),
            (vec![said(Some(1), None)], "exit status 1"),
            (vec![error("NoMemoryError"), parent(Some(1), None)], "NoMemoryError"),
            (vec![parent(None, Some(11))], "killed (SIGSEGV)"),
            // It hung while it stopped, and was killed.
            (vec![said(Some(0), None), parent(None, Some(9))], "killed (SIGKILL)"),
            (vec![parent(None, Some(9)), said(Some(0), None)], "killed (SIGKILL)"),
            (vec![oom], "oom_kill"),
            (vec![killer.clone(), said(None, Some(15))], "by puma_worker_killer"),
            (vec![parent(None, Some(34)), note(By::Other, Some(0), None)], "killed (signal 34)"),
        ];
        for (notes, expected) in table {
            let end = by_process(&notes).into_values().next().unwrap_or_default();
            let told = if end.is_goodbye() { String::new() } else { end.told().unwrap_or_default() };
            assert_eq!(told, expected, "{notes:?}");
        }
        assert!(!End::default().is_goodbye());
    }
}
