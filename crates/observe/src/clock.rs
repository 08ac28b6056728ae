//! The clocks, which nothing else reads, and a time line that no clock setting disturbs.
//!
//! Limits must survive restarts and reboots and must not believe a clock that was set. Within one boot, elapsed time comes from
//! `CLOCK_BOOTTIME`, which nobody can set and which counts suspend; the wall clock is used across a reboot only. The result,
//! [`Now::store_ms`], is a number of milliseconds that never goes backwards. It starts as Unix time, and reads as such until
//! somebody sets the clock.

#![expect(clippy::disallowed_methods, reason = "this module is the one that may")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::sys;

/// A wall clock this far behind what `CLOCK_BOOTTIME` says has been set back, not slewed. Milliseconds.
const STEP_TOLERANCE_MS: i64 = 5_000;

/// The latest moment: the end of the year 9999, Unix milliseconds. A larger number is damage, and sums with it could overflow.
pub const LAST_MS: u64 = 253_402_300_799_999;

/// The clocks of this machine at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Milliseconds since the Unix epoch, `CLOCK_REALTIME`.
    pub wall_ms: i64,
    /// Milliseconds since boot, `CLOCK_BOOTTIME`, suspend included.
    pub boot_ms: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

/// A point on the time line, kept so that the line goes on from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Position on the time line, in milliseconds.
    pub store_ms: u64,
    /// The wall clock at that point, Unix milliseconds.
    pub wall_ms: i64,
    /// `CLOCK_BOOTTIME` at that point, milliseconds.
    pub boot_ms: u64,
    /// The boot in which `boot_ms` counts.
    pub boot_id: String,
}

/// The present moment, placed on the time line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// Position on the time line: never before an earlier one.
    pub store_ms: u64,
    /// The clocks as read.
    pub clock: Reading,
    /// Milliseconds by which the wall clock was set back since the anchor. `None` if it was not set back.
    pub stepped_back_ms: Option<u64>,
}

impl Reading {
    /// Reads the clocks. `CLOCK_BOOTTIME` comes straight from the kernel, past any interposed libc.
    pub fn take(boot_id: String) -> Self {
        let wall_ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        };
        Self { wall_ms, boot_ms: sys::boottime_ms(), boot_id }
    }
}

impl Anchor {
    /// Places a reading on the time line. Without an anchor the line starts at the wall clock.
    pub fn place(anchor: Option<&Self>, clock: Reading) -> Now {
        let Some(anchor) = anchor else {
            let store_ms = u64::try_from(clock.wall_ms).unwrap_or(0);
            return Now { store_ms, clock, stepped_back_ms: None };
        };
        let same_boot = anchor.boot_id == clock.boot_id && clock.boot_ms >= anchor.boot_ms;
        let elapsed = if same_boot {
            clock.boot_ms - anchor.boot_ms
        } else {
            u64::try_from(clock.wall_ms.saturating_sub(anchor.wall_ms)).unwrap_or(0)
        };
        let expected = if same_boot {
            anchor.wall_ms.saturating_add(i64::try_from(elapsed).unwrap_or(i64::MAX))
        } else {
            anchor.wall_ms
        };
        let behind = expected.saturating_sub(clock.wall_ms);
        Now {
            store_ms: anchor.store_ms.saturating_add(elapsed),
            stepped_back_ms: (behind > STEP_TOLERANCE_MS).then_some(behind.unsigned_abs()),
            clock,
        }
    }
}

impl Now {
    /// The anchor to keep for this moment.
    pub fn anchor(&self) -> Anchor {
        Anchor {
            store_ms: self.store_ms,
            wall_ms: self.clock.wall_ms,
            boot_ms: self.clock.boot_ms,
            boot_id: self.clock.boot_id.clone(),
        }
    }
}

/// Formats a moment for people and records: UTC, RFC 3339, to the millisecond.
pub fn utc(wall_ms: i64) -> String {
    let moment = jiff::Timestamp::from_millisecond(wall_ms).unwrap_or_default();
    format!("{moment:.3}")
}

/// The present moment, formatted as by [`utc`].
pub fn utc_now() -> String {
    utc(Reading::take(String::new()).wall_ms)
}

/// Formats a moment for names: `20261122T101530123Z`. The texts sort in the order of the moments.
pub fn compact_utc(wall_ms: i64) -> String {
    utc(wall_ms).replace(['-', ':', '.'], "")
}

/// Reads a moment that [`compact_utc`] formatted. Returns `None` for any other text.
pub fn parse_compact_utc(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (seconds, millis) = (time.get(..6)?, time.get(6..)?);
    let moment: jiff::Timestamp = format!("{date}T{seconds}.{millis}Z").parse().ok()?;
    Some(moment.as_millisecond()).filter(|ms| compact_utc(*ms) == text)
}

/// A stopwatch for durations inside one process.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts a stopwatch.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds since it was started.
    pub fn ms(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The time since it was started.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// Tells whether more than this many milliseconds have passed.
    pub fn is_past(self, ms: u64) -> bool {
        self.ms() > ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(wall_ms: i64, boot_ms: u64, boot: &str) -> Reading {
        Reading { wall_ms, boot_ms, boot_id: boot.into() }
    }

    #[test]
    fn a_compact_time_is_read_back_and_nothing_else_is() {
        let text = compact_utc(1_795_860_930_123);
        assert_eq!(parse_compact_utc(&text), Some(1_795_860_930_123), "{text}");
        for text in ["", "Z", "T", "20261122T101530Z", "20261322T101530123Z", "2026-11-22T10:15:30.123Z"] {
            assert_eq!(parse_compact_utc(text), None, "{text}");
        }
    }

    #[test]
    fn the_time_line_follows_boottime_within_a_boot_and_the_wall_clock_across_boots() {
        let anchor = Anchor { store_ms: 1_000_000, wall_ms: 1_000_000, boot_ms: 50_000, boot_id: "a".into() };
        // (wall, boot, boot id) → (advance, set back by)
        let table = [
            ((1_010_000, 60_000, "a"), (10_000, None)),
            ((901_010_000, 60_000, "a"), (10_000, None)), // set ahead: ignored
            ((10_000, 60_000, "a"), (10_000, Some(1_000_000))), // set back: time goes on, the step is told
            ((1_008_000, 60_000, "a"), (10_000, None)),   // slewed
            ((1_090_000, 5_000, "b"), (90_000, None)),    // rebooted
            ((900_000, 5_000, "b"), (0, Some(100_000))),  // rebooted with an older clock
        ];
        for ((wall, boot, id), (advance, back)) in table {
            let now = Anchor::place(Some(&anchor), reading(wall, boot, id));
            assert_eq!((now.store_ms - 1_000_000, now.stepped_back_ms), (advance, back), "{wall} {boot} {id}");
        }
    }

    #[test]
    fn a_clock_step_back_is_reported_once() {
        let anchor = Anchor { store_ms: 500, wall_ms: 1_000_000, boot_ms: 0, boot_id: "a".into() };
        let first = Anchor::place(Some(&anchor), reading(0, 1_000, "a"));
        assert!(first.stepped_back_ms.is_some());
        let second = Anchor::place(Some(&first.anchor()), reading(1_000, 2_000, "a"));
        assert_eq!((second.store_ms, second.stepped_back_ms), (2_500, None));
    }

    #[test]
    fn a_new_store_starts_at_the_wall_clock_even_before_1970() {
        assert_eq!(Anchor::place(None, reading(77, 1, "a")).store_ms, 77);
        assert_eq!(Anchor::place(None, reading(-77, 1, "a")).store_ms, 0);
    }
}
