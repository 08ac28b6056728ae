//! The recorded polls of a process: its growth.

use crate::history::Recorded;

/// The resident set of a process over its recorded polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// The time from the first to the last poll, milliseconds.
    pub over_ms: u64,
    /// Resident set at the first poll, bytes.
    pub first: u64,
    /// Resident set at the last poll, bytes.
    pub last: u64,
    /// Largest resident set, bytes.
    pub peak: u64,
}

impl Growth {
    /// Looks at the polls of one process up to a moment. `None` if there are fewer than two.
    pub fn of(samples: &[Recorded], pid: u32, start_ticks: u64, until_ms: u64) -> Option<Self> {
        let own = samples.iter().filter(|s| s.pid == pid && s.start_ticks == start_ticks && s.at <= until_ms);
        let mut polls = own.filter_map(|sample| Some((sample.at, *sample.memory.get("rss")?)));
        let (first_at, first) = polls.next()?;
        let mut growth = Self { over_ms: 0, first, last: first, peak: first };
        for (at, rss) in polls {
            growth = Self { over_ms: at.saturating_sub(first_at), last: rss, peak: growth.peak.max(rss), ..growth };
        }
        (growth.over_ms > 0).then_some(growth)
    }

    /// Returns true if the process is at least a quarter larger than at its first poll.
    pub fn is_large(&self) -> bool {
        self.last > self.first.saturating_add(self.first / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(at: u64, pid: u32, rss: u64) -> Recorded {
        Recorded { at, pid, start_ticks: 5, memory: [("rss".to_owned(), rss)].into(), ..Recorded::default() }
    }

    #[test]
    fn only_the_polls_of_this_process_up_to_the_capture_count() {
        let samples = [poll(0, 7, 100), poll(5, 8, 900), poll(10, 7, 300), poll(20, 7, 200), poll(30, 7, 999)];
        let growth = Growth::of(&samples, 7, 5, 20).unwrap();
        assert_eq!(growth, Growth { over_ms: 20, first: 100, last: 200, peak: 300 });
        assert!(growth.is_large());
        // (pid, start, until): one poll, another process of that pid, none yet
        for (pid, start, until) in [(8, 5, 20), (7, 6, 20), (7, 5, 0)] {
            assert_eq!(Growth::of(&samples, pid, start, until), None, "{pid} {start} {until}");
        }
    }
}
