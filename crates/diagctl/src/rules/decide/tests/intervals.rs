//! The time until the next poll.

use super::*;

// docs/configuration.md, "How often a process polls". The interval is 1s here.
#[test]
fn a_process_polls_once_a_minute_while_only_time_can_change_the_answer() {
    let rule = |trigger: &str| format!("[[rules]]\nname = \"r\"\nreports = [\"smaps\"]\ntrigger.{trigger}\n");
    let usage = rule("memory_usage = { above = \"1KiB\" }");
    let hourly = rule("timer = { every = \"1h\", initial_delay = \"1h\" }");
    let table = [
        (hourly.clone(), 1000, ("idle", 60_000)),
        (rule("timer = { every = \"1h\" }"), 0, ("throttled", 60_000)),
        (usage.clone(), 0, ("throttled", 1000)),
        (rule("memory_usage = { above = \"1TiB\" }"), 1000, ("idle", 1000)),
    ];
    for (rules, budget, expected) in table {
        let mut world = World::new(&rules);
        world.config.limits.budget_hour = budget;
        world.poll(1, GIB);
        let decision = world.poll(1, GIB);
        assert_eq!((decision.strongest().verdict.name(), decision.retry_ms), expected, "{rules}");
    }
}
