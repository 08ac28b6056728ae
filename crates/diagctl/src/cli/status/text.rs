//! Formats the status for people.

use super::{Process, RuleStatus, Status};
use crate::cli::error::printable;
use crate::cli::output;
use crate::cli::show::observed;
use crate::cli::times::{Times, age};
use crate::units::{duration, size};
use diagctl_store::events::Event;

/// Formats the whole status on one page.
pub fn render(status: &Status, times: &Times, explain: bool) -> String {
    let mut text = String::new();
    for (key, value) in summary(status) {
        text.push_str(&format!("{key:<11}{}\n", printable(&value)));
    }
    let header = ["RULE", "TRIGGER", "STATE", "LAST FIRED", "IN WINDOW", "NEXT"];
    let rows: Vec<_> = status.rules.iter().map(rule).collect();
    text.push_str(&format!("\n{}\n", output::table(&header, &rows, &[], &[5, 3, 4, 1])));
    if status.processes.is_empty() {
        text.push_str("\nno process has polled this store lately\n");
    } else {
        let header = ["PID", "ROLE", "NAME", "RSS", "POLLED", "VERDICT"];
        let rows: Vec<_> = status.processes.iter().map(process).collect();
        text.push_str(&format!("\n{}\n", output::table(&header, &rows, &[0, 3, 4], &[2, 3, 4, 1])));
    }
    if explain {
        explanations(status, times, &mut text);
    }
    text
}

fn summary(status: &Status) -> Vec<(&'static str, String)> {
    let (store, switch) = (&status.store, &status.switch);
    let captures = if store.captures == 1 { "1 capture".into() } else { format!("{} captures", store.captures) };
    let mut lines = vec![
        ("store", status.dir.clone()),
        ("switch", format!("{} here ({})", if switch.enabled { "on" } else { "off" }, switch.source)),
        ("lease", status.lease.summary.clone()),
    ];
    if let Some(paused) = &switch.paused {
        lines[1].1 = paused.clone();
    } else if !switch.enabled {
        lines[1].1.push_str("; each process has its own DIAGCTL_ENABLED");
    }
    if let Some(broken) = &status.configuration {
        lines.push(("config", broken.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    lines.extend(status.doubts.iter().map(|doubt| ("warning", doubt.clone())));
    if status.lease.taken {
        let holders: Vec<String> = status.lease.holders.iter().map(|h| format!("{} ({})", h.pid, h.comm)).collect();
        let found = if holders.is_empty() { "not visible to this user".into() } else { holders.join(", ") };
        lines.push(("holders", found));
    }
    lines.push(("use", format!("{captures}, {} of max_use {}", size(store.used_bytes), size(store.max_use_bytes))));
    lines.push(("disk", format!("{} free, keep_free is {}", size(store.free_disk_bytes), size(store.keep_free_bytes))));
    if let (Some(id), Some(age_ms)) = (&store.latest, store.latest_age_ms) {
        lines.push(("latest", format!("{id}, {} ago", age(0, age_ms))));
    }
    let budgets: Vec<String> =
        status.budgets.iter().map(|b| format!("{} of {} units this {}", b.spent, b.of, b.name)).collect();
    lines.push(("budget", budgets.join(", ")));
    for request in &status.requests {
        let reports =
            if request.reports.is_empty() { "the routine reports".into() } else { request.reports.join(", ") };
        lines.push(("request", format!("{reports}, requested by {}: {}", request.by, request.reason)));
    }
    if store.quarantine_bytes > 0 {
        lines.push(("quarantine", size(store.quarantine_bytes)));
    }
    lines.extend(store.damaged.iter().map(|(id, reason)| ("damaged", format!("{id}: {reason}"))));
    lines
}

fn rule(rule: &RuleStatus) -> Vec<String> {
    let mut state = rule.state.clone();
    if let Some(detail) = &rule.detail {
        // The detail is then the whole reason, not part of a phrase.
        let colon = if rule.state == "skipped" { ":" } else { "" };
        state.push_str(&format!("{colon} {detail}"));
    }
    if let Some(left) = rule.left_ms {
        state.push_str(&format!(", {} left", duration(left)));
    }
    if rule.dry_run {
        state.push_str(" (dry run)");
    }
    vec![
        rule.name.clone(),
        rule.trigger.to_owned(),
        state,
        rule.last_fired_ms.map_or_else(|| "never".into(), |ms| format!("{} ago", age(0, ms))),
        match rule.max_count {
            Some(max) => format!("{} of {max} in {}", rule.fired_in_window, duration(rule.window_ms)),
            None => "-".into(),
        },
        match rule.due_in_ms {
            Some(0) => "due".into(),
            Some(ms) => format!("in {}", duration(ms)),
            None => "-".into(),
        },
    ]
}

fn process(process: &Process) -> Vec<String> {
    let mut verdict = match (process.gone, process.silent) {
        (true, _) => "gone".into(),
        (_, true) => format!("silent (was {})", process.verdict),
        _ => process.verdict.clone(),
    };
    match process.pid_here {
        Some(here) if here != process.pid => verdict.push_str(&format!(" (pid {here} here)")),
        None if !process.gone => verdict.push_str(" (in another container)"),
        _ => {}
    }
    vec![
        process.pid.to_string(),
        process.role.clone(),
        process.name.clone(),
        size(process.rss_bytes),
        format!("{} ago", age(0, process.polled_ms)),
        verdict,
    ]
}

fn explanations(status: &Status, times: &Times, text: &mut String) {
    for process in status.processes.iter().filter(|process| !process.gone) {
        let who = format!("{} ({})", output::who(&process.role, &process.name), process.pid);
        text.push_str(&format!("\n{}: {}, {}\n", printable(&who), process.verdict, process.reason));
        for (rule, ms) in &process.holding_ms {
            text.push_str(&format!("  the condition of {} has held for {}\n", printable(rule), age(0, *ms)));
        }
    }
    if status.events.is_empty() {
        return;
    }
    let header = [format!("TIME ({})", times.name()), "EVENT".into(), "ABOUT".into(), "WHY".into()];
    let rows: Vec<_> = status.events.iter().rev().map(|event| self::event(event, times)).collect();
    let table = output::table(&header.each_ref().map(String::as_str), &rows, &[], &[0, 2]);
    text.push_str(&format!("\nlast events, newest first\n{table}\n"));
}

fn event(event: &Event, times: &Times) -> Vec<String> {
    let what = if event.event == "verdict" { &event.verdict } else { &event.event };
    let mut about: Vec<String> = [&event.id, &event.rule].into_iter().filter(|s| !s.is_empty()).cloned().collect();
    if event.pid > 0 {
        about.push(format!("pid {}", event.pid));
    }
    let figures: Vec<String> =
        event.observed.iter().map(|(name, value)| format!("{name} {}", observed(name, value))).collect();
    let why =
        if figures.is_empty() { event.reason.clone() } else { format!("{} [{}]", event.reason, figures.join(", ")) };
    vec![times.show(&event.at), what.clone(), about.join(" "), why]
}
