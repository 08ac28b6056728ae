//! `exec`: a command of the operator's exits with 0 within its time-out. One process of the store runs it, once every
//! `every`; `acquire` runs it before it decides, and the answer is a reading like any other.

use super::{Facts, Outcome, View};
use crate::config::Section;
use crate::units;
use serde::{Deserialize, Serialize};

/// No command holds a poll up for longer.
const LONGEST_TIMEOUT_MS: u64 = 10_000;

/// The keys of `exec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    /// It is killed after this many milliseconds, and does not hold.
    pub timeout_ms: u64,
    /// It runs once in this many milliseconds.
    pub every_ms: u64,
}

impl Exec {
    /// Reads the keys.
    pub fn parse(keys: &Section<'_>) -> Option<Self> {
        let command = keys.texts("command");
        let timeout_ms = keys.duration("timeout").map_or(1000, units::ms);
        let every_ms = keys.duration("every").map_or(60_000, units::ms);
        keys.finish();
        if !keys.has("command") || command.as_ref().is_some_and(Vec::is_empty) {
            keys.problem(
                "command",
                "it is missing or empty",
                "give program and arguments: command = [\"/usr/bin/test\", \"-e\", \"/tmp/dump-now\"]",
            );
        }
        if timeout_ms == 0 || timeout_ms > LONGEST_TIMEOUT_MS {
            keys.wrong_value("timeout", "it is not between 1ms and 10s", "the poll waits for the command: 1s is usual");
        }
        if every_ms < 1000 {
            keys.wrong_value("every", "it is shorter than 1s", "1m is usual");
        }
        Some(Self { command: command?, timeout_ms, every_ms })
    }

    /// Holds at the poll for which the command ran and said yes.
    pub fn evaluate(&self, key: &str, view: View<'_>) -> Outcome {
        let name = self.command.first().map_or("", String::as_str);
        let Some(answer) = view.readings.execs.get(key) else {
            let reason = format!("{name} runs every {}", units::duration(self.every_ms));
            return Outcome::Waits(Facts { reason, ..Facts::default() }, None);
        };
        let facts = Facts { reason: format!("{name} {}", answer.how), ..Facts::default() };
        if answer.holds { Outcome::Holds(facts) } else { Outcome::Waits(facts, None) }
    }
}
