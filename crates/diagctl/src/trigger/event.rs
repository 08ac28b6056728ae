//! `event`: the application named it. Operators declare what an event leads to; applications only name it.
//!
//! An event that was named waits for each rule that looks at it until that rule has answered it; see `decide`.

use super::{Facts, Outcome, View};
use crate::config::Section;
use crate::units;
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
            keys.problem("name", "missing", "name the event: name = \"worker_memory_limit\"");
        }
        if name.as_deref().is_some_and(|name| !super::is_application_name(name)) {
            keys.wrong_value(
                "name",
                "empty, too long, or has spaces",
                "use at most 128 letters, digits, `.`, `_` and `-`",
            );
        }
        Some(Self { name: name? })
    }

    /// Holds while the rule has the event to answer.
    pub fn evaluate(&self, view: View<'_>) -> Outcome {
        let facts = |reason| Facts { reason, ..Facts::default() };
        let Some(named) = view.named.get(&self.name) else {
            return Outcome::Waits(facts(format!("event {} was not named", self.name)), None);
        };
        let ago = match view.now_ms.saturating_sub(named.at) {
            0..1000 => String::new(),
            ms => format!(" {} ago", units::duration(ms)),
        };
        Outcome::Holds(facts(format!("event {} was named{ago}", self.name)))
    }
}
