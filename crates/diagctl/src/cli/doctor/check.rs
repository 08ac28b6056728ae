//! The findings of checks.

use std::fmt::Display;

use serde::Serialize;
use serde_json::{Map, Value};

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All is well.
    Ok,
    /// Captures are made; some may be refused, lost, or cost more than they should.
    Warn,
    /// No capture is taken, or taking one would be dangerous.
    Fail,
    /// The check was not possible.
    Skip,
}

/// A finding. Monitoring depends on the id, so it is never renamed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// An id of the form `area.thing`.
    pub id: &'static str,
    /// The severity.
    pub status: Status,
    /// One sentence that says what was seen and why it matters.
    pub message: String,
    /// The advice; `null` if there is nothing to do.
    pub hint: Option<String>,
    /// The figures and names that were seen.
    pub observed: Map<String, Value>,
}

impl Check {
    fn new(id: &'static str, status: Status, message: impl Into<String>, hint: Option<String>) -> Self {
        Self { id, status, message: message.into(), hint, observed: Map::new() }
    }

    /// All is well.
    pub fn ok(id: &'static str, message: impl Into<String>) -> Self {
        Self::new(id, Status::Ok, message, None)
    }

    /// Captures are made, but with a risk.
    pub fn warn(id: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(id, Status::Warn, message, Some(hint.into()))
    }

    /// No capture is taken, or taking one would be dangerous.
    pub fn fail(id: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(id, Status::Fail, message, Some(hint.into()))
    }

    /// The check was not possible.
    pub fn skip(id: &'static str, why: impl Display) -> Self {
        Self::new(id, Status::Skip, format!("not checked: {why}"), None)
    }

    /// Adds a figure or name that was seen.
    #[must_use]
    pub fn seen(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.observed.insert(name.to_owned(), value.into());
        self
    }
}

/// Returns the findings that are not `ok`, for table tests.
#[cfg(test)]
pub fn complaints(checks: &[Check]) -> Vec<(&'static str, Status)> {
    checks.iter().filter(|check| check.status != Status::Ok).map(|check| (check.id, check.status)).collect()
}

/// Compares the words of findings with the snapshot of this name. What other tests tell apart by its status is read here.
#[cfg(test)]
pub fn assert_words(name: &str, checks: &[Check]) {
    let mut text = String::new();
    for check in checks {
        text.push_str(&format!("{:?} {}: {}\n", check.status, check.id, check.message));
        text.extend(check.hint.iter().map(|hint| format!("  → {hint}\n")));
    }
    let temporary = regex_lite::Regex::new(r"/\S+/cg\b").unwrap();
    let mut settings = insta::Settings::new();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, temporary.replace_all(&text, "/cg").trim_end()));
}
