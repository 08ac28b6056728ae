//! `requests` and `cancel`: the requests in the remote, and taking one back.

use std::collections::BTreeMap;

use diagctl_observe::clock;
use diagctl_store::Id;
use serde::Serialize;

use crate::bucket::Bucket;
use crate::counting::{self, Named};
use crate::error::{Error, Result};
use crate::foreign::Foreign;
use crate::keys;
use crate::output::{self, Exit};
use crate::request::fresh_answers;
use crate::settings::Settings;
use crate::ticket::{Answer, Cancellation, Ticket};

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
        let Some(ticket) = read(&foreign, named).await? else { continue };
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
    let bucket = Bucket::open(&settings.remote)?;
    let found = counting(&bucket, now_ms()).await?;
    let is_meant = |named: &&Named| !args.id.is_empty() && named.id.starts_with(&args.id);
    let meant: Vec<&Named> = found.requests.iter().filter(is_meant).collect();
    let named = match meant.as_slice() {
        [named] => named,
        [] => {
            return Err(Error::NoRequest(format!(
                "no request in the remote begins with {:?} and still counts",
                args.id
            )));
        }
        several => {
            return Err(Error::NoRequest(format!("{} requests in the remote begin with {:?}", several.len(), args.id)));
        }
    };
    if !found.cancelled.contains_key(&named.id) {
        let cancellation = Cancellation { schema: 1, by: args.by.clone(), at: clock::utc_now() };
        let data = serde_json::to_vec(&cancellation).unwrap_or_default();
        bucket.put(&keys::cancellation(&named.id, &named.expires), data.into()).await?;
    }
    output::note("each node takes it back at its next look, unless its capture has begun");
    output::say(&named.id);
    Ok(Exit::Ok)
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
