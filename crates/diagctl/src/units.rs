//! Parsing and formatting of values with units: durations (`10m`), sizes (`1.5GiB`), percentages (`80%`).
//!
//! A number without a unit is refused: the reader of a configuration must never have to guess the unit.

use std::time::Duration;

pub use diagctl_store::units::{Amount, duration, ms, size};

/// An invalid value. The error text is the reason and the hint in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}; {hint}")]
pub struct Invalid {
    /// The reason.
    pub why: String,
    /// The advice, with an example.
    pub hint: String,
}

impl Invalid {
    /// Creates an error from the reason and the hint, each without a full stop.
    pub fn new(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { why: why.into(), hint: hint.into() }
    }
}

/// The longest duration that is accepted.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Parses a duration: `500ms`, `30s`, `10m`, `1h 30m`, `14d`.
pub fn parse_duration(text: &str) -> Result<Duration, Invalid> {
    let bare = text.trim();
    if bare.starts_with('-') {
        return Err(Invalid::new("a duration cannot be negative", "use a value like 10m"));
    }
    if !bare.is_empty() && bare.chars().all(|c| c.is_ascii_digit() || c == '.') && bare != "0" {
        return Err(Invalid::new("the unit is missing", format!("write {bare}s, {bare}m, {bare}h or {bare}d")));
    }
    match humantime::parse_duration(bare) {
        // Limited so that sums with it cannot overflow.
        Ok(duration) if duration > LONGEST => Err(Invalid::new("longer than 100 years", "use a value like 14d")),
        Ok(duration) => Ok(duration),
        Err(e) => Err(Invalid::new(format!("not a duration ({e})"), "use a value like 500ms, 30s, 10m, 2h or 14d")),
    }
}

/// Parses a waiting time, which must not be zero.
pub fn parse_wait(text: &str) -> Result<Duration, Invalid> {
    match parse_duration(text)? {
        Duration::ZERO => Err(Invalid::new("must be longer than zero", "use a value like 30m or 2h")),
        wait => Ok(wait),
    }
}

/// Parses a size: `64KiB`, `1.5GiB`, `500MB` (decimal), `0`.
pub fn parse_size(text: &str) -> Result<u64, Invalid> {
    const EXAMPLE: &str = "use a value like 512KiB, 500MiB or 1.5GiB";
    let bare = text.trim();
    if bare.starts_with('-') {
        return Err(Invalid::new("a size cannot be negative", "use a value like 512KiB"));
    }
    let split = bare.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(bare.len());
    let (number, unit) = bare.split_at(split);
    let number: f64 = number.parse().map_err(|_| Invalid::new("not a size", EXAMPLE))?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" if number == 0.0 => 1,
        "" => return Err(Invalid::new("the unit is missing", EXAMPLE)),
        "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        other => return Err(Invalid::new(format!("{other:?} is not a unit of size"), EXAMPLE)),
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
            return Err(Invalid::new("larger than any disk or memory", "use a value like 1.5GiB"));
        }
        Ok(bytes as u64)
    }
}

/// Parses a percentage: `80%`, `12.5%`.
pub fn parse_percent(text: &str) -> Result<f64, Invalid> {
    let Some(number) = text.trim().strip_suffix('%') else {
        return Err(Invalid::new("not a percentage", "use a value like 15%"));
    };
    match number.trim().parse::<f64>() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value),
        Ok(_) => Err(Invalid::new("a percentage is between 0% and 100%", "use a value like 15%")),
        Err(_) => Err(Invalid::new("not a percentage", "use a value like 15%")),
    }
}

/// Parses an increase: a size, or a percentage of the amount that it is added to, which may exceed 100 %: `300%`.
pub fn parse_increase(text: &str) -> Result<Amount, Invalid> {
    let percent = text.trim().strip_suffix('%').map(|number| number.trim().parse::<f64>());
    match percent {
        None => parse_amount(text),
        Some(Ok(percent)) if percent.is_finite() && percent > 0.0 => Ok(Amount::Percent(percent)),
        Some(_) => Err(Invalid::new("not an increase", "use a value like 30%, 300% or 200MiB")),
    }
}

/// Parses a size or a percentage.
pub fn parse_amount(text: &str) -> Result<Amount, Invalid> {
    if text.trim().ends_with('%') {
        parse_percent(text).map(Amount::Percent)
    } else {
        parse_size(text).map(Amount::Bytes).map_err(|e| Invalid::new(e.why, e.hint + ", or a share like 80%"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_that_could_overflow_are_refused() {
        assert!(parse_duration("100years").is_ok());
        // In milliseconds, the second is the maximum of u64, and a jitter of that length would divide by zero.
        for text in ["101years", "600000000years"] {
            assert!(parse_duration(text).unwrap_err().why.contains("100 years"), "{text}");
        }
    }

    #[test]
    fn sizes_need_a_unit() {
        assert_eq!(parse_size("1.5GiB"), Ok(1_610_612_736));
        assert_eq!(parse_size("64 KiB"), Ok(65_536));
        assert_eq!(parse_size("500MB"), Ok(500_000_000));
        assert_eq!(parse_size("0"), Ok(0));
        for bad in ["500", "-1GiB", "GiB", "1 parsec", "", "1e400GiB", "99999999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_and_percentages_need_a_unit() {
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
}
