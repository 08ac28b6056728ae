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
        output::note("the remote has no open request");
        return Ok(Done::silent());
    }
    let value = json!({ "schema": 1, "requests": listed });
    Done::either(json, &value, |_| {
        let header = ["ID", "AGE", "EXPIRES IN", "BY", "REPORTS", "FOR", "REASON", "STATUS"];
        let rows: Vec<_> = listed.iter().map(row).collect();
        output::table_with_cuts(&header, &rows, &[5, 4, 6, 3, 1, 2], &[3, 4, 5, 6])
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

// The machine of a node. Two stores of one machine are told apart.
fn label<'n>(node: &'n str, among: &[String]) -> &'n str {
    let is_alone = among.iter().filter(|other| host(other) == host(node)).count() == 1;
    if is_alone { host(node) } else { node }
}

fn row(listed: &Listed) -> Vec<String> {
    let hosts: Vec<&str> = listed.nodes.iter().map(|node| label(node, &listed.nodes)).collect();
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

// The number of nodes in each state, and the reasons. Of a request that was cancelled, the nodes that took it back are not counted.
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
    let unanswered = ("unanswered", listed.nodes.len().saturating_sub(listed.answers.len()));
    let mut parts: Vec<String> = states
        .into_iter()
        .chain([unanswered])
        .filter(|(_, count)| *count > 0)
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    if listed.cancelled {
        parts.insert(0, "cancelled".into());
    }
    let reasons = reasons(listed);
    match (listed.nodes.as_slice(), reasons.as_slice()) {
        // The only state and the only node need not be named again.
        ([_], [one]) => format!("{}: {}", parts.join(", "), cut(one.reason)),
        _ => {
            parts = vec![parts.join(", ")];
            parts.extend(reasons.iter().take(REASONS).map(|why| why.text(&listed.nodes)));
            let more = reasons.len().saturating_sub(REASONS);
            parts.extend((more > 0).then(|| format!("{more} more in --json")));
            parts.join("; ")
        }
    }
}

/// The most reasons, and nodes of each, that a table shows.
const REASONS: usize = 3;

/// What nodes in one state gave as their reason.
struct Why<'l> {
    verb: &'static str,
    reason: &'l str,
    nodes: Vec<&'l str>,
}

impl Why<'_> {
    fn text(&self, among: &[String]) -> String {
        let names: Vec<String> = self.nodes.iter().take(REASONS).map(|node| cut(label(node, among))).collect();
        let more = self.nodes.len().saturating_sub(REASONS);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}{}: {}", names.join(", "), self.verb, cut(self.reason))
    }
}

// The reasons of all answers but captures, those of refusals first.
fn reasons(listed: &Listed) -> Vec<Why<'_>> {
    let mut reasons: Vec<Why<'_>> = Vec::new();
    // The reason of a cancellation begins with that word.
    let states = [
        ("refused", false, " refused"),
        ("failed", false, " failed"),
        ("failed", true, ""),
        ("waiting", false, " waits"),
    ];
    for (state, cancelled, verb) in states {
        let of_state = |answer: &Answer| {
            answer.state == state && answer.cancelled == cancelled && !(listed.cancelled && cancelled)
        };
        for (node, answer) in &listed.answers {
            if !of_state(answer) || answer.reason.is_empty() {
                continue;
            }
            match reasons.iter_mut().find(|why| why.verb == verb && why.reason == answer.reason) {
                Some(why) => why.nodes.push(node),
                None => reasons.push(Why { verb, reason: &answer.reason, nodes: vec![node] }),
            }
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(state: &str, reason: &str) -> Answer {
        Answer { state: state.into(), cancelled: false, reason: reason.into(), more: BTreeMap::new() }
    }

    fn listed(nodes: &[&str], answers: &[(&str, Answer)]) -> Listed {
        let answers = answers.iter().map(|(node, answer)| {
            let Answer { state, cancelled, reason, .. } = answer;
            let answer =
                Answer { state: state.clone(), cancelled: *cancelled, reason: reason.clone(), more: BTreeMap::new() };
            ((*node).to_owned(), answer)
        });
        Listed {
            id: String::new(),
            by: String::new(),
            reason: String::new(),
            reports: Vec::new(),
            age_ms: 0,
            expires_in_ms: 0,
            cancelled: false,
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            answers: answers.collect(),
            more: BTreeMap::new(),
        }
    }

    #[test]
    fn the_status_counts_the_nodes_and_gives_their_reasons() {
        let taken_back = || Answer { cancelled: true, ..answer("failed", "cancelled by ann") };
        let four = ["a~1", "b~1", "c~1", "c~2"];
        let mut of_four =
            listed(&four, &[("a~1", answer("captured", "")), ("b~1", answer("waiting", "the store is paused"))]);
        assert_eq!(status(&of_four), "1 captured, 1 waiting, 2 unanswered; b waits: the store is paused");
        of_four.answers.insert("c~1".into(), taken_back());
        assert_eq!(
            status(&of_four),
            "1 captured, 1 cancelled, 1 waiting, 1 unanswered; c~1: cancelled by ann; b waits: the store is paused"
        );
        of_four.cancelled = true;
        of_four.answers.insert("b~1".into(), taken_back());
        assert_eq!(status(&of_four), "cancelled, 1 captured, 1 unanswered");
        of_four.answers.clear();
        assert_eq!(status(&of_four), "cancelled, 4 unanswered");
        let table = [
            (listed(&["a~1"], &[("a~1", answer("refused", "no"))]), "1 refused: no"),
            (listed(&["a~1"], &[("a~1", answer("waiting", "the lease"))]), "1 waiting: the lease"),
            (listed(&["a~1"], &[("a~1", answer("waiting", ""))]), "1 waiting"),
            (listed(&["a~1"], &[]), "1 unanswered"),
            (
                listed(&four, &[("a~1", answer("waiting", "the lease")), ("c~2", answer("refused", "no"))]),
                "1 refused, 1 waiting, 2 unanswered; c~2 refused: no; a waits: the lease",
            ),
            (
                listed(&four, &four.map(|node| (node, answer("refused", "no")))),
                "4 refused; a, b, c~1 and 1 more refused: no",
            ),
            (
                listed(&four, &four.map(|node| (node, answer("failed", &format!("in {node}"))))),
                "4 failed; a failed: in a~1; b failed: in b~1; c~1 failed: in c~1; 1 more in --json",
            ),
        ];
        for (listed, expected) in table {
            assert_eq!(status(&listed), expected);
        }
    }

    #[test]
    fn no_text_of_a_request_is_endless_or_has_a_secret() {
        let mut listed = listed(&["a~1", "b~1", "c~1", "c~2"], &[]);
        listed.reason = "see https://bob:hunter2@host/x".into();
        assert_eq!((&*row(&listed)[5], &*row(&listed)[6]), ("a b c~1 c~2", "see https://(hidden)@host/x"));
        let long = "ü".repeat(60_000);
        (listed.by, listed.reason, listed.reports) = (long.clone(), long.clone(), vec![long.clone()]);
        for node in listed.nodes.clone() {
            listed.answers.insert(node.clone(), answer("waiting", &format!("{node} {long}")));
        }
        let cells = row(&listed);
        assert!(cells[..7].iter().all(|cell| cell.chars().count() < 300), "{cells:?}");
        assert!(cells[7].chars().count() < 800, "{cells:?}");
        assert!(cells[3].ends_with("ü…"), "{cells:?}");
    }
}
