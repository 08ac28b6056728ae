//! Tests of the rule engine: a table of situations. Generated histories are in `histories`.

use super::*;
use crate::clock::{Anchor, Reading};
use crate::config::{self, Config};
use crate::rules::ON_DEMAND;
use crate::rules::guard::Figures;
use crate::rules::memory::Memory;
use crate::rules::readings::Readings;
use crate::state::samples::Samples;
use diagctl_store::Process;
use diagctl_store::ProcessId;
use diagctl_store::requests::Request;
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::Not;

mod events;
mod histories;
mod intervals;
mod requests;

const GIB: u64 = 1 << 30;
const START: u64 = 1_800_000_000_000;

/// A store in memory, and a clock that the test advances.
struct World {
    config: Config,
    state: State,
    samples: Samples,
    requests: Vec<Request>,
    clock: Reading,
    figures: Figures,
    /// Events to be named at the next poll.
    events: BTreeSet<String>,
    /// The event that the caller of the next poll waits for.
    awaited: Option<String>,
    /// The number of times that the samples of all processes were loaded.
    asked: Cell<usize>,
}

struct Counted<'a> {
    samples: &'a Samples,
    asked: &'a Cell<usize>,
}

impl Others for Counted<'_> {
    fn samples(&self) -> Cow<'_, Samples> {
        self.asked.set(self.asked.get() + 1);
        Cow::Borrowed(self.samples)
    }
}

impl World {
    fn new(rules: &str) -> Self {
        let text = format!("poll_interval = \"1s\"\n[limits]\nbudget_hour = 1000\nbudget_day = 1000\n{rules}");
        let (config, _) = config::parse(&text).unwrap_or_else(|p| panic!("{p:?}"));
        let figures = Figures {
            rss: GIB,
            available_memory: 100 * GIB,
            free_disk: 50 * GIB,
            total_disk: 100 * GIB,
            ..Figures::default()
        };
        let clock = Reading { wall_ms: START as i64, boot_ms: 1000, boot_id: "a".into() };
        Self {
            config,
            state: State::default(),
            samples: Samples::default(),
            requests: Vec::new(),
            clock,
            figures,
            events: BTreeSet::new(),
            awaited: None,
            asked: Cell::new(0),
        }
    }

    fn pass(&mut self, ms: u64) {
        self.clock.boot_ms += ms;
        self.clock.wall_ms += ms as i64;
    }

    fn process(id: ProcessId) -> Process {
        Process { name: format!("worker-{}", id.pid), id, role: "puma".into() }
    }

    fn poll(&mut self, pid: u32, rss: u64) -> Decision {
        self.poll_of(id(pid), rss)
    }

    /// Makes one poll. A plan is charged as if the lease were free.
    fn poll_of(&mut self, id: ProcessId, rss: u64) -> Decision {
        let mut memory = Memory { limit: Some(2 * GIB), host_total: 4 * GIB, ..Memory::default() };
        memory.set(Metric::Rss, Ok(rss));
        let (events, awaited) = (std::mem::take(&mut self.events), self.awaited.take());
        let readings = Readings { memory, events, awaited, ..Readings::default() };
        let process = Self::process(id.clone());
        let now = Anchor::place(self.state.clock.as_ref(), self.clock.clone());
        let figures = Figures { clock_stepped_back_ms: now.stepped_back_ms, ..self.figures.clone() };
        let requests = self.requests.clone();
        let inputs = Inputs {
            settings: self.config.settings(),
            process: &process,
            readings: &readings,
            requests: &requests,
            figures: &figures,
            host: "web-1",
            now: &now,
            seed: 12345,
            state: &self.state,
            sample: self.samples.processes.get(&id),
            others: &Counted { samples: &self.samples, asked: &self.asked },
        };
        let decision = decide(inputs);
        let mut changes = decision.changes.clone();
        if let Some(plan) = decision.plans.first() {
            changes = charge(Inputs { state: &changes.state, sample: Some(&changes.sample), ..inputs }, plan);
            self.requests.retain(|request| Some(&request.id) != plan.request.as_ref());
        }
        self.state = changes.state;
        self.samples.processes.insert(id, changes.sample);
        decision
    }

    /// Makes one poll of a process that names an event.
    fn name(&mut self, event: &str) -> Decision {
        self.events.insert(event.to_owned());
        self.poll(1, GIB)
    }

    /// Polls every second for this long. Returns the rules that were granted, and what was dropped.
    fn go_on(&mut self, seconds: u64) -> (Vec<String>, Vec<Dropped>) {
        let (mut granted, mut dropped) = (Vec::new(), Vec::new());
        for _ in 0..seconds {
            self.pass(1000);
            let decision = self.poll(1, GIB);
            granted.extend(decision.plans.first().map(|plan| plan.rule.to_string()));
            dropped.extend(decision.dropped);
        }
        (granted, dropped)
    }

    fn verdict(&mut self, pid: u32, rss: u64) -> &'static str {
        self.poll(pid, rss).strongest().verdict.name()
    }
}

fn id(pid: u32) -> ProcessId {
    ProcessId { pid, pid_ns: 7, start_ticks: u64::from(pid), boot_id: "b".into() }
}

// Process 1 of another container.
fn twin(of: u32) -> ProcessId {
    ProcessId { pid_ns: 8, ..id(of) }
}

fn rule(body: &str) -> String {
    format!("[[rules]]\nname = \"r\"\nreports = [\"smaps\"]\n{body}\n")
}

fn request(id: &str) -> Request {
    Request {
        id: id.into(),
        reports: vec![diagctl_store::ReportName::parse("heap_dump").unwrap()],
        by: "ann".into(),
        reason: "why".into(),
        ..Request::default()
    }
}

#[test]
fn for_requires_consecutive_polls_and_a_gap_resets_it() {
    let mut world = World::new(&rule("for = \"3s\"\ntrigger.memory_usage = { above = \"1GiB\" }"));
    let mut seen = Vec::new();
    for (pause, rss) in [(0, 2), (1000, 2), (1000, 0), (1000, 2), (1000, 2), (1000, 2), (1000, 2), (9000, 2)] {
        world.pass(pause);
        seen.push(world.verdict(1, rss * GIB));
    }
    assert_eq!(seen, ["pending", "pending", "idle", "pending", "pending", "pending", "granted", "pending"]);
}

#[test]
fn a_timer_fires_for_one_process_and_is_stored_in_the_state() {
    let mut world = World::new(&rule("trigger.timer = { every = \"10s\", initial_delay = \"5s\" }"));
    assert_eq!(world.verdict(1, 1), "idle");
    world.pass(5000);
    assert_eq!((world.verdict(1, 1), world.verdict(2, 1)), ("granted", "idle"));
    // All processes restart; only the state is left.
    world.samples = Samples::default();
    world.pass(9999);
    let decision = world.poll(3, 1);
    assert_eq!((decision.strongest().verdict.name(), decision.retry_ms), ("idle", 100));
    world.pass(1);
    assert_eq!(world.verdict(4, 1), "granted");
}

#[test]
fn cooldown_count_and_budget_refuse_with_their_figures() {
    let limits =
        "limits = { cooldown = \"2s\", max_count = 2, window = \"1h\" }\ntrigger.memory_usage = { above = \"50%\" }";
    let mut world = World::new(&rule(limits));
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(world.verdict(1, 2 * GIB));
        world.pass(1000);
    }
    assert_eq!(seen, ["granted", "cooldown", "granted", "cooldown", "throttled"]);
    assert!(world.poll(1, 2 * GIB).strongest().reason.contains("2 of 2 captures in 1h"));
    world.config.limits.budget_hour = 1;
    world.config.rules[0].limits = Default::default();
    assert!(world.poll(1, 2 * GIB).strongest().reason.contains("budget_hour: 2 of 1 units"));
}

#[test]
fn the_largest_polling_process_is_chosen() {
    let mut world =
        World::new(&rule("select = \"largest\"\ntrigger.timer = { every = \"60s\", initial_delay = \"4s\" }"));
    for (pid, rss) in [(1, 10), (2, 30), (3, 20)] {
        world.verdict(pid, rss);
    }
    world.pass(4000);
    assert_eq!(world.verdict(1, 10), "idle");
    assert!(world.poll(1, 10).strongest().reason.contains("process 2 is to take it"));
    assert_eq!(world.verdict(2, 30), "granted");
    // In the next turn, process 2 has stopped polling; 3 and 1 continue.
    world.pass(60_000);
    let mut seen = Vec::new();
    for _ in 0..8 {
        seen.extend([world.verdict(1, 10), world.verdict(3, 20)]);
        world.pass(1000);
    }
    assert_eq!(seen.iter().filter(|v| **v == "granted").count(), 1);
}

#[test]
fn a_process_that_is_switched_off_is_not_chosen() {
    let mut world =
        World::new(&rule("select = \"largest\"\ntrigger.timer = { every = \"60s\", initial_delay = \"4s\" }"));
    world.poll(1, 10);
    world.poll(2, 30);
    world.samples.processes.values_mut().find(|sample| sample.rss == 30).unwrap().switched_off = true;
    world.pass(4000);
    assert_eq!(world.verdict(1, 10), "granted");
}

#[test]
fn no_process_takes_every_turn_of_a_rule_with_a_limit_per_process() {
    for select in ["first", "largest", "round_robin"] {
        let mut world = World::new(&rule(&format!(
            "select = \"{select}\"\nlimits = {{ per_process = \"1h\" }}\ntrigger.timer = {{ every = \"10s\" }}"
        )));
        let mut turns = Vec::new();
        for _ in 0..60 {
            for (pid, rss) in [(1, 30), (2, 20), (3, 10)] {
                if world.verdict(pid, rss) == "granted" {
                    turns.push(pid);
                }
            }
            world.pass(1000);
        }
        turns.sort_unstable();
        assert_eq!(turns, [1, 2, 3], "{select}");
        let refused = world.poll(1, 30).strongest();
        assert_eq!(refused.verdict, Verdict::Cooldown);
        assert!(refused.reason.contains("per_process 1h: the last capture of this process was"), "{}", refused.reason);
        world.pass(3_600_000);
        let granted = [1, 2, 3].map(|pid| world.verdict(pid, 10));
        assert!(granted.contains(&"granted"), "{select}: {granted:?}");
    }
}

#[test]
fn only_a_choice_among_processes_needs_all_of_them() {
    for (select, mode, asked) in
        [("first", "enforce", false), ("largest", "enforce", true), ("largest", "dry_run", true)]
    {
        let body = format!(
            "select = \"{select}\"\nmode = \"{mode}\"\ntrigger.timer = {{ every = \"60s\", initial_delay = \"4s\" }}"
        );
        let mut world = World::new(&rule(&body));
        world.poll(1, 10);
        assert_eq!(world.asked.get(), 0);
        world.pass(4000);
        world.poll(1, 10);
        assert_eq!(world.asked.get(), usize::from(asked), "{select} {mode}");
    }
}

#[test]
fn round_robin_alternates_between_processes() {
    let mut world = World::new(&rule("select = \"round_robin\"\ntrigger.timer = { every = \"3s\" }"));
    let mut turns = Vec::new();
    for _ in 0..40 {
        for pid in [7, 8, 9] {
            if world.verdict(pid, 1) == "granted" {
                turns.push(pid);
            }
        }
        world.pass(1000);
    }
    let third = turns.len() / 3;
    for pid in [7, 8, 9] {
        assert!(turns.iter().filter(|t| **t == pid).count() >= third, "{turns:?}");
    }
}

#[test]
fn a_dry_run_is_marked_has_its_own_limits_and_spends_no_budget() {
    let body = "mode = \"dry_run\"\nlimits = { cooldown = \"5s\" }\ntrigger.memory_usage = { above = \"1GiB\" }";
    let mut world = World::new(&rule(body));
    let answer = world.poll(1, 2 * GIB).strongest();
    assert!(answer.reason.starts_with("dry run: would capture"), "{}", answer.reason);
    assert_eq!(world.verdict(1, 2 * GIB), "cooldown");
    assert!(world.state.spent.is_empty() && world.state.generation == 0);
}

#[test]
fn a_clock_set_back_refuses_one_poll_and_shortens_no_cooldown() {
    let mut world = World::new(&rule("limits = { cooldown = \"60s\" }\ntrigger.memory_usage = { above = \"1GiB\" }"));
    assert_eq!(world.verdict(1, 2 * GIB), "granted");
    world.pass(60_000);
    world.clock.wall_ms -= 86_400_000;
    let answer = world.poll(1, 2 * GIB).strongest();
    assert_eq!(answer.guard, Some("clock"));
    world.pass(1000);
    assert_eq!(world.verdict(1, 2 * GIB), "granted");
    // The wall clock jumps years ahead. The cooldown counts boot time.
    world.clock.wall_ms += 10 * 365 * 86_400_000;
    world.pass(1000);
    assert_eq!(world.verdict(1, 2 * GIB), "cooldown");
}

#[test]
fn the_strongest_answer_wins_and_a_refused_rule_blocks_no_other() {
    let two = format!(
        "{}[[rules]]\nname = \"s\"\nreports = [\"smaps\"]\ntrigger.memory_usage = {{ above = \"1GiB\" }}",
        rule("limits = { cooldown = \"1h\" }\ntrigger.memory_usage = { above = \"1GiB\" }")
    );
    let mut world = World::new(&two);
    assert_eq!(world.poll(1, 2 * GIB).plans.remove(0).rule, "r");
    assert_eq!(world.poll(1, 2 * GIB).plans.remove(0).rule, "s");
}

#[test]
fn firing_rules_take_turns_regardless_of_their_order() {
    let two = "[[rules]]\nname = \"a\"\nreports = [\"smaps\"]\ntrigger.memory_usage = { above = \"1GiB\" }\n\
               [[rules]]\nname = \"b\"\nreports = [\"threads\"]\ntrigger.memory_usage = { above = \"1GiB\" }";
    let mut world = World::new(two);
    let mut turns = String::new();
    for _ in 0..6 {
        turns.push_str(&world.poll(1, 2 * GIB).plans.remove(0).rule);
        world.pass(1000);
    }
    assert_eq!(turns, "ababab");
}

#[test]
fn a_pair_is_two_captures_of_one_process_and_one_firing() {
    let body = "capture = \"pair\"\npair_delay = \"30s\"\nlimits = { max_count = 1, window = \"1h\" }\ntrigger.memory_usage = { above = \"1GiB\" }";
    let mut world = World::new(&rule(body));
    assert_eq!(world.verdict(1, 2 * GIB), "granted");
    world.pass(29_000);
    assert_eq!((world.verdict(1, 2 * GIB), world.verdict(2, 2 * GIB)), ("idle", "idle"));
    world.pass(1000);
    assert_eq!(world.verdict(2, 2 * GIB), "idle");
    // The second is taken although the condition no longer holds.
    assert_eq!(world.poll(1, 1).plans.remove(0).second_of, Some(1));
    assert_eq!((world.verdict(1, 1), world.verdict(1, 2 * GIB)), ("idle", "throttled"));
}

#[test]
fn three_captures_of_one_process_are_one_firing() {
    let body = "capture = \"three\"\npair_delay = \"30s\"\nlimits = { max_count = 1, window = \"1h\" }\ntrigger.memory_usage = { above = \"1GiB\" }";
    let mut world = World::new(&rule(body));
    assert_eq!(world.verdict(1, 2 * GIB), "granted");
    for which in ["second of three, 30s after the first", "third of three, 30s after the second"] {
        world.pass(29_000);
        assert_eq!((world.verdict(1, 1), world.verdict(2, 2 * GIB)), ("idle", "idle"));
        world.pass(1000);
        let plan = world.poll(1, 1).plans.remove(0);
        assert_eq!((plan.second_of, plan.reason.as_str()), (Some(1), which));
    }
    world.pass(31_000);
    assert_eq!((world.verdict(1, 1), world.verdict(1, 2 * GIB)), ("idle", "throttled"));
}

#[test]
fn neither_capture_of_a_pair_is_taken_in_a_dry_run() {
    let body = "mode = \"dry_run\"\ncapture = \"pair\"\npair_delay = \"30s\"\nlimits = { cooldown = \"1h\" }\n\
                trigger.memory_usage = { above = \"1GiB\" }";
    let mut world = World::new(&rule(body));
    let mut said = Vec::new();
    for _ in 0..120 {
        let decision = world.poll(1, 2 * GIB);
        assert_eq!(decision.plans, []);
        said.extend(decision.answers.into_iter().filter(|answer| answer.dry_run).map(|answer| answer.reason));
        world.pass(1000);
    }
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[1].contains("would capture, second of a pair"), "{said:?}");
    assert_eq!((world.state.spent.len(), world.state.generation), (0, 0));
}

#[test]
fn the_second_capture_of_a_pair_is_dropped_if_its_process_is_gone() {
    let body = "capture = \"pair\"\npair_delay = \"30s\"\ntrigger.memory_usage = { above = \"1GiB\" }";
    let mut world = World::new(&rule(body));
    assert_eq!(world.verdict(1, 2 * GIB), "granted");
    world.pass(30_000 + PAIR_PATIENCE_MS + 1);
    assert_eq!((world.verdict(2, 2 * GIB), world.verdict(2, 2 * GIB)), ("idle", "granted"));
}

#[test]
fn sampling_selects_a_share_of_machines_fixed_for_the_day() {
    let mut world = World::new(&rule("sample = \"25%\"\ntrigger.timer = { every = \"1h\" }"));
    let rule = world.config.rules.remove(0);
    let hosts: Vec<String> = (0..2000).map(|i| format!("web-{i}.example.com")).collect();
    let chosen = |now| hosts.iter().filter(|host| in_sample(&rule, host, now)).count();
    assert!((400..600).contains(&chosen(START)), "{}", chosen(START));
    let noon = START / 86_400_000 * 86_400_000;
    assert!(hosts.iter().all(|host| in_sample(&rule, host, noon) == in_sample(&rule, host, noon + 86_399_999)));
    assert!(hosts.iter().any(|host| in_sample(&rule, host, noon) != in_sample(&rule, host, noon + 86_400_000)));
}

#[test]
fn a_capture_with_all_reports_of_another_rule_restarts_that_rules_cooldown() {
    let two = "[[rules]]\nname = \"big\"\nreports = [\"smaps\", \"threads\"]\ntrigger.memory_usage = { above = \"1GiB\" }\nlimits = { cooldown = \"1h\" }\n\
               [[rules]]\nname = \"small\"\nreports = [\"smaps\"]\ntrigger.memory_usage = { above = \"512MiB\" }\nlimits = { cooldown = \"10s\" }";
    let mut world = World::new(two);
    assert_eq!(world.poll(1, 2 * GIB).plans.remove(0).rule, "big");
    world.pass(5000);
    assert_eq!(world.verdict(1, 2 * GIB), "cooldown");
    world.pass(5000);
    assert_eq!(world.poll(1, 2 * GIB).plans.remove(0).rule, "small");
}

#[test]
fn a_dry_run_does_not_restart_other_rules_cooldowns() {
    let two = "[[rules]]\nname = \"dry\"\nreports = [\"smaps\"]\nmode = \"dry_run\"\ntrigger.memory_usage = { above = \"1GiB\" }\n\
               [[rules]]\nname = \"wet\"\nreports = [\"smaps\"]\ntrigger.memory_usage = { above = \"1GiB\" }\nlimits = { cooldown = \"1h\" }";
    let mut world = World::new(two);
    assert_eq!(world.poll(1, 2 * GIB).plans.remove(0).rule, "wet");
}

#[test]
fn equal_pids_in_two_containers_are_two_processes() {
    let fired = |world: &mut World, id: ProcessId| world.poll_of(id, 2 * GIB).strongest().verdict == Verdict::Granted;
    // Each has its own `for`.
    let mut world = World::new(&rule("for = \"4s\"\ntrigger.memory_usage = { above = \"50%\" }"));
    let mut turns = Vec::new();
    for second in 0..=4 {
        turns.extend([id(1), twin(1)].into_iter().filter(|of| fired(&mut world, of.clone())).map(|of| (second, of)));
        world.pass(1000);
    }
    assert_eq!(turns, [(4, id(1)), (4, twin(1))]);
    assert_eq!(world.samples.processes.len(), 2);
    // Each has its own levels.
    let mut world = World::new(&rule("trigger.memory_usage = { above = [\"50%\", \"80%\"] }"));
    assert_eq!([id(1), twin(1), id(1), twin(1)].map(|of| fired(&mut world, of)), [true, true, false, false]);
    // Each has its turn.
    let mut world = World::new(&rule("select = \"round_robin\"\ntrigger.timer = { every = \"3s\" }"));
    let mut turns = Vec::new();
    for _ in 0..20 {
        turns.extend([id(1), twin(1)].into_iter().filter(|of| fired(&mut world, of.clone())));
        world.pass(1000);
    }
    assert!(turns.len() >= 4 && turns.windows(2).all(|pair| pair[0] != pair[1]), "{turns:?}");
    // The second capture of a pair is of the process of the first.
    let pair = "capture = \"pair\"\npair_delay = \"2s\"\nlimits = { cooldown = \"1h\" }\ntrigger.memory_usage = { above = \"50%\" }";
    let mut world = World::new(&rule(pair));
    assert!(fired(&mut world, id(1)));
    world.pass(2000);
    assert!(!fired(&mut world, twin(1)));
    assert!(fired(&mut world, id(1)));
    // A request names one of them.
    let mut world = World::new(&rule("trigger.timer = { every = \"1h\", initial_delay = \"1h\" }"));
    world.requests = vec![Request { pid: Some(1), process: Some(twin(1)), ..request("q1") }];
    assert_eq!([id(1), twin(1)].map(|of| fired(&mut world, of)), [false, true]);
}
