//! Requests of people.

use super::*;

#[test]
fn a_request_skips_limits_but_not_guards_and_finds_its_process() {
    let mut world = World::new(
        "[[rules]]\nname = \"never\"\nreports = [\"smaps\"]\ntrigger.timer = { every = \"1h\", initial_delay = \"1h\" }",
    );
    world.config.limits.budget_hour = 0;
    world.requests = vec![Request { pid: Some(2), ..request("q1") }];
    assert_eq!((world.verdict(1, 1), world.verdict(2, 1)), ("idle", "granted"));
    world.requests = vec![Request { role: Some("sidekiq".into()), ..request("q2") }];
    assert_eq!(world.verdict(1, 1), "idle");
    world.requests = vec![request("q3")];
    world.figures.free_disk = GIB;
    let answer = world.poll(1, 1).strongest();
    assert_eq!((answer.verdict.name(), answer.guard), ("guarded", Some("disk")));
    assert!(answer.reason.starts_with("requested by ann: why; 1.00 GiB are free"), "{}", answer.reason);
}

#[test]
fn requests_take_reports_and_interval_from_the_on_demand_rule() {
    let body = "[[rules]]\nname = \"asked\"\nreports = [\"heap_dump\", \"smaps\"]\ntrigger.on_demand = { min_interval = \"10s\" }";
    let mut world = World::new(body);
    world.requests = vec![Request { reports: vec![], ..request("q1") }];
    let plan = world.poll(1, 1).plans.remove(0);
    assert_eq!((&*plan.rule, plan.reports.len()), ("asked", 2));
    world.requests = vec![request("q2")];
    assert_eq!(world.verdict(1, 1), "cooldown");
    world.pass(10_000);
    assert_eq!(world.poll(1, 1).plans.remove(0).reports, ["heap_dump"]);
    // A request for a report that the rule does not have is served without the rule.
    world.requests =
        vec![Request { reports: vec![diagctl_store::ReportName::parse("cgroup").unwrap()], ..request("q3") }];
    assert_eq!(world.poll(1, 1).plans.remove(0).rule, ON_DEMAND);
}

#[test]
fn each_request_has_its_own_reason_why_it_is_refused() {
    let mut world = World::new("[guards]\nmax_rss = \"512MiB\"");
    let gc_stat = vec![diagctl_store::ReportName::parse("gc_stat").unwrap()];
    let far = Request { budgeted: true, reports: gc_stat.clone(), ..request("far") };
    world.requests = vec![request("dump"), far, Request { reports: gc_stat, ..request("free") }];
    world.config.limits.budget_hour = 0;
    let refused = world.poll(1, 1).changes.sample.refused_requests;
    let told: Vec<(&str, &str, &str)> =
        refused.iter().map(|(id, refused)| (id.as_str(), refused.verdict.as_str(), refused.reason.as_str())).collect();
    let (dump, far) = (&refused["dump"].reason, &refused["far"].reason);
    assert_eq!(told.len(), 2, "the third is granted: {told:?}");
    assert_eq!((told[0].1, told[1].1), ("guarded", "throttled"));
    assert!(
        dump.contains("max_rss") && !dump.contains("requested by") && far.starts_with("the capture costs"),
        "{told:?}"
    );
}

#[test]
fn a_request_from_afar_keeps_to_the_budgets_and_the_limits_of_its_rule() {
    let body = "[[rules]]\nname = \"asked\"\nreports = [\"heap_dump\"]\nlimits = { cooldown = \"1m\" }\ntrigger.on_demand = {}";
    for (rules, budget, reason) in [
        ("", 15, "requested by ann: why; budget_hour: 10 of 15 units are spent, the capture costs 10, 1h left"),
        (body, 1000, "requested by ann: why; cooldown 1m: the last capture was 0ms ago, 1m left"),
    ] {
        let mut world = World::new(rules);
        world.requests = vec![request("q1")];
        assert_eq!(world.verdict(1, 1), "granted");
        world.config.limits.budget_hour = budget;
        world.requests = vec![Request { budgeted: true, ..request("q2") }];
        let answer = world.poll(1, 1).strongest();
        assert_eq!(answer.reason, reason);
        assert!(answer.wait_ms.is_some() && !world.requests.is_empty(), "it waits: {answer:?}");
        world.config.limits.budget_hour = 1000;
        world.pass(60_000);
        assert_eq!(world.verdict(1, 1), "granted");
    }
}
