//! The waiting requests: `--list` and `--cancel`.

use serde::Serialize;

use super::why::View;
use super::{invoking_user, why};
use crate::cli::error::{Failure, quoted};
use crate::cli::output::{self, Done};
use crate::cli::times::age;
use crate::cli::{Context, orders};
use crate::config::GroupRight;
use crate::exit_code::Exit;
use diagctl_store::events::{self, Event};
use diagctl_store::inbox::{self, Order};
use diagctl_store::requests::{self, Request};
use diagctl_store::{Access, Store};

/// A request, as `--list` prints it.
#[derive(Serialize)]
pub(super) struct Listed {
    #[serde(flatten)]
    pub(super) request: Request,
    pub(super) age_ms: u64,
    pub(super) expires_in_ms: u64,
    pub(super) waits_for: String,
}

pub(super) fn list(cx: &Context, json: bool) -> Result<Done, Failure> {
    let store = cx.open(Access::Read)?;
    let (_, now) = cx.peek(&store)?;
    let view = View::take(cx, &store, &now)?;
    let pending = requests::list(&store)?
        .into_iter()
        .chain(inbox::requests(&store))
        .filter(|request| request.expires > now.store_ms);
    let listed: Vec<Listed> = pending
        .map(|request| Listed {
            age_ms: now.store_ms.saturating_sub(request.created),
            expires_in_ms: request.expires.saturating_sub(now.store_ms),
            waits_for: view.of(&request).text,
            request,
        })
        .collect();
    if !json && listed.is_empty() {
        output::note(&format!("no request waits in {}", store.dir().display()));
        return Ok(Done::silent());
    }
    let value = serde_json::json!({ "schema": 1, "requests": listed });
    Done::either(json, &value, |_| {
        let header = ["ID", "AGE", "EXPIRES IN", "BY", "REPORTS", "FOR", "REASON", "STATUS"];
        output::table_with_cuts(
            &header,
            &listed.iter().map(row).collect::<Vec<_>>(),
            &[4, 6, 3, 5, 1, 2],
            &[3, 4, 5, 6],
        )
    })
}

pub(super) fn row(listed: &Listed) -> Vec<String> {
    let request = &listed.request;
    let pid = request.pid.map(|pid| format!("pid {pid}"));
    let whom: Vec<&str> = [&request.role, &request.name, &pid].into_iter().flatten().map(String::as_str).collect();
    vec![
        request.id.clone(),
        age(0, listed.age_ms),
        age(0, listed.expires_in_ms),
        request.by.clone(),
        if request.reports.is_empty() { "routine".into() } else { request.reports.join(" ") },
        if whom.is_empty() { "any process".into() } else { whom.join(" ") },
        request.reason.clone(),
        listed.waits_for.clone(),
    ]
}

pub(super) fn cancel(cx: &Context, id: &str, json: bool) -> Result<Done, Failure> {
    let by = invoking_user();
    let store = orders::open(cx, Access::Write, GroupRight::Request)?;
    let found: Vec<Request> = requests::list(&store)?
        .into_iter()
        .chain(inbox::requests(&store))
        .filter(|request| !id.is_empty() && request.id.starts_with(id))
        .collect();
    let request = match found.as_slice() {
        [request] => request,
        [] => {
            return Err(Failure::new(Exit::NoMatch, format!("there is no request {}", quoted(id)))
                .hint("`diagctl request --list` shows those that wait; one that was served is in `diagctl list`"));
        }
        several => {
            let message = format!("{} requests begin with {}", several.len(), quoted(id));
            return Err(Failure::new(Exit::NoMatch, message).hint("use a longer beginning"));
        }
    };
    withdraw(&store, request, &by)?;
    Done::either(json, request, |request| request.id.clone())
}

// A capture that has begun for it goes on.
pub(super) fn withdraw(store: &Store, request: &Request, by: &str) -> Result<(), Failure> {
    if inbox::waits(store, &request.id) {
        return Ok(inbox::withdraw(store, &request.id)?);
    }
    if !store.is_ours() {
        let order = Order::Cancel { request: request.id.clone() };
        return Ok(inbox::leave(store, &format!("{}-cancel", request.id), &order)?);
    }
    requests::remove(store, &request.id)?;
    events::record(store, &Event::about("request_cancelled", &request.id, &format!("cancelled by {by}")));
    if let Some(capture) = why::in_progress(store, request) {
        output::note(&format!("capture {capture} had begun for it and goes on"));
    }
    Ok(())
}
