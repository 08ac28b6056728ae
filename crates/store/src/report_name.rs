//! The names of reports.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// The name of a report, which becomes part of a file name: 1 to 64 lower-case letters, digits and `_`, a letter first, and not
/// `meta`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReportName(String);

impl ReportName {
    /// Reads a name; `None` if it does not have the form of one.
    pub fn parse(name: &str) -> Option<Self> {
        let fits = !name.is_empty()
            && name.len() <= 64
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        (fits && name != "meta").then(|| Self(name.to_owned()))
    }
}

impl TryFrom<String> for ReportName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::parse(&name).ok_or_else(|| format!("{} is not the name of a report", diagctl_fs::quoted(&name)))
    }
}

impl From<ReportName> for String {
    fn from(name: ReportName) -> Self {
        name.0
    }
}

impl Deref for ReportName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ReportName {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq<str> for ReportName {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for ReportName {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for ReportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for ReportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_part_of_a_file_name_is_a_name() {
        for good in ["smaps", "a", "heap_dump", "x9", &"a".repeat(64)] {
            assert_eq!(ReportName::parse(good).unwrap(), *good);
        }
        for bad in ["", "9lives", "Heap", "a-b", "a.b", "../x", "a/b", "é", "meta", "_x", &"a".repeat(65)] {
            assert!(ReportName::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn json_holds_the_plain_name_and_a_bad_one_is_refused() {
        let name = ReportName::parse("smaps").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"smaps\"");
        assert_eq!(serde_json::from_str::<ReportName>("\"smaps\"").unwrap(), name);
        let error = serde_json::from_str::<ReportName>("\"../x\"").unwrap_err().to_string();
        assert!(error.contains("\"../x\" is not the name of a report"), "{error}");
    }
}
