//! The kinds of report: the producer, file format and cost of each.

use serde::{Deserialize, Serialize};

/// The producer of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Producer {
    /// diagctl itself, from outside the process.
    Native,
    /// The process itself, in memory, within milliseconds.
    Inline,
    /// A forked child of the process.
    Snapshot,
}

/// One kind of report.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The name in rules, requests and captures.
    pub name: &'static str,
    /// The producer.
    pub producer: Producer,
    /// Extension of the uncompressed file.
    pub extension: &'static str,
    /// Media type of the uncompressed content.
    pub content_type: &'static str,
    /// The cost units that one report charges against `budget_hour` and `budget_day`.
    pub cost: u32,
}

const JSON: (&str, &str) = ("json", "application/json");
const JSON_LINES: (&str, &str) = ("ndjson", "application/x-ndjson");
const TEXT: (&str, &str) = ("txt", "text/plain");
const XML: (&str, &str) = ("xml", "application/xml");
/// A heap dump without values.
pub(crate) const HEAP_GRAPH: (&str, &str) = ("graph", "application/vnd.diagctl.heap-graph");
/// The report that counts the objects of a heap.
pub const HEAP_SUMMARY: &str = "heap_summary";
const PROFILE: (&str, &str) = ("heap", "text/plain");

const fn kind(name: &'static str, producer: Producer, form: (&'static str, &'static str), cost: u32) -> Kind {
    Kind { name, producer, extension: form.0, content_type: form.1, cost }
}

/// Every built-in report, cheapest first, which is the order in which they are produced.
pub const KINDS: &[Kind] = &[
    kind("smaps_rollup", Producer::Native, TEXT, 1),
    kind("process", Producer::Native, JSON, 1),
    kind("cgroup", Producer::Native, JSON, 1),
    kind("system", Producer::Native, JSON, 1),
    kind("fds", Producer::Native, JSON, 1),
    kind("siblings", Producer::Native, JSON, 1),
    kind("smaps", Producer::Native, TEXT, 1),
    kind("gc_stat", Producer::Inline, JSON, 1),
    kind("puma", Producer::Inline, JSON, 1),
    kind("sidekiq", Producer::Inline, JSON, 1),
    kind("threads", Producer::Inline, TEXT, 1),
    kind("malloc_info", Producer::Inline, XML, 1),
    kind("jemalloc_stats", Producer::Inline, JSON, 1),
    kind("ruby", Producer::Inline, JSON, 1),
    kind("jemalloc_profile", Producer::Inline, PROFILE, 1),
    kind("cpu_profile", Producer::Inline, JSON, 1),
    kind("object_counts", Producer::Snapshot, JSON, 1),
    kind("heap_summary", Producer::Snapshot, JSON, 1),
    kind("heap_dump", Producer::Snapshot, JSON_LINES, 10),
];

/// The type of a report's uncompressed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileType {
    /// The extension of its file, without a dot.
    pub extension: String,
    /// Its media type.
    pub content_type: String,
}

impl FileType {
    /// Returns the type of a file with this extension.
    pub fn of_file(extension: &str) -> Self {
        let content_type = match extension {
            "json" => "application/json",
            "ndjson" | "jsonl" => "application/x-ndjson",
            "txt" | "log" => "text/plain",
            "csv" => "text/csv",
            "xml" => "application/xml",
            _ => "application/octet-stream",
        };
        let plain =
            !extension.is_empty() && extension.len() <= 16 && extension.chars().all(|c| c.is_ascii_alphanumeric());
        Self { extension: if plain { extension } else { "bin" }.into(), content_type: content_type.into() }
    }
}

/// Looks up a built-in kind, with its position in [`KINDS`].
pub fn builtin(name: &str) -> Option<(usize, &'static Kind)> {
    KINDS.iter().enumerate().find(|(_, kind)| kind.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_extension_of_what_it_is() {
        let of = |content_type: &str| match content_type {
            "application/json" => &["json"][..],
            "application/x-ndjson" => &["ndjson"],
            "application/xml" => &["xml"],
            "text/plain" => &["txt", "heap"],
            other => panic!("{other}"),
        };
        for kind in KINDS {
            assert!(of(kind.content_type).contains(&kind.extension), "{}", kind.name);
        }
        let table =
            [("json", "application/json"), ("ndjson", "application/x-ndjson"), ("jsonl", "application/x-ndjson")];
        for (extension, content_type) in table {
            assert_eq!(FileType::of_file(extension).content_type, content_type);
        }
    }
}
