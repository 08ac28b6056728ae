//! `[[rules]]`: a trigger, the reports to collect, and limits.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Config, LimitsOfRule, Match, Mode, Origins, Rule, Select, Snapshot, in_order};
use crate::rules::trigger::Trigger;
use crate::rules::{ON_DEMAND, RuleName};
use crate::section::Section;
use crate::units;
use diagctl_store::ReportName;

/// The delay between the two captures of a pair, unless the rule sets it.
const PAIR_DELAY: Duration = Duration::from_secs(300);

/// Parses all rules, with their positions in the document. Leaves out rules that cannot be parsed; the problems are recorded.
pub fn parse_all(sections: &[Section<'_>], origins: &[Origins], config: &Config) -> Vec<(usize, Rule)> {
    let mut names = BTreeSet::new();
    let mut rules = Vec::new();
    for section in sections {
        // Checked for invalid rules as well, so that a duplicate does not come to light only after they are fixed.
        let name = section.table().get("name").and_then(toml::Value::as_str);
        if let Some(name) = name.filter(|name| !names.insert(*name)) {
            section.problem(
                "name",
                format!("another rule is already named {}", diagctl_fs::quoted(name)),
                "limits are kept by name; give each rule its own",
            );
        }
        let Some(mut rule) = parse(section, config) else { continue };
        let position = section.position();
        rule.origins = origins.get(position).cloned().unwrap_or_default();
        rules.push((position, rule));
    }
    rules
}

/// Checks a table of shared keys that no rule uses.
pub fn parse_unused(section: &Section<'_>, config: &Config) {
    let _ = parse(section, config);
}

fn parse(section: &Section<'_>, config: &Config) -> Option<Rule> {
    section.know("template");
    let name = section.text("name");
    let reports = section.texts("reports");
    let trigger_keys = section.section("trigger");
    let trigger = trigger_keys.as_ref().and_then(Trigger::parse);
    let matching = section.section("match").map(|keys| {
        let patterns = |key| {
            let patterns = keys.text_or_texts(key);
            if patterns.iter().flatten().any(String::is_empty) {
                keys.wrong_value(
                    key,
                    "an empty pattern matches nothing",
                    "use for example [\"worker-*\"], or remove the key",
                );
            }
            patterns
        };
        let matching = Match { role: patterns("role"), name: patterns("name") };
        if ["role", "name"]
            .into_iter()
            .any(|key| keys.table().get(key).and_then(toml::Value::as_array).is_some_and(Vec::is_empty))
        {
            keys.problem("name", "an empty list matches nothing", "list patterns, or remove the key");
        }
        keys.finish();
        matching
    });
    let hold_for = section.duration("for").unwrap_or_default();
    let select = section.choice(
        "select",
        &[("first", Select::First), ("largest", Select::Largest), ("round_robin", Select::RoundRobin)],
    );
    let sample = section.percent("sample").unwrap_or(100.0);
    if sample <= 0.0 {
        section.problem(
            "sample",
            "0% of all machines: the rule would never apply",
            "use a share like \"5%\", set mode = \"dry_run\", or remove the rule",
        );
    }
    let follow_ups = section.choice("capture", &[("once", 0), ("pair", 1), ("three", 2)]).unwrap_or(0);
    let pair = follow_ups > 0;
    let pair_delay = section.duration("pair_delay");
    if pair_delay.is_some() && !pair {
        section.problem(
            "pair_delay",
            "has no effect, because the rule captures once",
            "add capture = \"pair\" or \"three\", or remove it",
        );
    }
    if pair && pair_delay.is_some_and(|delay| delay < config.poll_interval) {
        section.wrong_value(
            "pair_delay",
            "shorter than poll_interval",
            "two captures in quick succession hardly differ; 5m is usual",
        );
    }
    let limits = section.section("limits").map(|keys| parse_limits(&keys));
    let mode = section.choice("mode", &[("enforce", Mode::Enforce), ("dry_run", Mode::DryRun)]);
    let snapshot = section.choice("snapshot", &[("fork", Snapshot::Fork), ("in_process", Snapshot::InProcess)]);
    section.finish();

    match &name {
        None if !section.has("name") => {
            section.problem("name", "missing", "give the rule a name; its limits are kept under that name");
        }
        Some(name) if *name == ON_DEMAND || RuleName::parse(name).is_none() => section.problem(
            "name",
            format!("{} is not a valid rule name", diagctl_fs::quoted(name)),
            "use at most 64 letters, digits, `-`, `_` and `.`; `on_demand` is reserved for requests",
        ),
        _ => {}
    }
    if !section.has("reports") {
        section.problem("reports", "missing", "list what to capture: reports = [\"smaps\", \"heap_dump\"]");
    }
    if reports.as_ref().is_some_and(Vec::is_empty) {
        section.problem("reports", "the list is empty", "list what to capture: reports = [\"smaps\", \"heap_dump\"]");
    }
    for (i, report) in reports.iter().flatten().enumerate() {
        if !config.knows_report(report) {
            section.problem(
                &format!("reports[{i}]"),
                format!("unknown report {}", diagctl_fs::quoted(report)),
                config.report_hint(report),
            );
        }
    }
    if !section.has("trigger") {
        section.problem("trigger", "missing", "say when to capture: trigger.timer = { every = \"2h\" }");
    }
    let trigger = trigger?;
    let mut momentary = None;
    trigger.visit(&mut |part| {
        if matches!(part, Trigger::Exec(_) | Trigger::Event(_)) {
            momentary = Some(part.name());
        }
    });
    if let Some(name) = momentary.filter(|_| !hold_for.is_zero()) {
        let message = format!("the condition of {name} holds at single polls only");
        section.problem("for", message, "remove `for`, or move the trigger to a rule of its own");
    }
    if !hold_for.is_zero() && hold_for < config.poll_interval {
        section.problem(
            "for",
            format!(
                "{} is shorter than poll_interval = {}: it spans no two polls",
                units::duration(units::ms(hold_for)),
                units::duration(config.poll_ms())
            ),
            "make it several poll intervals long, or remove it",
        );
    }
    Some(Rule {
        // A missing key makes the file invalid; the rest is still checked for warnings.
        // With a bad name the file is rejected; the rest of the rule is still checked.
        name: name.as_deref().and_then(RuleName::parse).unwrap_or_else(RuleName::routine),
        reports: in_order(reports.iter().flatten().filter_map(|name| ReportName::parse(name)).collect()),
        select: select.unwrap_or(Select::First),
        sample,
        follow_ups,
        pair_delay: pair.then(|| pair_delay.unwrap_or(PAIR_DELAY)),
        trigger,
        matching: matching.unwrap_or_default(),
        hold_for,
        limits: limits.unwrap_or_default(),
        mode: mode.unwrap_or(Mode::Enforce),
        snapshot: snapshot.unwrap_or(Snapshot::Fork),
        origins: Origins::new(),
        declared_trigger: trigger_keys.map(|keys| keys.table().clone()).unwrap_or_default(),
    })
}

fn parse_limits(keys: &Section<'_>) -> LimitsOfRule {
    let limits = LimitsOfRule {
        cooldown: keys.duration("cooldown").unwrap_or_default(),
        max_count: keys.count("max_count"),
        window: keys.duration("window").unwrap_or(Duration::from_secs(86_400)),
        per_process: keys.duration("per_process").filter(|least| !least.is_zero()),
    };
    keys.finish();
    if keys.has("window") && !keys.has("max_count") {
        keys.problem("window", "has no effect without max_count", "add max_count, or remove window");
    }
    if limits.max_count == Some(0) {
        keys.problem("max_count", "0 allows no capture", "remove the rule, or set mode = \"dry_run\"");
    }
    if limits.max_count.is_some_and(|n| n > 10_000) {
        keys.problem("max_count", "must be at most 10000", "remove it, or use a shorter window");
    }
    if limits.max_count.is_some() && limits.window.is_zero() {
        keys.problem("window", "\"0s\" is not a window", "use for example window = \"24h\"");
    }
    limits
}
