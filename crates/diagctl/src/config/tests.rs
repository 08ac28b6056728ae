//! What a configuration may say, and every way in which it may be wrong.

use super::*;

fn problems(text: &str) -> Vec<String> {
    parse(text).map_or_else(|problems| problems.iter().map(ToString::to_string).collect(), |_| Vec::new())
}

#[test]
fn the_example_that_we_ship_is_valid_and_repeats_the_defaults() {
    let (config, _) = parse(EXAMPLE).unwrap_or_else(|p| panic!("{p:?}"));
    let defaults = Config::default();
    assert_eq!(config.guards, defaults.guards);
    assert_eq!(config.limits, defaults.limits);
    assert_eq!(config.retention, defaults.retention);
    assert_eq!(config.rules[0], defaults.rules[0]);
}

#[test]
fn every_problem_is_told_at_once_with_its_path_and_a_hint() {
    let text = r#"
        poll_intervall = "10s"
        [guards]
        min_free_disk = "15"
        max_rss = 8
        [retention]
        max_age = "14 fortnights"
        [[rules]]
        name = "a"
        reports = ["heap_dmp"]
        trigger.timer = { every = "2h", jiter = "1m" }
        [[rules]]
        name = "a"
        reports = ["smaps"]
        trigger.memory_usage = { above = "120%" }
        limits = { cooldown = "10" }
    "#;
    let found = problems(text).join("\n");
    for expected in [
        "poll_intervall: unknown key\n    hint: did you mean \"poll_interval\"?",
        "guards.min_free_disk: \"15\": it has no unit",
        "guards.max_rss: 8 is an integer, not a size like \"1.5GiB\"",
        "retention.max_age: \"14 fortnights\": it is not a duration",
        "rules[0].reports[0]: unknown report \"heap_dmp\"\n    hint: did you mean \"heap_dump\"?",
        "rules[0].trigger.timer.jiter: unknown key\n    hint: did you mean \"jitter\"?",
        "rules[1].trigger.memory_usage.above: \"120%\": a percentage is between 0% and 100%",
        "rules[1].limits.cooldown: \"10\": it has no unit\n    hint: write 10s, 10m or 10h",
    ] {
        assert!(found.contains(expected), "missing {expected:?} in:\n{found}");
    }
}

#[test]
fn a_rule_that_makes_no_sense_is_refused() {
    let rule = |body: &str| format!("[[rules]]\nname = \"r\"\nreports = [\"smaps\"]\n{body}");
    let table = [
        (rule(""), "rules[0].trigger: it is missing"),
        (rule("trigger = {}"), "no trigger is given"),
        (rule("trigger.timer = { every = \"1h\" }\ntrigger.on_demand = {}"), "several triggers"),
        (rule("trigger.timmer = { every = \"1h\" }"), "did you mean \"timer\"?"),
        (rule("trigger.timer = { every = \"0s\" }"), "would fire at every poll"),
        (rule("trigger.timer = { every = \"1m\", jitter = \"2m\" }"), "longer than every"),
        (rule("trigger.any = []"), "the list is empty"),
        (rule("trigger.memory_usage = { above = [\"90%\", \"80%\"] }"), "do not ascend"),
        (rule("trigger.memory_usage = { above = \"80%\", rearm_below = \"85%\" }"), "is not below"),
        (rule("trigger.memory_usage = { of = \"host\", metric = \"pss\", above = \"80%\" }"), "has only one"),
        (rule("for = \"1s\"\ntrigger.memory_usage = { above = \"80%\" }"), "shorter than poll_interval"),
        (rule("for = \"30s\"\ntrigger.event = { name = \"e\" }"), "event holds at single polls only"),
        ("[reports.x]\nproducer = \"application\"\ncost = 4294967295".into(), "more than 1000"),
        (rule("trigger.timer = { every = \"1h\" }\nlimits = { window = \"1h\" }"), "limits nothing"),
        (rule("trigger.timer = { every = \"1h\" }\nselect = \"biggest\""), "use one of first, largest, round_robin"),
        ("[[rules]]\nname = \"on demand\"\nreports = []\ntrigger.on_demand = {}".into(), "cannot be a rule's name"),
        ("[reports.heap_dump]\nproducer = \"application\"".into(), "makes itself"),
        ("[reports.\"../x\"]\nproducer = \"application\"".into(), "cannot be the name of a report"),
        ("retention = 3".into(), "retention: 3 is an integer, not a table"),
        ("dir = \"a".into(), "line 1"),
    ];
    for (text, expected) in table {
        let found = problems(&text).join("\n");
        assert!(found.contains(expected), "{text}\nshould say {expected:?} but says:\n{found}");
    }
}

#[test]
fn reports_come_cheapest_first_whatever_the_order_in_the_rule() {
    let text = "[reports.cache]\nproducer = \"application\"\n[[rules]]\nname = \"r\"\n\
                reports = [\"heap_dump\", \"cache\", \"threads\", \"smaps\", \"threads\"]\ntrigger.on_demand = {}";
    let (config, _) = parse(text).unwrap();
    assert_eq!(config.rules[0].reports, ["smaps", "threads", "cache", "heap_dump"]);
}

#[test]
fn flag_and_environment_beat_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("diagctl.toml");
    std::fs::write(&file, "dir = \"/from/file\"\nenabled = true\n").unwrap();
    let loaded = load(Some(&file), &Overrides::default()).unwrap();
    assert_eq!((loaded.config.dir.to_str(), loaded.config.enabled), (Some("/from/file"), true));
    assert_eq!(loaded.sources["enabled"], Source::File);
    let overrides = Overrides { dir: Some(("/from/flag".into(), SourceOf::Flag)), enabled: Some(false) };
    let loaded = load(Some(&file), &overrides).unwrap();
    assert_eq!((loaded.config.dir.to_str(), loaded.config.enabled), (Some("/from/flag"), false));
    assert_eq!(loaded.sources["dir"].to_string(), "flag --dir");
}

#[test]
fn a_named_file_that_is_missing_is_an_error_and_a_relative_store_too() {
    let missing = load(Some(Path::new("/nonexistent/diagctl.toml")), &Overrides::default()).unwrap_err();
    assert_eq!(missing.exit, Exit::Config);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("diagctl.toml");
    std::fs::write(&file, "dir = \"relative\"").unwrap();
    let relative = load(Some(&file), &Overrides::default()).unwrap_err();
    assert!(relative.message.contains("not an absolute path"), "{relative}");
    let overrides = Overrides { dir: Some(("relative".into(), SourceOf::Flag)), enabled: None };
    assert!(load(Some(&file), &overrides).unwrap().config.dir.is_absolute());
}
