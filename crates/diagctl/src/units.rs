//! Values with units, read and printed: durations (`10m`), sizes (`1.5GiB`), shares (`80%`).
//!
//! A number without a unit is refused: the reader of a configuration must never have to guess it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A threshold that is either an amount or a share of some whole.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Amount {
    /// Bytes.
    Bytes(u64),
    /// Percent of the whole, 0 to 100.
    Percent(f64),
}

impl Amount {
    /// The amount in bytes, given the whole that a share is of.
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

/// Nothing that is waited for takes longer.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Reads a duration: `500ms`, `30s`, `10m`, `1h 30m`, `14d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bare = text.trim();
    if bare.starts_with('-') {
        return Err("a duration cannot be negative; use a value like 10m".into());
    }
    if !bare.is_empty() && bare.chars().all(|c| c.is_ascii_digit() || c == '.') && bare != "0" {
        return Err(format!("the unit is missing; write {bare}s, {bare}m or {bare}h"));
    }
    match humantime::parse_duration(bare) {
        // Sums with it must not overflow.
        Ok(duration) if duration > LONGEST => Err("longer than 100 years; use a value like 14d".into()),
        Ok(duration) => Ok(duration),
        Err(e) => Err(format!("not a duration ({e}); use a value like 500ms, 30s, 10m, 2h or 14d")),
    }
}

/// Reads a duration in which something is to happen.
pub fn parse_wait(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("must be longer than zero; use a value like 30m or 2h".into()),
        wait => Ok(wait),
    }
}

/// Reads a size: `64KiB`, `1.5GiB`, `500MB` (decimal), `0`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    const EXAMPLE: &str = "use a value like 512KiB, 500MiB or 1.5GiB";
    let bare = text.trim();
    if bare.starts_with('-') {
        return Err("a size cannot be negative; use a value like 512KiB".into());
    }
    let split = bare.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(bare.len());
    let (number, unit) = bare.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("not a size; {EXAMPLE}"))?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" if number == 0.0 => 1,
        "" => return Err(format!("the unit is missing; {EXAMPLE}")),
        "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        other => return Err(format!("{other:?} is not a unit of size; {EXAMPLE}")),
    };
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the product is checked to be in range first"
    )]
    {
        let bytes = number * factor as f64;
        if bytes > (1u64 << 60) as f64 {
            return Err("larger than any disk or memory; use a value like 1.5GiB".into());
        }
        Ok(bytes as u64)
    }
}

/// Reads a share: `80%`, `12.5%`.
pub fn parse_percent(text: &str) -> Result<f64, String> {
    let Some(number) = text.trim().strip_suffix('%') else {
        return Err("not a percentage; use a value like 15%".into());
    };
    match number.trim().parse::<f64>() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value),
        Ok(_) => Err("a percentage is between 0% and 100%; use a value like 15%".into()),
        Err(_) => Err("not a percentage; use a value like 15%".into()),
    }
}

/// Reads an increase: a size, or a share of what it is added to, which may exceed the whole: `300%`.
pub fn parse_increase(text: &str) -> Result<Amount, String> {
    let percent = text.trim().strip_suffix('%').map(|number| number.trim().parse::<f64>());
    match percent {
        None => parse_amount(text),
        Some(Ok(percent)) if percent.is_finite() && percent > 0.0 => Ok(Amount::Percent(percent)),
        Some(_) => Err("not an increase; use a value like 30%, 300% or 200MiB".into()),
    }
}

/// Reads a size or a share.
pub fn parse_amount(text: &str) -> Result<Amount, String> {
    if text.trim().ends_with('%') {
        parse_percent(text).map(Amount::Percent)
    } else {
        parse_size(text).map(Amount::Bytes).map_err(|e| format!("{e}, or a share like 80%"))
    }
}

/// A size for people: `1.62 GiB`, `57.1 MiB`, `812 B`. Binary units. In whole numbers: a poll words a dozen of them, and of floating
/// point the exact printing of that many digits is a tenth of what a poll executes.
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

/// A duration for people, its two largest units: `4m 10s`, `2d 3h`, `12s`, `350ms`.
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

/// Milliseconds of a duration, saturating.
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_that_would_overflow_what_it_is_added_to_is_refused() {
        assert!(parse_duration("100years").is_ok());
        // In milliseconds the latter is all of u64, and a jitter of it a remainder by zero.
        for text in ["101years", "600000000years"] {
            assert!(parse_duration(text).unwrap_err().contains("100 years"), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_units_and_refused_without() {
        assert_eq!(parse_size("1.5GiB"), Ok(1_610_612_736));
        assert_eq!(parse_size("64 KiB"), Ok(65_536));
        assert_eq!(parse_size("500MB"), Ok(500_000_000));
        assert_eq!(parse_size("0"), Ok(0));
        for bad in ["500", "-1GiB", "GiB", "1 parsec", "", "1e400GiB", "99999999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_and_percentages_are_read_with_their_units_and_refused_without() {
        assert_eq!(parse_duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for bad in ["10", "-3s", "", "soon"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_percent("12.5%"), Ok(12.5));
        for bad in ["80", "101%", "-1%", "%", "NaN%"] {
            assert!(parse_percent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "the first digits are compared")]
    fn people_see_three_digits_and_two_units() {
        assert_eq!(size(1_739_461_755), "1.62 GiB");
        assert_eq!(size(812), "812 B");
        assert_eq!(size(59_873_000), "57.1 MiB");
        assert_eq!((size(1024), size(10 * 1024 - 1)), ("1.00 KiB".into(), "10.00 KiB".into()));
        assert_eq!((size(10 << 30), size(u64::MAX)), ("10.0 GiB".into(), "16384.0 PiB".into()));
        // As floating point has it, but for a half, which goes up here.
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
