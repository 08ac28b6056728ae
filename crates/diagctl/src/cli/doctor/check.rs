//! What one check found.

use std::fmt::Display;

use serde::Serialize;
use serde_json::{Map, Value};

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Captures are made; some may be refused, lost, or cost more than they should.
    Warn,
    /// No capture is made, or one would be dangerous.
    Fail,
    /// It could not be looked at.
    Skip,
}

/// A finding. Its id is part of the contract with monitoring: it is never renamed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// `area.thing`.
    pub id: &'static str,
    /// How much it matters.
    pub status: Status,
    /// One sentence with what was seen and why it matters.
    pub message: String,
    /// What to do; `null` where nothing is to be done.
    pub hint: Option<String>,
    /// The figures and names that were seen.
    pub observed: Map<String, Value>,
}

impl Check {
    fn new(id: &'static str, status: Status, message: impl Into<String>, hint: Option<String>) -> Self {
        Self { id, status, message: message.into(), hint, observed: Map::new() }
    }

    /// As it should be.
    pub fn ok(id: &'static str, message: impl Into<String>) -> Self {
        Self::new(id, Status::Ok, message, None)
    }

    /// Captures are made, and yet.
    pub fn warn(id: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(id, Status::Warn, message, Some(hint.into()))
    }

    /// No capture is made, or one would be dangerous.
    pub fn fail(id: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(id, Status::Fail, message, Some(hint.into()))
    }

    /// It could not be looked at.
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

/// A table test: what of a list of findings is not `ok`.
#[cfg(test)]
pub fn complaints(checks: &[Check]) -> Vec<(&'static str, Status)> {
    checks.iter().filter(|check| check.status != Status::Ok).map(|check| (check.id, check.status)).collect()
}
