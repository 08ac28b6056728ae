//! The names of reports.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

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

    /// Makes a name from any text: `Slow queries` → `slow_queries`, `9lives` → `file_9lives`. Cuts it to 60 characters.
    pub fn from_text(text: &str) -> Self {
        let plain = text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
        let name: String = plain.take(55).collect();
        Self::parse(&name).unwrap_or_else(|| Self(format!("file_{name}")))
    }
}

/// A text that does not have the form of a report's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is not the name of a report", diagctl_fs::quoted(.0))]
pub struct NotAReportName(String);

impl FromStr for ReportName {
    type Err = NotAReportName;

    fn from_str(name: &str) -> Result<Self, NotAReportName> {
        Self::parse(name).ok_or_else(|| NotAReportName(name.to_owned()))
    }
}

impl TryFrom<String> for ReportName {
    type Error = NotAReportName;

    fn try_from(name: String) -> Result<Self, NotAReportName> {
        name.parse()
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
    fn any_text_can_be_made_a_name() {
        let long = "x".repeat(99);
        let table = [("slow-queries", "slow_queries"), ("9lives", "file_9lives"), ("META", "file_meta"), ("", "file_")];
        for (text, name) in table.into_iter().chain([("été", "file__t_"), (&long, &long[..55])]) {
            assert_eq!(ReportName::from_text(text), *name);
            assert_eq!(ReportName::parse(name).unwrap(), *name, "{text:?} becomes a valid name");
        }
        assert!(ReportName::parse(&ReportName::from_text(&"9".repeat(99))).is_some());
    }

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
