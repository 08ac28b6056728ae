//! Renders the merged configuration as JSON, and as TOML with the source of each value. Both come from one list of values. The
//! TOML parses back to the same configuration, apart from secrets in it, which are hidden.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::config::{
    Compression, Config, CustomReport, Loaded, Mode, OnCapture, Remote, Rule, Select, Snapshot, Source,
};
use crate::units::{Amount, ms};
use diagctl_fs::{without_query, without_secrets};

/// Renders `config show --json`.
pub fn json(loaded: &Loaded) -> Value {
    let values: Map<String, Value> = values(&loaded.config)
        .into_iter()
        .map(|(key, value)| (key.to_owned(), json!({ "value": value, "source": source(loaded, key).to_string() })))
        .collect();
    json!({
        "schema": 1,
        "file": loaded.file.as_ref().map(|path| path.display().to_string()),
        "values": values,
        "reports": reports(&loaded.config),
        "rules": loaded.config.rules.iter().map(rule).collect::<Vec<_>>(),
    })
}

/// Renders `config show`.
pub fn text(loaded: &Loaded) -> String {
    let mut text = match &loaded.file {
        Some(file) => format!("# file: {}\n", crate::cli::error::printable(&file.display().to_string())),
        None => format!("# file: none, {} does not exist\n", crate::config::DEFAULT_FILE),
    };
    let mut section = "";
    for (key, value) in values(&loaded.config) {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
        if table != section {
            section = table;
            text.push_str(&format!("\n[{table}]\n"));
        }
        let line = match value {
            Value::Null => format!("# {name} is not set"),
            value => format!("{name} = {}", toml(&value)),
        };
        text.push_str(&format!("{line:<40}  # {}\n", source(loaded, key)));
    }
    for (name, report) in reports(&loaded.config) {
        text.push_str(&format!("\n[reports.{name}]\n{}", lines(&report)));
    }
    let from = source(loaded, "rules");
    for declared in &loaded.config.rules {
        text.push_str(&format!("\n[[rules]]  # {from}\n{}", lines(&rule(declared))));
        for (key, origin) in &declared.origins {
            text.push_str(&format!("# {key} is from {origin}\n"));
        }
    }
    text
}

fn source(loaded: &Loaded, key: &str) -> Source {
    loaded.sources.get(key).copied().unwrap_or(Source::Default)
}

fn values(config: &Config) -> Vec<(&'static str, Value)> {
    let Config { guards, limits, retention, .. } = config;
    vec![
        ("dir", json!(config.dir.display().to_string())),
        ("enabled", json!(config.enabled)),
        ("poll_interval", duration(config.poll_interval)),
        ("group", json!(config.group)),
        ("group_may", json!(config.group_may)),
        ("allow_network_filesystem", json!(config.allow_network_filesystem)),
        ("guards.memory_headroom", json!(guards.memory_headroom)),
        ("guards.min_free_disk", amount(guards.min_free_disk)),
        ("guards.max_rss", guards.max_rss.map_or(Value::Null, size)),
        ("guards.max_cpu_pressure", guards.max_cpu_pressure.map_or(Value::Null, |p| json!(format!("{p}%")))),
        ("guards.deadline", duration(guards.deadline)),
        ("limits.budget_hour", json!(limits.budget_hour)),
        ("limits.budget_day", json!(limits.budget_day)),
        ("retention.max_use", size(retention.max_use)),
        ("retention.keep_free", amount(retention.keep_free)),
        ("retention.max_age", duration(retention.max_age)),
        ("retention.keep_last", json!(retention.keep_last)),
        ("retention.max_captures", json!(retention.max_captures)),
        (
            "retention.compression",
            match retention.compression {
                Compression::Gzip => json!("gzip"),
                Compression::Zstd => json!("zstd"),
            },
        ),
    ]
    .into_iter()
    .chain(config.remote.iter().flat_map(|remote| remote_values(remote)))
    .chain(config.encrypt.iter().flat_map(|encrypt| {
        [("encrypt.recipients", json!(encrypt.recipients)), ("encrypt.except", json!(encrypt.except))]
    }))
    .chain(config.on_capture.iter().flat_map(|hook| hook_values(hook)))
    .map(|(key, value)| (key, hidden(value)))
    .collect()
}

// Hides secret keys, and credentials in URLs, in whatever command or path they are.
fn hidden(value: Value) -> Value {
    match value {
        Value::String(text) => without_secrets(&text).into(),
        Value::Array(items) => items.into_iter().map(hidden).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, hidden(value))).collect(),
        other => other,
    }
}

fn hook_values(hook: &OnCapture) -> Vec<(&'static str, Value)> {
    let path = |path: &Option<PathBuf>| json!(path.as_ref().map(|path| path.display().to_string()));
    let webhook = hook.webhook.clone().unwrap_or_default();
    let is_url = |word: &str| word.to_ascii_lowercase().starts_with("http") && !word.contains(char::is_whitespace);
    let word = |word: &String| if is_url(word) { without_query(word).into_owned() } else { word.clone() };
    let command: Vec<String> = hook.command.iter().map(word).collect();
    vec![
        ("on_capture.command", if command.is_empty() { Value::Null } else { json!(command) }),
        ("on_capture.webhook", json!(webhook.url.as_deref().map(without_query))),
        ("on_capture.webhook_file", path(&webhook.url_file)),
        ("on_capture.headers_file", path(&webhook.headers_file)),
        ("on_capture.timeout", duration(Duration::from_millis(hook.timeout_ms))),
        ("on_capture.rules", json!(hook.rules)),
    ]
}

fn remote_values(remote: &Remote) -> Vec<(&'static str, Value)> {
    let command = &remote.credential_command;
    let requests = remote.requests.iter().flat_map(|requests| {
        [
            ("remote.requests.allow_reports", json!(requests.allow_reports)),
            ("remote.requests.allow_requesters", json!(requests.allow_requesters)),
            ("remote.requests.max_per_hour", json!(requests.max_per_hour)),
            ("remote.requests.poll", duration(requests.poll)),
        ]
    });
    let own = [
        ("remote.url", json!(remote.url)),
        ("remote.ship", json!(if remote.after_capture { "after_capture" } else { "manual" })),
        ("remote.endpoint", json!(remote.endpoint)),
        ("remote.region", json!(remote.region)),
        ("remote.credential_command", if command.is_empty() { Value::Null } else { json!(command) }),
        ("remote.max_bandwidth", remote.max_bandwidth.map_or(Value::Null, size)),
        ("remote.flush", duration(remote.flush)),
        ("remote.stall_timeout", duration(remote.stall_timeout)),
    ];
    own.into_iter().chain(requests).collect()
}

fn reports(config: &Config) -> Map<String, Value> {
    let report = |report: &CustomReport| {
        let mut keys = json!({ "content_type": report.content_type, "cost": report.cost });
        match &report.command {
            Some(of) => {
                (keys["command"], keys["timeout"]) =
                    (json!(of.command), json!(duration(Duration::from_millis(of.timeout_ms))))
            }
            None => keys["producer"] = "application".into(),
        }
        if let Some(bytes) = report.max_size {
            keys["max_size"] = size(bytes);
        }
        keys
    };
    let declared = config.reports.iter().map(|(name, custom)| (name.clone(), hidden(report(custom))));
    declared.chain(config.options.sections().into_iter().map(|(name, options)| (name.to_owned(), options))).collect()
}

// A single pattern is written as a string, as most people write it.
fn patterns(patterns: &Option<Vec<String>>) -> Value {
    match patterns.as_deref().unwrap_or_default() {
        [] => Value::Null,
        [one] => one.as_str().into(),
        several => json!(several),
    }
}

fn rule(rule: &Rule) -> Value {
    let mut limits = json!({ "cooldown": duration(rule.limits.cooldown) });
    if let Some(max) = rule.limits.max_count {
        limits["max_count"] = max.into();
        limits["window"] = duration(rule.limits.window);
    }
    if let Some(least) = rule.limits.per_process {
        limits["per_process"] = duration(least);
    }
    hidden(json!({
        "name": rule.name,
        "reports": rule.reports,
        "origins": rule.origins,
        "trigger": rule.declared_trigger,
        "match": { "role": patterns(&rule.matching.role), "name": patterns(&rule.matching.name) },
        "for": duration(rule.hold_for),
        "select": match rule.select {
            Select::First => "first",
            Select::Largest => "largest",
            Select::RoundRobin => "round_robin",
        },
        "sample": format!("{}%", rule.sample),
        "capture": match rule.follow_ups { 0 => "once", 1 => "pair", _ => "three" },
        "pair_delay": rule.pair_delay.map(duration),
        "limits": limits,
        "mode": match rule.mode {
            Mode::Enforce => "enforce",
            Mode::DryRun => "dry_run",
        },
        "snapshot": match rule.snapshot {
            Snapshot::Fork => "fork",
            Snapshot::InProcess => "in_process",
        },
    }))
}

// Exact to the millisecond, unlike durations formatted for people.
fn duration(value: Duration) -> Value {
    let ms = ms(value);
    let parts = [
        (ms / 86_400_000, "d"),
        (ms / 3_600_000 % 24, "h"),
        (ms / 60_000 % 60, "m"),
        (ms / 1000 % 60, "s"),
        (ms % 1000, "ms"),
    ];
    let text: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { json!("0s") } else { json!(text.join(" ")) }
}

// Uses the largest unit that divides the size.
fn size(bytes: u64) -> Value {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    json!(unit.map_or(format!("{bytes}B"), |(shift, unit)| format!("{}{unit}", bytes >> shift)))
}

fn amount(value: Amount) -> Value {
    match value {
        Amount::Bytes(bytes) => size(bytes),
        Amount::Percent(percent) => json!(format!("{percent}%")),
    }
}

fn lines(table: &Value) -> String {
    // Origins are not keys of a rule; the text shows them as comments.
    let entries = table.as_object().into_iter().flatten().filter(|(key, value)| !is_empty(value) && *key != "origins");
    entries.map(|(key, value)| format!("{key} = {}\n", toml(value))).collect()
}

// Converts JSON of the kinds that occur here to inline TOML.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pairs: Vec<String> =
                map.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| format!("{k} = {}", toml(v))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        Value::String(text) => toml::Value::from(text.as_str()).to_string(),
        other => other.to_string(),
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(|map| map.values().all(Value::is_null))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EXAMPLE, parse};

    const ODD: &str = r#"
        dir = "/srv/a \"quoted\" place"
        poll_interval = "1m 1s 50ms"
        group = "sre"
        [guards]
        max_rss = "1234567B"
        min_free_disk = "12.5%"
        max_cpu_pressure = "50%"
        [retention]
        max_use = "1536MiB"
        max_age = "1d 2h 3m 4s"
        max_captures = 10
        compression = "zstd"
        [remote]
        url = "s3://bucket/prefix"
        credential_command = ["/bin/credentials", "--now"]
        max_bandwidth = "10MiB"
        ship = "after_capture"
        [on_capture]
        command = ["/bin/tell", "it's \"here\""]
        webhook_file = "/run/secrets/webhook"
        headers_file = "/run/secrets/headers"
        timeout = "1m 1s"
        rules = ["a", "heap-*"]
        [remote.requests]
        allow_reports = ["gc_stat"]
        poll = "30s"
        [reports.cpu_profile]
        duration = "3s"
        [reports.cache]
        producer = "application"
        content_type = "text/csv"
        cost = 3
        [reports.table_sizes]
        command = ["/usr/bin/psql", "-c", "select 1"]
        timeout = "1500ms"
        [[rules]]
        name = "a"
        reports = ["cache", "heap_dump"]
        match = { role = "puma", name = "worker-1" }
        for = "90s"
        trigger.any = [
          { memory_usage = { of = "cgroup", above = ["70%", "80%"], rearm_below = "60%" } },
          { all = [ { timer = { every = "1h" } }, { memory_usage = { metric = "uss", above = "1.5GiB" } } ] },
          { on_demand = { min_interval = "1m" } },
        ]
        select = "round_robin"
        sample = "10%"
        capture = "pair"
        pair_delay = "2m"
        limits = { cooldown = "10m", max_count = 5, window = "1d" }
        mode = "dry_run"
        snapshot = "in_process"
    "#;

    fn loaded(text: &str) -> Loaded {
        let (config, sources) = parse(text).unwrap_or_else(|p| panic!("{p:?}"));
        Loaded { file: Some("/etc/x.toml".into()), sources, ..Loaded::new(config) }
    }

    #[test]
    fn the_shown_configuration_parses_to_the_same_configuration() {
        for document in ["", EXAMPLE, ODD] {
            let mut loaded = loaded(document);
            loaded.config.rules.iter_mut().for_each(|rule| rule.origins.clear());
            let shown = text(&loaded);
            let (mut again, _) = parse(&shown).unwrap_or_else(|p| panic!("{p:?} in\n{shown}"));
            // A window without a count means nothing, and the default rule's window differs from that of parsed rules.
            for rule in loaded.config.rules.iter_mut().chain(&mut again.rules).filter(|r| r.limits.max_count.is_none())
            {
                rule.limits.window = Duration::ZERO;
            }
            assert_eq!(again, loaded.config, "{shown}");
        }
    }

    #[test]
    fn secrets_are_hidden_wherever_they_are() {
        let document = r#"
            [on_capture]
            command = ["/bin/tell", "https://h/x?room=s3cret", "--to=https://u:s3cret@h/x", "sh -c 'what?'"]
            webhook = "https://h/api?code=s3cret&\u006fther=s3cret"
            [reports.x]
            command = ["/bin/curl", "https://h/?token=s3cret"]
            [remote]
            url = "s3://b"
            credential_command = ["/bin/credentials", "https://h?sig=s3cret"]
            [[rules]]
            name = "a"
            reports = ["x"]
            trigger.exec = { command = ["/bin/look", "https://s3cret@h/"] }
        "#;
        let loaded = loaded(document);
        for shown in [text(&loaded), json(&loaded).to_string()] {
            assert!(!shown.contains("s3cret"), "{shown}");
            assert!(shown.contains("https://h/api?code=(hidden)&other=(hidden)"), "{shown}");
            assert!(shown.contains("sh -c 'what?'"), "{shown}");
        }
    }

    #[test]
    fn every_value_has_a_unit_and_a_source() {
        let mut loaded = loaded(ODD);
        loaded.sources.insert("dir", Source::Environment("DIAGCTL_DIR"));
        let json = json(&loaded);
        let at = |key: &str| json["values"][key].clone();
        assert_eq!(at("dir"), json!({ "value": "/srv/a \"quoted\" place", "source": "environment DIAGCTL_DIR" }));
        assert_eq!(at("poll_interval"), json!({ "value": "1m 1s 50ms", "source": "file" }));
        assert_eq!(at("guards.max_rss"), json!({ "value": "1234567B", "source": "file" }));
        assert_eq!(at("guards.deadline"), json!({ "value": "10m", "source": "default" }));
        assert_eq!(json["rules"][0]["trigger"]["any"][2], json!({ "on_demand": { "min_interval": "1m" } }));
        // Every value with a source is shown.
        for key in loaded.sources.keys().filter(|key| **key != "rules") {
            assert!(json["values"].get(*key).is_some(), "{key}");
        }
    }
}
