//! Capture ids.

use std::fmt;

/// The id of a capture: the time in UTC and a random number, `20261122T101530123Z-7f3a9c2e`. Ids sort by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; LENGTH]);

const LENGTH: usize = 28;

impl Id {
    /// Parses an id. Returns `None` if the name has another form.
    pub fn parse(name: &str) -> Option<Self> {
        let bytes: [u8; LENGTH] = name.as_bytes().try_into().ok()?;
        let fits = bytes.iter().enumerate().all(|(i, byte)| match i {
            8 => *byte == b'T',
            18 => *byte == b'Z',
            19 => *byte == b'-',
            0..=17 => byte.is_ascii_digit(),
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
        });
        fits.then_some(Self(bytes))
    }

    /// Makes an id from a record whose checksum was verified.
    pub(super) fn of_record(characters: [u8; LENGTH]) -> Self {
        Self(characters)
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        // An id is ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_ids_are_parsed() {
        assert!(Id::parse("20261122T101530123Z-7f3a9c2e").is_some());
        for bad in
            ["", "20261122T101530123Z-7F3A9C2E", "20261122T101530123Z-7f3a9c2e.x", "../../../etc/passwd/aaaaaaaa"]
        {
            assert!(Id::parse(bad).is_none(), "{bad}");
        }
    }
}
