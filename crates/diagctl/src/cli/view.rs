//! Captures as commands print them in JSON. A field that is added to a stored record stays private until it is added here.

use std::collections::BTreeMap;

use diagctl_store::Id;
use diagctl_store::index::Entry;
use diagctl_store::meta::{self, Meta};
use diagctl_store::retention::Verdict;
use serde::Serialize;
use serde_json::{Number, Value};

/// A capture, as `show`, `run` and `finalize` print it.
#[derive(Debug, Serialize)]
pub struct Capture<'a> {
    schema: u32,
    id: &'a Id,
    sequence: u64,
    created: &'a str,
    store_ms: u64,
    host: &'a str,
    boot_id: &'a str,
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid_ns: Option<u64>,
    start_time: u64,
    role: &'a str,
    worker: &'a str,
    versions: &'a BTreeMap<String, String>,
    rule: &'a str,
    trigger: Trigger<'a>,
    cost: &'a BTreeMap<String, Value>,
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    recipients: &'a [String],
    reports: Vec<Report<'a>>,
}

#[derive(Debug, Serialize)]
struct Trigger<'a> {
    name: &'a str,
    reason: &'a str,
    observed: &'a BTreeMap<String, Number>,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    name: &'a str,
    file: Option<&'a str>,
    content_type: &'a str,
    encoding: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption: Option<&'a str>,
    raw_bytes: u64,
    stored_bytes: u64,
    sha256: Option<&'a str>,
    error: Option<&'a str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    heap: Option<Heap<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<&'a Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

/// Facts about a heap dump.
#[derive(Debug, Serialize)]
struct Heap<'a> {
    format: &'a str,
    producer: &'a str,
    values: &'a str,
    lost: u64,
    repaired: u64,
}

impl<'a> From<&'a Meta> for Capture<'a> {
    fn from(meta: &'a Meta) -> Self {
        Self {
            schema: meta.schema,
            id: &meta.id,
            sequence: meta.sequence,
            created: &meta.created,
            store_ms: meta.store_ms,
            host: &meta.host,
            boot_id: &meta.boot_id,
            pid: meta.pid,
            pid_ns: (meta.pid_ns > 0).then_some(meta.pid_ns),
            start_time: meta.start_time,
            role: &meta.role,
            worker: &meta.worker,
            versions: &meta.versions,
            rule: &meta.rule,
            trigger: Trigger {
                name: &meta.trigger.name,
                reason: &meta.trigger.reason,
                observed: &meta.trigger.observed,
            },
            cost: &meta.cost,
            labels: &meta.labels,
            request: meta.request.as_deref(),
            recipients: &meta.recipients,
            reports: meta.reports.iter().map(Report::from).collect(),
        }
    }
}

impl<'a> From<&'a meta::Report> for Report<'a> {
    fn from(report: &'a meta::Report) -> Self {
        Self {
            name: &report.name,
            file: report.file.as_deref(),
            content_type: &report.content_type,
            encoding: &report.encoding,
            encryption: report.encryption.as_deref(),
            raw_bytes: report.raw_bytes,
            stored_bytes: report.stored_bytes,
            sha256: report.sha256.as_deref(),
            error: report.error.as_deref(),
            heap: report.heap.as_ref().map(|heap| Heap {
                format: &heap.format,
                producer: &heap.producer,
                values: &heap.values,
                lost: heap.lost,
                repaired: heap.repaired,
            }),
            took_ms: report.took_ms.as_ref(),
            note: report.note.as_deref(),
        }
    }
}

/// A capture in the output of `list`.
#[derive(Debug, Serialize)]
pub struct Listed<'a> {
    id: &'a Id,
    sequence: u64,
    created: &'a str,
    store_ms: u64,
    host: &'a str,
    pid: u32,
    role: &'a str,
    worker: &'a str,
    rule: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a str>,
    reports: Vec<ListedReport<'a>>,
    disk_bytes: u64,
    pinned: bool,
    /// True if the remote has confirmed it.
    shipped: bool,
}

#[derive(Debug, Serialize)]
struct ListedReport<'a> {
    name: &'a str,
    stored_bytes: u64,
    raw_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    values: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    encrypted: bool,
}

impl<'a> From<&'a Entry> for Listed<'a> {
    fn from(entry: &'a Entry) -> Self {
        let report = |report: &'a diagctl_store::index::EntryReport| ListedReport {
            name: &report.name,
            stored_bytes: report.stored_bytes,
            raw_bytes: report.raw_bytes,
            error: report.error.as_deref(),
            values: report.values,
            encrypted: report.encrypted,
        };
        Self {
            id: &entry.id,
            sequence: entry.sequence,
            created: &entry.created,
            store_ms: entry.store_ms,
            host: &entry.host,
            pid: entry.pid,
            role: &entry.role,
            worker: &entry.worker,
            rule: &entry.rule,
            reason: &entry.reason,
            request: entry.request.as_deref(),
            reports: entry.reports.iter().map(report).collect(),
            disk_bytes: entry.disk_bytes,
            pinned: entry.pinned,
            shipped: entry.shipped,
        }
    }
}

/// The decision of retention about a capture, as `gc` prints it.
#[derive(Debug, Serialize)]
pub struct Retained<'a> {
    id: &'a Id,
    keep: bool,
    reasons: Vec<String>,
    disk_bytes: u64,
}

impl<'a> From<&'a Verdict> for Retained<'a> {
    fn from(verdict: &'a Verdict) -> Self {
        let word = |reason: &String| if verdict.keep { format!("kept: {reason}") } else { reason.clone() };
        Self {
            id: &verdict.id,
            keep: verdict.keep,
            reasons: verdict.reasons.iter().map(word).collect(),
            disk_bytes: verdict.disk_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use diagctl_store::index::EntryReport;
    use serde_json::json;

    use super::*;
    use diagctl_store::ReportName;

    #[test]
    fn a_capture_is_printed_with_these_keys_and_in_this_order() {
        let meta = Meta {
            schema: 1,
            pid_ns: 7,
            request: Some("r".into()),
            reports: vec![meta::Report {
                took_ms: Some(7.into()),
                ..meta::Report::failed(ReportName::from_text("smaps"), "no")
            }],
            ..Meta::default()
        };
        let expected = r#"{"schema":1,"id":"00000000T000000000Z-00000000","sequence":0,"created":"","store_ms":0,"host":"","boot_id":"","pid":0,"pid_ns":7,"start_time":0,"role":"","worker":"","versions":{},"rule":"","trigger":{"name":"","reason":"","observed":{}},"cost":{},"labels":{},"request":"r","reports":[{"name":"smaps","file":null,"content_type":"","encoding":"","raw_bytes":0,"stored_bytes":0,"sha256":null,"error":"no","took_ms":7}]}"#;
        assert_eq!(serde_json::to_string(&Capture::from(&meta)).unwrap(), expected);
        let bare = serde_json::to_value(Capture::from(&Meta { reports: vec![], request: None, ..meta })).unwrap();
        assert!(bare.get("request").is_none(), "{bare}");
    }

    #[test]
    fn a_listed_capture_is_printed_with_these_keys_and_in_this_order() {
        let entry = Entry {
            reports: vec![EntryReport { error: Some("no".into()), ..EntryReport::new(ReportName::from_text("smaps")) }],
            ..Entry::default()
        };
        let expected = r#"{"id":"00000000T000000000Z-00000000","sequence":0,"created":"","store_ms":0,"host":"","pid":0,"role":"","worker":"","rule":"","reason":"","reports":[{"name":"smaps","stored_bytes":0,"raw_bytes":0,"error":"no"}],"disk_bytes":0,"pinned":false,"shipped":false}"#;
        assert_eq!(serde_json::to_string(&Listed::from(&entry)).unwrap(), expected);
    }

    #[test]
    fn reasons_to_keep_are_marked_as_such() {
        let verdict =
            |keep| Verdict { id: Id::default(), keep, reasons: vec!["pinned".into()], cause: None, disk_bytes: 1 };
        let printed = |keep| serde_json::to_value(Retained::from(&verdict(keep))).unwrap();
        assert_eq!(
            printed(true),
            json!({ "id": "00000000T000000000Z-00000000", "keep": true, "reasons": ["kept: pinned"], "disk_bytes": 1 })
        );
        assert_eq!(printed(false)["reasons"], json!(["pinned"]));
    }
}
