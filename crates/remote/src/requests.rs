//! `requests` and `cancel`: the requests in the remote, and taking one back.

use std::collections::BTreeMap;

use diagctl_fs::without_secrets;
use diagctl_observe::clock;
use diagctl_store::Id;
use serde::Serialize;

use crate::bucket::Bucket;
use crate::counting::{self, Named};
use crate::error::{Error, Result};
use crate::foreign::Foreign;
use crate::keys;
use crate::nodes;
use crate::output::{self, Exit};
use crate::request::fresh_answers;
use crate::settings::Settings;
use crate::ticket::{Answer, Cancellation, State, Ticket};

/// The most requests that are listed: the newest.
const MOST: usize = 1000;

/// Cancel a request in the remote, for `diagctl request --cancel --remote`
#[derive(Debug, clap::Args)]
pub struct CancelArgs {
    /// Its id, or the beginning of it
    id: String,
    /// The person
    #[arg(long)]
    by: String,
}

/// A request, for `diagctl`.
#[derive(Debug, Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    ticket: &'a Ticket,
    age_ms: u64,
    expires_in_ms: u64,
    cancelled: bool,
    answers: BTreeMap<String, Answer>,
}

/// Prints the requests that count, a line of JSON each.
///
/// # Errors
///
/// If the remote cannot be read.
pub async fn list(settings: &Settings) -> Result<Exit> {
    let bucket = Bucket::open(&settings.remote)?;
    let now_ms = now_ms();
    let found = counting(&bucket, now_ms).await?;
    let older = found.requests.len().saturating_sub(MOST);
    if older > 0 {
        output::note(&format!("{} requests count; the {MOST} newest are listed", found.requests.len()));
    }
    let foreign = Foreign::new(&bucket);
    for named in &found.requests[older..] {
        let Some(mut ticket) = read(&foreign, named).await? else { continue };
        for text in [&mut ticket.by, &mut ticket.reason] {
            *text = without_secrets(text).into_owned();
        }
        let answers = fresh_answers(&foreign, &ticket, &BTreeMap::new()).await?.into_iter().collect();
        let row = Row {
            ticket: &ticket,
            age_ms: since(&named.id, now_ms),
            expires_in_ms: keys::time_until(&named.expires, now_ms),
            cancelled: found.cancelled.contains_key(&named.id),
            answers,
        };
        output::say_raw(&serde_json::to_string(&row).unwrap_or_default()).map_err(Error::Runtime)?;
    }
    Ok(Exit::Ok)
}

/// Cancels a request and prints its id.
///
/// # Errors
///
/// If there is no such request, or the remote fails.
pub async fn cancel(args: &CancelArgs, settings: &Settings) -> Result<Exit> {
    take_back(&Bucket::open(&settings.remote)?, args).await
}

async fn take_back(bucket: &Bucket, args: &CancelArgs) -> Result<Exit> {
    let found = counting(bucket, now_ms()).await?;
    let is_meant = |named: &&Named| !args.id.is_empty() && named.id.starts_with(&args.id);
    let meant: Vec<&Named> = found.requests.iter().filter(is_meant).collect();
    let named = match meant.as_slice() {
        [named] => named,
        [] => {
            return Err(Error::NoRequest(format!(
                "no open request in the remote begins with {}",
                diagctl_fs::quoted(&args.id)
            )));
        }
        several => {
            let begin = diagctl_fs::quoted(&args.id);
            return Err(Error::NoRequest(format!("{} requests in the remote begin with {begin}", several.len())));
        }
    };
    let foreign = Foreign::new(bucket);
    let is_cancelled = found.cancelled.contains_key(&named.id);
    let answers = match read(&foreign, named).await.unwrap_or_default() {
        Some(ticket) => {
            // A person who may write requests but not read answers may cancel all the same.
            let answers = fresh_answers(&foreign, &ticket, &BTreeMap::new()).await.unwrap_or_default();
            let is_over =
                ticket.nodes.iter().all(|node| answers.iter().any(|(name, it)| name == node && it.is_final()));
            // Whoever cancels twice has what he wants, unless a node had captured before.
            let is_final = !is_cancelled || answers.iter().any(|(_, answer)| answer.state == State::Captured);
            if is_over
                && is_final
                && let Some(ends) = ends(&answers)
            {
                return Err(Error::NoRequest(format!("request {} was {ends}; nothing to take back", named.id)));
            }
            answers
        }
        None => Vec::new(),
    };
    let captured: Vec<_> = answers.into_iter().filter(|(_, answer)| answer.state == State::Captured).collect();
    let but = ends(&captured).map(|ends| format!("; it was {ends} before")).unwrap_or_default();
    if is_cancelled {
        output::note(&format!("request {} is cancelled already{but}", named.id));
    } else {
        let cancellation = Cancellation { schema: 1, by: args.by.clone(), at: clock::utc_now() };
        let data = serde_json::to_vec(&cancellation).unwrap_or_default();
        bucket.put(&keys::cancellation(&named.id, &named.expires), data.into()).await?;
        output::note(&format!("each node takes it back at its next look, unless its capture has begun{but}"));
    }
    output::say(&named.id);
    Ok(Exit::Ok)
}

// The final answers, the captures first: "captured by web-1 at TIME". `None` if there is none.
fn ends(answers: &[(String, Answer)]) -> Option<String> {
    const FEW: usize = 5;
    let names: Vec<String> = answers.iter().map(|(node, _)| node.clone()).collect();
    let (mut texts, mut more) = (Vec::new(), 0);
    for (state, verb) in [(State::Captured, "captured"), (State::Refused, "refused"), (State::Failed, "given up")] {
        for (node, answer) in answers.iter().filter(|(_, answer)| answer.state == state) {
            if texts.len() == FEW {
                more += 1;
            } else {
                texts.push(format!("{verb} by {} at {:.30}", nodes::label(node, &names), answer.at));
            }
        }
    }
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    (!texts.is_empty()).then(|| format!("{}{more}", texts.join(", ")))
}

async fn read(foreign: &Foreign<'_>, named: &Named) -> Result<Option<Ticket>> {
    let Some(ticket) = foreign.read::<Ticket>(&named.key).await? else { return Ok(None) };
    if ticket.id != named.id {
        foreign.skip(&named.key, &format!("{} has another id in it", named.key));
        return Ok(None);
    }
    Ok(Some(ticket))
}

async fn counting(bucket: &Bucket, now_ms: u64) -> Result<counting::Counting> {
    let found = counting::list(bucket, i64::try_from(now_ms).unwrap_or(i64::MAX)).await?;
    if found.is_cut {
        output::note(&counting::too_many());
    }
    Ok(found)
}

fn now_ms() -> u64 {
    u64::try_from(clock::Reading::take(String::new()).wall_ms).unwrap_or(0)
}

// An id begins with its time.
fn since(id: &str, now_ms: u64) -> u64 {
    let at = Id::parse(id).and_then(|_| clock::parse_compact_utc(id.split('-').next()?)).unwrap_or(0);
    now_ms.saturating_sub(u64::try_from(at).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [&str; 2] = ["web-1~a", "web-2~a"];

    // A bucket with a request that counts, of this id.
    async fn requested(dir: &tempfile::TempDir) -> (Bucket, String) {
        let bucket = Bucket::Directory(dir.path().to_owned().into());
        let at = |ms: u64| clock::compact_utc(i64::try_from(now_ms() + ms).unwrap());
        let id = format!("{}-aaaaaaaa", at(0));
        let ticket = Ticket { id: id.clone(), nodes: NODES.map(str::to_owned).to_vec(), ..Ticket::default() };
        bucket.put(&keys::request(&id, &at(60_000)), serde_json::to_vec(&ticket).unwrap().into()).await.unwrap();
        (bucket, id)
    }

    async fn answered(bucket: &Bucket, id: &str, node: &str, state: State) {
        let capture = (state == State::Captured).then(|| Id::parse("20261128T095959000Z-aaaaaaaa").unwrap());
        let answer = Answer { state, capture, at: "2026-11-28T10:00:00.000Z".into(), ..Answer::default() };
        bucket.put(&keys::answer(id, node), serde_json::to_vec(&answer).unwrap().into()).await.unwrap();
    }

    async fn cancelled(bucket: &Bucket, id: &str) -> (std::result::Result<Exit, String>, usize) {
        let result = take_back(bucket, &CancelArgs { id: id.into(), by: "ann".into() }).await;
        (result.map_err(|error| error.to_string()), counting(bucket, now_ms()).await.unwrap().cancelled.len())
    }

    #[tokio::test]
    async fn what_every_node_has_answered_cannot_be_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let (bucket, id) = requested(&dir).await;
        for (node, state) in NODES.into_iter().zip([State::Refused, State::Captured]) {
            answered(&bucket, &id, node, state).await;
        }
        let at = "2026-11-28T10:00:00.000Z";
        let told =
            format!("request {id} was captured by web-2 at {at}, refused by web-1 at {at}; nothing to take back");
        assert_eq!(cancelled(&bucket, &id).await, (Err(told), 0));
    }

    #[tokio::test]
    async fn what_one_node_still_waits_for_is_cancelled_and_twice_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        let (bucket, id) = requested(&dir).await;
        answered(&bucket, &id, NODES[0], State::Captured).await;
        answered(&bucket, &id, NODES[1], State::Waiting).await;
        assert_eq!(cancelled(&bucket, &id).await, (Ok(Exit::Ok), 1));
        assert_eq!(cancelled(&bucket, &id).await, (Ok(Exit::Ok), 1));
        for node in NODES {
            answered(&bucket, &id, node, State::Failed).await;
        }
        assert_eq!(cancelled(&bucket, &id).await, (Ok(Exit::Ok), 1));
    }
}
