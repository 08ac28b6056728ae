//! Parsing and formatting of values with units: durations (`10m`), sizes (`1.5GiB`), percentages (`80%`).
//!
//! A number without a unit is refused: the reader of a configuration must never have to guess the unit.

use std::time::Duration;

use humantime::DurationError;

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
    read_duration(text).map_err(|why| why.unwrap_or_else(|| Invalid::new("not a duration", DURATIONS)))
}

/// Does the same. The error is `None` for a text that is nothing like a duration and may be something else.
pub fn read_duration(text: &str) -> Result<Duration, Option<Invalid>> {
    let wrong = |why: &str, hint: &str| Err(Some(Invalid::new(why, hint)));
    let bare = text.trim();
    if bare.starts_with('-') {
        return wrong("a duration cannot be negative", "use a value like 10m");
    }
    if is_number(bare) && bare != "0" {
        return wrong("the unit is missing", &format!("write {bare}s, {bare}m, {bare}h or {bare}d"));
    }
    match humantime::parse_duration(bare) {
        // Limited so that sums with it cannot overflow.
        Ok(duration) if duration > LONGEST => wrong("longer than 100 years", "use a value like 14d"),
        Ok(duration) => Ok(duration),
        Err(DurationError::UnknownUnit { unit, .. }) if !unit.is_empty() => {
            wrong(&format!("{unit:?} is not a unit of time"), DURATIONS)
        }
        Err(DurationError::NumberOverflow) => wrong("longer than 100 years", "use a value like 14d"),
        Err(_) => Err(None),
    }
}

const DURATIONS: &str = "use a value like 500ms, 30s, 10m, 2h, 1h 30m or 14d";

/// Returns true for a number without a unit.
fn is_number(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit() || c == '.') && text.parse::<f64>().is_ok()
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
        return Err(Invalid::new("a size cannot be negative", EXAMPLE));
    }
    let split = bare.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(bare.len());
    let (number, unit) = bare.split_at(split);
    let number: f64 = number.parse().map_err(|_| Invalid::new("not a size", EXAMPLE))?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" if number == 0.0 => 1,
        "" => {
            let hint = format!("write {bare}KiB, {bare}MiB or {bare}GiB");
            return Err(Invalid::new("the unit is missing", hint));
        }
        "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        // As Kubernetes and Docker write them; elsewhere they mean something else.
        "k" | "m" | "g" | "t" | "ki" | "mi" | "gi" | "ti" => {
            let prefix = unit.trim().chars().next().unwrap_or_default().to_ascii_uppercase();
            let hint = format!("write {number}{prefix}iB, or {number}{prefix}B for powers of ten");
            return Err(Invalid::new(format!("{:?} is not a unit of size", unit.trim()), hint));
        }
        other if other.starts_with(',') => return Err(Invalid::new("a comma in a number", EXAMPLE)),
        _ => return Err(Invalid::new(format!("{:?} is not a unit of size", unit.trim()), EXAMPLE)),
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
    let bare = text.trim();
    let Some(number) = bare.strip_suffix('%') else {
        return Err(match is_number(bare) {
            true => Invalid::new("the unit is missing", format!("write {bare}%")),
            false => Invalid::new("not a percentage", "use a value like 15%"),
        });
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

    // The value, and what it is or the whole message.
    type Table<'t, T> = &'t [(&'t str, Result<T, &'t str>)];

    fn all<T: PartialEq + std::fmt::Debug>(parse: impl Fn(&str) -> Result<T, Invalid>, table: Table<'_, T>) {
        for (text, expected) in table {
            let found = parse(text).map_err(|invalid| invalid.to_string());
            assert_eq!(found.as_ref().map_err(String::as_str), expected.as_ref().map_err(|text| *text), "{text:?}");
        }
    }

    #[test]
    fn a_size_is_read_or_the_message_says_what_one_looks_like() {
        all(
            parse_size,
            &[
                ("1.5GiB", Ok(1_610_612_736)),
                ("64 KiB", Ok(65_536)),
                (" 500MB ", Ok(500_000_000)),
                ("1kib", Ok(1024)),
                ("12B", Ok(12)),
                ("0", Ok(0)),
                ("500", Err("the unit is missing; write 500KiB, 500MiB or 500GiB")),
                ("1.5", Err("the unit is missing; write 1.5KiB, 1.5MiB or 1.5GiB")),
                ("-1GiB", Err("a size cannot be negative; use a value like 512KiB, 500MiB or 1.5GiB")),
                ("GiB", Err("not a size; use a value like 512KiB, 500MiB or 1.5GiB")),
                ("abc", Err("not a size; use a value like 512KiB, 500MiB or 1.5GiB")),
                ("", Err("not a size; use a value like 512KiB, 500MiB or 1.5GiB")),
                ("1.2.3GiB", Err("not a size; use a value like 512KiB, 500MiB or 1.5GiB")),
                ("1,5GiB", Err("a comma in a number; use a value like 512KiB, 500MiB or 1.5GiB")),
                ("2Gi", Err("\"Gi\" is not a unit of size; write 2GiB, or 2GB for powers of ten")),
                ("512m", Err("\"m\" is not a unit of size; write 512MiB, or 512MB for powers of ten")),
                ("1 parsec", Err("\"parsec\" is not a unit of size; use a value like 512KiB, 500MiB or 1.5GiB")),
                ("80%", Err("\"%\" is not a unit of size; use a value like 512KiB, 500MiB or 1.5GiB")),
                ("1e400GiB", Err("\"e400GiB\" is not a unit of size; use a value like 512KiB, 500MiB or 1.5GiB")),
                ("99999999999TiB", Err("larger than any disk or memory; use a value like 1.5GiB")),
            ],
        );
    }

    #[test]
    fn a_duration_is_read_or_the_message_says_what_one_looks_like() {
        const NONE: Result<Duration, &str> = Err("not a duration; use a value like 500ms, 30s, 10m, 2h, 1h 30m or 14d");
        all(
            parse_duration,
            &[
                ("10m", Ok(Duration::from_secs(600))),
                ("1h 30m", Ok(Duration::from_secs(5400))),
                ("1h30m", Ok(Duration::from_secs(5400))),
                (" 500ms", Ok(Duration::from_millis(500))),
                ("0", Ok(Duration::ZERO)),
                ("10", Err("the unit is missing; write 10s, 10m, 10h or 10d")),
                ("1.5", Err("the unit is missing; write 1.5s, 1.5m, 1.5h or 1.5d")),
                ("-3s", Err("a duration cannot be negative; use a value like 10m")),
                ("", NONE),
                ("soon", NONE),
                ("abc", NONE),
                ("m10", NONE),
                (
                    "10 parsec",
                    Err("\"parsec\" is not a unit of time; use a value like 500ms, 30s, 10m, 2h, 1h 30m or 14d"),
                ),
                ("101years", Err("longer than 100 years; use a value like 14d")),
                ("99999999999999999999s", Err("longer than 100 years; use a value like 14d")),
            ],
        );
    }

    #[test]
    fn a_percentage_is_read_or_the_message_says_what_one_looks_like() {
        all(
            parse_percent,
            &[
                ("12.5%", Ok(12.5)),
                (" 80 %", Ok(80.0)),
                ("80", Err("the unit is missing; write 80%")),
                ("abc", Err("not a percentage; use a value like 15%")),
                ("", Err("not a percentage; use a value like 15%")),
                ("%", Err("not a percentage; use a value like 15%")),
                ("101%", Err("a percentage is between 0% and 100%; use a value like 15%")),
                ("-1%", Err("a percentage is between 0% and 100%; use a value like 15%")),
                ("NaN%", Err("a percentage is between 0% and 100%; use a value like 15%")),
            ],
        );
        all(
            parse_amount,
            &[
                ("80%", Ok(Amount::Percent(80.0))),
                ("1KiB", Ok(Amount::Bytes(1024))),
                ("abc", Err("not a size; use a value like 512KiB, 500MiB or 1.5GiB, or a share like 80%")),
                ("80", Err("the unit is missing; write 80KiB, 80MiB or 80GiB, or a share like 80%")),
            ],
        );
    }
}
