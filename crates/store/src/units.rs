//! Formats values with units: durations (`10m`), sizes (`1.5 GiB`), percentages (`80%`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A threshold: a number of bytes, or a percentage of some total.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Amount {
    /// Bytes.
    Bytes(u64),
    /// Percent of the total, 0 to 100.
    Percent(f64),
}

impl Amount {
    /// Returns the amount in bytes. `whole` is the total that a percentage refers to.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a byte count is an approximation by nature and is never negative"
    )]
    pub fn of(self, whole: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (whole as f64 * percent / 100.0) as u64,
        }
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => f.write_str(&size(*bytes)),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Formats a size for people: `1.62 GiB`, `57.1 MiB`, `812 B`. Units are binary. Uses integers, because a poll formats a dozen
/// sizes, and exact printing of floating-point numbers was a tenth of the instructions of a poll.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10).min(5);
    let (shift, unit) = (10 * power, UNITS[power as usize - 1]);
    let rounded = |scale: u64| ((u128::from(bytes) * u128::from(scale) + (1 << (shift - 1))) >> shift) as u64;
    if bytes >> shift < 10 {
        let hundredths = rounded(100);
        format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100)
    } else {
        let tenths = rounded(10);
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// Formats a duration for people with its two largest units: `4m 10s`, `2d 3h`, `12s`, `350ms`.
pub fn duration(ms: u64) -> String {
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let seconds = ms / 1000;
    let parts = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = parts.iter().position(|(n, _)| *n > 0).unwrap_or(3);
    parts[first..]
        .iter()
        .take(2)
        .filter(|(n, _)| *n > 0)
        .map(|(n, unit)| format!("{n}{unit}"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Converts a duration to milliseconds, saturating.
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "the first digits are compared")]
    fn sizes_have_three_digits_and_durations_two_units() {
        assert_eq!(size(1_739_461_755), "1.62 GiB");
        assert_eq!(size(812), "812 B");
        assert_eq!(size(59_873_000), "57.1 MiB");
        assert_eq!((size(1024), size(10 * 1024 - 1)), ("1.00 KiB".into(), "10.00 KiB".into()));
        assert_eq!((size(10 << 30), size(u64::MAX)), ("10.0 GiB".into(), "16384.0 PiB".into()));
        // Equals floating-point formatting, except that halves are rounded up.
        for bytes in (0..64).map(|bit| 0xb_f5c2_8f5c_28f5 >> bit).chain((0..40).map(|bit| 999 << bit)) {
            let power = (0..6).rev().find(|power| bytes >> (10 * power) > 0).unwrap_or(0);
            let value = bytes as f64 / 2f64.powi(10 * power);
            let digits = if power == 0 {
                0
            } else if value < 10.0 {
                2
            } else {
                1
            };
            assert_eq!(size(bytes).split(' ').next(), Some(format!("{value:.digits$}").as_str()), "{bytes}");
        }
        assert_eq!(duration(250_000), "4m 10s");
        assert_eq!(duration(3_600_000), "1h");
        assert_eq!(duration(350), "350ms");
        assert_eq!(duration(183_600_000), "2d 3h");
    }
}
