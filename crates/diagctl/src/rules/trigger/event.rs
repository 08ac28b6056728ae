//! `event`: the application named an event. Applications only name events; operators declare what follows.
//!
//! Each rule that watches an event keeps it until the rule has answered it; see `decide`.

use super::{Condition, Facts, Outcome, View};
use crate::section::Section;
use crate::units;
use serde::{Deserialize, Serialize};

/// The keys of `event`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The event's name.
    pub name: String,
}

impl Condition for Event {
    fn parse(keys: &Section<'_>) -> Option<Self> {
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
    fn evaluate(&self, _path: &str, view: View<'_>) -> Outcome {
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

    fn is_about_the_process(&self) -> bool {
        true
    }

    fn is_sampled(&self) -> bool {
        false
    }
}
