//! Requests through the remote: what a person writes, and what nodes answer. Each is an object of its own that one writer writes.

use diagctl_store::{Id, ReportName};
use serde::{Deserialize, Serialize};

/// Maximum size of any of these objects, bytes.
pub const MAX_OBJECT: u64 = 64 << 10;

/// The longest time for which a request counts, milliseconds.
pub const LONGEST_MS: u64 = 24 * 3_600_000;

/// The longest reason, bytes.
const LONGEST_REASON: usize = 1024;

/// The longest name of a person, bytes.
const LONGEST_BY: usize = 256;

/// The most reports of a request.
const MAX_REPORTS: usize = 32;

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ticket {
    /// The version of this object's format.
    pub schema: u32,
    /// Its id, in the form of a capture's.
    pub id: String,
    /// The nodes that are to obey it.
    pub nodes: Vec<String>,
    /// The reports.
    pub reports: Vec<String>,
    /// Only processes of this role.
    pub role: Option<String>,
    /// Only the process of this name.
    pub name: Option<String>,
    /// The reason.
    pub reason: String,
    /// The person. The remote only proves that it is one who may write requests.
    pub by: String,
    /// Time of the request, UTC, RFC 3339.
    pub created: String,
    /// The time for which it counts, milliseconds.
    pub expires_ms: u64,
}

/// The cancellation of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cancellation {
    /// The version of this object's format.
    pub schema: u32,
    /// The person, as of the request.
    pub by: String,
    /// Time of the cancellation, UTC, RFC 3339.
    pub at: String,
}

/// A store that obeys requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    /// The version of this object's format.
    pub schema: u32,
    /// The machine.
    pub host: String,
    /// The directory of the store, for people who tell apart two on one machine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub store: String,
    /// The reports that it allows.
    pub allow_reports: Vec<String>,
    /// The time between its looks, milliseconds.
    pub poll_ms: u64,
    /// Time of this announcement, UTC, RFC 3339.
    pub at: String,
}

/// The state of a request at a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for a process.
    #[default]
    Waiting,
    /// Its capture is in the remote.
    Captured,
    /// The node does not obey it.
    Refused,
    /// It was given up.
    Failed,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// The version of this object's format.
    pub schema: u32,
    /// The machine.
    pub host: String,
    /// The state.
    pub state: State,
    /// The capture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capture: Option<Id>,
    /// True if it was given up because somebody cancelled it. Its state is `Failed`, which older programs know.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cancelled: bool,
    /// The reason.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Time of the answer, UTC, RFC 3339.
    pub at: String,
}

impl Answer {
    /// Returns true if no other answer follows.
    pub fn is_final(&self) -> bool {
        self.state != State::Waiting
    }

    /// Returns true if it says what its state promises.
    pub fn is_whole(&self) -> bool {
        self.state != State::Captured || self.capture.is_some()
    }
}

impl Ticket {
    /// Returns the reports, or the reason why this is no request.
    pub fn check(&self, id: &str) -> Result<Vec<ReportName>, String> {
        if self.schema > 1 {
            return Err("a newer diagctl wrote it".into());
        }
        if self.id != id {
            return Err("it has another id than its name".into());
        }
        if self.reason.trim().is_empty() || self.by.is_empty() {
            return Err("it does not say who wants it and why".into());
        }
        for (what, text, most) in [("reason", &self.reason, LONGEST_REASON), ("person", &self.by, LONGEST_BY)] {
            if text.len() > most {
                return Err(format!("its {what} is too long: {} bytes, and {most} at most are allowed", text.len()));
            }
        }
        if [&self.reason, &self.by].into_iter().any(|text| diagctl_fs::has_secret_key(text)) {
            return Err(
                "it holds a secret key of age: whoever can read the remote has it now, so do not use that key any more"
                    .into(),
            );
        }
        if self.reports.is_empty() || self.reports.len() > MAX_REPORTS {
            return Err(format!("it names no reports, or more than {MAX_REPORTS}"));
        }
        if [&self.role, &self.name].into_iter().flatten().any(|text| text.len() > 256) || self.expires_ms > LONGEST_MS {
            return Err("a value in it is out of range".into());
        }
        let parse = |name: &String| ReportName::parse(name).ok_or_else(|| format!("{name:.64} is not a report"));
        self.reports.iter().map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_says_who_wants_what_and_why() {
        let id = "20261128T100000000Z-aaaaaaaa";
        let good = Ticket {
            id: id.into(),
            reports: vec!["gc_stat".into()],
            reason: "it grows".into(),
            by: "ann".into(),
            ..Ticket::default()
        };
        assert_eq!(good.check(id).unwrap(), ["gc_stat".parse::<ReportName>().unwrap()]);
        let table = [
            (Ticket { reason: "see AGE-SECRET-KEY-1QQQQ".into(), ..good.clone() }, "it holds a secret key"),
            (Ticket { by: "age-secret-key-1qqqq".into(), ..good.clone() }, "it holds a secret key"),
            (Ticket { schema: 2, ..good.clone() }, "newer"),
            (Ticket { id: "x".into(), ..good.clone() }, "another id"),
            (Ticket { reason: " ".into(), ..good.clone() }, "who wants it and why"),
            (Ticket { by: "b".repeat(300), ..good.clone() }, "its person is too long: 300 bytes, and 256 at most"),
            (
                Ticket { reason: "r".repeat(1025), ..good.clone() },
                "its reason is too long: 1025 bytes, and 1024 at most",
            ),
            (Ticket { reports: Vec::new(), ..good.clone() }, "names no reports"),
            (Ticket { reports: vec!["../x".into()], ..good.clone() }, "../x is not a report"),
            (Ticket { expires_ms: u64::MAX, ..good }, "out of range"),
        ];
        for (ticket, expected) in table {
            assert!(ticket.check(id).unwrap_err().contains(expected), "{expected}");
        }
    }
}
