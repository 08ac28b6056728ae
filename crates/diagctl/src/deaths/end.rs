//! The evidence about the end of one process, from all notes about it.

use serde::Serialize;

use crate::history::{By, Ended};

/// Signals that ask a process to end. Whoever follows one was stopped and did not die.
const STOPS: [i32; 4] = [1, 2, 3, 15];

/// A kill by the kernel that was counted within this time is taken to be that of the process, milliseconds. A Puma master looks every
/// five seconds.
const SURE_MS: u64 = 15_000;

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
    /// Set if the parent noted it.
    #[serde(skip)]
    parent: bool,
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
    /// The time within which that kill was counted, milliseconds. `None` if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_window_ms: Option<u64>,
    /// The worker killer that announced itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub killer: Option<String>,
}

impl End {
    // The parent is right about status and signal, whatever the process said before.
    pub(super) fn add(&mut self, note: &Ended) {
        match note.by {
            By::Process => {
                self.said = true;
                self.error.clone_from(&note.error);
                (self.exit, self.signal) = (self.exit.or(note.exit), self.signal.or(note.signal));
            }
            By::Parent => {
                self.parent = true;
                (self.exit, self.signal) = (note.exit, note.signal);
                (self.oom_kill, self.oom_window_ms) = (note.oom_kill, note.oom_window_ms);
            }
            By::Killer => self.killer.clone_from(&note.killer),
            By::Other => {}
        }
    }

    /// Returns true if the parent noted it.
    pub fn has_parent(&self) -> bool {
        self.parent
    }

    /// Returns true if the process was stopped, and neither failed nor was killed for its size.
    pub fn is_goodbye(&self) -> bool {
        let unknown = self.exit.is_none() && self.signal.is_none();
        let stopped = if unknown { self.said } else { is_stop(self.exit, self.signal) };
        stopped && self.error.is_none() && self.killer.is_none()
    }

    /// Says how the process ended, if anybody noted that. `oom_kills` is the number of kills in the cgroup since its last poll, if
    /// that was counted.
    pub fn told(&self, oom_kills: Option<u64>) -> Option<String> {
        if let Some(killer) = &self.killer {
            return Some(format!("by {killer}"));
        }
        // Another process of the cgroup may have been killed, so the times must fit.
        if self.oom_kill && oom_kills != Some(0) {
            let sure = self.oom_window_ms.is_some_and(|window| window <= SURE_MS);
            return Some(if sure { "oom_kill" } else { POSSIBLY }.into());
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

/// Said where the kernel killed a process of the cgroup, and nothing tells which.
pub const POSSIBLY: &str = "possibly oom_kill";

/// Returns true if a process that ended like that was stopped, and did not die.
pub fn is_stop(exit: Option<i32>, signal: Option<i32>) -> bool {
    match (exit, signal) {
        (_, Some(signal)) => STOPS.contains(&signal),
        (status, None) => status == Some(0),
    }
}

/// Returns the number of a signal from its name, with or without SIG, or from its number.
pub fn signal(text: &str) -> Option<i32> {
    let is_it = |(_, name): &&(i32, &str)| *name == text || name.strip_prefix("SIG") == Some(text);
    let known = NAMES.iter().find(is_it).map(|(number, _)| *number);
    known.or_else(|| text.parse().ok().filter(|number| (1..=64).contains(number)))
}

fn name(signal: i32) -> String {
    let known = NAMES.iter().find(|(number, _)| *number == signal);
    known.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
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
        let oom = |oom_window_ms| Ended { oom_kill: true, oom_window_ms, ..note(By::Parent, None, Some(9)) };
        let (said, parent) =
            (|exit, signal| note(By::Process, exit, signal), |exit, signal| note(By::Parent, exit, signal));
        // (notes, what is told; empty if it is a goodbye)
        let table: [(Vec<Ended>, &str); 14] = [
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
            (vec![oom(Some(6000))], "oom_kill"),
            (vec![oom(Some(60_000))], "possibly oom_kill"),
            (vec![oom(None)], "possibly oom_kill"),
            (vec![killer.clone(), said(None, Some(15))], "by puma_worker_killer"),
            (vec![parent(None, Some(34)), note(By::Other, Some(0), None)], "killed (signal 34)"),
        ];
        for (notes, expected) in table {
            let mut end = End::default();
            notes.iter().for_each(|note| end.add(note));
            let told = if end.is_goodbye() { String::new() } else { end.told(None).unwrap_or_default() };
            assert_eq!(told, expected, "{notes:?}");
        }
        assert!(!End::default().is_goodbye());
        // No kill was counted since its last poll: it was that of another process, before.
        let mut end = End::default();
        end.add(&oom(Some(6000)));
        assert_eq!(end.told(Some(0)).as_deref(), Some("killed (SIGKILL)"));
        assert_eq!(end.told(Some(1)).as_deref(), Some("oom_kill"));
    }

    #[test]
    fn a_signal_is_known_by_name_and_number() {
        let table =
            [("KILL", Some(9)), ("SIGTERM", Some(15)), ("34", Some(34)), ("0", None), ("65", None), ("BOOM", None)];
        for (text, number) in table {
            assert_eq!(signal(text), number, "{text}");
        }
    }
}
