//! The reason why a request waits.

use std::borrow::Cow;

use crate::cli::Context;
use crate::cli::error::{Failure, printable};
use crate::cli::names;
use crate::cli::output;
use crate::cli::times::age;
use crate::clock::Now;
use crate::fsio;
use crate::rules::decide::without_asking;
use crate::state::files::load_samples;
use crate::state::samples::Sample;
use crate::state::schedule::State;
use crate::units::size;
use diagctl_observe::Presence;
use diagctl_store::lease::{self, Record};
use diagctl_store::requests::Request;
use diagctl_store::{Id, Process, ProcessId, Store};

/// The reason why a request waits.
#[derive(Debug, PartialEq, Eq)]
pub struct Why {
    /// One sentence.
    pub text: String,
    /// Equal for reasons that differ in their figures only.
    pub kind: String,
    /// Set if the request waits for more than the next poll.
    pub needs_a_person: bool,
    /// The next step.
    pub hint: Cow<'static, str>,
}

/// Everything that the reason depends on.
pub struct View<'a> {
    state: State,
    store: &'a Store,
    now: &'a Now,
    polling: Vec<(Process, Sample)>,
    holder: Option<Record>,
}

const EXPLAIN: &str = "`diagctl status --explain` shows the verdict of each process";
const START: &str = "`diagctl status` lists the polling processes; `diagctl doctor`, in the environment of a worker, tells why it \
                     does not poll";
const SWITCH: &str = "turn on the switch that the reason names";

impl<'a> View<'a> {
    /// Reads the state, the samples and the record of the lease. Takes no lock: it is called ten times a second.
    pub fn take(cx: &'a Context, store: &'a Store, now: &'a Now) -> Result<Self, Failure> {
        let (state, _) = cx.peek(store)?;
        let polling = load_samples(store).processes.into_iter().filter(|(id, sample)| {
            sample.is_fresh(now.store_ms, cx.config().poll_ms()) && cx.proc.presence(id) != Presence::Gone
        });
        let of = |(id, sample): (ProcessId, Sample)| {
            let (role, name) = (sample.role.clone(), sample.name.clone());
            (Process { id, role, name }, sample)
        };
        let holder =
            lease::read_record(store.dir())?.filter(|record| !record.ended && is_staged(store, &record.capture));
        Ok(Self { state, store, now, polling: polling.map(of).collect(), holder })
    }

    /// Returns the reason why a request waits.
    pub fn of(&self, request: &Request) -> Why {
        let why =
            |text: String, kind: &str| Why { text, kind: kind.to_owned(), needs_a_person: false, hint: EXPLAIN.into() };
        if let Some(capture) = in_progress(self.store, request) {
            let staged = size(fsio::occupied_tree(&self.store.staging(&capture)));
            return why(format!("capture {capture} is being taken, {staged} so far"), capture.as_str());
        }
        let now_ms = self.now.store_ms;
        if let Some(pause) = self.state.paused.as_ref().filter(|pause| pause.holds(now_ms)) {
            let hint = "`diagctl request --cancel ID` cancels a request".into();
            return Why {
                needs_a_person: true,
                hint,
                ..why(format!("the store is {}", pause.reason(now_ms)), "paused")
            };
        }
        let matching: Vec<&(Process, Sample)> =
            self.polling.iter().filter(|(process, _)| request.is_for(process)).collect();
        if matching.is_empty() {
            let others = match self.polling.len() {
                0 => String::new(),
                1 => format!("; {} polls", polling(&self.polling)),
                _ => format!("; {} poll", polling(&self.polling)),
            };
            let text = format!("no matching process has polled this store lately{others}");
            let start = format!("the store is {}; {START}", self.store.dir().display());
            let hint = self.meant(request).map_or(start.clone(), |meant| format!("{meant}; {start}")).into();
            return Why { needs_a_person: true, hint, ..why(text, "nobody") };
        }
        let mut on = matching.iter().filter(|(_, sample)| !sample.is_off()).peekable();
        if on.peek().is_none() {
            let (process, sample) = matching[0];
            let more = if matching.len() > 1 { format!(" (and {} more)", matching.len() - 1) } else { String::new() };
            let text = format!("{}{more} takes no captures: {}", who(process), sample.reason);
            return Why { needs_a_person: true, hint: SWITCH.into(), ..why(text, "off") };
        }
        if let Some(record) = &self.holder {
            let who = output::who(&record.role, &record.worker);
            let text = format!("process {} ({who}) holds the lease for capture {}", record.pid, record.capture);
            return why(text, record.capture.as_str());
        }
        let on: Vec<&&(Process, Sample)> = on.collect();
        let answered = on.iter().filter(|(_, sample)| sample.last_seen >= request.created);
        let refused =
            answered.filter_map(|(process, sample)| Some((process, sample, sample.refused_requests.get(&request.id)?)));
        if let Some((process, sample, refusal)) = refused.max_by_key(|(_, sample, _)| sample.last_seen) {
            let who = who(process);
            let text = format!("{who} {} ago: {}, {}", age(sample.last_seen, now_ms), refusal.verdict, refusal.reason);
            return why(text, &format!("{who} {} {:?}", refusal.verdict, refusal.guard));
        }
        if let Some((process, sample)) = on.iter().find(|(_, sample)| sample.last_seen >= request.created) {
            let polled = format!("{} polled {} ago", who(process), age(sample.last_seen, now_ms));
            // Under the lease, more may refuse than a decision knows. Of another request, the reason is none of this one.
            let text = match without_asking(&sample.reason, request) {
                Some(reason) if !reason.is_empty() => format!("{polled}: {}, {reason}", sample.verdict),
                _ => format!("{polled} and did something else first; the request is next in line"),
            };
            return why(text, "turn");
        }
        let have = if on.len() == 1 { "has" } else { "have" };
        why(format!("{} {have} not polled since the request", named(on.iter().map(|(process, _)| process))), "poll")
    }

    // Asks if the role, or the name, of a process that polls was meant.
    fn meant(&self, request: &Request) -> Option<String> {
        let similar = |option: &str, wanted: Option<&str>, of: fn(&Process) -> &str| {
            let wanted = wanted?;
            let known: Vec<&str> = self.polling.iter().map(|(process, _)| of(process)).collect();
            let meant = names::similar(wanted, known.iter().copied().filter(|name| !name.is_empty()))?;
            Some(format!("--{option} {}: {meant}", printable(wanted)))
        };
        similar("role", request.role.as_deref(), |process| &process.role)
            .or_else(|| similar("name", request.name.as_deref(), |process| &process.name))
    }
}

/// Returns the capture that is being taken for a request.
pub fn in_progress(store: &Store, request: &Request) -> Option<Id> {
    request.capture.filter(|capture| is_staged(store, capture))
}

fn is_staged(store: &Store, capture: &Id) -> bool {
    store.staging(capture).stat().is_ok()
}

fn polling(processes: &[(Process, Sample)]) -> String {
    named(processes.iter().map(|(process, _)| process))
}

// Names at most three.
fn named<'p>(processes: impl Iterator<Item = &'p Process>) -> String {
    let mut all: Vec<String> = processes.map(who).collect();
    let more = all.len().saturating_sub(3);
    all.truncate(3);
    if more > 0 { format!("{} and {more} more", all.join(", ")) } else { all.join(", ") }
}

fn who(process: &Process) -> String {
    format!("{} (pid {})", output::who(&process.role, &process.name), process.id.pid)
}
