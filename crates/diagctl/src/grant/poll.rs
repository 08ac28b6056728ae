//! One poll: decides under the state lock, and writes what the decision changes.

use std::collections::BTreeMap;

use crate::context::Context;
use crate::decide::{self, Answer, Decision, Verdict};
use crate::guard::Figures;
use crate::probe;
use crate::readings::ExecAnswer;
use crate::recording::{self, Recorded};
use crate::state::files::{
    LastRun, forget_old_samples, load_execs, load_sample, load_state, save_execs, save_sample, waiting_requests,
};
use crate::state::{self, State};
use crate::trigger::Exec;
use diagctl_store::Process;
use diagctl_store::Result;
use diagctl_store::{Store, events};

use super::begin::Applicant;

impl Applicant<'_> {
    /// Decides under the state lock and saves the changes. Also returns the reason if the store is paused, and the generation
    /// in which the decision was made.
    pub fn decide(&self) -> Result<(Decision, Option<String>, u64)> {
        let figures = self.figures()?;
        let guard = self.store.lock()?;
        let (mut before, fresh) = load_state(self.store)?;
        let now = self.cx.now(&before);
        let pid = self.process.pid;
        let last = load_sample(self.store, pid);
        let requests = waiting_requests(self.store, now.store_ms)?;
        let fresh = self.give_up_pairs(&mut before, now.store_ms) || fresh;
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
        // The outcome of a plan is not known yet; `note` records it later.
        if decision.plans.is_empty() || paused.is_some() {
            let sample = &mut decision.changes.sample;
            verdict.name().clone_into(&mut sample.verdict);
            sample.reason = reason;
        }
        save_sample(self.store, pid, &decision.changes.sample)?;
        if last.is_none() {
            // The process is new, so this is a good moment to forget processes that it may have replaced.
            forget_old_samples(self.store, now.store_ms);
        }
        let recorded = Recorded::of(self.process, self.readings, now.store_ms);
        recording::append(self.store, self.cx.config().retention.max_use, &recorded);
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
            let event = events::Event { rule: dropped.rule.clone(), pid, ..about };
            events::record(self.store, &event);
        }
        self.cx.debug(|| format!("state.lock was held for {} µs", guard.held().as_micros()));
        Ok((decision, paused, generation))
    }

    // Gives up pairs whose process has stopped polling, because the second capture must be of the same process. Returns true if
    // a pair was given up.
    fn give_up_pairs(&self, state: &mut State, now_ms: u64) -> bool {
        let poll_ms = self.cx.config().poll_ms();
        let mut given_up = false;
        for marks in state.rules.values_mut() {
            let Some(pair) = marks.pair.filter(|pair| pair.pid != self.process.pid) else { continue };
            let owner = load_sample(self.store, pair.pid);
            if !owner.is_some_and(|s| s.start_ticks == pair.start_ticks && s.is_fresh(now_ms, poll_ms)) {
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
        if let Some(mut sample) = load_sample(self.store, self.process.pid) {
            news = sample.verdict != answer.verdict.name();
            answer.verdict.name().clone_into(&mut sample.verdict);
            sample.reason.clone_from(&answer.reason);
            if answer.verdict == Verdict::Busy {
                sample.keep_events(sample.last_seen, self.cx.config().poll_ms());
            }
            save_sample(self.store, self.process.pid, &sample)?;
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
                pid: self.process.pid,
                observed: answer.observed.clone(),
                ..events::Event::about(event, "", &answer.reason)
            },
        );
    }
}

/// Runs the commands of `exec` triggers that are due. Returns their answers and the last answers of all others. Each command is
/// claimed under the lock and run outside it, so that only one of several processes runs it.
pub fn run_commands(cx: &Context, store: &Store, process: &Process) -> Result<BTreeMap<String, ExecAnswer>> {
    let rules = cx.config().rules.iter().filter(|rule| rule.matching.accepts(&process.role, &process.name));
    let declared: Vec<(String, &Exec)> = rules
        .flat_map(|rule| {
            let execs = rule.trigger.execs(rule.trigger.name());
            execs.into_iter().map(|(path, exec)| (format!("{}|{path}", rule.name), exec))
        })
        .collect();
    if declared.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut answers = BTreeMap::new();
    let mut due: Vec<(String, &Exec)> = Vec::new();
    {
        let _guard = store.lock()?;
        let (state, _) = load_state(store)?;
        let now_ms = cx.now(&state).store_ms;
        let mut last_runs = load_execs(store);
        for (key, exec) in declared {
            let last = last_runs.remove(&key);
            if last.as_ref().is_none_or(|last| now_ms.saturating_sub(last.at) >= exec.every_ms) {
                last_runs.insert(key.clone(), LastRun { at: now_ms, answer: None });
                due.push((key, exec));
            } else if let Some(last) = last {
                answers.extend(last.answer.clone().map(|answer| (key.clone(), ExecAnswer { past: true, ..answer })));
                last_runs.insert(key, last);
            }
        }
        if !due.is_empty() {
            save_execs(store, &last_runs)?;
        }
    };
    if due.is_empty() {
        return Ok(answers);
    }
    let new = probe::run(due);
    probe::kill_remains();
    // The answers are saved for people; the poll uses them even if they cannot be saved.
    let _ = remember(store, &new);
    answers.extend(new);
    Ok(answers)
}

fn remember(store: &Store, answers: &BTreeMap<String, ExecAnswer>) -> Result<()> {
    let _guard = store.lock()?;
    let mut last_runs = load_execs(store);
    for (key, answer) in answers {
        last_runs.entry(key.clone()).or_default().answer = Some(answer.clone());
    }
    save_execs(store, &last_runs)
}
