//! Parsing a document as a whole: its values over the defaults, and all of its problems at once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Compression, Config, GroupRight, Source, custom, encrypt, lines, on_capture, remote, rules, templates};
use crate::section::{Problem, Problems, Section, several};
use diagctl_fs::without_secrets;
use diagctl_store::report_kind;

/// Parses a document. Returns its values over the defaults, and the source of each.
pub fn parse(text: &str) -> std::result::Result<(Config, BTreeMap<&'static str, Source>), Vec<Problem>> {
    let examined = examine(text)?;
    if examined.problems.is_empty() { Ok((examined.config, examined.given)) } else { Err(examined.problems) }
}

/// A document, parsed as far as possible.
pub struct Examined {
    /// The document's valid values over the defaults.
    pub config: Config,
    /// The source of each value.
    pub given: BTreeMap<&'static str, Source>,
    /// The position of each rule in the document.
    pub positions: Vec<usize>,
    /// The problems.
    pub problems: Vec<Problem>,
    /// Warnings about tables that have no effect as they are written.
    pub idle: Vec<Problem>,
}

/// Parses a document as far as possible. Fails only if it is not TOML.
pub fn examine(text: &str) -> std::result::Result<Examined, Vec<Problem>> {
    let mut examined = examine_all(text);
    let problems = match &mut examined {
        Ok(examined) => &mut examined.problems,
        Err(problems) => problems,
    };
    encrypt::refuse_secrets(text, problems);
    lines::add(text, problems);
    examined
}

fn examine_all(text: &str) -> std::result::Result<Examined, Vec<Problem>> {
    let mut table = read_toml(text)?;
    let problems = Problems::default();
    let (origins, unused) = templates::expand(&mut table, &problems);
    let root = Section::root(&table, &problems);
    let mut config = Config::default();
    let mut given = BTreeMap::new();

    let mut note = |section: &str, section_has: bool, key: &'static str| {
        let bare = key.strip_prefix(section).map_or(key, |rest| rest.trim_start_matches('.'));
        debug_assert!(!bare.is_empty());
        given.insert(key, if section_has { Source::File } else { Source::Default });
    };
    // Reads one key over its default, and records if the file gave it.
    macro_rules! read {
        ($section:expr, $prefix:literal, $key:literal, $method:ident, $place:expr) => {{
            let section: Option<&Section<'_>> = $section;
            if let Some(value) = section.and_then(|s| s.$method($key)) {
                $place = value.into();
            }
            note($prefix, section.is_some_and(|s| s.has($key)), concat!($prefix, $key));
        }};
    }

    let top = Some(&root);
    read!(top, "", "dir", text, config.dir);
    if !config.dir.is_absolute() {
        let message = format!("{:?} is not an absolute path", config.dir.display().to_string());
        root.problem("dir", message, "use an absolute path, so that every process finds the same store");
    }
    read!(top, "", "enabled", boolean, config.enabled);
    read!(top, "", "poll_interval", duration, config.poll_interval);
    read!(top, "", "group", text, config.group);
    if config.group.as_deref().is_some_and(str::is_empty) {
        root.wrong_value("group", "not the name of a group", "use a group from /etc/group, or remove the key");
    }
    group_may(&root, &mut config);
    note("", root.has("group_may"), "group_may");
    read!(top, "", "allow_network_filesystem", boolean, config.allow_network_filesystem);
    if config.poll_interval < Duration::from_millis(50) || config.poll_interval > Duration::from_secs(3600) {
        root.wrong_value("poll_interval", "must be between 50ms and 1h", "10s is usual");
        config.poll_interval = Duration::from_secs(10);
    }

    let guards = root.section("guards");
    let section = guards.as_ref();
    read!(section, "guards.", "memory_headroom", factor, config.guards.memory_headroom);
    read!(section, "guards.", "min_free_disk", amount, config.guards.min_free_disk);
    read!(section, "guards.", "max_rss", size, config.guards.max_rss);
    read!(section, "guards.", "max_cpu_pressure", percent, config.guards.max_cpu_pressure);
    read!(section, "guards.", "deadline", duration, config.guards.deadline);
    if let Some(guards) = section {
        guards.finish();
        if config.guards.deadline < Duration::from_secs(1) || config.guards.deadline > Duration::from_secs(86_400) {
            guards.wrong_value(
                "deadline",
                "must be between 1s and 1d",
                "a dump of a gigabyte takes seconds; 10m is usual",
            );
        }
    }

    let limits = root.section("limits");
    let section = limits.as_ref();
    read!(section, "limits.", "budget_hour", count, config.limits.budget_hour);
    read!(section, "limits.", "budget_day", count, config.limits.budget_day);
    limits.iter().for_each(Section::finish);

    let retention = root.section("retention");
    let section = retention.as_ref();
    read!(section, "retention.", "max_use", size, config.retention.max_use);
    read!(section, "retention.", "keep_free", amount, config.retention.keep_free);
    read!(section, "retention.", "max_age", duration, config.retention.max_age);
    read!(section, "retention.", "keep_last", count, config.retention.keep_last);
    read!(section, "retention.", "max_captures", count, config.retention.max_captures);
    let compression =
        section.and_then(|s| s.choice("compression", &[("gzip", Compression::Gzip), ("zstd", Compression::Zstd)]));
    config.retention.compression = compression.unwrap_or(config.retention.compression);
    note("retention.", section.is_some_and(|s| s.has("compression")), "retention.compression");
    if let Some(retention) = section {
        retention.finish();
        if config.retention.max_use < 256 << 10 {
            retention.problem(
                "max_use",
                format!("{} is too small for any report", crate::units::size(config.retention.max_use)),
                "a heap dump takes tens of megabytes compressed; 1GiB is usual",
            );
        }
        if config.retention.max_age.is_zero() {
            retention.wrong_value("max_age", "would keep nothing", "14d is usual; for no limit, write 100y");
        }
        if config.retention.max_captures == Some(0) {
            retention.problem("max_captures", "0 would keep nothing", "remove the key for no limit");
        }
    }

    if let Some(reports) = root.section("reports") {
        for (name, section) in reports.named_sections() {
            if report_kind::builtin(name).is_some() {
                config.options.read(name, &section);
            } else if let Some(report) = custom::parse(name, &section) {
                config.reports.insert(name.to_owned(), report);
            }
        }
    }

    if let Some(section) = root.section("remote") {
        config.remote = remote::read(&section, &config);
        let has = |key: &str| section.has(&key["remote.".len()..]) || remote::has_of_requests(&section, key);
        remote::KEYS.into_iter().for_each(|key| note("remote.", has(key), key));
    }

    root.know("encrypt");
    if root.keys().iter().any(|key| encrypt::is_misspelt(key)) {
        config.encrypt = Some(Box::new(encrypt::broken()));
    } else if table.get("encrypt").and_then(toml::Value::as_bool) == Some(false) {
        config.plain = true;
    } else if root.has("encrypt") {
        let section = root.section("encrypt");
        let read = section.as_ref().map(|section| encrypt::read(section, &config));
        config.encrypt = Some(read.unwrap_or_else(|| Box::new(encrypt::broken())));
        let has = |key: &str| section.as_ref().is_some_and(|section| section.has(&key["encrypt.".len()..]));
        encrypt::KEYS.into_iter().for_each(|key| note("encrypt.", has(key), key));
    }

    if let Some(section) = root.section("on_capture") {
        config.on_capture = on_capture::read(&section);
        on_capture::KEYS.into_iter().for_each(|key| note("on_capture.", section.has(&key["on_capture.".len()..]), key));
    }

    let rules = root.sections("rules");
    note("", root.has("rules"), "rules");
    let mut positions = vec![0];
    if let Some(sections) = rules {
        (positions, config.rules) = rules::parse_all(&sections, &origins, &config).into_iter().unzip();
    }
    for (path, table) in &unused {
        let found = Problems::default();
        rules::parse_unused(&Section::apart(path, table, &found), &config);
        // A template is only part of a rule, so missing keys are no problem.
        let is_given = |problem: &Problem| {
            let key = problem.path.strip_prefix(path.as_str()).unwrap_or_default().trim_start_matches('.');
            table.contains_key(key.split(['.', '[']).next().unwrap_or_default())
        };
        found.into_vec().into_iter().filter(is_given).for_each(|p| problems.add(p.path, p.message, p.hint));
    }
    ["defaults", "templates"].into_iter().for_each(|key| root.know(key));
    root.finish();
    // A problem in a shared key would otherwise be reported once for each rule.
    let mut distinct: Vec<Problem> = Vec::new();
    for problem in problems.into_vec() {
        let problem = Problem { path: templates::written_at(&problem.path, &origins), ..problem };
        if !distinct.contains(&problem) {
            distinct.push(problem);
        }
    }
    Ok(Examined { config, given, positions, problems: distinct, idle: idle_tables(&table) })
}

// These tables would be off without a word.
fn idle_tables(table: &toml::Table) -> Vec<Problem> {
    let get = |table: &toml::Table, key: &str| table.get(key).and_then(toml::Value::as_table).cloned();
    let warning = |path: &str, message: &str, hint: &str| Problem {
        path: path.to_owned(),
        message: message.to_owned(),
        hint: Some(hint.to_owned()),
        line: None,
    };
    let mut found = Vec::new();
    if get(table, "on_capture").is_some_and(|hook| hook.is_empty()) {
        found.push(warning(
            "on_capture",
            "the table is empty, so nobody is told",
            "set command or webhook, or remove the table",
        ));
    }
    if get(table, "on_capture")
        .is_some_and(|hook| hook.get("rules").and_then(toml::Value::as_array).is_some_and(Vec::is_empty))
    {
        found.push(warning(
            "on_capture.rules",
            "the list is empty, so nobody is told",
            "name rules, or remove the key for all",
        ));
    }
    let remote = get(table, "remote");
    if remote.as_ref().is_some_and(toml::Table::is_empty) {
        found.push(warning("remote", "the table is empty, so nothing is shipped", "set url, or remove the table"));
    }
    if let Some(requests) = remote.and_then(|remote| get(&remote, "requests")) {
        let none = |key: &str| requests.get(key).is_none_or(|list| list.as_array().is_some_and(Vec::is_empty));
        let hint = "allow some, or remove the table [remote.requests]";
        if none("allow_reports") {
            found.push(warning("remote.requests", "allow_reports is empty or missing, so no request is obeyed", hint));
        } else if requests.get("max_per_hour").and_then(toml::Value::as_integer) == Some(0) {
            found.push(warning("remote.requests.max_per_hour", "0, so no request is obeyed", hint));
        } else if requests.contains_key("allow_requesters") && none("allow_requesters") {
            found.push(warning("remote.requests.allow_requesters", "the list is empty, so no request is obeyed", hint));
        }
    }
    found
}

fn group_may(root: &Section<'_>, config: &mut Config) {
    let Some(words) = root.texts("group_may") else { return };
    for word in words {
        match GroupRight::ALL.into_iter().find(|right| right.name() == word) {
            Some(right) => config.group_may.push(right),
            None => root.problem("group_may", format!("{word:?} is not a right"), "use \"request\", \"pin\" or both"),
        }
    }
    if config.group.is_none() && !config.group_may.is_empty() {
        root.problem("group_may", "there is no `group` that could have these rights", "set `group`, or remove the key");
        config.group_may.clear();
    }
}

// Parses TOML and returns all syntax errors at once.
fn read_toml(text: &str) -> std::result::Result<toml::Table, Vec<Problem>> {
    text.parse().map_err(|first: toml::de::Error| {
        let (_, mut errors) = toml::de::DeTable::parse_recoverable(text);
        if errors.is_empty() {
            errors.push(first);
        }
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        let line = |e: &toml::de::Error| {
            e.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1)
        };
        let is_second = |line: usize| lines.get(line - 1).is_some_and(|line| line.starts_with("[rules]"));
        let header =
            |line: usize| (1..=line).rev().find(|line| lines.get(line - 1).is_some_and(|l| l.starts_with('[')));
        let wrong_headers: Vec<usize> = errors.iter().map(line).filter(|line| is_second(*line)).collect();
        // The keys of a second [rules] are those of the first again.
        errors.retain(|e| {
            let line = line(e);
            wrong_headers.contains(&line) || !header(line).is_some_and(|header| wrong_headers.contains(&header))
        });
        let problem = |e: toml::de::Error| {
            let line = line(&e);
            let hint = match is_second(line) {
                true => several("rules"),
                false => {
                    "this is not valid TOML: quote strings and values with units, and define each [table] and key once"
                        .to_owned()
                }
            };
            let message = without_secrets(e.message().trim()).into_owned();
            Problem { path: format!("line {line}"), message, hint: Some(hint), line: None }
        };
        errors.into_iter().map(problem).collect()
    })
}
