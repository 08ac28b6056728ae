//! Keeps uploads under a bandwidth.

use std::cell::Cell;
use std::time::Duration;

use diagctl_observe::clock::Stopwatch;

use crate::output;

/// The longest pause without a sign of life.
const STEP: Duration = Duration::from_secs(1);

/// A bandwidth that is shared by everything that is sent.
#[derive(Debug)]
pub struct Throttle {
    per_second: Option<u64>,
    since: Stopwatch,
    // The time at which all that was sent so far is paid for.
    due: Cell<Duration>,
}

impl Throttle {
    /// Starts to count.
    pub fn new(per_second: Option<u64>) -> Self {
        Self { per_second, since: Stopwatch::start(), due: Cell::new(Duration::ZERO) }
    }

    /// Returns true if there is a limit.
    pub fn is_limited(&self) -> bool {
        self.per_second.is_some()
    }

    /// Returns the size of what is sent at once: with a low bandwidth the smallest part that S3 takes.
    pub fn part_bytes(&self) -> u64 {
        match self.per_second {
            Some(per_second) if per_second < 32 << 20 => 5 << 20,
            _ => 8 << 20,
        }
    }

    /// Waits until so many bytes may be sent.
    pub async fn wait(&self, bytes: u64) {
        let mut pause = self.pause(bytes, self.since.elapsed());
        while !pause.is_zero() {
            let step = pause.min(STEP);
            tokio::time::sleep(step).await;
            pause -= step;
            // It does not hang: it keeps to the bandwidth.
            output::progress();
        }
    }

    // Time that was not used is lost, or a long rest would allow a long burst. What is sent is paid for before the next.
    fn pause(&self, bytes: u64, now: Duration) -> Duration {
        let Some(per_second) = self.per_second else { return Duration::ZERO };
        let start = self.due.get().max(now);
        let millis = bytes.saturating_mul(1000).div_ceil(per_second.max(1));
        self.due.set(start.saturating_add(Duration::from_millis(millis)));
        start - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_paid_for_before_the_next_ones_are_sent() {
        let at = Duration::from_secs;
        let throttle = Throttle::new(Some(1000));
        let mut pauses = Vec::new();
        for (bytes, now) in [(2000, 0), (1000, 0), (500, 1), (1000, 60), (1000, 60)] {
            pauses.push(throttle.pause(bytes, at(now)));
        }
        assert_eq!(pauses, [at(0), at(2), at(2), at(0), at(1)]);
        assert_eq!(Throttle::new(None).pause(u64::MAX, at(0)), at(0));
    }
}
