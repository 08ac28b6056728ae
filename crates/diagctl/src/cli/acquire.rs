//! `acquire`: the plugin's poll. Samples the process, decides, takes the lease, and prints one JSON object.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::Context;
use super::output::Done;
use crate::capture;
use crate::clock::{Anchor, Reading};
use crate::collect::Source;
use crate::config::{self, Snapshot, Source as Origin};
use crate::decide::{self, Answer, Decision, Input, Plan, Process, Verdict};
use crate::error::Failure;
use crate::exit_code::Exit;
use crate::fsio;
use crate::guard::Figures;
use crate::lease::Lease;
use crate::probe;
use crate::readings::{ExecAnswer, Readings};
use crate::recording::{self, Recorded};
use crate::report::Producer;
use crate::sample::{Metric, Samples};
use crate::state::{self, Found, State};
use crate::store::requests::Request;
use crate::store::retention::Pressure;
use crate::store::{Access, Store, events, index, requests, sweep};
use crate::trigger::{Exec, is_application_name};

/// Ask whether a capture is due, and for the right to take it (for plugins)
///
/// Prints one JSON object. Status 0: granted, 10: not granted, the object says why.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Descriptor of <dir>/lease.lock, opened anew for this poll and inherited
    #[arg(long, value_name = "N")]
    lease_fd: i32,
    /// The process that polls
    #[arg(long, value_name = "PID")]
    pid: u32,
    /// What it does: puma, sidekiq, …
    #[arg(long, value_name = "ROLE", default_value = "process")]
    role: String,
    /// Its name within the role
    #[arg(long, value_name = "WORKER", default_value = "")]
    name: String,
    /// A number that the application hands in, for rules
    #[arg(long, value_name = "K=V")]
    gauge: Vec<String>,
    /// An event that the application names, for rules
    #[arg(long, value_name = "NAME")]
    event: Vec<String>,
}

#[derive(Serialize)]
struct Output<'a> {
    schema: u32,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    capture: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dir: Option<&'a std::path::Path>,
    #[serde(skip_serializing_if = "str::is_empty")]
    rule: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<&'a str>,
    reason: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    observed: &'a BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reports: Option<Vec<ReportWanted<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'a str>,
    retry_after: f64,
    poll_interval: f64,
}

#[derive(Serialize)]
struct ReportWanted<'a> {
    name: &'a str,
    producer: Producer,
    options: Map<String, Value>,
}

/// Runs the command.
pub fn run(cx: &Context, args: Args) -> Result<Done, Failure> {
    check_names(&args)?;
    let config = cx.config();
    if !config.enabled {
        let reason = match cx.loaded.sources.get("enabled") {
            Some(Origin::Default) | None => {
                "switched off by default: set DIAGCTL_ENABLED=1, or enabled = true".to_owned()
            }
            Some(origin) => format!("switched off: enabled = false ({origin})"),
        };
        return refused(cx, &answer(Verdict::Disabled, reason), 60_000.max(config.poll_ms()));
    }
    let store = cx.open(Access::Create)?;
    store.check_filesystem(config)?;
    config::keep_as_last_good(&cx.loaded, store.dir())?;
    let lease = Lease::inherited(args.lease_fd, store.dir(), store.owner())?;
    if lease.is_held()? {
        let reason = "this very description holds the lease already; open lease.lock anew for every poll".to_owned();
        return refused(cx, &answer(Verdict::Busy, reason), config.poll_ms());
    }
    let stat = cx.proc.stat(args.pid).map_err(|why| {
        Failure::new(Exit::Usage, format!("--pid {}: {why}", args.pid))
            .hint("give the pid of a running process, as it is seen in diagctl's pid namespace")
    })?;
    let process = Process { pid: args.pid, start_ticks: stat.start_ticks, role: args.role, name: args.name };
    let mut readings = Readings::take(&cx.proc, &cx.cgroups, process.pid, &config.rules);
    readings.gauges = gauges(&args.gauge);
    readings.events = args.event.into_iter().collect();
    readings.execs = run_commands(cx, &store, &process)?;
    // Only rules that are in force on a share of the machines ask which one this is.
    let host = if config.rules.iter().any(|rule| rule.sample < 100.0) { cx.proc.hostname() } else { String::new() };
    let poll =
        Poll { cx, store: &store, process: &process, readings: &readings, host: &host, seed: fsio::random_u64()? };

    let (decision, paused) = poll.decide()?;
    if let Some(reason) = paused {
        return refused(cx, &answer(Verdict::Disabled, reason), config.poll_ms());
    }
    if decision.plan.is_none() {
        return refused(cx, &decision.strongest(), decision.retry_ms);
    }
    if !lease.try_take()? {
        let holder = crate::lease::read_record(store.dir())?.filter(|record| !record.ended);
        let reason = holder.map_or_else(
            || "another process holds the lease".to_owned(),
            |r| format!("process {} ({} {}) holds the lease for capture {}", r.pid, r.role, r.worker, r.capture),
        );
        let busy = Answer { verdict: Verdict::Busy, reason, ..decision.strongest() };
        poll.note(&busy)?;
        return refused(cx, &busy, decision.retry_ms);
    }
    let granted = poll.grant(&lease);
    // Whatever was not granted gives the lease back; the process that passed it may live long.
    if !matches!(granted, Ok(Granted::Yes { .. })) {
        lease.release()?;
    }
    match granted? {
        Granted::Yes { plan, capture, retry_ms } => told(cx, &store, &plan, &capture, retry_ms),
        Granted::No(answer, retry_ms) => {
            poll.note(&answer)?;
            refused(cx, &answer, retry_ms)
        }
    }
}

fn check_names(args: &Args) -> Result<(), Failure> {
    for (flag, value, may_be_empty) in [("--role", &args.role, false), ("--name", &args.name, true)] {
        if value.len() > 128 || value.chars().any(char::is_control) || (value.is_empty() && !may_be_empty) {
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "{flag} {:?} is empty, longer than 128 bytes or has control characters",
                    crate::error::printable(value)
                ),
            )
            .hint("use a short word like puma or worker-0"));
        }
    }
    for gauge in &args.gauge {
        if parse_gauge(gauge).is_none() {
            let shown = crate::error::printable(gauge);
            return Err(Failure::new(Exit::Usage, format!("--gauge {shown:?} is not NAME=NUMBER"))
                .hint("write it like --gauge puma.backlog=3"));
        }
    }
    for event in &args.event {
        if !is_application_name(event) {
            let shown = crate::error::printable(event);
            return Err(Failure::new(
                Exit::Usage,
                format!("--event {shown:?} is empty, longer than 128 bytes or has blanks"),
            )
            .hint("use letters, digits, `.`, `_` and `-`"));
        }
    }
    Ok(())
}

fn gauges(args: &[String]) -> BTreeMap<String, f64> {
    args.iter().filter_map(|gauge| parse_gauge(gauge)).map(|(name, value)| (name.to_owned(), value)).collect()
}

fn parse_gauge(text: &str) -> Option<(&str, f64)> {
    let (name, value) = text.split_once('=')?;
    let value: f64 = value.trim().parse().ok()?;
    (is_application_name(name) && value.is_finite()).then_some((name, value))
}

fn answer(verdict: Verdict, reason: String) -> Answer {
    Answer { rule: String::new(), verdict, reason, guard: None, observed: Default::default(), wait_ms: None }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a wait")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn refused(cx: &Context, answer: &Answer, retry_ms: u64) -> Result<Done, Failure> {
    let done = Done::json(&Output {
        schema: 1,
        verdict: answer.verdict.name(),
        capture: None,
        dir: None,
        rule: &answer.rule,
        guard: answer.guard,
        reason: &answer.reason,
        observed: &answer.observed,
        reports: None,
        snapshot: None,
        deadline: None,
        warning: cx.loaded.broken.as_deref(),
        retry_after: seconds(retry_ms),
        poll_interval: seconds(cx.config().poll_ms()),
    })?;
    Ok(done.with_exit(Exit::NotGranted))
}

fn told(cx: &Context, store: &Store, plan: &Plan, capture: &str, retry_ms: u64) -> Result<Done, Failure> {
    let reports = plan
        .reports
        .iter()
        .map(|name| ReportWanted { name, producer: capture::producer(name), options: Map::new() })
        .filter(|report| report.producer != Producer::Native)
        .collect();
    Done::json(&Output {
        schema: 1,
        verdict: Verdict::Granted.name(),
        capture: Some(capture),
        dir: Some(&store.staging(capture)),
        rule: &plan.rule,
        guard: None,
        reason: &plan.reason,
        observed: &plan.observed,
        reports: Some(reports),
        snapshot: Some(match plan.snapshot {
            Snapshot::Fork => "fork",
            Snapshot::InProcess => "in_process",
        }),
        deadline: Some(cx.config().guards.deadline.as_secs_f64()),
        warning: cx.loaded.broken.as_deref(),
        retry_after: seconds(retry_ms.min(cx.config().poll_ms())),
        poll_interval: seconds(cx.config().poll_ms()),
    })
}

enum Granted {
    Yes { plan: Box<Plan>, capture: String, retry_ms: u64 },
    No(Answer, u64),
}

/// What one poll works on.
#[derive(Clone, Copy)]
struct Poll<'a> {
    cx: &'a Context,
    store: &'a Store,
    process: &'a Process,
    readings: &'a Readings,
    host: &'a str,
    seed: u64,
}

impl Poll<'_> {
    /// Decides under the state lock and keeps what the poll taught. `Some` reason when the store is paused.
    fn decide(&self) -> Result<(Decision, Option<String>), Failure> {
        let figures = self.figures()?;
        let _guard = self.store.lock()?;
        let (mut state, fresh) = load_state(self.store)?;
        let now = self.cx.now(&state);
        let mut samples = load_samples(self.store);
        let requests = waiting_requests(self.store, now.store_ms)?;
        let before = state.clone();
        let last = samples.processes.get(&self.process.pid).map(|s| s.verdict.clone());
        let figures = Figures { clock_stepped_back_ms: now.stepped_back_ms, ..figures };
        let input = self.input(&requests, &figures, &now);
        let decision = decide::decide(input, &mut state, &mut samples);
        let strongest = decision.strongest();
        let paused = state.paused.as_ref().filter(|p| p.holds(now.store_ms)).map(|p| p.reason(now.store_ms));
        let (verdict, reason) = match &paused {
            Some(reason) => (Verdict::Disabled, reason.clone()),
            None => (strongest.verdict, strongest.reason.clone()),
        };
        // Whether a plan becomes a grant is not known yet; `note` keeps what it became.
        if decision.plan.is_none()
            && let Some(sample) = samples.processes.get_mut(&self.process.pid)
        {
            verdict.name().clone_into(&mut sample.verdict);
            sample.reason = reason;
        }
        // A timer that was set for the first time, or a level armed again, must survive; a mere poll need not.
        if fresh || state != before {
            state::save(self.store.dir(), &state)?;
        }
        save_samples(self.store, &samples)?;
        let recorded = Recorded::of(self.process, self.readings, now.store_ms);
        recording::append(self.store, self.cx.config().retention.max_use, &recorded);
        // A refusal is told once, when it begins; a grant is told when it is one.
        let news = last.is_none_or(|last| last != verdict.name());
        if paused.is_none() && news && verdict > Verdict::Idle && verdict < Verdict::Granted {
            self.tell(&strongest);
        }
        Ok((decision, paused))
    }

    /// Under the lease: clears what dead dumpers left, makes room, decides once more with what is true now, and writes the
    /// charge before anything is granted.
    fn grant(&self, lease: &Lease) -> Result<Granted, Failure> {
        debug_assert!(lease.is_held().unwrap_or(true));
        let config = self.cx.config();
        sweep::clear_staging(self.store)?;
        // Before the lease only what rules look at was read; the guards look at more.
        let (cx, process) = (self.cx, self.process);
        let readings = self.readings.with_available_memory(&cx.proc, &cx.cgroups, process.pid, &config.rules);
        let full = Poll { readings: &readings, ..*self };
        let figures = full.figures()?;
        let (plan, decision, state) = {
            let _guard = self.store.lock()?;
            let (mut state, _) = load_state(self.store)?;
            let now = self.cx.now(&state);
            let mut samples = load_samples(self.store);
            let requests = waiting_requests(self.store, now.store_ms)?;
            let decision = decide::decide(full.input(&requests, &figures, &now), &mut state, &mut samples);
            // Between the decision and the lease somebody else may have captured: then the limits say no now.
            let Some(plan) = decision.plan.clone() else {
                return Ok(Granted::No(decision.strongest(), decision.retry_ms));
            };
            (plan, decision, state)
        };
        // Without the lock: it may take long, and nobody but the holder of the lease charges anything.
        if let Some(full) = self.admit(&plan, &state)? {
            return Ok(Granted::No(full, decision.retry_ms));
        }
        let (now, generation) = {
            let _guard = self.store.lock()?;
            let (mut state, _) = load_state(self.store)?;
            let now = self.cx.now(&state);
            decide::charge(full.input(&[], &figures, &now), &plan, &mut state);
            state::save(self.store.dir(), &state)?;
            (now, state.generation)
        };
        let source = Source { proc: &self.cx.proc, cgroups: &self.cx.cgroups, pid: self.process.pid };
        let grant = capture::begin(self.store, config, source, self.process, &plan, generation, &now)?;
        self.note(&Answer {
            rule: plan.rule.clone(),
            observed: plan.observed.clone(),
            ..answer(Verdict::Granted, plan.reason.clone())
        })?;
        Ok(Granted::Yes { plan: Box::new(plan), capture: grant.meta.id, retry_ms: decision.retry_ms })
    }

    /// Keeps what the process was told in the end, and tells a refusal that is news.
    fn note(&self, answer: &Answer) -> Result<(), Failure> {
        let _guard = self.store.lock()?;
        let mut samples = load_samples(self.store);
        let mut news = true;
        if let Some(sample) = samples.processes.get_mut(&self.process.pid) {
            news = sample.verdict != answer.verdict.name();
            answer.verdict.name().clone_into(&mut sample.verdict);
            sample.reason.clone_from(&answer.reason);
        }
        save_samples(self.store, &samples)?;
        if news || answer.verdict == Verdict::Granted {
            self.tell(answer);
        }
        Ok(())
    }

    // Retention before a grant: what is expected must fit under the cap without deleting what is protected.
    fn admit(&self, plan: &Plan, state: &State) -> Result<Option<Answer>, Failure> {
        let config = self.cx.config();
        let now = self.cx.now(state);
        let role = &self.process.role;
        let incoming =
            crate::guard::expected_bytes(&plan.reports, |name| state.costs.get(&format!("{role}/{name}")).copied());
        let verdicts = sweep::plan_now(config, self.store, &now, incoming, Pressure::Admission, None)?;
        sweep::apply(self.store, &verdicts)?;
        let used = sweep::used(self.store)?;
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
        let guarded = answer(Verdict::Guarded, reason);
        Ok(Some(Answer { guard: Some("store"), rule: plan.rule.clone(), ..guarded }))
    }

    fn input<'i>(&'i self, requests: &'i [Request], figures: &'i Figures, now: &'i crate::clock::Now) -> Input<'i> {
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
            cpu_pressure: if wanted { cpu_pressure(self.cx) } else { None },
            clock_stepped_back_ms: None,
        })
    }

    fn tell(&self, answer: &Answer) {
        events::record(
            self.store,
            &events::Event {
                verdict: answer.verdict.name().into(),
                rule: answer.rule.clone(),
                pid: self.process.pid,
                observed: answer.observed.clone(),
                ..events::Event::about("verdict", "", &answer.reason)
            },
        );
    }
}

// `some avg10=1.23 …` of /proc/pressure/cpu; a kernel without PSI has no such guard.
fn cpu_pressure(cx: &Context) -> Option<f64> {
    let text = cx.proc.read("pressure/cpu").ok()?;
    text.lines()
        .find(|line| line.starts_with("some"))?
        .split_whitespace()
        .find_map(|word| word.strip_prefix("avg10=")?.parse().ok())
}

/// The state, and whether it has to be written because it was not there. Limits must not be forgotten with a lost or
/// damaged file: they are put together again from the captures, which say when each was taken.
pub fn load_state(store: &Store) -> Result<(State, bool), Failure> {
    match state::load(store.dir())? {
        Found::State(state) => return Ok((*state, false)),
        Found::Nothing => {}
        Found::Damaged(why) => store.quarantine(&store.path("state.json"), &format!("state.json is damaged: {why}"))?,
    }
    let mut state = State::default();
    for entry in index::load(store, false)?.entries {
        state.generation = state.generation.max(entry.sequence);
        state.rules.entry(entry.rule).or_default().fires.push(entry.store_ms);
        let at = state.clock.get_or_insert_with(|| Anchor::place(None, Reading::take(String::new())).anchor());
        at.store_ms = at.store_ms.max(entry.store_ms);
    }
    Ok((state, true))
}

fn load_samples(store: &Store) -> Samples {
    let data = fsio::read_bounded(&store.path("samples.json"), 16 << 20).unwrap_or_default();
    serde_json::from_slice(&data).unwrap_or_default()
}

fn save_samples(store: &Store, samples: &Samples) -> Result<(), Failure> {
    let data = serde_json::to_vec(samples).map_err(|e| Failure::failed(format!("cannot encode samples.json: {e}")))?;
    fsio::overwrite(&store.path("samples.json"), &data)
}

// Runs the commands of `exec` triggers that are due. Each is claimed under the lock and run outside it: of several
// processes that poll at once, one runs it.
fn run_commands(cx: &Context, store: &Store, process: &Process) -> Result<BTreeMap<String, ExecAnswer>, Failure> {
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
    let due: Vec<(String, &Exec)> = {
        let _guard = store.lock()?;
        let (state, _) = load_state(store)?;
        let now_ms = cx.now(&state).store_ms;
        let mut samples = load_samples(store);
        let is_due = |key: &String, exec: &Exec| {
            samples.execs.get(key).is_none_or(|last| now_ms.saturating_sub(*last) >= exec.every_ms)
        };
        let due: Vec<_> = declared.into_iter().filter(|(key, exec)| is_due(key, exec)).collect();
        for (key, _) in &due {
            samples.execs.insert(key.clone(), now_ms);
        }
        if !due.is_empty() {
            save_samples(store, &samples)?;
        }
        due
    };
    Ok(due.into_iter().map(|(key, exec)| (key, probe::run(exec))).collect())
}

// Requests for which nobody waits any more are taken out on the way.
fn waiting_requests(store: &Store, now_ms: u64) -> Result<Vec<Request>, Failure> {
    let mut waiting = requests::list(store)?;
    for request in waiting.iter().filter(|request| request.expires <= now_ms) {
        requests::remove(store, &request.id)?;
        events::record(store, &events::Event::request_failed(&request.id, "nobody took it in time; it expired"));
    }
    waiting.retain(|request| request.expires > now_ms && request.attempts < requests::MAX_ATTEMPTS);
    Ok(waiting)
}
