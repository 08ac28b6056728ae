//! `event`: the application named it. Operators declare what an event leads to; applications only name it.

use super::{Facts, Outcome, View};
use crate::config::Section;
use serde::{Deserialize, Serialize};

/// The keys of `event`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its name.
    pub name: String,
}

impl Event {
    /// Reads the keys.
    pub fn parse(keys: &Section<'_>) -> Option<Self> {
        let name = keys.text("name");
        keys.finish();
        if name.is_none() && !keys.has("name") {
            keys.problem("name", "it is missing", "name the event: name = \"worker_memory_limit\"");
        }
        if name.as_deref().is_some_and(|name| !super::is_application_name(name)) {
            keys.problem(
                "name",
                "it is empty, too long or has blanks",
                "use letters, digits, `.`, `_` and `-`, at most 128",
            );
        }
        Some(Self { name: name? })
    }

    /// Holds at the poll that brings the event.
    pub fn evaluate(&self, view: View<'_>) -> Outcome {
        let holds = view.readings.events.contains(&self.name);
        let reason = format!("event {} was {}named", self.name, if holds { "" } else { "not " });
        let facts = Facts { reason, ..Facts::default() };
        if holds { Outcome::Holds(facts) } else { Outcome::Waits(facts, None) }
    }
}
