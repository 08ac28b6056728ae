//! The names and numbers that a process hands in.

use std::collections::BTreeMap;

use super::Args;
use crate::cli::error::Failure;
use crate::exit_code::Exit;
use crate::rules::trigger::is_application_name;

pub(super) fn check_names(args: &Args) -> Result<(), Failure> {
    for (flag, value, may_be_empty) in [("--role", &args.role, false), ("--name", &args.name, true)] {
        if value.len() > 128 || value.chars().any(char::is_control) || (value.is_empty() && !may_be_empty) {
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "{flag} {} is empty, longer than 128 bytes, or has control characters",
                    crate::cli::error::quoted(value)
                ),
            )
            .hint("use a short word like puma or worker-0"));
        }
    }
    for gauge in &args.gauge {
        if parse_gauge(gauge).is_none() {
            let shown = crate::cli::error::quoted(gauge);
            return Err(Failure::new(Exit::Usage, format!("--gauge {shown} is not NAME=NUMBER"))
                .hint("use for example --gauge puma.backlog=3"));
        }
    }
    let events = args.event.iter().map(|event| ("--event", event));
    for (flag, event) in events.chain(args.answer_event.iter().map(|event| ("--answer-event", event))) {
        if !is_application_name(event) {
            let shown = crate::cli::error::quoted(event);
            return Err(Failure::new(
                Exit::Usage,
                format!("{flag} {shown} is empty, longer than 128 bytes, or has spaces"),
            )
            .hint("use letters, digits, `.`, `_` and `-`"));
        }
    }
    Ok(())
}

pub(super) fn gauges(args: &[String]) -> BTreeMap<String, f64> {
    args.iter().filter_map(|gauge| parse_gauge(gauge)).map(|(name, value)| (name.to_owned(), value)).collect()
}

pub(super) fn parse_gauge(text: &str) -> Option<(&str, f64)> {
    let (name, value) = text.split_once('=')?;
    let value: f64 = value.trim().parse().ok()?;
    (is_application_name(name) && value.is_finite()).then_some((name, value))
}
