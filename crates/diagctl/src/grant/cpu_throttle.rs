//! Throttles reads to stay under a CPU limit. When a container has used up its quota, everything in it stops until the period
//! is over, requests included. Running the dumper at nice 19 makes no difference. Under such a limit, the process that reads a
//! dump therefore sleeps between reads, so that total usage stays a fifth below the limit. The writer at the other end of the
//! pipe waits as well.

use std::io::{self, Read};
use std::time::Duration;

use diagctl_observe::CpuLimit;
use diagctl_observe::clock::Stopwatch;

/// The share of the limit that all processes under it may use. The rest is left for bursts of the others.
const SHARE: f64 = 0.8;

/// The time between two measurements.
const STEP: Duration = Duration::from_millis(2);

/// The longest sleep, as a multiple of the work before it. A dump of a gigabyte ends within two minutes even if the other
/// processes alone use up the limit.
const PATIENCE: u32 = 19;

/// The largest debt that is kept; usage beyond it is forgotten.
const MEMORY: Duration = Duration::from_secs(1);

/// A reader that sleeps to stay under a CPU limit.
pub struct Paced<R> {
    inner: R,
    pace: Option<Pace>,
}

struct Pace {
    limit: CpuLimit,
    // Time since the last measurement.
    since: Stopwatch,
    used: Duration,
    // The idle time needed to bring the average down to the share.
    debt: Duration,
    // Time since the last sleep.
    working: Stopwatch,
}

impl<R: Read> Paced<R> {
    /// Wraps a reader. Without a limit it never sleeps.
    pub fn new(inner: R, limit: Option<CpuLimit>) -> Self {
        let pace = limit.and_then(|limit| {
            let used = limit.used()?;
            let now = Stopwatch::start();
            Some(Pace { limit, since: now, used, debt: Duration::ZERO, working: now })
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
        let worked = self.working.elapsed();
        if worked < STEP {
            return;
        }
        let Some(used) = self.limit.used() else { return };
        self.debt = debt(self.debt, used.saturating_sub(self.used), self.since.elapsed(), self.limit.cpus);
        (self.since, self.used) = (Stopwatch::start(), used);
        std::thread::sleep(self.debt.min(worked * PATIENCE));
        self.working = Stopwatch::start();
    }
}

// Returns the new debt after `used` CPU time within `elapsed` time, under a limit of `cpus` CPUs. Idle time earns no credit,
// because the kernel does not save it up either.
fn debt(before: Duration, used: Duration, elapsed: Duration, cpus: f64) -> Duration {
    let took = Duration::try_from_secs_f64(used.as_secs_f64() / (SHARE * cpus)).unwrap_or(MEMORY);
    (before + took).saturating_sub(elapsed).min(MEMORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_stays_below_the_limit_and_idle_time_is_not_saved_up() {
        let ms = Duration::from_millis;
        // (owed before, used, elapsed, CPUs) → owed, ms
        let table = [
            ((0, 4, 4, 1.0), 1.0),  // alone, 4 ms of work: 4 / 0.8 − 4
            ((0, 8, 4, 1.0), 6.0),  // another thread worked as much
            ((6, 4, 10, 1.0), 1.0), // rested for 6, worked for 4
            ((0, 4, 4, 2.0), 0.0),  // half of the limit is free
            ((0, 4, 4, 0.1), 46.0),
            ((0, 30, 90, 1.0), 0.0), // below it, and then as in the first line
            ((0, 0, 0, 1.0), 0.0),
            ((900, 900, 100, 1.0), 1000.0), // bounded
        ];
        for ((before, used, elapsed, cpus), expected) in table {
            let owed = debt(ms(before), ms(used), ms(elapsed), cpus).as_secs_f64() * 1e3;
            assert!((owed - expected).abs() < 0.01, "{before} {used} {elapsed} {cpus}: {owed}");
        }
    }
}
