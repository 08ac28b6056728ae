//! `diagctl show`: prints everything that is known about one capture.

use serde::Serialize;
use serde_json::Number;

use super::output::{self, Done};
use super::times::{Times, age};
use super::view;
use super::{Context, Failure};
use crate::cli::error::printable;
use crate::fsio;
use crate::units::{duration, size};
use diagctl_store::index;
use diagctl_store::meta::{self, Meta};
use diagctl_store::{Access, reader};

/// Show the details of one capture
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  diagctl show latest\n  diagctl show latest --json | jq .reports")]
pub struct Args {
    /// Capture ID, a unique prefix of one, `latest`, or `latest:REPORT`
    id: String,
    /// Show times in UTC instead of the local time zone
    #[arg(long)]
    utc: bool,
    /// Print JSON: meta.json with `pinned`, `dir` and `disk_bytes` added
    #[arg(long)]
    json: bool,
}

struct Shown {
    meta: Meta,
    pinned: bool,
    dir: String,
    /// The size that counts against the cap: the blocks of all files of the capture.
    disk_bytes: u64,
}

#[derive(Serialize)]
struct View<'a> {
    #[serde(flatten)]
    capture: view::Capture<'a>,
    pinned: bool,
    dir: &'a str,
    disk_bytes: u64,
}

impl<'a> From<&'a Shown> for View<'a> {
    fn from(shown: &'a Shown) -> Self {
        Self { capture: (&shown.meta).into(), pinned: shown.pinned, dir: &shown.dir, disk_bytes: shown.disk_bytes }
    }
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let store = cx.open(Access::Read)?;
    let (_, now) = cx.peek(&store)?;
    let target = reader::resolve(&store, &args.id)?;
    let dir = store.report_dir(&target.id);
    let meta = meta::read(&dir)?;
    if let Some(name) = &target.report {
        reader::report_of(&meta, name)?;
    }
    let (pinned, disk_bytes) = (dir.join(index::PIN_FILE).exists(), fsio::occupied_tree(&dir));
    let shown = Shown { pinned, dir: dir.display().to_string(), disk_bytes, meta };
    Done::either(args.json, &View::from(&shown), |_| text(&shown, &Times::new(args.utc), now.store_ms))
}

fn text(shown: &Shown, times: &Times, now_ms: u64) -> String {
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
        ("directory", shown.dir.clone()),
    ];
    let mut text = String::new();
    for (key, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        text.push_str(&format!("{key:<11}{}\n", printable(value)));
    }
    let header = ["REPORT", "TOOK", "RAW", "STORED", "RATIO", "TYPE", "ERROR"];
    let rows: Vec<_> = meta.reports.iter().map(row).collect();
    text.push_str(&format!("\n{}\n", output::table(&header, &rows, &[1, 2, 3, 4], &[2, 3, 1, 5, 4])));
    for report in &meta.reports {
        if let Some(note) = &report.note {
            text.push_str(&format!("\n{}: {}\n", printable(&report.name), printable(note)));
        }
    }
    let whole = meta.reports.iter().rfind(|r| r.error.is_none());
    if let Some(report) = whole.or_else(|| meta.reports.iter().rfind(|r| r.file.is_some())) {
        text.push_str(&format!("\nfetch one with: diagctl fetch {}:{}\n", meta.id, printable(&report.name)));
    }
    text
}

fn row(report: &meta::Report) -> Vec<String> {
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
fn kind(report: &meta::Report) -> String {
    let Some(heap) = &report.heap else { return report.content_type.clone() };
    let repaired = match heap.repaired {
        0 => String::new(),
        1 => ", 1 record repaired".into(),
        many => format!(", {many} records repaired"),
    };
    let values = if report.has_values() { "with values" } else { "no values" };
    format!("{}, {values}{repaired}", heap.format)
}

#[expect(clippy::cast_precision_loss, reason = "one digit after the point is printed")]
fn ratio(raw: u64, stored: u64) -> String {
    if stored == 0 { "-".into() } else { format!("{:.1}x", raw as f64 / stored as f64) }
}

fn words(words: &[&str]) -> String {
    words.iter().filter(|word| !matches!(**word, "" | "()")).copied().collect::<Vec<_>>().join(" ")
}

fn on_host(host: &str) -> String {
    if host.is_empty() { String::new() } else { format!("on {host}") }
}

fn joined<V>(values: &std::collections::BTreeMap<String, V>, shown: impl Fn(&str, &V) -> String) -> String {
    values.iter().map(|(name, value)| format!("{name} {}", shown(name, value))).collect::<Vec<_>>().join(", ")
}

/// Formats a figure that a trigger saw. Memory is in bytes; figures with the application's own names are plain numbers.
pub fn observed(name: &str, value: &Number) -> String {
    const BYTES: [&str; 9] =
        ["rss", "pss", "uss", "anon", "cgroup_working_set", "host_used", "threshold", "baseline", "increase"];
    match value.as_u64() {
        Some(bytes) if BYTES.contains(&name) || name.ends_with("_bytes") => size(bytes),
        _ => value.to_string(),
    }
}

// Formats `pause_ms: 12.5` as `pause 12.5ms` and `raw_bytes: 2048` as `raw 2.00 KiB`. Other costs from the dumper stay as they
// are.
fn cost(name: &str, value: &serde_json::Value) -> String {
    if let (Some(what), Some(bytes)) = (name.strip_suffix("_bytes"), value.as_u64()) {
        return format!("{what} {}", size(bytes));
    }
    match (name.strip_suffix("_ms"), value.as_u64(), value.as_f64()) {
        (Some(what), Some(ms), _) => format!("{what} {}", duration(ms)),
        (Some(what), None, Some(ms)) => format!("{what} {ms}ms"),
        _ => format!("{name} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diagctl_store::ReportName;

    fn shown() -> Shown {
        let meta = Meta {
            id: "20261122T101530123Z-7f3a9c2e".parse().unwrap(),
            created: "2026-11-22T10:15:30.123Z".into(),
            host: "web-1".into(),
            pid: 4711,
            role: "puma".into(),
            worker: "worker-0".into(),
            rule: "heap-on-growth".into(),
            trigger: meta::Trigger {
                name: "memory_usage".into(),
                reason: "rss 1.62 GiB is above 1.50 GiB".into(),
                observed: [("rss".to_owned(), 1_739_461_755.into()), ("puma.backlog".to_owned(), 7.into())].into(),
            },
            cost: [("pause_ms".to_owned(), 12.5.into()), ("raw_bytes".to_owned(), 2048.into())].into(),
            reports: vec![
                meta::Report {
                    content_type: "application/x-ndjson".into(),
                    raw_bytes: 10 << 20,
                    stored_bytes: 1 << 20,
                    ..meta::Report::new(ReportName::from_text("heap_dump"))
                },
                meta::Report::failed(ReportName::from_text("jemalloc_stats"), "no jemalloc\u{1b}[2J here"),
            ],
            ..Meta::default()
        };
        Shown { meta, pinned: true, dir: "/var/lib/diagctl/reports/x".into(), disk_bytes: 2 << 20 }
    }

    #[test]
    fn text_has_units_and_no_terminal_escapes() {
        let text = text(&shown(), &Times::new(true), 250_000);
        for expected in [
            "created    2026-11-22 10:15:30 UTC, 4m 10s ago\n",
            "process    puma worker-0 pid 4711 on web-1\n",
            "rule       heap-on-growth (memory_usage)\n",
            "observed   puma.backlog 7, rss 1.62 GiB\n",
            "cost       pause 12.5ms, raw 2.00 KiB\n",
            "size       2.00 MiB on disk; 1.00 MiB stored of 10.0 MiB raw\n",
            "pinned     yes\n",
            "10.0x",
            "no jemalloc\\u{1b}[2J here",
            "fetch one with: diagctl fetch 20261122T101530123Z-7f3a9c2e:heap_dump\n",
        ] {
            assert!(text.contains(expected), "missing {expected:?} in\n{text}");
        }
        assert!(!text.contains("labels"), "{text}");
    }

    #[test]
    fn json_is_the_record_plus_three_keys() {
        let shown = shown();
        let mut expected = serde_json::to_value(&shown.meta).unwrap();
        expected["pinned"] = true.into();
        expected["dir"] = "/var/lib/diagctl/reports/x".into();
        expected["disk_bytes"] = (2 << 20).into();
        assert_eq!(serde_json::to_value(View::from(&shown)).unwrap(), expected);
    }
}
