//! Properties of the rule engine over generated histories. A seed repeats a failure.

use super::events::on_event;
use super::*;

/// xorshift64, seeded.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// For any history of events, guards and pauses, a rule captures at most once for an event, and every event is answered in the
/// end: by a capture, by a limit that is reported, or by a report that it was given up.
#[test]
fn every_event_is_answered_exactly_once() {
    for seed in 1..=100u64 {
        let mut random = Random::new(seed);
        let cooldown = "limits = { cooldown = \"30s\" }";
        let mut world =
            World::new(&[on_event("a", "e", ""), on_event("b", "e", cooldown), on_event("c", "f", "")].concat());
        let (mut named, mut granted, mut dropped) =
            ([0; 2], BTreeMap::<String, usize>::new(), BTreeMap::<String, usize>::new());
        // At the end nothing refuses and nothing is named, for longer than any event waits.
        for round in 0..500 {
            world.pass(1 + random.below(20_000));
            let quiet = round >= 400;
            world.figures.free_disk = if random.below(3) == 0 && !quiet { 1 } else { 50 * GIB };
            for (i, event) in ["e", "f"].into_iter().enumerate() {
                if random.below(10) == 0 && !quiet {
                    world.events.insert(event.into());
                    named[i] += 1;
                }
            }
            let decision = world.poll(1, GIB);
            if let Some(plan) = decision.plans.first() {
                *granted.entry(plan.rule.to_string()).or_default() += 1;
            }
            for told in decision.dropped {
                *dropped.entry(told.rule).or_default() += 1;
            }
        }
        for (rule, named) in [("a", named[0]), ("b", named[0]), ("c", named[1])] {
            let count = |of: &BTreeMap<String, usize>| of.get(rule).copied().unwrap_or(0);
            let (granted, dropped) = (count(&granted), count(&dropped));
            assert!(granted + dropped <= named, "seed {seed}, {rule}: {granted} + {dropped} of {named}");
            assert!(granted > 0, "seed {seed}, {rule} is starved");
        }
        assert!(world.samples.processes[&id(1)].named.is_empty(), "seed {seed}");
    }
}

#[test]
fn no_history_spends_more_than_a_budget_in_any_hour() {
    let body = "trigger.memory_usage = { above = \"1GiB\" }";
    for seed in 1..=50u64 {
        let mut random = Random::new(seed);
        let mut world = World::new(&rule(body));
        world.config.limits.budget_hour = 12;
        let mut fires: Vec<u64> = Vec::new();
        for _ in 0..400 {
            world.pass(random.below(60_000));
            if world.poll(1, 2 * GIB).plans.is_empty().not() {
                fires.push(world.clock.boot_ms);
            }
        }
        for (i, at) in fires.iter().enumerate() {
            let hour = fires[i..].iter().take_while(|later| *later - at < 3_600_000).count();
            assert!(hour <= 12, "seed {seed}: {hour} in an hour");
        }
        // 400 polls half a minute apart are three hours: the budget is used, not merely kept.
        assert!(fires.len() >= 30, "seed {seed}: only {}", fires.len());
    }
}

/// For any history of polls, pauses and clock steps, limits hold on boot time, the only time that cannot be set.
#[test]
fn no_history_exceeds_a_limit_or_shortens_a_cooldown() {
    let body =
        "limits = { cooldown = \"7s\", max_count = 4, window = \"60s\" }\ntrigger.memory_usage = { above = \"1GiB\" }";
    for seed in 1..=200u64 {
        let mut random = Random::new(seed);
        let mut world = World::new(&rule(body));
        let mut fires: Vec<u64> = Vec::new();
        for _ in 0..300 {
            world.pass(random.below(3000));
            match random.below(40) {
                0 => world.clock.wall_ms -= random.below(1_000_000_000) as i64,
                1 => world.clock.wall_ms += random.below(1_000_000_000) as i64,
                2 => world.samples = Samples::default(),
                _ => {}
            }
            let stepped = Anchor::place(world.state.clock.as_ref(), world.clock.clone()).stepped_back_ms.is_some();
            let granted = world.poll(random.below(4) as u32 + 1, 2 * GIB).plans.is_empty().not();
            assert!(!(granted && stepped), "seed {seed}: granted although the clock went back");
            if granted {
                let now = world.clock.boot_ms;
                assert!(fires.last().is_none_or(|last| now - last >= 7000), "seed {seed}: cooldown cut short");
                fires.push(now);
                let window = fires.iter().filter(|at| now - **at < 60_000).count();
                assert!(window <= 4, "seed {seed}: {window} in the window");
            }
        }
        // A condition that holds is not starved either: 300 polls about 1.5 s apart are 7 windows of 4.
        assert!(fires.len() >= 20, "seed {seed}: only {} captures", fires.len());
    }
}
