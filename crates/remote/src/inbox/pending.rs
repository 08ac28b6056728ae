//! Requests that were accepted: what they wait for, and what became of them.

use std::collections::BTreeMap;

use diagctl_fs as fs;
use diagctl_observe::clock;
use diagctl_store::events::{self, Event};
use diagctl_store::index::{self, SHIPPED_FILE};
use diagctl_store::requests::{self, Request};
use serde::Deserialize;

use super::{Inbox, LONGEST_MS, THROUGH};
use crate::error::Result;
use crate::output;
use crate::ticket::{Answer, State};

/// The time after the expiry in which a process that polled just before it may still begin, milliseconds.
const GRACE_MS: u64 = 2_000;

/// The event of a request that somebody cancelled.
pub(super) const CANCELLED: &str = "request_cancelled";

/// The output of `diagctl request --list --json`.
#[derive(Debug, Deserialize)]
struct Listed {
    requests: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    id: String,
    waits_for: String,
}

impl Inbox<'_> {
    // Answers requests whose capture has arrived, and those that were given up.
    pub(super) async fn answer_pending(&mut self) -> Result<()> {
        let now_ms = u64::try_from(clock::Reading::take(String::new()).wall_ms).unwrap_or(0);
        for (id, created) in self.pending() {
            let until = created.saturating_add(LONGEST_MS);
            // Its file goes when its capture is published, or when it is given up.
            if let Some(request) = requests::read(self.store, &id) {
                if self.has_begun(&request) || request.expires.saturating_add(GRACE_MS) > now_ms {
                    continue;
                }
                // A process that polls would do the same.
                requests::remove(self.store, &id)?;
                events::record(self.store, &Event::request_failed(&id, "no process took it before it expired"));
            }
            let answer = match index::of_request(self.store, &id, created)? {
                Some(capture) => {
                    let dir = self.store.report_dir(&capture);
                    if dir.exists() && !dir.join(SHIPPED_FILE).is_file() {
                        continue;
                    }
                    Answer { state: State::Captured, capture: Some(capture), ..Answer::default() }
                }
                // Somebody has cancelled it on this machine. What is being captured may be for it all the same.
                None if now_ms < until && self.is_capturing() => continue,
                None => self.why_none(&id),
            };
            self.answer(&id, answer).await?;
            self.reasons.remove(&id);
            if let Some(known) = self.known.requests.get_mut(&id) {
                known.pending = false;
            }
            self.remember()?;
        }
        Ok(())
    }

    fn pending(&self) -> Vec<(String, u64)> {
        let pending = self.known.requests.iter().filter(|(_, known)| known.pending);
        pending.map(|(id, known)| (id.clone(), known.created)).collect()
    }

    fn is_capturing(&self) -> bool {
        fs::children(&self.store.path("staging")).next().is_some()
    }

    // True if no capture has begun for a request that was accepted.
    pub(super) fn waits(&self, id: &str) -> bool {
        let is_pending = self.known.requests.get(id).is_some_and(|known| known.pending);
        is_pending && requests::read(self.store, id).is_some_and(|request| !self.has_begun(&request))
    }

    fn has_begun(&self, request: &Request) -> bool {
        request
            .capture
            .is_some_and(|capture| self.store.staging(&capture).exists() || self.store.report_dir(&capture).exists())
    }

    // The answer to a request that has no capture.
    fn why_none(&self, id: &str) -> Answer {
        const ENDS: [&str; 2] = ["request_failed", CANCELLED];
        let told = events::read(self.store).into_iter().rfind(|event| event.id == id && ENDS.contains(&&*event.event));
        let cancelled = told.as_ref().is_some_and(|event| event.event == CANCELLED);
        let why = told.map_or_else(|| "it was cancelled, or its capture is gone".to_owned(), |event| event.reason);
        let reason = match self.reasons.get(id) {
            Some(waited) if why.ends_with("it expired") => format!("{why}: {waited}"),
            _ => why,
        };
        Answer { state: State::Failed, cancelled, reason, ..Answer::default() }
    }

    // Takes a request back, unless its capture has begun. Then it goes on.
    pub(super) fn withdraw(&self, event: &Event) -> Result<()> {
        if !self.waits(&event.id) {
            return Ok(());
        }
        requests::remove(self.store, &event.id)?;
        events::record(self.store, event);
        output::note(&format!("request {} was taken back: {}", event.id, event.reason));
        Ok(())
    }

    // Forgets the requests of the store from which this one was copied.
    pub(super) fn leave_requests_to_the_original(&mut self) -> Result<()> {
        for (id, _) in self.pending() {
            self.withdraw(&Event::request_failed(&id, "it is for another node, of which this store is a copy"))?;
        }
        self.known.requests.clear();
        self.remember()
    }

    pub(super) fn withdraw_what_is_not_allowed(&self) -> Result<()> {
        for (id, _) in self.pending() {
            let Some(request) = requests::read(self.store, &id) else { continue };
            let by = request.by.strip_suffix(THROUGH).unwrap_or(&request.by);
            if let Err(why) = self.allows(request.reports.iter().map(|name| &**name), by) {
                self.withdraw(&Event::request_failed(&id, &why))?;
            }
        }
        Ok(())
    }

    // Tells what requests wait for, whenever more than a figure of that has changed. `diagctl` knows it.
    pub(super) async fn tell_reasons(&mut self) -> Result<()> {
        let pending = self.pending();
        if pending.is_empty() {
            return Ok(());
        }
        // Without a reason the request waits all the same.
        let Ok(text) = self.settings.ask(&["request", "--list", "--json"]).await else { return Ok(()) };
        let listed: Vec<Row> = serde_json::from_str::<Listed>(&text).map(|listed| listed.requests).unwrap_or_default();
        let mut listed: BTreeMap<String, String> = listed.into_iter().map(|row| (row.id, row.waits_for)).collect();
        for (id, _) in pending {
            let Some(reason) = listed.remove(&id) else { continue };
            if self.reasons.get(&id).is_some_and(|told| without_figures(told) == without_figures(&reason)) {
                continue;
            }
            self.answer(&id, Answer { state: State::Waiting, reason: reason.clone(), ..Answer::default() }).await?;
            self.reasons.insert(id, reason);
        }
        Ok(())
    }
}

fn without_figures(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}
