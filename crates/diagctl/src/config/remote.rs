//! The table `[remote]`: where captures are shipped. `diagctl-remote` uses it; `acquire` only knows that it is there.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Config;
use crate::section::Section;
use diagctl_fs::{without_query, without_secrets};

/// The keys, in the order in which they are shown.
pub(super) const KEYS: [&str; 12] = [
    "remote.url",
    "remote.ship",
    "remote.endpoint",
    "remote.region",
    "remote.credential_command",
    "remote.max_bandwidth",
    "remote.flush",
    "remote.stall_timeout",
    "remote.requests.allow_reports",
    "remote.requests.allow_requesters",
    "remote.requests.max_per_hour",
    "remote.requests.poll",
];

/// The forms of a URL, as a hint.
const URLS: &str = "write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, or file:///DIRECTORY";

/// The remote that captures are shipped to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` or `file:///DIRECTORY`.
    pub url: String,
    /// `finalize` starts a shipment.
    pub after_capture: bool,
    /// The URL of the server, if it is not that of Amazon or Google.
    pub endpoint: Option<String>,
    /// The region of the bucket.
    pub region: Option<String>,
    /// The command that prints credentials, and its arguments.
    pub credential_command: Vec<String>,
    /// Bytes a second.
    pub max_bandwidth: Option<u64>,
    /// Time for what waits when the shipper is told to stop.
    pub flush: Duration,
    /// Time without progress after which a shipment that follows a capture is ended.
    pub stall_timeout: Duration,
    /// Requests through the remote, if they are obeyed.
    pub requests: Option<RemoteRequests>,
}

/// The requests through the remote that this node obeys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteRequests {
    /// The reports that may be asked for.
    pub allow_reports: Vec<String>,
    /// The people who may ask, with globs.
    pub allow_requesters: Vec<String>,
    /// The most that are obeyed within an hour.
    pub max_per_hour: u32,
    /// The time between two looks.
    pub poll: Duration,
}

/// Reads the table. Returns `None` if it is empty or has no usable URL.
pub(super) fn read(section: &Section<'_>, config: &Config) -> Option<Box<Remote>> {
    let url = section.text("url");
    let ship = section.choice("ship", &[("manual", false), ("after_capture", true)]);
    let endpoint = section.text("endpoint");
    let region = section.text("region");
    let credential_command = section.texts("credential_command");
    let max_bandwidth = section.size("max_bandwidth");
    let flush = section.duration("flush").unwrap_or(Duration::from_secs(25));
    let stall_timeout = section.duration("stall_timeout").unwrap_or(Duration::from_secs(600));
    let requests = section.section("requests").and_then(|section| read_requests(&section, config));
    section.finish();
    if endpoint.as_ref().is_some_and(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
        section.wrong_url(
            "endpoint",
            "not a URL",
            "write https://HOST:PORT, or remove the key for Amazon S3 and Google",
        );
    }
    if endpoint.as_ref().is_some_and(|url| url.contains("://") && *without_query(url) != **url) {
        let hint = "write https://HOST:PORT; credentials come from the environment, the instance or credential_command";
        section.wrong_url("endpoint", "has credentials or a query in it, which every reader of this file sees", hint);
    }
    let is_absolute = |words: &Vec<String>| words.first().is_some_and(|program| program.starts_with('/'));
    if credential_command.as_ref().is_some_and(|words| !is_absolute(words)) {
        section.wrong_value(
            "credential_command",
            "does not begin with an absolute path",
            "write [\"/usr/local/bin/credentials\", \"ARGUMENT\"]; docs/fleet.md says what the command prints",
        );
    }
    if region.is_some() && url.as_ref().is_some_and(|url| !url.starts_with("s3://")) {
        section.wrong_value("region", "only s3:// has regions", "remove the key");
    }
    if max_bandwidth.is_some_and(|bytes| bytes < 1024) {
        section.wrong_value("max_bandwidth", "too little to ship anything", "10MiB, for 10 MiB a second, is usual");
    }
    if flush > Duration::from_secs(3600) {
        section.wrong_value("flush", "must be at most 1h", "25s is usual: Kubernetes kills after 30s");
    }
    if stall_timeout < Duration::from_secs(1) {
        section.wrong_value("stall_timeout", "must be at least 1s", "10m is usual: a part of 8 MiB may take minutes");
    }
    match url {
        Some(url) if is_usable(&url) => {
            // Commands that need no valid configuration never run one that was refused.
            let credential_command = credential_command.filter(is_absolute).unwrap_or_default();
            let after_capture = ship.unwrap_or(false);
            Some(Box::new(Remote {
                url,
                after_capture,
                endpoint,
                region,
                credential_command,
                max_bandwidth,
                flush,
                stall_timeout,
                requests,
            }))
        }
        Some(url) if *without_secrets(&url) != *url => {
            let hint =
                "write s3://BUCKET/PREFIX; credentials come from the environment, the instance or credential_command";
            section.wrong_url("url", "has credentials in it, which every reader of this file sees", hint);
            None
        }
        Some(_) => {
            section.wrong_url("url", "not the URL of a bucket or of a directory", URLS);
            None
        }
        None if !section.keys().is_empty() && !section.has("url") => {
            section.problem("url", "missing", URLS);
            None
        }
        None => None,
    }
}

// Off unless reports are allowed.
fn read_requests(section: &Section<'_>, config: &Config) -> Option<RemoteRequests> {
    let allow_reports = section.texts("allow_reports").unwrap_or_default();
    let allow_requesters = section.texts("allow_requesters").unwrap_or_else(|| vec!["*".into()]);
    let max_per_hour = section.count("max_per_hour").unwrap_or(2);
    let poll = section.duration("poll").unwrap_or(Duration::from_secs(60));
    section.finish();
    if let Some(name) = allow_reports.iter().find(|name| !config.knows_report(name)) {
        let hint = match name.contains('*') {
            true => "name reports one by one: [\"gc_stat\", \"heap_summary\"]".to_owned(),
            false => config.report_hint(name),
        };
        section.wrong_value("allow_reports", &format!("{name} is not a report"), &hint);
    }
    if poll < Duration::from_secs(1) {
        section.wrong_value("poll", "must be at least 1s", "1m is usual: each look is a request to the remote");
    }
    let requests = RemoteRequests { allow_reports, allow_requesters, max_per_hour, poll };
    Some(requests).filter(|requests| !requests.allow_reports.is_empty() && requests.max_per_hour > 0)
}

/// Returns true if the table `[remote.requests]` has a key.
pub(super) fn has_of_requests(section: &Section<'_>, key: &str) -> bool {
    let requests = section.table().get("requests").and_then(toml::Value::as_table);
    key.strip_prefix("remote.requests.").is_some_and(|key| requests.is_some_and(|table| table.contains_key(key)))
}

fn is_usable(url: &str) -> bool {
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    if let Some(path) = url.strip_prefix("file://") {
        return path.starts_with('/') && path.len() > 1;
    }
    let Some(rest) = ["s3://", "gs://", "az://"].iter().find_map(|scheme| url.strip_prefix(scheme)) else {
        return false;
    };
    let mut parts = rest.trim_end_matches('/').split('/');
    plain(rest) && parts.all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn a_remote_is_read_whole_and_each_problem_is_told() {
        let (config, _) = parse("[remote]\nurl = \"s3://bucket/a/b\"\nmax_bandwidth = \"10MiB\"\n").unwrap();
        let remote = config.remote.unwrap();
        assert_eq!((remote.url.as_str(), remote.max_bandwidth), ("s3://bucket/a/b", Some(10 << 20)));
        for url in ["gs://bucket/a", "az://container/a/b", "file:///mnt/x"] {
            let (config, _) = parse(&format!("[remote]\nurl = {url:?}\n")).unwrap();
            assert_eq!(config.remote.unwrap().url, url);
        }
        assert_eq!((remote.flush, remote.stall_timeout), (Duration::from_secs(25), Duration::from_secs(600)));
        assert_eq!((parse("[remote]").unwrap().0.remote, remote.requests), (None, None), "requests are off");
        let text = "[remote]\nurl = \"s3://b\"\n[remote.requests]\nallow_reports = [\"gc_stat\"]\n";
        let requests = parse(text).unwrap().0.remote.unwrap().requests.unwrap();
        assert_eq!((requests.max_per_hour, requests.poll), (2, Duration::from_secs(60)));
        assert_eq!(requests.allow_requesters, ["*"]);

        let table = [
            ("url = \"https://x\"", "remote.url: \"https://x\": not the URL of a bucket or of a directory"),
            ("url = \"s3://\"", "remote.url: \"s3://\": not the URL of a bucket or of a directory"),
            ("url = \"s3://b/../c\"", "remote.url: \"s3://b/../c\": not the URL of a bucket or of a directory"),
            ("url = \"file://relative\"", "remote.url: \"file://relative\": not the URL of a bucket or of a directory"),
            (
                "url = \"s3://AKIA:s3cret@b\"",
                "remote.url: \"s3://(hidden)@b\": has credentials in it, which every reader of this file sees",
            ),
            (
                "url = \"s3://b\"\nendpoint = \"https://u:s3cret@h\"",
                "remote.endpoint: \"https://(hidden)@h\": has credentials or a query in it, which every reader of this file sees",
            ),
            (
                "url = \"s3://b\"\nendpoint = \"https://u:S3 KRET@h\"",
                "remote.endpoint: \"https://(hidden)@h\": has credentials or a query in it, which every reader of this file sees",
            ),
            (
                "url = \"s3://b/p#S3KRET\"",
                "remote.url: \"s3://b/p#(hidden)\": not the URL of a bucket or of a directory",
            ),
            ("region = \"eu-west-1\"", "remote.url: missing"),
            ("url = \"gs://b\"\nregion = \"eu\"", "remote.region: \"eu\": only s3:// has regions"),
            ("url = \"az://\"", "remote.url: \"az://\": not the URL of a bucket or of a directory"),
            ("url = \"s3://b\"\nendpoint = \"host:1\"", "remote.endpoint: \"host:1\": not a URL"),
            ("url = \"s3://b\"\nflush = \"2h\"", "remote.flush: \"2h\": must be at most 1h"),
            ("url = \"s3://b\"\nstall_timeout = \"1ms\"", "remote.stall_timeout: \"1ms\": must be at least 1s"),
            ("url = \"s3://b\"\nmax_bandwidth = \"1B\"", "remote.max_bandwidth: \"1B\": too little to ship anything"),
            (
                "url = \"s3://b\"\ncredential_command = [\"x\"]",
                "remote.credential_command: [\"x\"]: does not begin with an absolute path",
            ),
            ("url = \"s3://b\"\nship = \"always\"", "remote.ship: \"always\": not a valid choice"),
            ("url = \"s3://b\"\nurI = \"\"", "remote.urI: unknown key"),
            (
                "url = \"s3://b\"\nrequests = { allow_reports = [\"*\"] }",
                "remote.requests.allow_reports: [\"*\"]: * is not a report",
            ),
            ("url = \"s3://b\"\nrequests = { poll = \"1ms\" }", "remote.requests.poll: \"1ms\": must be at least 1s"),
        ];
        for (text, expected) in table {
            let problems = parse(&format!("[remote]\n{text}\n")).unwrap_err();
            let told: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect();
            assert_eq!(told, [expected]);
        }
    }

    #[test]
    fn a_command_that_is_refused_never_runs() {
        let text = "[remote]\nurl = \"s3://b\"\ncredential_command = [\"./x\"]\n";
        let examined = crate::config::examine(text).unwrap();
        assert_eq!(examined.problems.len(), 1);
        assert!(examined.config.remote.unwrap().credential_command.is_empty());
    }
}
