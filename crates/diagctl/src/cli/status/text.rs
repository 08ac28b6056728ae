//! Formats the status for people.

use super::{Process, RuleStatus, Status};
use crate::cli::error::printable;
use crate::cli::events;
use crate::cli::output;
use crate::cli::times::{Times, age};
use crate::units::{duration, size};

/// Formats the whole status on one page.
pub fn render(status: &Status, times: &Times, explain: bool) -> String {
    let mut text = String::new();
    for (key, value) in summary(status, times) {
        text.push_str(&output::prose(&format!("{key:<11}"), 11, &value));
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

fn summary(status: &Status, times: &Times) -> Vec<(&'static str, String)> {
    let store = &status.store;
    let captures = if store.captures == 1 { "1 capture".into() } else { format!("{} captures", store.captures) };
    let mut lines = vec![
        ("state", status.headline.clone()),
        ("store", status.dir.clone()),
        ("switch", switch(status)),
        ("lease", status.lease.summary.clone()),
    ];
    if let Some(broken) = &status.configuration {
        lines.push(("config", broken.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    lines.extend(status.configuration_note.iter().map(|note| ("config", note.clone())));
    lines.extend(status.warnings.iter().map(|warning| ("warning", warning.clone())));
    lines.extend(status.notes.iter().map(|note| ("note", note.clone())));
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
    lines.extend(status.deaths.line().map(|line| ("deaths", line)));
    let budgets: Vec<String> =
        status.budgets.iter().map(|b| format!("{} of {} units this {}", b.spent, b.of, b.name)).collect();
    lines.push(("budget", budgets.join(", ")));
    for request in &status.requests {
        let reports =
            if request.reports.is_empty() { "the routine reports".into() } else { request.reports.join(", ") };
        lines.push(("request", format!("{reports}, requested by {}: {}", request.by, request.reason)));
    }
    lines.extend(status.shipped.iter().map(|shipped| ("shipped", shipped.line(|at| times.show(at)))));
    lines.extend(status.hook.iter().map(|hook| ("hook", hook.line(|at| times.show(at)))));
    if store.quarantine_bytes > 0 {
        lines.push(("quarantine", size(store.quarantine_bytes)));
    }
    lines.extend(store.damaged.iter().map(|(id, reason)| ("damaged", format!("{id}: {reason}"))));
    lines
}

// The switches of the processes that poll; where none does, that of this environment.
fn switch(status: &Status) -> String {
    let switch = &status.switch;
    if let Some(paused) = &switch.paused {
        return paused.clone();
    }
    let polling: Vec<&Process> = status.processes.iter().filter(|process| !process.gone && !process.silent).collect();
    let off: Vec<&&Process> = polling.iter().filter(|process| process.off).collect();
    match (polling.len(), off.len()) {
        (0, _) if switch.enabled => format!("on here ({})", switch.source),
        (0, _) => format!("off here ({}); each process has its own DIAGCTL_ENABLED", switch.source),
        (1, 0) => "on in the process that polls".into(),
        (all, 0) => format!("on in all {all} processes that poll"),
        (all, n) => {
            let mut reasons: Vec<&str> = off.iter().map(|process| process.reason.as_str()).collect();
            reasons.dedup();
            format!("off in {n} of {all}: {}", reasons.join("; "))
        }
    }
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
    let mut verdict = match process {
        Process { gone: true, .. } => "gone".into(),
        Process { dumping: true, .. } => "dumping".into(),
        Process { silent: true, .. } => format!("silent (was {})", process.verdict),
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
        let said = match process {
            Process { dumping: true, .. } => "dumping".to_owned(),
            Process { silent: true, verdict, reason, polled_ms, .. } => {
                format!(
                    "silent for {}; its last verdict, which may no longer hold, was {verdict}, {reason}",
                    age(0, *polled_ms)
                )
            }
            Process { verdict, reason, .. } => format!("{verdict}, {reason}"),
        };
        text.push('\n');
        text.push_str(&output::prose("", 0, &format!("{who}: {said}")));
        for (rule, ms) in &process.holding_ms {
            text.push_str(&format!("  the condition of {} has held for {}\n", printable(rule), age(0, *ms)));
        }
    }
    if status.events.is_empty() {
        return;
    }
    let table = events::table(&status.events.iter().rev().collect::<Vec<_>>(), times);
    text.push_str(&format!("\nlast events, newest first\n{table}\n"));
}
