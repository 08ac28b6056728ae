//! `exec`: an operator's command exits with 0 within its timeout. One process of the store runs the command, once per `every`.
//! `acquire` runs it before deciding, and the answer is a reading like any other.

use super::{Condition, Facts, Outcome, View};
use crate::section::Section;
use crate::units;
use serde::{Deserialize, Serialize};

/// The longest timeout, which bounds the time that a command can delay a poll, in milliseconds.
const LONGEST_TIMEOUT_MS: u64 = 10_000;

/// The keys of `exec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    /// Time-out in milliseconds. The command is then killed, and the trigger does not hold.
    pub timeout_ms: u64,
    /// Time between two runs, milliseconds.
    pub every_ms: u64,
}

impl Condition for Exec {
    fn parse(keys: &Section<'_>) -> Option<Self> {
        let command = keys.texts("command");
        let timeout_ms = keys.duration("timeout").map_or(1000, units::ms);
        let every_ms = keys.duration("every").map_or(60_000, units::ms);
        keys.finish();
        if !keys.has("command") || command.as_ref().is_some_and(Vec::is_empty) {
            keys.problem(
                "command",
                "missing or empty",
                "list the program and its arguments: command = [\"/usr/bin/test\", \"-e\", \"/tmp/dump-now\"]",
            );
        }
        if timeout_ms == 0 || timeout_ms > LONGEST_TIMEOUT_MS {
            keys.wrong_value("timeout", "must be between 1ms and 10s", "the poll waits for the command; 1s is usual");
        }
        if every_ms < 1000 {
            keys.wrong_value("every", "must be at least 1s", "1m is usual");
        }
        Some(Self { command: command?, timeout_ms, every_ms })
    }

    /// Holds at the poll for which the command ran and exited with 0. Later polls report the outcome as well: most polls run no
    /// command, and otherwise nobody would see why the rule is silent.
    fn evaluate(&self, path: &str, view: View<'_>) -> Outcome {
        let name = self.command.first().map_or("", String::as_str);
        let every = units::duration(self.every_ms);
        let facts = |reason: String| Facts { reason, ..Facts::default() };
        match view.readings.execs.get(&format!("{}|{path}", view.name)) {
            None => Outcome::Waits(facts(format!("{name} runs every {every}")), None),
            Some(answer) if !answer.ran => Outcome::Unreadable(format!("{name} {}", answer.how)),
            Some(answer) if answer.past => {
                Outcome::Waits(facts(format!("{name} runs every {every}; the last time it {}", answer.how)), None)
            }
            Some(answer) if answer.holds => Outcome::Holds(facts(format!("{name} {}", answer.how))),
            Some(answer) => Outcome::Waits(facts(format!("{name} {}", answer.how)), None),
        }
    }

    fn is_about_the_process(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::rules::readings::ExecAnswer;

    #[test]
    fn the_last_outcome_is_reported_until_the_next_run() {
        let exec = Exec { command: vec!["/bin/check".into()], timeout_ms: 1000, every_ms: 60_000 };
        let outcome = |answer: Option<(bool, bool, bool, &str)>| {
            let mut bench = Bench::default();
            if let Some((holds, ran, past, how)) = answer {
                bench.readings.execs.insert("r|k".into(), ExecAnswer { holds, ran, how: how.into(), past });
            }
            match exec.evaluate("k", bench.view()) {
                Outcome::Holds(facts) => ("holds", facts.reason),
                Outcome::Waits(facts, _) => ("waits", facts.reason),
                Outcome::Unreadable(why) => ("unreadable", why),
            }
        };
        for (answer, expected, reason) in [
            (None, "waits", "/bin/check runs every 1m"),
            (Some((true, true, false, "ended with 0")), "holds", "/bin/check ended with 0"),
            (Some((false, true, false, "ended with 3")), "waits", "/bin/check ended with 3"),
            (
                Some((true, true, true, "ended with 0")),
                "waits",
                "/bin/check runs every 1m; the last time it ended with 0",
            ),
            (Some((false, false, false, "cannot be run: x")), "unreadable", "/bin/check cannot be run: x"),
            (Some((false, false, true, "cannot be run: x")), "unreadable", "/bin/check cannot be run: x"),
        ] {
            assert_eq!(outcome(answer), (expected, reason.to_owned()));
        }
    }
}
