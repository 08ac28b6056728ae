//! The text of `diagctl show`.

use serde_json::Number;

use super::Shown;
use crate::cli::error::printable;
use crate::cli::output;
use crate::cli::remote::hints;
use crate::cli::times::{Times, age};
use crate::units::{duration, size};
use diagctl_store::meta;

pub(super) fn text(shown: &Shown, remote: Option<hints::As<'_>>, times: &Times, now_ms: u64) -> String {
    let meta = &shown.meta;
    let raw: u64 = meta.reports.iter().map(|r| r.raw_bytes).sum();
    let stored: u64 = meta.reports.iter().map(|r| r.stored_bytes).sum();
    let created = format!("{} {}, {} ago", times.show(&meta.created), times.name(), age(meta.store_ms, now_ms));
    let trigger = match &meta.trigger.name {
        name if *name == meta.rule => String::new(),
        name => format!("({name})"),
    };
    let lines = [
        ("capture", meta.id.to_string()),
        ("created", created),
        ("process", words(&[&meta.role, &meta.worker, &format!("pid {}", meta.pid), &on_host(&meta.host)])),
        ("rule", words(&[&meta.rule, &trigger])),
        ("reason", meta.trigger.reason.clone()),
        ("observed", joined(&meta.trigger.observed, observed)),
        ("request", meta.request.clone().unwrap_or_default()),
        ("versions", joined(&meta.versions, |_, version| version.clone())),
        ("cost", meta.cost.iter().map(|(name, value)| cost(name, value)).collect::<Vec<_>>().join(", ")),
        ("labels", joined(&meta.labels, |_, value| value.clone())),
        ("size", format!("{} on disk; {} stored of {} raw", size(shown.disk_bytes), size(stored), size(raw))),
        ("pinned", if shown.pinned { "yes" } else { "no" }.into()),
        // Most stores have no remote.
        ("shipped", if shown.shipped { "yes" } else { "" }.into()),
        ("directory", shown.dir.clone()),
        ("encrypted", encrypted(meta)),
    ];
    let mut text = String::new();
    for (key, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        text.push_str(&output::prose(&format!("{key:<11}"), 11, value));
    }
    let header = ["REPORT", "TOOK", "RAW", "STORED", "RATIO", "TYPE", "ERROR"];
    let rows: Vec<_> = meta.reports.iter().map(row).collect();
    text.push_str(&format!("\n{}\n", output::table(&header, &rows, &[1, 2, 3, 4], &[2, 3, 1, 5, 4])));
    for report in &meta.reports {
        if let Some(note) = &report.note {
            text.push('\n');
            text.push_str(&output::prose("", 0, &format!("{}: {note}", report.name)));
        }
    }
    let whole = meta.reports.iter().rfind(|r| r.error.is_none());
    if let Some(report) = whole.or_else(|| meta.reports.iter().rfind(|r| r.file.is_some())) {
        let command = format!("diagctl fetch {}:{}", meta.id, printable(&report.name));
        let command = remote.map_or_else(|| command.clone(), |how| hints::of_command(&command, how));
        text.push_str(&format!("\nfetch one with: {command}\n"));
    }
    text
}

pub(super) fn row(report: &meta::Report) -> Vec<String> {
    let figures = match &report.error {
        Some(_) if !report.is_damaged() => ["-", "-", "-", ""].map(str::to_owned),
        _ => [
            size(report.raw_bytes),
            size(report.stored_bytes),
            ratio(report.raw_bytes, report.stored_bytes),
            kind(report),
        ],
    };
    let took =
        report.took_ms.as_ref().and_then(serde_json::Number::as_f64).map_or("-".into(), |ms| format!("{ms:.1}ms"));
    let name = [report.name.to_string(), took];
    name.into_iter().chain(figures).chain([report.error.clone().unwrap_or_default()]).collect()
}

// Formats the type of a report's content, and whether a heap dump has values of the application in it.
pub(super) fn kind(report: &meta::Report) -> String {
    let encrypted = if report.encryption.is_some() { ", encrypted" } else { "" };
    let Some(heap) = &report.heap else { return format!("{}{encrypted}", report.content_type) };
    let repaired = match heap.repaired {
        0 => String::new(),
        1 => ", 1 record repaired".into(),
        many => format!(", {many} records repaired"),
    };
    let values = if report.has_values() { "with values" } else { "no values" };
    format!("{}, {values}{repaired}{encrypted}", heap.format)
}

// Says to whom, and which reports are not.
fn encrypted(meta: &meta::Meta) -> String {
    if meta.recipients.is_empty() {
        return String::new();
    }
    let plain = meta.reports.iter().filter(|r| r.file.is_some() && r.encryption.is_none());
    let plain: Vec<&str> = plain.map(|report| &*report.name).collect();
    let but = if plain.is_empty() { String::new() } else { format!("; readable: {}", plain.join(", ")) };
    format!("to {}{but}", meta.recipients.join(", "))
}

#[expect(clippy::cast_precision_loss, reason = "one digit after the point is printed")]
pub(super) fn ratio(raw: u64, stored: u64) -> String {
    if stored == 0 { "-".into() } else { format!("{:.1}x", raw as f64 / stored as f64) }
}

pub(super) fn words(words: &[&str]) -> String {
    words.iter().filter(|word| !matches!(**word, "" | "()")).copied().collect::<Vec<_>>().join(" ")
}

pub(super) fn on_host(host: &str) -> String {
    if host.is_empty() { String::new() } else { format!("on {host}") }
}

pub(super) fn joined<V>(values: &std::collections::BTreeMap<String, V>, shown: impl Fn(&str, &V) -> String) -> String {
    values.iter().map(|(name, value)| format!("{name} {}", shown(name, value))).collect::<Vec<_>>().join(", ")
}

/// Formats a figure that a trigger saw. Memory is in bytes; figures with the application's own names are plain numbers.
pub(in crate::cli) fn observed(name: &str, value: &Number) -> String {
    const BYTES: [&str; 9] =
        ["rss", "pss", "uss", "anon", "cgroup_working_set", "host_used", "threshold", "baseline", "increase"];
    match value.as_u64() {
        Some(bytes) if BYTES.contains(&name) || name.ends_with("_bytes") => size(bytes),
        _ => value.to_string(),
    }
}

// Formats `pause_ms: 12.5` as `pause 12.5ms` and `raw_bytes: 2048` as `raw 2.00 KiB`. Other costs from the dumper stay as they
// are.
pub(super) fn cost(name: &str, value: &serde_json::Value) -> String {
    if let (Some(what), Some(bytes)) = (name.strip_suffix("_bytes"), value.as_u64()) {
        return format!("{what} {}", size(bytes));
    }
    match (name.strip_suffix("_ms"), value.as_u64(), value.as_f64()) {
        (Some(what), Some(ms), _) => format!("{what} {}", duration(ms)),
        (Some(what), None, Some(ms)) => format!("{what} {ms}ms"),
        _ => format!("{name} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
    }
}
