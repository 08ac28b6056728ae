//! `[reports.NAME]` of a custom report: one that a command prints or that the application provides.

use diagctl_store::ReportName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::section::Section;

/// The time limit for all commands of one capture's reports together, in milliseconds. The poll of a process waits for them.
pub const COMMANDS_TIMEOUT_MS: u64 = 10_000;

/// The largest `max_size`, bytes.
const LARGEST: u64 = 1 << 30;

/// A report that a command prints, or that the application provides with `Diagctl.report(:NAME)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomReport {
    /// The command that prints the report; without it, the application provides the report.
    pub command: Option<ReportCommand>,
    /// Media type of the content.
    pub content_type: String,
    /// Extension of the file.
    pub extension: String,
    /// Cost units of one report.
    pub cost: u32,
    /// The most bytes that the application may write; without it, the gem's default.
    #[serde(default)]
    pub max_size: Option<u64>,
}

impl CustomReport {
    /// Returns the options that are passed to the application's process.
    pub fn options(&self) -> Map<String, Value> {
        self.max_size.map(|bytes| ("max_size".to_owned(), bytes.into())).into_iter().collect()
    }
}

/// The command of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportCommand {
    /// Program and arguments; there is no shell.
    pub command: Vec<String>,
    /// Time-out in milliseconds, after which the command is killed.
    pub timeout_ms: u64,
}

/// Parses the section of a report that is not built in.
pub fn parse(name: &str, section: &Section<'_>) -> Option<CustomReport> {
    let producer = section.choice("producer", &[("application", ())]);
    let command = parse_command(section);
    let content_type = section.text("content_type").unwrap_or_else(|| "text/plain".into());
    let cost = section.count("cost").unwrap_or(1);
    let max_size = section.size("max_size");
    section.finish();
    if cost > 1000 {
        section.problem("cost", format!("{cost} is more than 1000"), "a heap dump costs 10, the cheap reports 1");
    }
    if max_size.is_some_and(|bytes| bytes == 0 || bytes > LARGEST) {
        section.wrong_value(
            "max_size",
            "must be between 1 byte and 1GiB",
            "the process holds it in memory; 16MiB is the default",
        );
    } else if max_size.is_some() && section.has("command") {
        section.problem("max_size", "has no effect on a command", "remove it");
    }
    if section.has("command") && section.has("producer") {
        section.problem("producer", "a report has a producer or a command, not both", "remove one of them");
    } else if producer.is_none() && !section.has("producer") && !section.has("command") {
        section.problem(
            "producer",
            "missing",
            "set producer = \"application\" for a report that the application provides with Diagctl.report, or set the \
             command that prints it",
        );
    }
    if ReportName::parse(name).is_none() {
        section.problem(
            "producer",
            format!("{} is not a valid report name", diagctl_fs::quoted(name)),
            "use at most 64 lower-case letters, digits and _, starting with a letter; `meta` is reserved",
        );
        return None;
    }
    let extension = match content_type.as_str() {
        "application/json" => "json",
        "application/x-ndjson" => "ndjson",
        "text/csv" => "csv",
        text if text.starts_with("text/") => "txt",
        _ => "bin",
    };
    Some(CustomReport { command, content_type, extension: extension.into(), cost, max_size })
}

fn parse_command(section: &Section<'_>) -> Option<ReportCommand> {
    let command = section.texts("command");
    let timeout_ms = section.duration("timeout").map_or(5000, crate::units::ms);
    if command.as_ref().is_some_and(Vec::is_empty) {
        section.problem(
            "command",
            "empty",
            "list the program and its arguments: command = [\"/usr/bin/vmstat\", \"-s\"]",
        );
    }
    if section.has("timeout") && !section.has("command") {
        section.problem("timeout", "has no effect without a command", "remove it");
    } else if timeout_ms == 0 || timeout_ms > COMMANDS_TIMEOUT_MS {
        section.wrong_value(
            "timeout",
            "must be between 1ms and 10s",
            "the poll waits for the command; 5s is the default",
        );
    }
    Some(ReportCommand { command: command?, timeout_ms })
}
