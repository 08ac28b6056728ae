//! Times and ages for people.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::units::duration;

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
    fn ages_are_never_negative() {
        assert_eq!(age(0, 250_000), "4m 10s");
        assert_eq!(age(500, 0), "0s");
    }
}
