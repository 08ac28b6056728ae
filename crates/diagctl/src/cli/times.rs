//! Times and ages for people.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::error::Failure;
use crate::exit_code::Exit;
use crate::units::{self, Invalid, duration};

/// The time zone in which times are shown.
#[derive(Clone, Debug)]
pub struct Times {
    zone: TimeZone,
    name: String,
}

impl Times {
    /// Uses the system's zone (`TZ`, `/etc/localtime`), or UTC if `utc` is set or there is none.
    pub fn new(utc: bool) -> Self {
        let usable = !utc && is_usable(std::env::var_os("TZ").unwrap_or_default().as_os_str());
        let zone = if usable { TimeZone::try_system().unwrap_or(TimeZone::UTC) } else { TimeZone::UTC };
        Self::of(zone)
    }

    fn of(zone: TimeZone) -> Self {
        let name = match zone.iana_name() {
            Some("UTC" | "Etc/UTC" | "Etc/Unknown") => "UTC".to_owned(),
            Some(name) => name.to_owned(),
            None => "local".to_owned(),
        };
        Self { zone, name }
    }

    /// Returns the zone's name for a heading.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns true if something was before a moment. `rfc3339` is its time, `age_ms` the time since.
    pub fn is_before(&self, rfc3339: &str, age_ms: u64, moment: &Moment) -> bool {
        match moment {
            Moment::Ago(ms) => age_ms > *ms,
            _ => self.order(rfc3339, moment).is_lt(),
        }
    }

    /// Returns true if something was after a moment. See [`Self::is_before`].
    pub fn is_after(&self, rfc3339: &str, age_ms: u64, moment: &Moment) -> bool {
        match moment {
            Moment::Ago(ms) => age_ms < *ms,
            _ => self.order(rfc3339, moment).is_gt(),
        }
    }

    fn order(&self, rfc3339: &str, moment: &Moment) -> Ordering {
        rfc3339.parse::<Timestamp>().ok().cmp(&self.at(moment))
    }

    // The time of a moment that is not relative to now.
    fn at(&self, moment: &Moment) -> Option<Timestamp> {
        match moment {
            Moment::At(at) => Some(*at),
            Moment::Civil(civil) => civil.to_zoned(self.zone.clone()).ok().map(|zoned| zoned.timestamp()),
            Moment::Ago(_) => None,
        }
    }

    /// Fails if `--since` is after `--until`: nothing is younger and older at once. `now_ms` is the wall clock.
    pub fn require_order(&self, since: Option<&Moment>, until: Option<&Moment>, now_ms: u64) -> Result<(), Failure> {
        let at = |moment: &Moment| match moment {
            Moment::Ago(ms) => i64::try_from(now_ms).unwrap_or(i64::MAX).saturating_sub_unsigned(*ms),
            _ => self.at(moment).unwrap_or_default().as_millisecond(),
        };
        match since.zip(until).filter(|(since, until)| at(since) > at(until)) {
            None => Ok(()),
            Some(_) => Err(Failure::new(Exit::Usage, "--since is after --until, so nothing can match")
                .hint("give --since the earlier time: a duration counts back from now, so `--since 2d --until 1d` is from two days ago to one day ago")),
        }
    }

    /// Formats a capture's time in this zone. A time that cannot be parsed is returned unchanged.
    pub fn show(&self, rfc3339: &str) -> String {
        match rfc3339.parse::<Timestamp>() {
            Ok(moment) => moment.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
            Err(_) => rfc3339.to_owned(),
        }
    }
}

// `TZ` may name a file, which is read whole: a device never ends, and a FIFO waits for a writer.
fn is_usable(tz: &OsStr) -> bool {
    let bytes = tz.as_encoded_bytes();
    let path = Path::new(OsStr::from_bytes(bytes.strip_prefix(b":").unwrap_or(bytes)));
    let is_small_file = |path: &Path| std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= 1 << 20);
    let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
    if path.is_absolute() { is_small_file(path) } else { !climbs }
}

/// A moment that a person named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Milliseconds ago.
    Ago(u64),
    /// A moment with its offset from UTC.
    At(Timestamp),
    /// A time of day in the zone in which times are shown.
    Civil(DateTime),
}

/// Parses a duration before now (`2h`), or a time: `2026-11-22`, `2026-11-22 10:15`, `2026-11-22T10:15:30Z`.
pub fn parse_moment(text: &str) -> Result<Moment, Invalid> {
    let bare = text.trim();
    let is_date = bare.len() >= 10 && bare.as_bytes()[4] == b'-' && bare.as_bytes()[..4].iter().all(u8::is_ascii_digit);
    if !is_date {
        let ago = units::read_duration(bare).map(|duration| Moment::Ago(units::ms(duration)));
        return ago.map_err(|why| why.unwrap_or_else(|| Invalid::new("neither a duration nor a time", MOMENTS)));
    }
    if let Ok(moment) = bare.parse::<Timestamp>() {
        return Ok(Moment::At(moment));
    }
    let civil = bare.parse::<DateTime>().map(Moment::Civil);
    civil.map_err(|_| Invalid::new("not a time", MOMENTS))
}

const MOMENTS: &str = "use a duration like 90m, 2h or 14d, or a time like 2026-11-22 10:15";

/// Returns the milliseconds since an event, by the wall clock; 0 if it is in the future or its time cannot be parsed.
pub fn since(rfc3339: &str, now_ms: i64) -> u64 {
    let at = rfc3339.parse::<Timestamp>().map_or(now_ms, Timestamp::as_millisecond);
    u64::try_from(now_ms.saturating_sub(at)).unwrap_or(0)
}

/// Returns a time as milliseconds of the wall clock; 0 if it cannot be parsed.
pub fn wall_ms(rfc3339: &str) -> u64 {
    rfc3339.parse::<Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok()).unwrap_or(0)
}

/// Returns a day, in UTC, of which everything before is before a moment. `now_ms` is the wall clock.
pub fn day_before(moment: &Moment, now_ms: u64) -> String {
    const DAY_MS: i64 = 86_400_000;
    let at = match moment {
        Moment::Ago(ms) => i64::try_from(now_ms.saturating_sub(*ms)).unwrap_or(0),
        Moment::At(at) => at.as_millisecond(),
        // No zone is a day away from UTC.
        Moment::Civil(civil) => civil.to_zoned(TimeZone::UTC).map_or(0, |at| at.timestamp().as_millisecond()) - DAY_MS,
    };
    Timestamp::from_millisecond(at).unwrap_or_default().strftime("%Y-%m-%d").to_string()
}

/// Formats the time since a moment, both on the store's time line.
pub fn age(store_ms: u64, now_ms: u64) -> String {
    match now_ms.saturating_sub(store_ms) {
        ..1000 => "0s".into(),
        ms => duration(ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_the_requested_zone() {
        assert_eq!(Times::new(true).show("2026-11-22T10:15:30.123Z"), "2026-11-22 10:15:30");
        assert_eq!(Times::new(true).name(), "UTC");
        let fixed = Times::of(TimeZone::fixed(jiff::tz::offset(2)));
        assert_eq!((fixed.show("2026-11-22T23:15:30Z").as_str(), fixed.name()), ("2026-11-23 01:15:30", "local"));
        assert_eq!(fixed.show("soon"), "soon");
    }

    #[test]
    fn a_zone_is_never_read_from_a_device_or_a_fifo() {
        let table = [
            ("", true),
            ("Europe/Berlin", true),
            ("bogus", true),
            ("/dev/zero", false),
            (":/dev/zero", false),
            ("../../../dev/zero", false),
            ("/nowhere", false),
        ];
        for (tz, usable) in table {
            assert_eq!(is_usable(OsStr::new(tz)), usable, "{tz}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(is_usable(file.path().as_os_str()));
    }

    #[test]
    fn a_moment_is_a_duration_or_a_time_in_the_zone_that_is_shown() {
        let fixed = Times::of(TimeZone::fixed(jiff::tz::offset(2)));
        let at = "2026-11-22T10:15:30.500Z";
        // The moment, and the order of the event, an hour ago, and the moment.
        let table = [
            ("2h", Ordering::Greater),
            ("1h", Ordering::Equal),
            ("59m", Ordering::Less),
            ("2026-11-22", Ordering::Greater),
            ("2026-11-22 12:15", Ordering::Greater),
            ("2026-11-22 12:16", Ordering::Less),
            ("2026-11-22T12:15:30.5", Ordering::Equal),
            ("2026-11-22T10:15:31Z", Ordering::Less),
            ("2026-11-22T10:15:30+00:00", Ordering::Greater),
        ];
        for (text, expected) in table {
            let moment = parse_moment(text).unwrap();
            let got = (fixed.is_before(at, 3_600_000, &moment), fixed.is_after(at, 3_600_000, &moment));
            assert_eq!(got, (expected.is_lt(), expected.is_gt()), "{text}");
        }
        let wrong = [
            ("2026-13-01", "not a time"),
            ("2026-11-22 25:00", "not a time"),
            ("yesterday", "neither a duration nor a time"),
            ("22.11.2026", "neither a duration nor a time"),
            ("10:15", "neither a duration nor a time"),
            ("", "neither a duration nor a time"),
        ];
        assert_eq!(parse_moment("10").unwrap_err().to_string(), "the unit is missing; write 10s, 10m, 10h or 10d");
        for text in ["10 parsec", "-5m", "200y"] {
            assert_eq!(parse_moment(text).unwrap_err(), units::parse_duration(text).unwrap_err());
        }
        for (text, why) in wrong {
            assert_eq!(parse_moment(text).unwrap_err().to_string(), format!("{why}; {MOMENTS}"), "{text}");
        }
    }

    #[test]
    fn the_end_of_a_time_span_is_not_before_its_begin() {
        // At 2026-11-22 12:15:30, two hours east of UTC.
        let (times, now_ms) = (Times::of(TimeZone::fixed(jiff::tz::offset(2))), 1_795_342_530_000);
        let table = [
            (Some("2d"), Some("1d"), true),
            (Some("1d"), Some("2d"), false),
            (Some("1d"), Some("1d"), true),
            (Some("1d"), None, true),
            (None, Some("1d"), true),
            (Some("2026-11-22 12:00"), Some("1m"), true),
            (Some("2026-11-22 12:00"), Some("2h"), false),
            (Some("2026-11-22 12:00"), Some("2026-11-22T10:01:00Z"), true),
            (Some("2026-11-22 12:00"), Some("2026-11-22T09:59:00Z"), false),
            (Some("2026-11-23"), Some("2026-11-22"), false),
        ];
        for (since, until, expected) in table {
            let [since, until] = [since, until].map(|text| text.map(|text| parse_moment(text).unwrap()));
            let ordered = times.require_order(since.as_ref(), until.as_ref(), now_ms);
            assert_eq!(ordered.is_ok(), expected, "{since:?} {until:?}");
        }
    }

    #[test]
    fn ages_are_never_negative() {
        assert_eq!(age(0, 250_000), "4m 10s");
        assert_eq!(age(500, 0), "0s");
    }
}
