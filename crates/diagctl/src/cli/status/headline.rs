//! The first line of the status: what an operator needs to know before anything else.

use super::{Process, Status};
use crate::cli::output;
use crate::cli::times::age;

/// Says in one sentence whether captures are taken, and if not, why.
pub fn headline(status: &Status) -> String {
    let alive: Vec<&Process> = status.processes.iter().filter(|process| !process.gone).collect();
    let (silent, polling): (Vec<&Process>, Vec<&Process>) = alive.iter().partition(|process| process.silent);
    let off = polling.iter().filter(|process| process.off).count();
    let refused = |state: &str| status.rules.iter().find(|rule| rule.state == state);
    if status.lease.leaked {
        return "blocked: the lease is held, but no dump runs; see `diagctl doctor`".into();
    }
    if let Some(overdue) = status.lease.overdue_ms {
        return format!("blocked: a dump is past its deadline by {}", age(0, overdue));
    }
    if let (true, Some(record)) = (status.lease.taken, &status.lease.record) {
        return format!("capturing: {} of {}", record.capture, output::who(&record.role, &record.worker));
    }
    if let Some(paused) = &status.switch.paused {
        return paused.clone();
    }
    if polling.is_empty() {
        return match silent.first() {
            None => "nothing is captured: no process polls this store".into(),
            Some(process) => format!(
                "nothing is captured: {} has not polled for {}",
                count(silent.len(), "running process"),
                age(0, process.polled_ms)
            ),
        };
    }
    if off == polling.len() {
        return format!("off: {}", polling[0].reason);
    }
    if let Some(rule) = refused("guarded") {
        return format!("refused: {} is guarded {}", rule.name, rule.detail.as_deref().unwrap_or_default());
    }
    let on = polling.len() - off;
    let mut text =
        format!("ready: {}", if on == 1 { "1 process polls".into() } else { format!("{on} processes poll") });
    if off > 0 {
        text.push_str(&format!(", {off} switched off"));
    }
    if !silent.is_empty() {
        text.push_str(&format!(", {} silent", silent.len()));
    }
    if let Some(rule) = refused("throttled") {
        text.push_str(&format!("; {} has used up its limit", rule.name));
    }
    match status.requests.len() {
        0 => {}
        1 => text.push_str("; 1 request waits"),
        n => text.push_str(&format!("; {n} requests wait")),
    }
    text
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}es") }
}
