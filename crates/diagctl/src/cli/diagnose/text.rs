//! A diagnosis as text, at most 80 columns wide where no name is longer.

use super::super::times::age;
use super::super::wrap::{broken, wrapped};
use super::Diagnosis;
use crate::cli::error::printable;
use crate::diagnose::Evidence;
use crate::units::size;

/// Columns of a text that is indented afterwards.
const NARROW: usize = 76;

pub(super) fn render(diagnosis: &Diagnosis<'_>, evidence: &Evidence) -> String {
    let mut text = heading(diagnosis);
    text.push('\n');
    let confidence = match diagnosis.verdict.cause {
        Some(_) => format!(" Confidence: {}.", diagnosis.verdict.confidence.name()),
        None => String::new(),
    };
    text.push_str(&wrapped("", &format!("{}{confidence}", diagnosis.verdict.sentence)));
    text.push('\n');
    // Less than half a percent is not worth a line.
    for portion in diagnosis.parts.iter().filter(|portion| portion.percent > 0) {
        text.push_str(&row(portion.part.name(), portion.bytes, portion.percent, portion.detail));
    }
    if diagnosis.excess_bytes > 0 {
        let share = diagnosis.excess_bytes * 100 / diagnosis.rss_bytes.max(1);
        if share > 0 {
            text.push_str(&row("less: not resident", diagnosis.excess_bytes, share, "handed out, never written"));
        }
    }
    text.push_str(&row("resident (RSS)", diagnosis.rss_bytes, 100, &shared(evidence)));
    if let Some(line) = processes(diagnosis) {
        text.push_str(&format!("\n{}", wrapped("", &line)));
    }
    if let Some(leak) = &diagnosis.leak {
        text.push_str(&format!("\n{}{}\n", wrapped("", &leak.sentence()), leak.legend()));
    }
    section(&mut text, "Because", &diagnosis.verdict.because);
    section(&mut text, "Would raise the confidence", &diagnosis.verdict.wanted);
    let failed: Vec<String> =
        diagnosis.unusable.iter().map(|report| format!("{}: {}", report.report, report.why)).collect();
    section(&mut text, "Not usable", &failed);
    text.push_str("\nNext:\n");
    for step in diagnosis.next {
        // A command is never broken: it is there to be pasted.
        let why = broken(NARROW, &step.why).join("\n  # ");
        text.push_str(&format!("  # {}\n  {}\n", why, printable(&step.command)));
    }
    text
}

fn heading(diagnosis: &Diagnosis<'_>) -> String {
    let process = &diagnosis.process;
    let age = age(0, diagnosis.age_ms);
    match diagnosis.capture {
        Some(id) => format!("{}\ncapture {id}, {age} ago\n", process),
        None => format!("{}\nread now\n", process),
    }
}

fn row(name: &str, bytes: u64, percent: u64, detail: &str) -> String {
    let line = format!("  {name:<22}{:>11}{percent:>4}%  {}", size(bytes), printable(detail));
    format!("{}\n", line.trim_end())
}

fn shared(evidence: &Evidence) -> String {
    let Some(mappings) = &evidence.mappings else { return String::new() };
    format!("{} shared with others", size(mappings.shared))
}

fn processes(diagnosis: &Diagnosis<'_>) -> Option<String> {
    let (workers, bytes) = (diagnosis.workers?, diagnosis.family_bytes?);
    let limit = diagnosis.limit_bytes.map_or_else(String::new, |limit| format!(" of {}", size(limit)));
    let noun = if workers == 1 { "worker" } else { "workers" };
    if diagnosis.family_size < 2 {
        return None;
    }
    Some(format!("With its parent and siblings ({workers} {noun}): {}{limit}.", size(bytes)))
}

fn section(text: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    text.push_str(&format!("\n{title}:\n"));
    lines.iter().for_each(|line| text.push_str(&wrapped("  - ", line)));
}
