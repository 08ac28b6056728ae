//! Parsing and wording that several triggers share.

use serde_json::Number;

use super::View;
use crate::rules::memory::Metric;
use crate::section::Section;

/// Parses `of` and `metric` of a trigger that can watch any figure.
pub(super) fn any_metric(keys: &Section<'_>) -> Metric {
    let of = keys.choice("of", &[("process", "process"), ("cgroup", "cgroup"), ("host", "host")]);
    let named = named_metric(keys);
    match of.unwrap_or("process") {
        "process" => named.unwrap_or(Metric::Rss),
        other => {
            if named.is_some() {
                keys.problem(
                    "metric",
                    format!("of = {other:?} has only one metric"),
                    "remove `metric`, or set of = \"process\"",
                );
            }
            if other == "cgroup" { Metric::WorkingSet } else { Metric::HostUsed }
        }
    }
}

/// Parses `metric` of a trigger that watches the process.
pub(super) fn process_metric(keys: &Section<'_>) -> Metric {
    named_metric(keys).unwrap_or(Metric::Rss)
}

fn named_metric(keys: &Section<'_>) -> Option<Metric> {
    keys.choice("metric", &[("rss", Metric::Rss), ("pss", Metric::Pss), ("uss", Metric::Uss), ("anon", Metric::Anon)])
}

/// Returns the key under which a trigger keeps marks for the owner of its figure: the process, the cgroup or the host.
pub(super) fn subject_key(path: &str, metric: Metric, view: View<'_>) -> String {
    let subject = if metric.is_of_process() { view.subject } else { metric.name() };
    format!("{path}|{subject}")
}

/// Returns true if an application may use this name for a gauge or an event.
pub fn is_application_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 128 && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '=')
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "what is below zero is shown as zero")]
pub(super) fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}

/// Formats a number as it was given: 5 and not 5.0, -3, 0.25.
#[expect(clippy::cast_possible_truncation, reason = "a double of this size is a whole number exactly")]
pub(super) fn figure(value: f64) -> Number {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    if value.fract() == 0.0 && value.abs() <= EXACT {
        return (value as i64).into();
    }
    Number::from_f64(value).unwrap_or_else(|| 0.into())
}
