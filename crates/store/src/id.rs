//! Capture ids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The id of a capture: the time in UTC and a random number, `20261122T101530123Z-7f3a9c2e`. Ids sort by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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
    pub(super) const fn of_record(characters: [u8; LENGTH]) -> Self {
        Self(characters)
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        // An id is ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The nil id, for records that name no capture: no capture is made in the year 0.
impl Default for Id {
    fn default() -> Self {
        Self(*b"00000000T000000000Z-00000000")
    }
}

/// A name that is not the id of a capture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is not a capture ID", diagctl_fs::quoted(.0))]
pub struct NotAnId(String);

impl FromStr for Id {
    type Err = NotAnId;

    fn from_str(name: &str) -> Result<Self, NotAnId> {
        Self::parse(name).ok_or_else(|| NotAnId(name.to_owned()))
    }
}

impl TryFrom<String> for Id {
    type Error = NotAnId;

    fn try_from(name: String) -> Result<Self, NotAnId> {
        name.parse()
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.as_str().to_owned()
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
