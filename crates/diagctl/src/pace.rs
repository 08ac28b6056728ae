//! Reading no faster than a CPU limit bears. A container that has used up its quota stands still, with every request in it,
//! until the period is over; that a dumper is of nice 19 makes no difference. So where there is such a limit, whoever reads
//! a dump rests so that everything under the limit together stays a fifth below it. What waits for it at the other end of
//! the pipe rests as well.

use std::io::{self, Read};
use std::time::Duration;

use crate::cgroup::CpuLimit;
use crate::clock::Stopwatch;

/// Of the limit, what everything under it is to use at most: a burst of the others finds the rest.
const SHARE: f64 = 0.8;

/// Between two looks at what was used.
const STEP: Duration = Duration::from_millis(2);

/// What was used longer ago than this gives no right to use more now. The usual period of a limit.
const WINDOW: Duration = Duration::from_millis(100);

/// A rest is at most so many times as long as the work before it: a dump of a gigabyte ends within two minutes even where
/// the others alone use up the limit.
const PATIENCE: u32 = 19;

/// A reader that rests.
pub struct Paced<R> {
    inner: R,
    pace: Option<Pace>,
}

struct Pace {
    limit: CpuLimit,
    // Of the present window: its beginning, and the CPU time that had been used then.
    since: Stopwatch,
    used: Duration,
    looked: Stopwatch,
}

impl<R: Read> Paced<R> {
    /// Without a limit it never rests.
    pub fn new(inner: R, limit: Option<CpuLimit>) -> Self {
        let pace = limit.and_then(|limit| {
            let used = limit.used()?;
            Some(Pace { limit, since: Stopwatch::start(), used, looked: Stopwatch::start() })
        });
        Self { inner, pace }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(into)?;
        if let Some(pace) = &mut self.pace {
            pace.keep();
        }
        Ok(n)
    }
}

impl Pace {
    fn keep(&mut self) {
        let worked = self.looked.elapsed();
        if worked < STEP {
            return;
        }
        let Some(used) = self.limit.used() else { return };
        let rest = rest(used.saturating_sub(self.used), self.since.elapsed(), self.limit.cpus);
        std::thread::sleep(rest.min(worked * PATIENCE));
        self.looked = Stopwatch::start();
        if self.since.elapsed() > WINDOW {
            self.since = Stopwatch::start();
            self.used = self.limit.used().unwrap_or(used);
        }
    }
}

// How long to do nothing after so much CPU time in so much time, under a limit of so many CPUs.
fn rest(used: Duration, elapsed: Duration, cpus: f64) -> Duration {
    let wanted = Duration::try_from_secs_f64(used.as_secs_f64() / (SHARE * cpus)).unwrap_or(Duration::MAX);
    wanted.saturating_sub(elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_until_the_average_is_below_the_limit() {
        let ms = Duration::from_millis;
        // (used, elapsed, CPUs) → rest, ms
        let table = [
            ((4, 4, 1.0), 1.0), // alone, 4 ms of work: 4 / 0.8 − 4
            ((8, 4, 1.0), 6.0), // another thread worked as much
            ((4, 4, 2.0), 0.0), // half of the limit is free
            ((0, 0, 1.0), 0.0),
            ((4, 4, 0.1), 46.0),
            ((30, 90, 1.0), 0.0), // below it: nothing to wait for
        ];
        for ((used, elapsed, cpus), expected) in table {
            let rest = rest(ms(used), ms(elapsed), cpus).as_secs_f64() * 1e3;
            assert!((rest - expected).abs() < 0.01, "{used} {elapsed} {cpus}: {rest}");
        }
    }
}
