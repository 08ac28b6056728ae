//! One poll: decides under the state lock, and writes what the decision changes.

use std::collections::BTreeSet;

use crate::history::{self, Recorded};
use crate::rules::decide::{self, Answer, Decision, Verdict};
use crate::rules::guard::Figures;
use crate::rules::limit;
use crate::state::files::{
    forget_old_samples, load_sample, load_samples, load_state, save_sample, take_older_sample, waiting_requests,
};
use crate::state::schedule::{self as state, RuleState, State};
use diagctl_store::Result;
use diagctl_store::events;

use super::begin::Applicant;

/// The outcome of a poll's decision.
pub struct Decided {
    /// The decision.
    pub decision: Decision,
    /// The reason if the store is paused.
    pub paused: Option<String>,
    /// The generation in which the decision was made.
    pub generation: u64,
    /// True if the dump of the last grant must be over and was neither published nor given up.
    pub overdue: bool,
}

impl Applicant<'_> {
    /// Decides under the state lock and saves the changes.
    pub fn decide(&self) -> Result<Decided> {
        let figures = self.figures()?;
        let guard = self.store.lock()?;
        let (mut before, fresh) = load_state(self.store)?;
        if fresh {
            self.forget_needless(&mut before);
        }
        let now = self.cx.now(&before);
        let id = &self.process.id;
        let last = load_sample(self.store, id).or_else(|| take_older_sample(self.store, id));
        let requests = waiting_requests(self.store, now.store_ms)?;
        let mut fresh = self.give_up_pairs(&mut before, now.store_ms) || fresh;
        if last.is_none() {
            // The process is new, so this is a good moment to forget processes that it may have replaced.
            forget_old_samples(self.store, now.store_ms);
            fresh = self.forget_the_gone(&mut before) || fresh;
        }
        let figures = Figures { clock_stepped_back_ms: now.stepped_back_ms, ..figures };
        let mut decision = decide::decide(self.inputs(&requests, &figures, &now, &before, last.as_ref()));
        let last = last.map(|sample| sample.verdict);
        let state = &decision.changes.state;
        let strongest = decision.strongest();
        let paused = state.paused.as_ref().filter(|p| p.holds(now.store_ms)).map(|p| p.reason(now.store_ms));
        let (verdict, reason) = match &paused {
            Some(reason) => (Verdict::Disabled, reason.clone()),
            None => (strongest.verdict, strongest.reason.clone()),
        };
        // A timer set for the first time or a re-armed level must survive; an ordinary poll need not.
        if fresh || *state != before {
            state::save(self.store.dir(), state)?;
        }
        let generation = state.generation;
        let overdue = state.lease_until.as_ref().is_some_and(|until| until.is_over(&now.clock));
        // The outcome of a plan is not known yet; `note` records it later.
        if decision.plans.is_empty() || paused.is_some() {
            let sample = &mut decision.changes.sample;
            verdict.name().clone_into(&mut sample.verdict);
            sample.reason = reason;
        }
        save_sample(self.store, &decision.changes.sample)?;
        let recorded = Recorded::of(self.process, self.readings, now.store_ms);
        history::append(self.store, self.cx.config().retention.max_use, &recorded);
        // A refusal is logged once, when it begins; a grant is logged when it is made.
        let news = last.is_none_or(|last| last != verdict.name());
        if paused.is_none() && news && verdict > Verdict::Idle && verdict < Verdict::Granted {
            self.tell(&strongest);
        }
        for answer in decision.answers.iter().filter(|answer| answer.dry_run && paused.is_none()) {
            self.record("dry_run", answer);
        }
        for dropped in &decision.dropped {
            let about = events::Event::about("event_dropped", "", &dropped.reason);
            let event = events::Event { rule: dropped.rule.clone(), pid: id.pid, ..about };
            events::record(self.store, &event);
        }
        self.cx.debug(|| format!("state.lock was held for {} µs", guard.held().as_micros()));
        Ok(Decided { decision, paused, generation, overdue })
    }

    // A state that was lost is put together from all captures, which may be very many. Every poll reads it.
    fn forget_needless(&self, state: &mut State) {
        for (name, marks) in &mut state.rules {
            let rule = self.cx.config().rules.iter().find(|rule| *rule.name == **name);
            limit::forget_needless(rule.map(|rule| &rule.limits), marks);
        }
    }

    // Every poll reads the state, which must not grow with each process that ever crossed a level. Returns true if it changed.
    fn forget_the_gone(&self, state: &mut State) -> bool {
        if !state.rules.values().any(RuleState::has_marks_of_processes) {
            return false;
        }
        let known: BTreeSet<String> =
            load_samples(self.store).processes.keys().map(diagctl_observe::ProcessId::key).collect();
        let before = state.rules.clone();
        state.rules.values_mut().for_each(|marks| marks.forget_processes(|process| known.contains(process)));
        state.rules != before
    }

    // Gives up pairs whose process has stopped polling, because the second capture must be of the same process. Returns true if
    // a pair was given up.
    fn give_up_pairs(&self, state: &mut State, now_ms: u64) -> bool {
        let poll_ms = self.cx.config().poll_ms();
        let mut given_up = false;
        for marks in state.rules.values_mut() {
            let Some(pair) = marks.pair.as_ref().filter(|pair| !pair.process.is(&self.process.id)) else { continue };
            let owner = load_sample(self.store, &pair.process);
            if !owner.is_some_and(|s| s.id().is(&pair.process) && s.is_fresh(now_ms, poll_ms)) {
                marks.pair = None;
                given_up = true;
            }
        }
        given_up
    }

    /// Records the final answer in the process's sample, and logs a refusal if it is new.
    pub fn note(&self, answer: &Answer) -> Result<()> {
        let _guard = self.store.lock()?;
        let mut news = true;
        if let Some(mut sample) = load_sample(self.store, &self.process.id) {
            news = sample.verdict != answer.verdict.name();
            answer.verdict.name().clone_into(&mut sample.verdict);
            sample.reason.clone_from(&answer.reason);
            if answer.verdict == Verdict::Busy {
                sample.keep_events(sample.last_seen, self.cx.config().poll_ms());
            }
            save_sample(self.store, &sample)?;
        }
        if news || answer.verdict == Verdict::Granted {
            self.tell(answer);
        }
        Ok(())
    }

    fn tell(&self, answer: &Answer) {
        self.record("verdict", answer);
    }

    fn record(&self, event: &str, answer: &Answer) {
        events::record(
            self.store,
            &events::Event {
                verdict: answer.verdict.name().into(),
                rule: answer.rule.clone(),
                pid: self.process.id.pid,
                pid_ns: self.process.id.pid_ns,
                start_ticks: self.process.id.start_ticks,
                observed: answer.observed.clone(),
                ..events::Event::about(event, "", &answer.reason)
            },
        );
    }
}
