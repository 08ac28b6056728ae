//! Processes that polled and are gone without a goodbye: what is recorded about their last minutes.
//!
//! Pure: recorded polls and notes go in, deaths come out. Nothing is recorded for this at a poll, so a poll costs what it did.

mod end;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::history::{Ended, Recorded};

pub use end::End;

/// The polls that are shown of a process that is gone, milliseconds before its last one.
const LAST_MS: u64 = 600_000;

/// Processes whose last polls are this close ended together, milliseconds. Most restarts take no longer.
const TOGETHER_MS: u64 = 60_000;

/// A kill by the kernel is looked for in the polls up to this long after the last one, milliseconds.
const AFTERWARDS_MS: u64 = 300_000;

/// Gauges that say which jobs run, by class.
const RUNNING: &str = "sidekiq.running.";

/// A process that is gone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Death {
    /// The pid.
    pub pid: u32,
    /// The start, in clock ticks since boot.
    pub start_ticks: u64,
    /// The role.
    pub role: String,
    /// The name within the role.
    pub name: String,
    /// The time of the first and of the last recorded poll, milliseconds on the store's time line.
    pub first_ms: u64,
    /// The time of the last recorded poll.
    pub last_ms: u64,
    /// Resident set at the last poll, bytes.
    pub rss_bytes: u64,
    /// Largest resident set, bytes.
    pub peak_bytes: u64,
    /// The memory limit, bytes.
    pub limit_bytes: Option<u64>,
    /// Number of other processes that are gone, of which nobody knows why either, and whose last poll was within a minute of this one's.
    pub together: usize,
    /// Kills by the kernel that the cgroup counted between the last poll and later ones. `None` if nobody recorded them.
    pub oom_kills: Option<u64>,
    /// How it ended, as far as anybody noted that.
    #[serde(flatten)]
    pub end: End,
    /// Requests that Puma worked on at the last poll. `None` if nobody recorded them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_threads: Option<u64>,
    /// The number of jobs that ran at the last poll, by class.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub jobs: BTreeMap<String, u64>,
    /// The last polls: time, and resident set in bytes.
    pub polls: Vec<(u64, u64)>,
}

impl Death {
    /// Says how the process ended, as far as that can be known.
    pub fn how(&self) -> String {
        if let Some(told) = self.end.told() {
            return told;
        }
        let guessed = match (self.oom_kills, self.together) {
            (Some(1..), _) => "oom_kill",
            (_, 1..) => "with others",
            (Some(0), 0) => "not oom_kill",
            (None, 0) => "unknown",
        };
        guessed.to_owned()
    }
}

/// Finds the processes that are gone without a goodbye, the last one first.
pub fn find(samples: &[Recorded], notes: &[Ended], is_alive: impl Fn(&Recorded) -> bool) -> Vec<Death> {
    let mut all: BTreeMap<(u64, u32, u64), Vec<&Recorded>> = BTreeMap::new();
    for sample in samples {
        all.entry((sample.pid_ns, sample.pid, sample.start_ticks)).or_default().push(sample);
    }
    let ends = end::by_process(notes);
    let ended = |key: &(u64, u32, u64)| ends.get(key).cloned().unwrap_or_default();
    let gone = all
        .iter()
        .map(|(key, polls)| (polls, ended(key)))
        .filter(|(polls, end)| !end.is_goodbye() && polls.last().is_some_and(|last| !is_alive(last)));
    let gone: Vec<_> = gone.collect();
    // One whose end is known is no sign of what ended the others.
    let unknown = gone.iter().filter(|(_, end)| end.told().is_none());
    let times: Vec<u64> = unknown.filter_map(|(polls, _)| Some(polls.last()?.at)).collect();
    let mut deaths: Vec<Death> =
        gone.into_iter().filter_map(|(polls, end)| death(polls, end, samples, &times)).collect();
    deaths.sort_by_key(|death| std::cmp::Reverse((death.last_ms, death.pid)));
    deaths
}

fn death(polls: &[&Recorded], end: End, samples: &[Recorded], times: &[u64]) -> Option<Death> {
    let (first, last) = (polls.first()?, polls.last()?);
    let rss = |poll: &Recorded| poll.memory.get("rss").copied().unwrap_or(0);
    let together = times.iter().filter(|time| time.abs_diff(last.at) <= TOGETHER_MS).count();
    // The process itself is one of them.
    let together = if end.told().is_none() { together.saturating_sub(1) } else { together };
    let recent = polls.iter().filter(|poll| last.at.saturating_sub(poll.at) <= LAST_MS);
    let jobs =
        last.gauges.iter().filter_map(|(name, count)| Some((name.strip_prefix(RUNNING)?.to_owned(), whole(*count))));
    Some(Death {
        pid: last.pid,
        start_ticks: last.start_ticks,
        role: last.role.clone(),
        name: last.name.clone(),
        first_ms: first.at,
        last_ms: last.at,
        rss_bytes: rss(last),
        peak_bytes: polls.iter().map(|poll| rss(poll)).max().unwrap_or(0),
        limit_bytes: last.limit,
        together,
        oom_kills: oom_kills(last, samples),
        end,
        busy_threads: last.gauges.get("puma.busy_threads").copied().map(whole),
        jobs: jobs.collect(),
        polls: recent.map(|poll| (poll.at, rss(poll))).collect(),
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of jobs or threads")]
fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}

// Processes with the same limit are taken to be in one cgroup: the path is not recorded.
fn oom_kills(last: &Recorded, samples: &[Recorded]) -> Option<u64> {
    let before = last.counters.get("oom_kill")?;
    let later = samples
        .iter()
        .filter(|other| other.at > last.at && other.at - last.at <= AFTERWARDS_MS && other.limit == last.limit);
    let after = later.filter_map(|other| other.counters.get("oom_kill")).max()?;
    Some(after.saturating_sub(*before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::By;

    fn poll(at: u64, pid: u32, rss: u64, oom_kill: Option<u64>) -> Recorded {
        Recorded {
            at,
            pid,
            start_ticks: 5,
            role: "puma".into(),
            memory: [("rss".to_owned(), rss)].into(),
            counters: oom_kill.map(|count| ("oom_kill".to_owned(), count)).into_iter().collect(),
            ..Recorded::default()
        }
    }

    #[test]
    fn the_living_are_not_listed_and_the_last_death_comes_first() {
        let samples = [
            poll(0, 1, 10, None),
            poll(10, 2, 10, None),
            poll(700_000, 1, 90, None),
            poll(800_000, 1, 50, None),
            poll(900_000, 3, 10, None),
        ];
        let deaths = find(&samples, &[], |last| last.pid == 3);
        let shown: Vec<_> = deaths.iter().map(|d| (d.pid, d.first_ms, d.last_ms, d.rss_bytes, d.peak_bytes)).collect();
        assert_eq!(shown, [(1, 0, 800_000, 50, 90), (2, 10, 10, 10, 10)]);
        assert_eq!(deaths[0].polls, [(700_000, 90), (800_000, 50)]);
        assert!(find(&samples, &[], |_| true).is_empty());
    }

    #[test]
    fn a_kill_is_known_from_the_counters_that_others_recorded_later() {
        // (counter at its last poll, counter of another process later, when) → how it ended
        let table = [
            (Some(3), Some(4), 70_000, "oom_kill"),
            (Some(3), Some(3), 70_000, "not oom_kill"),
            (Some(3), Some(4), 400_000, "unknown"),
            (Some(3), None, 70_000, "unknown"),
            (None, Some(4), 70_000, "unknown"),
        ];
        for (before, after, at, expected) in table {
            let deaths = find(&[poll(0, 1, 10, before), poll(at, 2, 10, after)], &[], |last| last.pid == 2);
            assert_eq!(deaths[0].how(), expected, "{before:?} {after:?} {at}");
        }
    }

    #[test]
    fn processes_that_end_within_a_minute_ended_together() {
        let samples = [poll(0, 1, 10, None), poll(30_000, 2, 10, None), poll(200_000, 3, 10, None)];
        let how: Vec<_> = find(&samples, &[], |_| false).iter().map(|death| (death.pid, death.how())).collect();
        assert_eq!(
            how,
            [(3, "unknown"), (2, "with others"), (1, "with others")].map(|(pid, how)| (pid, how.to_owned()))
        );
        // One that still polls did not end.
        let how: Vec<_> =
            find(&samples, &[], |last| last.pid == 2).iter().map(|death| (death.pid, death.how())).collect();
        assert_eq!(how, [3, 1].map(|pid| (pid, "unknown".to_owned())));
    }

    #[test]
    fn who_said_goodbye_did_not_die_and_ended_together_with_nobody() {
        let samples = [poll(0, 1, 10, None), poll(1_000, 2, 10, None), poll(2_000, 3, 10, None)];
        let note = |pid, by, exit, signal| Ended { pid, start_ticks: 5, by, exit, signal, ..Ended::default() };
        let goodbye = |pid| note(pid, By::Process, Some(0), None);
        let notes = [goodbye(1), goodbye(2), note(3, By::Parent, None, Some(9))];
        let how: Vec<_> = find(&samples, &notes, |_| false).iter().map(|death| (death.pid, death.how())).collect();
        assert_eq!(how, [(3, "killed (SIGKILL)".to_owned())]);
        // A crash near a restart is no restart.
        let how: Vec<_> = find(&samples, &notes[..2], |_| false).iter().map(|death| (death.pid, death.how())).collect();
        assert_eq!(how, [(3, "unknown".to_owned())]);
        // The goodbye of another process under the same pid counts for nothing.
        let other = Ended { start_ticks: 6, ..goodbye(3) };
        assert_eq!(find(&samples[2..], &[other], |_| false).len(), 1);
    }

    #[test]
    fn what_ran_at_the_last_poll_is_told() {
        let mut last = poll(10, 1, 10, None);
        last.gauges = [("sidekiq.running.Bloat", 2.0), ("sidekiq.busy", 3.0), ("puma.busy_threads", 4.0)]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
        let deaths = find(&[poll(0, 1, 10, None), last], &[], |_| false);
        assert_eq!((deaths[0].busy_threads, &deaths[0].jobs), (Some(4), &[("Bloat".to_owned(), 2)].into()));
    }
}
