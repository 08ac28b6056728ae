//! `request --wait`: tells what a request waits for, until its capture is published.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::why::{View, Why};
use super::withdraw;
use crate::cli::Context;
use crate::cli::error::{Failure, printable};
use crate::cli::finalize::exit_of;
use crate::cli::output::{self, Done};
use crate::exit_code::Exit;
use crate::fsio::{self, Spot};
use crate::sys::Endings;
use crate::units::size;
use diagctl_store::inbox;
use diagctl_store::requests::{self, Request};
use diagctl_store::{Store, events, index, meta};

/// The time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Waits for the capture. The request's file exists until the capture is published or the request is given up. It names the
/// capture in progress. `told_before` is the kind of reason that was told before.
pub fn wait(
    cx: &Context,
    store: &Store,
    request: &Request,
    told_before: Option<String>,
    json: bool,
    endings: Endings,
) -> Result<Done, Failure> {
    let mut progress = Progress::new(told_before.unwrap_or_default());
    let mut last = None;
    // A member's order becomes a request at the next poll. The request is written before the order vanishes.
    let filed = || requests::read(store, &request.id);
    let waiting = || filed().or_else(|| inbox::waits(store, &request.id).then(|| request.clone())).or_else(filed);
    while let Some(current) = waiting() {
        require_the_same_store(cx, store)?;
        let (_, now) = cx.peek(store)?;
        let why = View::take(cx, store, &now)?.of(&current);
        if current.expires <= now.store_ms && super::why::in_progress(store, &current).is_none() {
            if store.is_ours() {
                requests::remove(store, &request.id)?;
            } else if inbox::waits(store, &request.id) {
                inbox::withdraw(store, &request.id)?;
            }
            return Err(expired(&why));
        }
        // The view is younger than `current`. A process may have taken the request meanwhile, and others refuse captures since.
        if waiting().is_some_and(|again| again == current) && !is_taken(store, &current) {
            progress.tell(&why.text, &why.kind);
        }
        last = Some(why);
        if let Some(signal) = endings.arrived(LOOK) {
            progress.clear();
            withdraw(store, &current, &current.by)?;
            output::note(&format!("the request {} was cancelled", request.id));
            endings.end_by(signal);
        }
    }
    progress.clear();
    require_the_same_store(cx, store)?;
    let (_, now) = cx.peek(store)?;
    match (told(store, request, json)?, last) {
        (Some(done), _) => Ok(done),
        // A poll took it out.
        (None, Some(why)) if request.expires <= now.store_ms => Err(expired(&why)),
        (None, _) => Err(failed(store, request)),
    }
}

// Published, or about to be: the request goes right afterwards.
fn is_taken(store: &Store, request: &Request) -> bool {
    request.capture.is_some_and(|capture| store.report_dir(&capture).stat().is_ok())
}

fn expired(why: &Why) -> Failure {
    Failure::new(Exit::NotGranted, format!("no process took the request in time: {}", why.text)).hint(why.hint.clone())
}

fn failed(store: &Store, request: &Request) -> Failure {
    let why = events::read(store).into_iter().rfind(|event| event.id == request.id).map(|event| event.reason);
    Failure::failed(format!("the request failed: {}", why.unwrap_or_else(|| "it was removed".into())))
        .hint("`diagctl events` shows what happened")
}

// The directory stays open, and would be waited for in vain wherever it was moved.
fn require_the_same_store(cx: &Context, store: &Store) -> Result<(), Failure> {
    let dir = &cx.config().dir;
    let same = |stat: &rustix::fs::Stat| {
        store.dir().stat().is_ok_and(|own| (own.st_dev, own.st_ino) == (stat.st_dev, stat.st_ino))
    };
    if Spot::outside(dir).stat().is_ok_and(|stat| same(&stat)) {
        return Ok(());
    }
    let message = format!("the store {} was moved, removed or replaced while the request waited in it", dir.display());
    Err(Failure::failed(message).hint("request the capture again, in the store that the workers use now"))
}

// Returns `None` if there is no capture.
fn told(store: &Store, request: &Request, json: bool) -> Result<Option<Done>, Failure> {
    let Some(id) = index::of_request(store, &request.id, request.created)? else { return Ok(None) };
    let meta = meta::read(&store.report_dir(&id))?;
    for report in &meta.reports {
        if let Some(error) = &report.error {
            let what = if report.is_damaged() { "is damaged" } else { "failed" };
            output::note(&format!("report {} {what}: {error}", report.name));
        }
    }
    let bytes = fsio::occupied_tree(&store.report_dir(&id));
    let who = output::who(&meta.role, &meta.worker);
    output::note(&format!("captured {} on disk of process {} ({who})", size(bytes), meta.pid));
    Ok(Some(Done::either(json, &meta, |meta| meta.id.to_string())?.with_exit(exit_of(&meta))))
}

/// A line that changes on a terminal; elsewhere a line whenever the kind of reason changes.
struct Progress {
    bar: Option<ProgressBar>,
    told: String,
}

impl Progress {
    fn new(told: String) -> Self {
        let bar = output::is_watched().then(ProgressBar::new_spinner);
        if let (Some(bar), Ok(style)) = (&bar, ProgressStyle::with_template("{spinner} {elapsed} {msg}")) {
            bar.set_style(style);
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Self { bar, told }
    }

    fn tell(&mut self, text: &str, kind: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(printable(text)),
            None if self.told == kind => {}
            None => {
                kind.clone_into(&mut self.told);
                output::note(&format!("waiting: {text}"));
            }
        }
    }

    fn clear(&self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}
