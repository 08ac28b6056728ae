//! Tests of events: each is answered once, by a capture or by the reason why there is none.

use super::*;

pub(super) fn on_event(name: &str, event: &str, more: &str) -> String {
    format!("[[rules]]\nname = \"{name}\"\nreports = [\"smaps\"]\ntrigger.event = {{ name = \"{event}\" }}\n{more}\n")
}

#[test]
fn every_rule_captures_once_per_event() {
    let rules = [on_event("a", "e", ""), on_event("b", "e", ""), on_event("dry", "e", "mode = \"dry_run\"")];
    let mut world = World::new(&rules.concat());
    let first = world.name("e");
    assert_eq!(first.strongest().verdict, Verdict::Granted);
    assert_eq!(first.plans[0].rule, "a");
    assert!(first.retry_ms <= 1000, "the other rule waits");
    assert_eq!(world.go_on(300), (vec!["b".to_owned()], vec![]));
    // Another process does not answer for the one that named the event.
    world.name("e");
    assert_eq!(world.verdict(2, GIB), "idle");
}

#[test]
fn a_caller_that_waits_for_an_event_is_answered_by_a_rule_on_it_before_all_others() {
    let busy = "[[rules]]\nname = \"busy\"\nreports = [\"smaps\"]\ntrigger.memory_usage = { above = \"0.5GiB\" }\n";
    let cooling = "limits = { cooldown = \"1h\" }";
    // More of the event's rule, a request, whether the rule fired before; the rules in the order of their plans, and the rule of
    // the answer.
    let table: [(&str, bool, bool, &[&str], &str); 5] = [
        ("", false, false, &["killer", "busy"], "killer"),
        ("", false, true, &["killer", "busy"], "killer"),
        ("", true, true, &["killer", "on_demand", "busy"], "killer"),
        (cooling, false, true, &["busy"], "killer"),
        ("match = { role = \"sidekiq\" }", false, false, &["busy"], "busy"),
    ];
    for (more, requested, fired, expected, answer) in table {
        let mut world = World::new(&[busy, &on_event("killer", "full", more)].concat());
        if fired {
            world.awaited = Some("full".into());
            assert_eq!(world.name("full").plans[0].rule, "killer");
            world.pass(5000);
        }
        if requested {
            world.requests.push(request("r"));
        }
        world.awaited = Some("full".into());
        let decision = world.name("full");
        let rules: Vec<&str> = decision.plans.iter().map(|plan| &*plan.rule).collect();
        assert_eq!(
            (rules.as_slice(), decision.strongest().rule.as_str()),
            (expected, answer),
            "{more} {requested} {fired}"
        );
    }
}

#[test]
fn the_reason_of_a_refusal_decides_whether_an_event_waits() {
    type Change = fn(&mut World);
    // An event is named while something refuses, which ends after 20 s. The last two are the expected capture, or the message
    // in its place.
    type Case = (&'static str, &'static str, Change, Change, Option<&'static str>, &'static str);
    let table: [Case; 5] = [
        (
            "a guard",
            "",
            |w| w.figures.free_disk = 1,
            |w| w.figures.free_disk = 50 * GIB,
            Some("event e was named 21s ago"),
            "",
        ),
        ("a budget", "", |w| w.config.limits.budget_hour = 0, |w| w.config.limits.budget_hour = 9, Some("21s ago"), ""),
        ("a guard, for long", "", |w| w.figures.free_disk = 1, |_| {}, None, "event e was given up after 1m: "),
        (
            "its own cooldown",
            "limits = { cooldown = \"10s\" }",
            |_| {},
            |_| {},
            None,
            "event e was named; cooldown 10s",
        ),
        (
            "its own count",
            "limits = { max_count = 1, window = \"10s\" }",
            |_| {},
            |_| {},
            None,
            "1 of 1 captures in 10s",
        ),
    ];
    for (what, more, begin, end, reason, dropped) in table {
        let mut world = World::new(&on_event("a", "e", more));
        if !more.is_empty() {
            world.name("e");
        }
        begin(&mut world);
        let refused = world.name("e");
        assert!(refused.plans.is_empty(), "{what}: {refused:?}");
        let (granted, mut told) = world.go_on(20);
        assert_eq!(granted, [""; 0], "{what}");
        end(&mut world);
        world.pass(1000);
        let plan = world.poll(1, GIB).plans.pop();
        assert_eq!(plan.is_some(), reason.is_some(), "{what}: {plan:?}");
        assert!(plan.is_none_or(|plan| plan.reason.contains(reason.unwrap_or_default())), "{what}");
        told.extend(refused.dropped);
        told.extend(world.go_on(100).1);
        assert_eq!(told.len(), usize::from(!dropped.is_empty()), "{what}: {told:?}");
        assert!(told.iter().all(|told| told.rule == "a" && told.reason.contains(dropped)), "{what}: {told:?}");
    }
}

#[test]
fn an_event_is_answered_even_if_its_rule_refuses() {
    let all = "[[rules]]\nname = \"a\"\nreports = [\"smaps\"]\n\
               trigger.all = [ { event = { name = \"e\" } }, { memory_usage = { above = \"1.5GiB\" } } ]";
    let mut world = World::new(all);
    assert!(world.name("e").plans.is_empty());
    world.pass(1000);
    assert_eq!(world.verdict(1, 2 * GIB), "idle");
    world.events.insert("e".into());
    assert_eq!(world.verdict(1, 2 * GIB), "granted");
}

#[test]
fn dump_time_does_not_count_against_an_events_deadline() {
    let mut world = World::new(&[on_event("a", "e", ""), on_event("b", "e", "")].concat());
    assert_eq!(world.name("e").plans[0].rule, "a");
    world.pass(600_000);
    assert_eq!(world.poll(1, GIB).plans[0].rule, "b");
    // Another process has the lease, as `poll` records it.
    world.figures.free_disk = 1;
    world.name("e");
    assert_eq!(world.go_on(59).1, []);
    let now = world.samples.processes[&id(1)].last_seen;
    world.samples.processes.get_mut(&id(1)).unwrap().keep_events(now, 1000);
    assert_eq!(world.go_on(59).1, []);
    assert_eq!(world.go_on(1).1.len(), 2);
}
