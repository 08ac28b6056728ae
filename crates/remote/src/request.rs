//! `request`: leaves a request in the remote for some of the nodes that obey requests, and waits for their answers.

use std::collections::BTreeMap;
use std::time::Duration;

use diagctl_fs::{random_hex, random_u64};
use diagctl_observe::clock::{self, Stopwatch};
use diagctl_store::pattern::is_like;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::bucket::Bucket;
use crate::error::{Error, Result};
use crate::foreign::Foreign;
use crate::keys;
use crate::output::{self, Exit};
use crate::settings::Settings;
use crate::ticket::{Answer, LONGEST_MS, Node, State, Ticket};

/// A node that has not announced itself for so long is gone, milliseconds. It does so twice a day.
const GONE_MS: u64 = 25 * 3_600_000;

/// The longest time between two looks that a node is believed, milliseconds.
const LONGEST_POLL_MS: u64 = 3_600_000;

/// The most nodes of a request.
const MOST: usize = 1000;

/// Number of nodes that are read at once.
const AT_ONCE: usize = 32;

/// The time after the last look of a node in which its answer arrives.
const MARGIN: Duration = Duration::from_secs(15);

/// The time between two looks for answers.
const LOOK: Duration = Duration::from_secs(2);

/// Leave a request in the remote, for `diagctl request --remote`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The request, as JSON
    request: String,
}

#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(flatten)]
    ticket: Ticket,
    host: Option<String>,
    sample: Option<usize>,
    wait: bool,
    json: bool,
}

/// The outcome, for programs.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    schema: u32,
    id: &'a str,
    nodes: Vec<Row<'a>>,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    node: &'a str,
    #[serde(flatten)]
    answer: Option<&'a Answer>,
}

/// Runs the command.
///
/// # Errors
///
/// If no node would obey, or the remote fails.
pub async fn run(args: &Args, settings: &Settings) -> Result<Exit> {
    let bucket = Bucket::open(&settings.remote)?;
    let asked: Asked = serde_json::from_str(&args.request).map_err(|e| Error::Asked(e.to_string()))?;
    let now_ms = clock::Reading::take(String::new()).wall_ms;
    let (nodes, all) = candidates(&bucket, &asked, u64::try_from(now_ms).unwrap_or(0)).await?;
    if nodes.is_empty() {
        return Err(Error::NoNode { host: asked.host.unwrap_or_else(|| "*".into()) });
    }
    let expires_ms = asked.ticket.expires_ms.min(LONGEST_MS);
    let id = format!("{}-{}", clock::compact_utc(now_ms), random_hex()?);
    let names = nodes.iter().map(|(name, _)| name.clone()).collect();
    let ticket = Ticket { schema: 1, id, nodes: names, created: clock::utc_now(), expires_ms, ..asked.ticket.clone() };
    let expires = clock::compact_utc(now_ms.saturating_add(i64::try_from(expires_ms).unwrap_or(i64::MAX)));
    let data = serde_json::to_vec(&ticket).unwrap_or_default();
    bucket.put(&keys::request(&ticket.id, &expires), data.into()).await?;
    let slowest = Duration::from_millis(nodes.iter().map(|(_, node)| node.poll_ms).max().unwrap_or(0));
    output::note(&format!(
        "request {} is for {} of {all} nodes: {}; each looks within {}",
        ticket.id,
        nodes.len(),
        shown(&nodes),
        diagctl_store::units::duration(u64::try_from(slowest.as_millis()).unwrap_or(u64::MAX))
    ));
    let answers = if asked.wait { answers(&bucket, &ticket, slowest, asked.json).await? } else { BTreeMap::new() };
    if asked.json {
        let rows = ticket.nodes.iter().map(|node| Row { node, answer: answers.get(node) }).collect();
        let outcome = Outcome { schema: 1, id: &ticket.id, nodes: rows };
        output::say_raw(&serde_json::to_string(&outcome).unwrap_or_default()).map_err(Error::Runtime)?;
    } else if !asked.wait {
        output::say(&ticket.id);
    }
    let captured = answers.values().filter(|answer| answer.state == State::Captured).count();
    Ok(match captured {
        _ if !asked.wait => Exit::Ok,
        n if n == ticket.nodes.len() => Exit::Ok,
        0 => Exit::Failed,
        _ => Exit::Partial,
    })
}

// Nodes that are there and allow the reports, at random, at most so many as are asked for. Returns with them the number of machines of the name.
async fn candidates(bucket: &Bucket, asked: &Asked, now_ms: u64) -> Result<(Vec<(String, Node)>, usize)> {
    let pattern = asked.host.as_deref().unwrap_or("*");
    let objects = bucket.list_under("nodes").await?;
    let there = objects.iter().filter(|object| now_ms.saturating_sub(object.written_ms) <= GONE_MS);
    let names = there.filter_map(|object| object.key.strip_prefix("nodes/")?.strip_suffix(".json"));
    let mut names: Vec<&str> = names.filter(|name| !name.contains('/') && is_like(pattern, host(name))).collect();
    for last in (1..names.len()).rev() {
        names.swap(last, usize::try_from(random_u64()? % (last as u64 + 1)).unwrap_or(0));
    }
    let most = asked.sample.unwrap_or(MOST).min(MOST);
    let foreign = &Foreign::new(bucket);
    let read = |name: String| async move { (foreign.read::<Node>(&format!("nodes/{name}.json")).await, name) };
    let mut read = stream::iter(names.iter().map(|name| (*name).to_owned())).map(read).buffered(AT_ONCE);
    let mut nodes: Vec<(String, Node)> = Vec::new();
    while let Some((node, name)) = read.next().await {
        let Some(mut node) = node? else { continue };
        node.poll_ms = node.poll_ms.min(LONGEST_POLL_MS);
        if asked.ticket.reports.iter().all(|report| node.allow_reports.contains(report)) {
            nodes.push((name, node));
        } else if !node.allow_reports.is_empty() {
            output::note(&format!("{} allows only {:.500}", host(&name), node.allow_reports.join(", ")));
        }
        if nodes.len() == most {
            break;
        }
    }
    nodes.sort_by(|a, b| a.0.cmp(&b.0));
    Ok((nodes, names.len()))
}

/// Returns the machine of a node.
pub fn host(node: &str) -> &str {
    node.rsplit_once('~').map_or(node, |(host, _)| host)
}

fn shown(nodes: &[(String, Node)]) -> String {
    const FEW: usize = 5;
    let names: Vec<&str> = nodes.iter().take(FEW).map(|(name, _)| name.as_str()).collect();
    let more = if nodes.len() > FEW { ", …" } else { "" };
    format!("{}{more}", names.join(", "))
}

// Waits until each node has answered at last, or the request has expired and each node has had a look after that. Tells each answer once.
async fn answers(bucket: &Bucket, ticket: &Ticket, slowest: Duration, quiet: bool) -> Result<BTreeMap<String, Answer>> {
    let since = Stopwatch::start();
    let deadline = Duration::from_millis(ticket.expires_ms) + slowest + MARGIN;
    let mut answers: BTreeMap<String, Answer> = BTreeMap::new();
    let foreign = Foreign::new(bucket);
    loop {
        for (name, answer) in fresh_answers(&foreign, ticket, &answers).await? {
            let before = answers.get(&name);
            if before.is_none_or(|before| (before.state, &before.reason) != (answer.state, &answer.reason)) {
                tell(&name, &answer, quiet);
            }
            answers.insert(name, answer);
        }
        if ticket.nodes.iter().all(|node| answers.get(node).is_some_and(Answer::is_final)) {
            return Ok(answers);
        }
        if since.elapsed() > deadline {
            output::note(&format!("the request has expired: {}", verdict(ticket, &answers)));
            return Ok(answers);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Returns the answers to a request that are not known, or not the last word.
pub async fn fresh_answers(
    foreign: &Foreign<'_>,
    ticket: &Ticket,
    known: &BTreeMap<String, Answer>,
) -> Result<Vec<(String, Answer)>> {
    let objects = foreign.bucket().list_under(&format!("answers/{}", ticket.id)).await?;
    let names = objects.iter().filter_map(|object| object.key.rsplit('/').next()?.strip_suffix(".json"));
    let is_wanted =
        |name: &&str| ticket.nodes.iter().any(|node| node == name) && !known.get(*name).is_some_and(Answer::is_final);
    let names: Vec<String> = names.filter(is_wanted).map(str::to_owned).collect();
    let read = |name: String| async move { (foreign.read(&keys::answer(&ticket.id, &name)).await, name) };
    let mut read = stream::iter(names).map(read).buffered(AT_ONCE);
    let mut answers = Vec::new();
    while let Some((answer, name)) = read.next().await {
        answers.extend(answer?.map(|answer| (name, answer)));
    }
    Ok(answers)
}

// The nodes that have not said their last word, and what they wait for.
fn verdict(ticket: &Ticket, answers: &BTreeMap<String, Answer>) -> String {
    let done = answers.values().filter(|answer| answer.is_final()).count();
    let mut text = format!("{done} of {} nodes answered", ticket.nodes.len());
    for (node, answer) in answers.iter().filter(|(_, answer)| !answer.is_final()) {
        let why = if answer.reason.is_empty() { "a process" } else { &answer.reason };
        text.push_str(&format!("; {} had not captured: it waited for {why}", host(node)));
    }
    let silent: Vec<&str> =
        ticket.nodes.iter().filter(|node| !answers.contains_key(*node)).map(String::as_str).collect();
    if !silent.is_empty() {
        text.push_str(&format!("; nothing was heard of {}: does `diagctl ship --watch` run there?", silent.join(", ")));
    }
    text
}

fn tell(node: &str, answer: &Answer, quiet: bool) {
    let host = host(node);
    match (&answer.state, &answer.capture) {
        (State::Captured, Some(capture)) if !quiet => output::say(&format!("{host}/{capture}")),
        (State::Captured, _) => {}
        (State::Waiting, _) if answer.reason.is_empty() => {
            output::note(&format!("{host}: the request waits for a process"))
        }
        (State::Waiting, _) => output::note(&format!("{host}: the request waits: {}", answer.reason)),
        (State::Refused, _) => output::note(&format!("{host}: refused: {}", answer.reason)),
        (State::Failed, _) if answer.cancelled => output::note(&format!("{host}: {}", answer.reason)),
        (State::Failed, _) => output::note(&format!("{host}: no capture: {}", answer.reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hostile_node_stops_no_request_and_is_not_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = Bucket::Directory(dir.path().to_owned());
        let put = async |key: &str, data: Vec<u8>| bucket.put(key, data.into()).await.unwrap();
        put("nodes/good~1.json", b"{\"allow_reports\":[\"gc_stat\"],\"poll_ms\":1000}".to_vec()).await;
        put("nodes/never~1.json", format!("{{\"allow_reports\":[\"gc_stat\"],\"poll_ms\":{}}}", u64::MAX).into()).await;
        put("nodes/large~1.json", vec![b' '; 70_000]).await;
        let ticket = Ticket { id: "x".into(), reports: vec!["gc_stat".into()], ..Ticket::default() };
        let asked = Asked { ticket, host: None, sample: None, wait: true, json: false };
        let (nodes, _) = candidates(&bucket, &asked, 0).await.unwrap();
        let polls: Vec<_> = nodes.iter().map(|(name, node)| (name.as_str(), node.poll_ms)).collect();
        assert_eq!(polls, [("good~1", 1000), ("never~1", LONGEST_POLL_MS)]);
        let ticket = Ticket { nodes: nodes.into_iter().map(|(name, _)| name).collect(), ..asked.ticket };
        put("answers/x/good~1.json", b"{\"state\":\"captured\"}".to_vec()).await;
        put("answers/x/never~1.json", vec![b' '; 70_000]).await;
        let answers = fresh_answers(&Foreign::new(&bucket), &ticket, &BTreeMap::new()).await.unwrap();
        assert_eq!(answers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["good~1"]);
    }
}
