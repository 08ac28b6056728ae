//! The one way from a decision to a capture, for `acquire` and `run` alike.
//!
//! The caller holds the lease and brings plans. The first plan that passes every check is charged and set up. The checks are:
//! pause, the generation in which the plan was decided, guards, the request that the plan serves, and room under the cap. The
//! charge is durable before anything is set up, so a crash in between loses a capture but never takes one twice.

use std::borrow::Cow;

use diagctl_observe::pressure::cpu_pressure;

use crate::clock::Now;
use crate::context::Context;
use crate::reports::Source;
use crate::rules::decide::{self, Answer, Inputs, Plan, Verdict};
use crate::rules::guard::{self, Figures};
use crate::rules::memory::Metric;
use crate::rules::readings::Readings;
use crate::state::files::{load_sample, load_samples, load_state, save_sample};
use crate::state::samples::{Sample, Samples};
use crate::state::schedule::{self as state, LeaseUntil, MAX_GENERATION, State};
use crate::units::{self, size};
use diagctl_store::Process;
use diagctl_store::Result;
use diagctl_store::requests::Request;
use diagctl_store::staging::Grant;
use diagctl_store::{Store, cleanup, encryption_record, index, lease, requests};

use super::{capture, leftovers};

/// A process that asks for a capture, with the store that it asks.
#[derive(Clone, Copy)]
pub struct Applicant<'a> {
    /// The configuration, and the roots to read from.
    pub cx: &'a Context,
    /// The store.
    pub store: &'a Store,
    /// The process to be captured.
    pub process: &'a Process,
    /// The readings taken of it.
    pub readings: &'a Readings,
    /// The name of this machine, if a rule needs it.
    pub host: &'a str,
    /// A random number.
    pub seed: u64,
}

/// The answer to an attempt to begin.
pub enum Begun {
    /// The capture is staged, and the applicant may fill it.
    Yes {
        /// The granted plan.
        plan: Plan,
        /// The staged grant.
        grant: Box<Grant>,
    },
    /// No plan passed the checks; the refusal of the first plan.
    No(Answer),
}

/// Begins the capture of the first plan that passes every check. `decided_in` is the generation of the state in which the plans
/// were made. A plan made under the lease has none.
///
/// The caller holds the lease, so everything else in staging belongs to dumpers that died and is cleared away.
pub fn begin(applicant: Applicant<'_>, plans: &[Plan], decided_in: Option<u64>) -> Result<Begun> {
    let Applicant { cx, store, process, .. } = applicant;
    leftovers::clear(cx, store, None)?;
    // A poll reads only the figures that its rules need. The guards need more.
    let wanted = cx.config().wanted();
    let readings = applicant.readings.with_available_memory(&cx.proc, &cx.cgroups, process.id.pid, wanted);
    let applicant = Applicant { readings: &readings, ..applicant };
    let mut refusal = None;
    for plan in plans {
        match applicant.refusal(plan, decided_in)? {
            Some(answer) => _ = refusal.get_or_insert(answer),
            None => {
                let grant = Box::new(applicant.set_up(plan)?);
                return Ok(Begun::Yes { plan: plan.clone(), grant });
            }
        }
    }
    Ok(Begun::No(refusal.unwrap_or_else(|| Answer::plain(Verdict::Idle, "nothing is due any more".into()))))
}

impl<'a> Applicant<'a> {
    // Repeats the checks: between the decision and the lease, another process may have captured or a person may have paused.
    fn refusal(&self, plan: &Plan, decided_in: Option<u64>) -> Result<Option<Answer>> {
        let (state, now) = self.cx.peek(self.store)?;
        let of_rule = |verdict, reason| Answer { rule: plan.rule.to_string(), ..Answer::plain(verdict, reason) };
        let guarded = |guard, reason| Answer { guard: Some(guard), ..of_rule(Verdict::Guarded, reason) };
        if let Some(pause) = state.paused.as_ref().filter(|pause| pause.holds(now.store_ms)) {
            return Ok(Some(Answer::plain(Verdict::Disabled, pause.reason(now.store_ms))));
        }
        if decided_in.is_some_and(|generation| generation != state.generation) {
            let reason = "another process has just captured; the next poll decides anew".to_owned();
            return Ok(Some(of_rule(Verdict::Busy, reason)));
        }
        let cost = |name: &str| state.costs.get(&format!("{}/{name}", self.process.role)).copied();
        let figures = Figures { clock_stepped_back_ms: now.stepped_back_ms, ..self.figures()? };
        if let Some(refusal) = guard::check(&self.cx.config().guards, &figures, &plan.reports, cost) {
            if now.stepped_back_ms.is_some() {
                self.accept_clock()?;
            }
            // The answer to a poll names the reason for the plan. For a person who typed a command, that reason is no news.
            let reason = decided_in.map_or_else(String::new, |_| format!("{}; ", plan.reason)) + &refusal.reason;
            return Ok(Some(guarded(refusal.guard, reason)));
        }
        if let Some(id) = &plan.request
            && requests::read(self.store, id).is_none()
        {
            return Ok(Some(of_rule(Verdict::Idle, "the request was given up after several attempts".into())));
        }
        // Walks the store without holding a lock: only the holder of the lease captures.
        let incoming = guard::expected_bytes(&plan.reports, cost);
        Ok(self.lack_of_room(&now, incoming)?.map(|reason| guarded("store", reason)))
    }

    // Accepts the clock that was set back, so that the next attempt passes. (A poll accepts it when it decides.)
    fn accept_clock(&self) -> Result<()> {
        let _guard = self.store.lock()?;
        let (mut state, _) = load_state(self.store)?;
        state.clock = Some(self.cx.now(&state).anchor());
        state::save(self.store.dir(), &state)
    }

    // Explains why the expected bytes do not fit under the cap, even after everything unprotected is deleted.
    fn lack_of_room(&self, now: &Now, incoming: u64) -> Result<Option<String>> {
        let config = self.cx.config();
        let used = cleanup::admit(self.store, now, incoming)?;
        let cap = config.retention.max_use;
        if used.saturating_add(incoming) <= cap {
            return Ok(None);
        }
        Ok(Some(format!(
            "the store holds {} of retention.max_use {}, the capture needs about {}, and what is left is protected (pinned, or the last of its kind)",
            size(used),
            size(cap),
            size(incoming)
        )))
    }

    fn set_up(&self, plan: &Plan) -> Result<Grant> {
        let figures = self.figures()?;
        let least = self.last_generation()?;
        let (now, generation) = {
            let _guard = self.store.lock()?;
            let (mut state, _) = load_state(self.store)?;
            state.generation = state.generation.max(least);
            let now = self.cx.now(&state);
            let sample = load_sample(self.store, &self.process.id);
            let mut changes = decide::charge(self.inputs(&[], &figures, &now, &state, sample.as_ref()), plan);
            // The answered events are saved before the charge, so a crash in between loses a capture but never takes one twice.
            if sample.is_some() {
                save_sample(self.store, &changes.sample)?;
            }
            changes.state.lease_until = Some(LeaseUntil::of(&now.clock, units::ms(self.cx.config().guards.deadline)));
            state::save(self.store.dir(), &changes.state)?;
            (now, changes.state.generation)
        };
        let encryption = self.cx.config().encrypt.as_deref();
        encryption_record::note(self.store, encryption, &self.cx.loaded.why_plain())?;
        capture::begin(self.store, self.cx.config(), self.source(), self.process, plan, generation, &now)
    }

    // The number of the last grant, as far as anything but state.json tells. That file may have been restored from a backup: a
    // capture with a lower number than older ones would count as old, and be the first to be deleted.
    fn last_generation(&self) -> Result<u64> {
        let newest = index::summary(self.store)?.latest.map_or(0, |entry| entry.sequence);
        let granted = lease::read_record(self.store.dir())?.map_or(0, |record| record.generation);
        Ok(newest.max(granted.min(MAX_GENERATION)))
    }

    /// The source of the process's native reports.
    pub fn source(&self) -> Source<'a> {
        Source { proc: &self.cx.proc, cgroups: &self.cx.cgroups, pid: self.process.id.pid }
    }

    /// The inputs of a decision about this process.
    pub fn inputs<'i>(
        &'i self,
        requests: &'i [Request],
        figures: &'i Figures,
        now: &'i Now,
        state: &'i State,
        sample: Option<&'i Sample>,
    ) -> Inputs<'i> {
        Inputs {
            settings: self.cx.config().settings(),
            process: self.process,
            readings: self.readings,
            requests,
            figures,
            host: self.host,
            now,
            seed: self.seed,
            state,
            sample,
            others: self,
        }
    }

    /// The figures for the guards, except the clock.
    pub fn figures(&self) -> Result<Figures> {
        let (free_disk, total_disk) = self.store.space()?;
        let wanted = self.cx.config().guards.max_cpu_pressure.is_some();
        Ok(Figures {
            rss: self.readings.memory.get(Metric::Rss).unwrap_or(0),
            available_memory: self.readings.memory.available,
            free_disk,
            total_disk,
            cpu_pressure: if wanted {
                cpu_pressure(&self.cx.proc, &self.cx.cgroups, self.process.id.pid)
            } else {
                None
            },
            clock_stepped_back_ms: None,
        })
    }
}

impl decide::Others for Applicant<'_> {
    fn samples(&self) -> Cow<'_, Samples> {
        Cow::Owned(load_samples(self.store))
    }
}

#[cfg(test)]
mod tests;
