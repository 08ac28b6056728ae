//! `request`: leaves a request in the remote for some of the nodes that obey requests, and waits for their answers.

use std::collections::BTreeMap;
use std::time::Duration;

use diagctl_fs::random_hex;
use diagctl_fs::without_secrets;
use diagctl_observe::clock::{self, Stopwatch};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::bucket::Bucket;
use crate::error::{Error, Result};
use crate::foreign::Foreign;
use crate::keys;
use crate::nodes::{self, Chosen, Wanted, label};
use crate::output::{self, Exit};
use crate::settings::Settings;
use crate::ticket::{Answer, LONGEST_MS, State, Ticket};

/// Number of answers that are read at once.
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
    let wanted = Wanted { name: asked.host.as_deref(), reports: &asked.ticket.reports, most: asked.sample };
    let Chosen { nodes, of } = nodes::choose(&bucket, &wanted, u64::try_from(now_ms).unwrap_or(0)).await?;
    let expires_ms = asked.ticket.expires_ms.min(LONGEST_MS);
    let id = format!("{}-{}", clock::compact_utc(now_ms), random_hex()?);
    let names = nodes.iter().map(|(name, _)| name.clone()).collect();
    let ticket = Ticket { schema: 1, id, nodes: names, created: clock::utc_now(), expires_ms, ..asked.ticket.clone() };
    let expires = clock::compact_utc(now_ms.saturating_add(i64::try_from(expires_ms).unwrap_or(i64::MAX)));
    let data = serde_json::to_vec(&ticket).unwrap_or_default();
    bucket.put(&keys::request(&ticket.id, &expires), data.into()).await?;
    let slowest = Duration::from_millis(nodes.iter().map(|(_, node)| node.poll_ms).max().unwrap_or(0));
    output::note(&format!(
        "request {} is for {}: {}; each looks within {}",
        ticket.id,
        counted(nodes.len(), of),
        nodes::shown(&nodes),
        diagctl_store::units::duration(u64::try_from(slowest.as_millis()).unwrap_or(u64::MAX))
    ));
    let answers = if asked.wait {
        let mut end = Ending::install()?;
        tokio::select! {
            answers = answers(&bucket, &ticket, slowest, asked.json) => answers?,
            exit = end.heard() => {
                output::note_command(&format!(
                    "request {id} goes on; `diagctl request --cancel {id} --remote` cancels it", id = ticket.id
                ));
                return Ok(exit);
            }
        }
    } else {
        BTreeMap::new()
    };
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

/// The signals that end the wait.
struct Ending {
    interrupt: Signal,
    terminate: Signal,
}

impl Ending {
    fn install() -> Result<Self> {
        let on = |kind| signal(kind).map_err(Error::Runtime);
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    async fn heard(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
        }
    }
}

fn counted(some: usize, of: usize) -> String {
    if of == 1 { "1 node".to_owned() } else { format!("{some} of {of} nodes") }
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
                tell(&name, &ticket.nodes, &answer, quiet);
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

/// Returns the answers to a request that are not known, or not the last word. Whoever may write answers may have written their reasons.
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
        let Some(answer): Option<Answer> = answer? else { continue };
        if answer.is_whole() {
            answers.push((name, Answer { reason: without_secrets(&answer.reason).into_owned(), ..answer }));
        } else {
            let key = keys::answer(&ticket.id, &name);
            foreign.skip(&key, &format!("{key} names no capture"));
        }
    }
    Ok(answers)
}

// The nodes that have not said their last word, and what they wait for.
fn verdict(ticket: &Ticket, answers: &BTreeMap<String, Answer>) -> String {
    let done = answers.values().filter(|answer| answer.is_final()).count();
    let nodes = if ticket.nodes.len() == 1 { "node" } else { "nodes" };
    let mut text = format!("{done} of {} {nodes} answered", ticket.nodes.len());
    for (node, answer) in answers.iter().filter(|(_, answer)| !answer.is_final()) {
        let why = if answer.reason.is_empty() { "a process" } else { &answer.reason };
        text.push_str(&format!("; {} had not captured: it waited for {why}", label(node, &ticket.nodes)));
    }
    let silent: Vec<&str> =
        ticket.nodes.iter().filter(|node| !answers.contains_key(*node)).map(String::as_str).collect();
    if !silent.is_empty() {
        text.push_str(&format!("; nothing was heard of {}: does `diagctl ship --watch` run there?", silent.join(", ")));
    }
    text
}

fn tell(node: &str, nodes: &[String], answer: &Answer, quiet: bool) {
    let label = label(node, nodes);
    match (&answer.state, &answer.capture) {
        // The place in the remote, whatever else is on that machine.
        (State::Captured, Some(capture)) if !quiet => output::say(&format!("{}/{capture}", nodes::host(node))),
        (State::Captured, _) => {}
        (State::Waiting, _) if answer.reason.is_empty() => {
            output::note(&format!("{label}: the request waits for a process"))
        }
        (State::Waiting, _) => output::note(&format!("{label}: the request waits: {}", answer.reason)),
        (State::Refused, _) => output::note(&format!("{label}: refused: {}", answer.reason)),
        (State::Failed, _) if answer.cancelled => output::note(&format!("{label}: {}", answer.reason)),
        (State::Failed, _) => output::note(&format!("{label}: no capture: {}", answer.reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_counted_of_those_that_a_person_may_have_meant() {
        assert_eq!([counted(1, 1), counted(1, 3), counted(3, 3)], ["1 node", "1 of 3 nodes", "3 of 3 nodes"]);
    }

    #[tokio::test]
    async fn a_hostile_answer_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = Bucket::Directory(dir.path().to_owned().into());
        let put = async |key: &str, data: Vec<u8>| bucket.put(key, data.into()).await.unwrap();
        let ticket = Ticket {
            id: "x".into(),
            nodes: ["good~1", "never~1", "none~1", "path~1"].map(str::to_owned).into(),
            ..Ticket::default()
        };
        put("answers/x/good~1.json", b"{\"state\":\"captured\",\"capture\":\"20261128T100000000Z-aaaaaaaa\"}".to_vec())
            .await;
        put("answers/x/never~1.json", vec![b' '; 70_000]).await;
        put("answers/x/none~1.json", b"{\"state\":\"captured\"}".to_vec()).await;
        put("answers/x/path~1.json", b"{\"state\":\"captured\",\"capture\":\"../../etc/passwd\"}".to_vec()).await;
        let answers = fresh_answers(&Foreign::new(&bucket), &ticket, &BTreeMap::new()).await.unwrap();
        assert_eq!(answers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["good~1"]);
    }
}
