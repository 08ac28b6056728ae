//! `[reports.NAME]` of a built-in report: its options.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::section::Section;
use crate::units;

/// The longest profile. A profile blocks the poll thread of its process, and the lease, for its whole duration.
const LONGEST_PROFILE: Duration = Duration::from_secs(60);

/// The options of built-in reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportOptions {
    /// `cpu_profile.duration`: the length of the profile.
    pub profile: Duration,
    /// `jemalloc_stats.options`: letters for `malloc_stats_print`.
    pub jemalloc: Option<String>,
    /// `heap_dump.full`: true to include empty slots.
    pub full_heap: bool,
}

impl Default for ReportOptions {
    fn default() -> Self {
        Self { profile: Duration::from_secs(10), jemalloc: None, full_heap: false }
    }
}

impl ReportOptions {
    /// Reads the section of a built-in report.
    pub fn read(&mut self, name: &str, section: &Section<'_>) {
        if section.has("producer") {
            let message = format!("{name} is a built-in report");
            return section.problem("producer", message, "choose another name for your own report");
        }
        match name {
            "cpu_profile" => {
                let given = section.duration("duration").unwrap_or(self.profile);
                if given < Duration::from_millis(100) || given > LONGEST_PROFILE {
                    section.wrong_value("duration", "must be between 100ms and 1m", "10s is usual");
                } else {
                    self.profile = given;
                }
            }
            "jemalloc_stats" => {
                self.jemalloc = section.text("options");
                if self.jemalloc.as_ref().is_some_and(|text| !text.chars().all(|c| c.is_ascii_alphabetic())) {
                    section.wrong_value(
                        "options",
                        "must be letters",
                        "see malloc_stats_print(3); Jdaxeh is the default",
                    );
                }
            }
            "heap_dump" => self.full_heap = section.boolean("full").unwrap_or(self.full_heap),
            _ => {}
        }
        section.finish();
    }

    /// Returns the options that are passed to the producer of a report.
    pub fn of(&self, name: &str) -> Map<String, Value> {
        let options = match name {
            "cpu_profile" => json!({ "duration": self.profile.as_secs_f64() }),
            "jemalloc_stats" => self.jemalloc.as_ref().map_or(json!({}), |letters| json!({ "options": letters })),
            "heap_dump" if self.full_heap => json!({ "full": true }),
            _ => json!({}),
        };
        let Value::Object(options) = options else { return Map::new() };
        options
    }

    /// Returns the sections that differ from the defaults, as they are written in a file.
    pub fn sections(&self) -> Vec<(&'static str, Value)> {
        let default = Self::default();
        let mut sections = Vec::new();
        if self.profile != default.profile {
            sections.push(("cpu_profile", json!({ "duration": units::duration(units::ms(self.profile)) })));
        }
        if let Some(letters) = &self.jemalloc {
            sections.push(("jemalloc_stats", json!({ "options": letters })));
        }
        if self.full_heap {
            sections.push(("heap_dump", json!({ "full": true })));
        }
        sections
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_built_in_reports_are_read_and_listed() {
        let text = "[reports.cpu_profile]\nduration = \"2s\"\n[reports.jemalloc_stats]\noptions = \"J\"\n[reports.heap_dump]\nfull = true\n";
        let options = crate::config::parse(text).unwrap().0.options;
        let told =
            ["cpu_profile", "jemalloc_stats", "heap_dump", "threads"].map(|name| Value::Object(options.of(name)));
        assert_eq!(told, [json!({ "duration": 2.0 }), json!({ "options": "J" }), json!({ "full": true }), json!({})]);
        assert_eq!(options.sections().len(), 3);
        assert_eq!(ReportOptions::default().sections(), []);
    }

    #[test]
    fn wrong_options_are_problems() {
        for (text, expected) in [
            ("[reports.cpu_profile]\nduration = \"2h\"", "must be between 100ms and 1m"),
            ("[reports.cpu_profile]\nlength = \"2s\"", "unknown key"),
            ("[reports.jemalloc_stats]\noptions = \"J;x\"", "must be letters"),
        ] {
            let problems = crate::config::parse(text).unwrap_err();
            assert!(problems.iter().any(|p| p.to_string().contains(expected)), "{text}: {problems:?}");
        }
    }
}
