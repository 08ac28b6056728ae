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
    /// `heap_dump.producer`: false to leave the heap walker out.
    pub walker: bool,
    /// `heap_dump.values = "all"`: true to store the values of the application as well.
    pub heap_values: bool,
}

impl Default for ReportOptions {
    fn default() -> Self {
        let profile = Duration::from_secs(10);
        Self { profile, jemalloc: None, full_heap: false, heap_values: false, walker: true }
    }
}

impl ReportOptions {
    /// Reads the section of a built-in report.
    pub fn read(&mut self, name: &str, section: &Section<'_>) {
        if section.has("producer") && name != "heap_dump" {
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
            "heap_dump" => {
                self.full_heap = section.boolean("full").unwrap_or(self.full_heap);
                match section.text("values").as_deref() {
                    None => {}
                    Some("none") => self.heap_values = false,
                    Some("all") => self.heap_values = true,
                    Some(_) => section.wrong_value("values", "must be \"none\" or \"all\"", "none is the default"),
                }
                match section.text("producer").as_deref() {
                    None => {}
                    Some("auto") => self.walker = true,
                    Some("dump_all") => self.walker = false,
                    Some(_) => {
                        let hint = "\"auto\" uses the heap walker where it works";
                        section.wrong_value("producer", "must be \"auto\" or \"dump_all\"", hint);
                    }
                }
            }
            _ => {}
        }
        section.finish();
    }

    /// Returns the options that are passed to the producer of a report.
    pub fn of(&self, name: &str) -> Map<String, Value> {
        let mut options = Map::new();
        match name {
            "cpu_profile" => {
                options.insert("duration".into(), self.profile.as_secs_f64().into());
            }
            "jemalloc_stats" => {
                options.extend(self.jemalloc.as_ref().map(|letters| ("options".into(), letters.clone().into())));
            }
            "heap_dump" | "object_counts" | "heap_summary" => {
                if self.full_heap && name == "heap_dump" {
                    options.insert("full".into(), true.into());
                }
                if self.heap_values && name == "heap_dump" {
                    options.insert("values".into(), "all".into());
                }
                if !self.walker {
                    options.insert("producer".into(), "dump_all".into());
                }
            }
            _ => {}
        }
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
        let heap = self.of("heap_dump");
        if !heap.is_empty() {
            sections.push(("heap_dump", Value::Object(heap)));
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
        let options = crate::config::parse("[reports.heap_dump]\nvalues = \"all\"\n").unwrap().0.options;
        assert_eq!(options.sections(), [("heap_dump", json!({ "values": "all" }))]);
    }

    #[test]
    fn the_walker_can_be_left_out_of_all_reports_that_use_it() {
        let read = |text| crate::config::parse(text).unwrap().0.options;
        let without = read("[reports.heap_dump]\nproducer = \"dump_all\"\n");
        for report in ["heap_dump", "object_counts", "heap_summary"] {
            assert_eq!(Value::Object(without.of(report)), json!({ "producer": "dump_all" }));
        }
        assert_eq!(without.sections(), [("heap_dump", json!({ "producer": "dump_all" }))]);
        assert_eq!(read("[reports.heap_dump]\nproducer = \"auto\"\n"), ReportOptions::default());
    }

    #[test]
    fn wrong_options_are_problems() {
        for (text, expected) in [
            ("[reports.cpu_profile]\nduration = \"2h\"", "must be between 100ms and 1m"),
            ("[reports.cpu_profile]\nlength = \"2s\"", "unknown key"),
            ("[reports.jemalloc_stats]\noptions = \"J;x\"", "must be letters"),
            ("[reports.heap_dump]\nproducer = \"walker\"", "must be \"auto\" or \"dump_all\""),
            ("[reports.heap_dump]\nvalues = \"some\"", "must be \"none\" or \"all\""),
        ] {
            let problems = crate::config::parse(text).unwrap_err();
            assert!(problems.iter().any(|p| p.to_string().contains(expected)), "{text}: {problems:?}");
        }
    }
}
