//! One poll, from the readings to the grant: decide under the state lock, take what the lease allows, and write the charge
//! before anything is granted.

use std::collections::BTreeMap;

use crate::capture;
use crate::clock::Now;
use crate::collect::Source;
use crate::context::Context;
use crate::decide::{self, Answer, Decision, Input, Plan, Process, Verdict};
use crate::error::Failure;
use crate::guard::Figures;
use crate::probe;
use crate::readings::{ExecAnswer, Readings, cpu_pressure};
use crate::recording::{self, Recorded};
use crate::sample::Metric;
use crate::state::{self, State};
use crate::store::requests::Request;
use crate::store::state_files::{
    LastRun, forget_old_samples, load_execs, load_own_sample, load_samples, load_state, save_execs, save_sample,
    waiting_requests,
};
use crate::store::{Store, events, requests, sweep};
use crate::trigger::Exec;

/// What came of a plan once the lease was had.
pub enum Granted {
    /// It was begun.
    Yes {
        /// What is to be captured.
        plan: Box<Plan>,
        /// The id.
        capture: String,
        /// Milliseconds until the next poll.
        retry_ms: u64,
    },
    /// Something spoke against it at the last moment; with the milliseconds until the next poll.
    No(Answer, u64),
}

/// What one poll works on.
#[derive(Clone, Copy)]
pub struct Poll<'a> {
    /// Configuration and where to read.
    pub cx: &'a Context,
    /// The store.
    pub store: &'a Store,
    /// Who polls.
    pub process: &'a Process,
    /// What was read for it.
    pub readings: &'a Readings,
    /// This machine, where a rule asks for it.
    pub host: &'a str,
    /// A random number.
    pub seed: u64,
}

impl Poll<'_> {
    /// Decides under the state lock and keeps what the poll taught. With it, the reason when the store is paused, and the
    /// generation that it was decided in.
    pub fn decide(&self) -> Result<(Decision, Option<String>, u64), Failure> {
        let figures = self.figures()?;
        let guard = self.store.lock()?;
        let (mut state, fresh) = load_state(self.store)?;
        let now = self.cx.now(&state);
        let pid = self.process.pid;
        let mut samples = load_own_sample(self.store, pid);
        let requests = waiting_requests(self.store, now.store_ms)?;
        let before = state.clone();
        self.give_up_pairs(&mut state, now.store_ms);
        let fresh = fresh || state != before;
        let before = state.clone();
        let last = samples.processes.get(&self.process.pid).map(|s| s.verdict.clone());
        let figures = Figures { clock_stepped_back_ms: now.stepped_back_ms, ..figures };
        let input = self.input(&requests, &figures, &now);
        let mut decision = decide::decide(input, &mut state, &mut samples);
        if decision.needs_others {
            state = before.clone();
            samples = load_samples(self.store);
            decision = decide::decide(input, &mut state, &mut samples);
        }
        let strongest = decision.strongest();
        let paused = state.paused.as_ref().filter(|p| p.holds(now.store_ms)).map(|p| p.reason(now.store_ms));
        let (verdict, reason) = match &paused {
            Some(reason) => (Verdict::Disabled, reason.clone()),
            None => (strongest.verdict, strongest.reason.clone()),
        };
        // Whether a plan becomes a grant is not known yet; `note` keeps what it became.
        if (decision.plans.is_empty() || paused.is_some())
            && let Some(sample) = samples.processes.get_mut(&self.process.pid)
        {
            verdict.name().clone_into(&mut sample.verdict);
            sample.reason = reason;
        }
        // A timer that was set for the first time, or a level armed again, must survive; a mere poll need not.
        if fresh || state != before {
            state::save(self.store.dir(), &state)?;
        }
        save_sample(self.store, pid, &samples)?;
        if last.is_none() {
            // A process that is new here: a good moment to forget those that it may have replaced.
            forget_old_samples(self.store, now.store_ms);
        }
        let recorded = Recorded::of(self.process, self.readings, now.store_ms);
        recording::append(self.store, self.cx.config().retention.max_use, &recorded);
        // A refusal is told once, when it begins; a grant is told when it is one.
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
        Ok((decision, paused, state.generation))
    }

    // The second capture of a pair is of the same process: when that has stopped polling, nobody is kept waiting for it.
    fn give_up_pairs(&self, state: &mut State, now_ms: u64) {
        let poll_ms = self.cx.config().poll_ms();
        for marks in state.rules.values_mut() {
            let Some(pair) = marks.pair.filter(|pair| pair.pid != self.process.pid) else { continue };
            let owner = load_own_sample(self.store, pair.pid).processes.remove(&pair.pid);
            if !owner.is_some_and(|s| s.start_ticks == pair.start_ticks && s.is_fresh(now_ms, poll_ms)) {
                marks.pair = None;
            }
        }
    }

    /// Under the lease: clears what dead dumpers left, makes room, and writes the charge before anything is granted.
    pub fn grant(&self, decision: &Decision, generation: u64) -> Result<Granted, Failure> {
        let (cx, process) = (self.cx, self.process);
        let config = cx.config();
        sweep::clear_staging(self.store)?;
        // Before the lease only what rules look at was read; the guards look at more.
        let readings = self.readings.with_available_memory(&cx.proc, &cx.cgroups, process.pid, &config.rules);
        let full = Poll { readings: &readings, ..*self };
        let mut refusal = None;
        for plan in &decision.plans {
            let answer = match full.check(plan, generation)? {
                Some(answer) => Some(answer),
                // Walks the store, and so is not done under the state lock: nobody but the holder of the lease captures.
                None => full.admit(plan)?,
            };
            match answer {
                Some(answer) => _ = refusal.get_or_insert(answer),
                None => return full.begin(plan, decision.retry_ms),
            }
        }
        let refusal = refusal.unwrap_or_else(|| Answer::plain(Verdict::Idle, "nothing is due any more".into()));
        Ok(Granted::No(refusal, decision.retry_ms))
    }

    // The last look. Between the decision and the lease somebody else may have captured, or a person may have paused: what
    // was decided then no longer holds, and the next poll decides anew.
    fn check(&self, plan: &Plan, generation: u64) -> Result<Option<Answer>, Failure> {
        let (state, now) = self.cx.peek(self.store)?;
        let figures = Figures { clock_stepped_back_ms: now.stepped_back_ms, ..self.figures()? };
        let of_rule = |verdict, reason| Answer { rule: plan.rule.clone(), ..Answer::plain(verdict, reason) };
        if let Some(pause) = state.paused.as_ref().filter(|pause| pause.holds(now.store_ms)) {
            return Ok(Some(Answer::plain(Verdict::Disabled, pause.reason(now.store_ms))));
        }
        if state.generation != generation {
            let reason = "another process has just captured; the next poll decides anew".to_owned();
            return Ok(Some(of_rule(Verdict::Busy, reason)));
        }
        if let Some(refusal) = decide::check_guards(self.input(&[], &figures, &now), &plan.reports, &state.costs) {
            let refused = of_rule(Verdict::Guarded, format!("{}; {}", plan.reason, refusal.reason));
            return Ok(Some(Answer { guard: Some(refusal.guard), ..refused }));
        }
        if let Some(id) = &plan.request
            && requests::read(self.store, id).is_none()
        {
            return Ok(Some(of_rule(Verdict::Idle, "the request was given up after several attempts".into())));
        }
        Ok(None)
    }

    // The charge is durable before the capture is begun.
    fn begin(&self, plan: &Plan, retry_ms: u64) -> Result<Granted, Failure> {
        let figures = self.figures()?;
        let (now, generation) = {
            let _guard = self.store.lock()?;
            let (mut state, _) = load_state(self.store)?;
            let now = self.cx.now(&state);
            let mut samples = load_own_sample(self.store, self.process.pid);
            decide::charge(self.input(&[], &figures, &now), plan, &mut state, &mut samples);
            // First what was answered, then the charge: a crash in between loses a capture and never takes one twice.
            save_sample(self.store, self.process.pid, &samples)?;
            state::save(self.store.dir(), &state)?;
            (now, state.generation)
        };
        let source = Source { proc: &self.cx.proc, cgroups: &self.cx.cgroups, pid: self.process.pid };
        let grant = capture::begin(self.store, self.cx.config(), source, self.process, plan, generation, &now)?;
        capture::collect_native(self.store, self.cx.config(), source, &grant)?;
        self.note(&Answer {
            rule: plan.rule.clone(),
            observed: plan.observed.clone(),
            ..Answer::plain(Verdict::Granted, plan.reason.clone())
        })?;
        Ok(Granted::Yes { plan: Box::new(plan.clone()), capture: grant.meta.id, retry_ms })
    }

    /// Keeps what the process was told in the end, and tells a refusal that is news.
    pub fn note(&self, answer: &Answer) -> Result<(), Failure> {
        let _guard = self.store.lock()?;
        let mut samples = load_own_sample(self.store, self.process.pid);
        let mut news = true;
        if let Some(sample) = samples.processes.get_mut(&self.process.pid) {
            news = sample.verdict != answer.verdict.name();
            answer.verdict.name().clone_into(&mut sample.verdict);
            sample.reason.clone_from(&answer.reason);
            if answer.verdict == Verdict::Busy {
                sample.keep_events(sample.last_seen, self.cx.config().poll_ms());
            }
        }
        save_sample(self.store, self.process.pid, &samples)?;
        if news || answer.verdict == Verdict::Granted {
            self.tell(answer);
        }
        Ok(())
    }

    // Retention before a grant: what is expected must fit under the cap without deleting what is protected.
    fn admit(&self, plan: &Plan) -> Result<Option<Answer>, Failure> {
        let config = self.cx.config();
        let (state, now) = self.cx.peek(self.store)?;
        let role = &self.process.role;
        let incoming =
            crate::guard::expected_bytes(&plan.reports, |name| state.costs.get(&format!("{role}/{name}")).copied());
        let used = sweep::admit(self.store, config, &now, incoming)?;
        let cap = config.retention.max_use;
        if used.saturating_add(incoming) <= cap {
            return Ok(None);
        }
        let reason = format!(
            "the store holds {} of retention.max_use {}, the capture needs about {}, and what is left is protected (pinned, or the last of its kind)",
            crate::units::size(used),
            crate::units::size(cap),
            crate::units::size(incoming)
        );
        let guarded = Answer::plain(Verdict::Guarded, reason);
        Ok(Some(Answer { guard: Some("store"), rule: plan.rule.clone(), ..guarded }))
    }

    fn input<'i>(&'i self, requests: &'i [Request], figures: &'i Figures, now: &'i Now) -> Input<'i> {
        Input {
            config: self.cx.config(),
            process: self.process,
            readings: self.readings,
            requests,
            figures,
            host: self.host,
            now,
            seed: self.seed,
        }
    }

    fn figures(&self) -> Result<Figures, Failure> {
        let (free_disk, total_disk) = self.store.space()?;
        let wanted = self.cx.config().guards.max_cpu_pressure.is_some();
        Ok(Figures {
            rss: self.readings.memory.get(Metric::Rss).unwrap_or(0),
            available_memory: self.readings.memory.available,
            free_disk,
            total_disk,
            cpu_pressure: if wanted { cpu_pressure(&self.cx.proc, &self.cx.cgroups, self.process.pid) } else { None },
            clock_stepped_back_ms: None,
        })
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

/// Runs the commands of `exec` triggers that are due, and returns their answers and the last ones of all others. Each is claimed
/// under the lock and run outside it: of several processes that poll at once, one runs it.
pub fn run_commands(cx: &Context, store: &Store, process: &Process) -> Result<BTreeMap<String, ExecAnswer>, Failure> {
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
    // For people: a poll that cannot tell them goes by its answers all the same.
    let _ = remember(store, &new);
    answers.extend(new);
    Ok(answers)
}

fn remember(store: &Store, answers: &BTreeMap<String, ExecAnswer>) -> Result<(), Failure> {
    let _guard = store.lock()?;
    let mut last_runs = load_execs(store);
    for (key, answer) in answers {
        last_runs.entry(key.clone()).or_default().answer = Some(answer.clone());
    }
    save_execs(store, &last_runs)
}
