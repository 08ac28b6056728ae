//! `request --remote`: asks machines through the remote, each of which decides under its own configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use diagctl_fs::without_secrets;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::error::Failure;
use crate::cli::output::{self, Done};
use crate::cli::times::age;
use crate::cli::{Context, external, remote};
use crate::exit_code::Exit;
use crate::units::{duration, ms};

/// The options about the remote.
#[derive(Debug, clap::Args)]
pub struct RemoteArgs {
    /// Ask machines through the remote, where their configuration allows it
    #[arg(long, conflicts_with = "pid")]
    pub remote: bool,
    /// With --remote: only machines, or stores of one (web-1~4be11a02), with this name; an asterisk stands for any text
    #[arg(long, value_name = "HOST", requires = "remote", conflicts_with_all = ["list", "cancel"])]
    host: Option<String>,
    /// With --remote: only so many machines, chosen at random
    #[arg(long, value_name = "N", requires = "remote", conflicts_with_all = ["list", "cancel"], value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
}

/// The longest wait that a node accepts (crates/remote/src/ticket.rs).
const LONGEST: Duration = Duration::from_secs(86_400);

pub(super) fn run(cx: &Context, args: &super::Args) -> Result<Done, Failure> {
    super::check(cx, args)?;
    if args.reports.is_empty() {
        return Err(Failure::new(Exit::Usage, "a request through the remote names its reports")
            .hint("`diagctl request gc_stat --remote --reason …`"));
    }
    if args.expires > LONGEST {
        let text = duration(ms(args.expires));
        return Err(Failure::new(
            Exit::Usage,
            format!("a request through the remote waits for {text}, which is longer than 24h"),
        )
        .hint("use --expires 24h, or less"));
    }
    let request = json!({
        "reports": args.reports,
        "role": args.role,
        "name": args.name,
        "reason": args.reason,
        "by": super::invoking_user(),
        "expires_ms": ms(args.expires),
        "host": args.remote.host,
        "sample": args.remote.sample,
        "wait": args.wait,
        "json": args.json,
    });
    let mut command = remote::command(cx)?;
    command.arg("request").arg("--").arg(request.to_string());
    Err(external::become_program(command))
}

/// A request in the remote, with the answers of its nodes by their names.
#[derive(Serialize, Deserialize)]
struct Listed {
    id: String,
    by: String,
    reason: String,
    reports: Vec<String>,
    age_ms: u64,
    expires_in_ms: u64,
    cancelled: bool,
    nodes: Vec<String>,
    answers: BTreeMap<String, Answer>,
    #[serde(flatten)]
    more: BTreeMap<String, Value>,
}

/// The part of an answer that a table shows.
#[derive(Serialize, Deserialize)]
struct Answer {
    state: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    cancelled: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(flatten)]
    more: BTreeMap<String, Value>,
}

pub(super) fn list(cx: &Context, json: bool) -> Result<Done, Failure> {
    let mut command = remote::command(cx)?;
    command.arg("requests");
    let listed: Vec<Listed> = remote::lines_of(command, "the requests in the remote cannot be listed")?;
    if !json && listed.is_empty() {
        output::note("no request in the remote counts any more");
        return Ok(Done::silent());
    }
    let value = json!({ "schema": 1, "requests": listed });
    Done::either(json, &value, |_| {
        let header = ["ID", "AGE", "EXPIRES IN", "BY", "REPORTS", "FOR", "REASON", "STATUS"];
        output::table(&header, &listed.iter().map(row).collect::<Vec<_>>(), &[], &[5, 3, 2, 1, 6, 4])
    })
}

pub(super) fn cancel(cx: &Context, id: &str) -> Result<Done, Failure> {
    let mut command = remote::command(cx)?;
    command.arg("cancel").arg(format!("--by={}", super::invoking_user())).arg("--").arg(id);
    Err(external::become_program(command))
}

// The text for a table, in which the longest cell makes each row so wide. Anybody who may write requests may have written it.
fn cut(text: &str) -> String {
    const SHOWN: usize = 200;
    let text = &*without_secrets(text);
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn host(node: &str) -> &str {
    node.rsplit_once('~').map_or(node, |(host, _)| host)
}

fn row(listed: &Listed) -> Vec<String> {
    // Two stores of one machine are told apart.
    let is_alone = |node: &str| listed.nodes.iter().filter(|other| host(other) == host(node)).count() == 1;
    let nodes = listed.nodes.iter().map(String::as_str);
    let hosts: Vec<&str> = nodes.map(|node| if is_alone(node) { host(node) } else { node }).collect();
    vec![
        listed.id.clone(),
        age(0, listed.age_ms),
        age(0, listed.expires_in_ms),
        cut(&listed.by),
        cut(&listed.reports.join(" ")),
        cut(&hosts.join(" ")),
        cut(&listed.reason),
        status(listed),
    ]
}

// The number of nodes in each state, and the reason of the first that waits. Of a request that was cancelled, the nodes that took it back are not
// counted.
fn status(listed: &Listed) -> String {
    let of = |state: &str, cancelled: bool| {
        listed.answers.values().filter(|answer| answer.state == state && answer.cancelled == cancelled).count()
    };
    let states = [
        ("captured", of("captured", false)),
        ("refused", of("refused", false)),
        ("failed", of("failed", false)),
        ("cancelled", if listed.cancelled { 0 } else { of("failed", true) }),
        ("waiting", of("waiting", false)),
    ];
    let silent = ("silent", listed.nodes.len().saturating_sub(listed.answers.len()));
    let mut parts: Vec<String> = states
        .into_iter()
        .chain([silent])
        .filter(|(_, count)| *count > 0)
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    if listed.cancelled {
        parts.insert(0, "cancelled".into());
    }
    let why = listed.answers.values().find(|answer| answer.state == "waiting" && !answer.reason.is_empty());
    let why = why.map(|answer| format!(": {}", cut(&answer.reason))).unwrap_or_default();
    format!("{}{why}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_counts_the_nodes_and_says_what_one_waits_for() {
        let answer = |state: &str, reason: &str| Answer {
            state: state.into(),
            cancelled: false,
            reason: reason.into(),
            more: BTreeMap::new(),
        };
        let mut listed = Listed {
            id: String::new(),
            by: String::new(),
            reason: String::new(),
            reports: Vec::new(),
            age_ms: 0,
            expires_in_ms: 0,
            cancelled: false,
            nodes: ["a~1", "b~1", "c~1", "c~2"].map(str::to_owned).to_vec(),
            answers: [("a~1".into(), answer("captured", "")), ("b~1".into(), answer("waiting", "the store is paused"))]
                .into(),
            more: BTreeMap::new(),
        };
        assert_eq!(status(&listed), "1 captured, 1 waiting, 2 silent: the store is paused");
        let taken_back = || Answer { cancelled: true, ..answer("failed", "cancelled by ann") };
        listed.answers.insert("c~1".into(), taken_back());
        assert_eq!(status(&listed), "1 captured, 1 cancelled, 1 waiting, 1 silent: the store is paused");
        listed.cancelled = true;
        listed.answers.insert("b~1".into(), taken_back());
        assert_eq!(status(&listed), "cancelled, 1 captured, 1 silent");
        listed.answers.clear();
        assert_eq!(status(&listed), "cancelled, 4 silent");
        listed.reason = "see https://bob:hunter2@host/x".into();
        assert_eq!((&*row(&listed)[5], &*row(&listed)[6]), ("a b c~1 c~2", "see https://(hidden)@host/x"));
        let long = "ü".repeat(60_000);
        (listed.by, listed.reason, listed.reports) = (long.clone(), long.clone(), vec![long.clone()]);
        listed.answers.insert("a~1".into(), answer("waiting", &long));
        let cells = row(&listed);
        assert!(cells.iter().all(|cell| cell.chars().count() < 300), "{cells:?}");
        assert!(cells[3].ends_with("ü…"), "{cells:?}");
    }
}
