//! Tests of valid configurations, and of every way in which one can be invalid.

use super::*;
use crate::section::Problem;
use std::path::Path;

// The problems without their lines, of which src/config/lines.rs has a test.
fn problems(text: &str) -> Vec<String> {
    let problems = parse(text).map_or_else(|problems| problems, |_| Vec::new());
    problems.into_iter().map(|problem| Problem { line: None, ..problem }.to_string()).collect()
}

#[test]
fn the_shipped_example_is_valid_and_equals_the_defaults_where_it_says_so() {
    let (config, _) = parse(EXAMPLE).unwrap_or_else(|p| panic!("{p:?}"));
    let defaults = Config::default();
    assert_eq!(config.guards, defaults.guards);
    // Larger budgets, which leave room for the example rules, beside the defaults in comments.
    for (key, default) in [("budget_hour", defaults.limits.budget_hour), ("budget_day", defaults.limits.budget_day)] {
        let line = EXAMPLE.lines().find(|line| line.starts_with(key)).unwrap();
        assert!(line.ends_with(&format!("# default {default}")), "{line}");
    }
    assert_eq!(config.retention, defaults.retention);
    assert_eq!(config.rules[0], defaults.rules[0]);
}

// Uncomments every line that is a table or a key in a comment, once paragraph by paragraph and once all together.
#[test]
fn everything_that_the_example_has_in_comments_is_valid_when_uncommented() {
    let is_key = |line: &str| {
        let word = line.split(['=', ' ']).next().unwrap_or_default();
        let rest = line[word.len()..].trim_start();
        line.starts_with('[') || (rest.starts_with("= ") && word.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let uncommented = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if is_key(rest) => rest.to_owned(),
        _ => line.to_owned(),
    };
    let paragraphs: Vec<&str> = EXAMPLE.split("\n\n").collect();
    let mut found = Vec::new();
    for at in 0..=paragraphs.len() {
        let text = paragraphs.iter().enumerate().map(|(i, paragraph)| {
            let lines = paragraph
                .lines()
                .map(|line| if i == at || at == paragraphs.len() { uncommented(line) } else { line.into() });
            lines.collect::<Vec<String>>().join("\n")
        });
        let text = text.collect::<Vec<_>>().join("\n\n");
        let examined = examine(&text).unwrap_or_else(|p| panic!("{p:?}\n{text}"));
        assert_eq!((examined.problems, examined.idle), (Vec::new(), Vec::new()), "{text}");
        assert_eq!(examined.config.warnings(&examined.positions, &Place::default()), [], "{text}");
        let config = examined.config;
        found = vec![
            config.encrypt.is_some(),
            config.on_capture.is_some(),
            config.remote.as_ref().is_some_and(|remote| remote.requests.is_some()),
            config.group.is_some(),
            config.guards.max_rss.is_some(),
            config.retention.max_captures.is_some(),
            config.reports.len() == 2,
        ];
    }
    assert_eq!(found, [true; 7], "all together");
}

// Every kind of problem in one file: each is reported at once, at the place where it was written, with a hint.
#[test]
fn all_problems_are_reported_at_once_with_path_and_hint() {
    let text = r#"
        dir = "store"
        enabled = "yes"
        poll_intervall = "10s"
        group = 7
        defaults = 3
        [guards]
        min_free_disk = "15"
        max_rss = 8
        memory_headroom = -1
        deadline = "2d"
        [limits]
        budget_hour = -5
        budget_day = "many"
        [retention]
        max_use = "1KiB"
        keep_free = "101%"
        max_age = "14 fortnights"
        compression = "lzma"
        max_captures = 0
        [reports.smaps]
        producer = "application"
        [reports."Bad-Name"]
        cost = 5000
        [reports.both]
        producer = "application"
        command = []
        timeout = "1m"
        [reports.neither]
        timeout = "1s"
        [reports.odd]
        command = "vmstat -s"
        [templates.heap]
        template = "other"
        selekt = "first"
        limits = { cooldown = "10" }
        [templates.unused]
        for = "soon"
        [templates]
        list = ["smaps"]
        [[rules]]
        name = "a"
        template = "heap"
        reports = ["heap_dmp"]
        trigger.timer = { every = "2h", jiter = "1m" }
        [[rules]]
        name = "a"
        template = "heap"
        reports = ["smaps"]
        sample = "0%"
        trigger.memory_usage = { above = "120%" }
        [[rules]]
        template = "heep"
        reports = []
        for = "1s"
        capture = "once"
        pair_delay = "5m"
        trigger.memory_pressure = { above = "100%" }
        [[rules]]
        name = "a b"
        limits = { window = "1h" }
        trigger.any = [ { gauge = { name = "x", above = 3, below = 2 } }, { exec = { command = [], timeout = "1h" } } ]
        [[rules]]
        name = "c"
        reports = ["smaps"]
        trigger = { event = { name = "two words" }, on_demand = {} }
    "#;
    let expected = [
        "dir: \"store\" is not an absolute path",
        "enabled: \"yes\" is a string, not true or false",
        "poll_intervall: unknown key\n    hint: did you mean \"poll_interval\"?",
        "group: 7 is an integer",
        "defaults: expected a table, found integer",
        "guards.min_free_disk: \"15\": the unit is missing",
        "guards.max_rss: 8 is an integer, not a size like \"1.5GiB\"",
        "guards.memory_headroom: -1 is negative",
        "guards.deadline: \"2d\": must be between 1s and 1d",
        "limits.budget_hour: -5 is an integer, not a whole number, zero or more",
        "limits.budget_day: \"many\" is a string",
        "retention.max_use: 1.00 KiB is too small",
        "retention.keep_free: \"101%\": a percentage is between 0% and 100%",
        "retention.max_age: \"14 fortnights\": \"fortnights\" is not a unit of time",
        "retention.compression: \"lzma\": not a valid choice\n    hint: use one of gzip, zstd",
        "retention.max_captures: 0 would keep nothing",
        "reports.smaps.producer: smaps is a built-in report",
        "reports.Bad-Name.cost: 5000 is more than 1000",
        "reports.Bad-Name.producer: missing",
        "reports.Bad-Name.producer: \"Bad-Name\" is not a valid report name",
        "reports.both.producer: a report has a producer or a command, not both",
        "reports.both.command: empty",
        "reports.both.timeout: \"1m\": must be between 1ms and 10s",
        "reports.neither.producer: missing",
        "reports.neither.timeout: has no effect without a command",
        "reports.odd.command: \"vmstat -s\" is a string, not a list of strings",
        "templates.heap.template: cannot be shared by rules",
        "templates.heap.selekt: unknown key\n    hint: did you mean \"select\"?",
        "templates.heap.limits.cooldown: \"10\": the unit is missing\n    hint: write 10s, 10m, 10h or 10d",
        "templates.unused.for: \"soon\": not a duration",
        "templates.list: expected a table, found array",
        "rules[0].reports[0]: unknown report \"heap_dmp\"\n    hint: did you mean \"heap_dump\"?",
        "rules[0].trigger.timer.jiter: unknown key\n    hint: did you mean \"jitter\"?",
        "rules[1].name: another rule is already named \"a\"",
        "rules[1].sample: 0% of all machines",
        "rules[1].trigger.memory_usage.above: \"120%\": a percentage is between 0% and 100%",
        "rules[2].template: there is no template \"heep\"\n    hint: did you mean \"heap\"?",
        "rules[2].name: missing",
        "rules[2].reports: the list is empty",
        "rules[2].for: 1s is shorter than poll_interval = 10s",
        "rules[2].pair_delay: has no effect, because the rule captures once",
        "rules[2].trigger.memory_pressure.above: no more than 100%",
        "rules[3].name: \"a b\" is not a valid rule name",
        "rules[3].reports: missing",
        "rules[3].limits.window: has no effect without max_count",
        "rules[3].trigger.any[0].gauge.below: 2 is not greater than above = 3",
        "rules[3].trigger.any[1].exec.command: missing or empty",
        "rules[3].trigger.any[1].exec.timeout: \"1h\": must be between 1ms and 10s",
        "rules[4].trigger.event.name: \"two words\": empty, too long, or has spaces",
        "rules[4].trigger.any: a rule has one trigger, this one has several",
    ];
    let mut found = problems(text);
    for expected in expected {
        let at = found.iter().position(|problem| problem.starts_with(expected));
        let at = at.unwrap_or_else(|| panic!("missing {expected:?} in:\n{}", found.join("\n")));
        assert!(found.remove(at).contains("\n    hint: "), "{expected:?} has no hint");
    }
    assert_eq!(found, [""; 0], "told besides");
}

#[test]
fn tables_without_an_effect_are_told() {
    let remote = "[remote]\nurl = \"s3://b\"\n[remote.requests]\n";
    let table = [
        ("[on_capture]".to_owned(), "on_capture: the table is empty, so nobody is told"),
        (
            "[on_capture]\ncommand = [\"x\"]\nrules = []".into(),
            "on_capture.rules: the list is empty, so nobody is told",
        ),
        ("[remote]".into(), "remote: the table is empty, so nothing is shipped"),
        (remote.into(), "remote.requests: allow_reports is empty or missing, so no request is obeyed"),
        (
            format!("{remote}allow_reports = []"),
            "remote.requests: allow_reports is empty or missing, so no request is obeyed",
        ),
        (
            format!("{remote}allow_reports = [\"gc_stat\"]\nmax_per_hour = 0"),
            "remote.requests.max_per_hour: 0, so no request is obeyed",
        ),
        (
            format!("{remote}allow_reports = [\"gc_stat\"]\nallow_requesters = []"),
            "remote.requests.allow_requesters: the list is empty, so no request is obeyed",
        ),
    ];
    for (text, expected) in table {
        let examined = examine(&text).unwrap_or_else(|p| panic!("{p:?}"));
        assert_eq!(examined.problems, [], "the file works as before");
        let told: Vec<String> = examined.idle.iter().map(|p| format!("{}: {}", p.path, p.message)).collect();
        assert_eq!(told, [expected], "{text}");
    }
    let works = format!("{remote}allow_reports = [\"gc_stat\"]\n[on_capture]\ncommand = [\"x\"]");
    assert_eq!(examine(&works).unwrap_or_else(|p| panic!("{p:?}")).idle, []);
}

#[test]
fn all_syntax_errors_are_reported_at_once_with_their_lines() {
    let found = problems("dir = /var\nenabled = true\nenabled = false\n[guards\nmax_rss = \"1GiB\"\n");
    for line in ["line 1: ", "line 4: "] {
        assert!(found.iter().any(|problem| problem.starts_with(line) && problem.contains("hint: ")), "{found:?}");
    }
}

#[test]
fn a_contradictory_rule_is_refused() {
    let rule = |body: &str| format!("[[rules]]\nname = \"r\"\nreports = [\"smaps\"]\n{body}");
    let table = [
        (rule(""), "rules[0].trigger: missing"),
        (rule("trigger = {}"), "no trigger is given"),
        (rule("trigger.timer = { every = \"1h\" }\ntrigger.on_demand = {}"), "a rule has one trigger"),
        (rule("trigger.timmer = { every = \"1h\" }"), "did you mean \"timer\"?"),
        (rule("trigger.timer = { every = \"0s\" }"), "would fire at every poll"),
        (rule("trigger.timer = { every = \"1m\", jitter = \"2m\" }"), "longer than every"),
        (rule("trigger.any = []"), "the list is empty"),
        (rule("trigger.timer = { every = \"1h\" }\ntemplte = \"x\""), "did you mean \"template\"?"),
        ("[template.x]".into(), "did you mean \"templates\"?"),
        ("[default]".into(), "did you mean \"defaults\"?"),
        ("[reports.gc_stat]\nfull = true".into(), "this table takes no keys; remove it"),
        ("poll_interval = \"2h\"".into(), "poll_interval: \"2h\": must be between 50ms and 1h"),
        ("group = \"\"".into(), "group: \"\": not the name of a group"),
        ("[retention]\nmax_age = \"0d\"".into(), "max_age: \"0d\": would keep nothing"),
        (rule("trigger.memory_usage = { above = [\"90%\", \"80%\"] }"), "levels must ascend"),
        (rule("trigger.memory_usage = { above = \"80%\", rearm_below = \"85%\" }"), "is not below"),
        (rule("trigger.memory_usage = { of = \"host\", metric = \"pss\", above = \"80%\" }"), "has only one"),
        (rule("for = \"1s\"\ntrigger.memory_usage = { above = \"80%\" }"), "shorter than poll_interval"),
        (rule("for = \"30s\"\ntrigger.event = { name = \"e\" }"), "event holds at single polls only"),
        ("[reports.x]\nproducer = \"application\"\ncost = 4294967295".into(), "more than 1000"),
        (rule("trigger.timer = { every = \"1h\" }\nlimits = { window = \"1h\" }"), "has no effect without max_count"),
        (rule("trigger.timer = { every = \"1h\" }\nselect = \"biggest\""), "use one of first, largest, round_robin"),
        ("[[rules]]\nname = \"on demand\"\nreports = []\ntrigger.on_demand = {}".into(), "is not a valid rule name"),
        ("[reports.smaps]\nproducer = \"application\"".into(), "is a built-in report"),
        ("[reports.\"../x\"]\nproducer = \"application\"".into(), "is not a valid report name"),
        ("retention = 3".into(), "retention: 3 is an integer, not a table"),
        ("dir = \"a".into(), "line 1"),
    ];
    for (text, expected) in table {
        let found = problems(&text).join("\n");
        assert!(found.contains(expected), "{text}\nshould say {expected:?} but says:\n{found}");
    }
}

// Each key that takes an amount, with values of the wrong kind.
#[test]
fn a_value_of_the_wrong_type_is_shown_with_its_key_and_a_hint() {
    let rule = |body: &str| format!("[[rules]]\nname = \"r\"\nreports = [\"smaps\"]\n{body}");
    let trigger = |body: &str| rule(&format!("trigger.{body}"));
    let timer = |body: &str| rule(&format!("trigger.timer = {{ every = \"1h\" }}\n{body}"));
    let any = ["\"\"", "\"soon\"", "\"-5m\"", "\"1e3\"", "5", "-5", "0.5", "true", "[[]]", "{}"];
    type Kind<'a> = (&'a [&'a str], &'a [(String, &'a str)]);
    let kinds: [Kind<'_>; 4] = [
        (
            &["\"5\"", "\"5%\"", "\"5GiB\"", "\"99999999999999999999s\"", "\"101y\""],
            &[
                ("poll_interval = VALUE".into(), "poll_interval"),
                ("guards.deadline = VALUE".into(), "guards.deadline"),
                ("retention.max_age = VALUE".into(), "retention.max_age"),
                ("reports.cpu_profile.duration = VALUE".into(), "reports.cpu_profile.duration"),
                (timer("for = VALUE"), "rules[0].for"),
                (timer("capture = \"pair\"\npair_delay = VALUE"), "rules[0].pair_delay"),
                (timer("limits = { cooldown = VALUE }"), "rules[0].limits.cooldown"),
                (timer("limits = { max_count = 1, window = VALUE }"), "rules[0].limits.window"),
                (trigger("timer = { every = VALUE }"), "rules[0].trigger.timer.every"),
                (trigger("timer = { every = \"1h\", jitter = VALUE }"), "rules[0].trigger.timer.jitter"),
                (trigger("timer = { every = \"1h\", initial_delay = VALUE }"), "rules[0].trigger.timer.initial_delay"),
                (trigger("memory_growth = { diff = \"1%\", warmup = VALUE }"), "rules[0].trigger.memory_growth.warmup"),
                (
                    trigger("high_water = { step = \"1GiB\", reset_after = VALUE }"),
                    "rules[0].trigger.high_water.reset_after",
                ),
                (trigger("exec = { command = [\"x\"], timeout = VALUE }"), "rules[0].trigger.exec.timeout"),
                (trigger("exec = { command = [\"x\"], every = VALUE }"), "rules[0].trigger.exec.every"),
                (trigger("on_demand = { min_interval = VALUE }"), "rules[0].trigger.on_demand.min_interval"),
            ],
        ),
        (
            &["\"5\"", "\"5%\"", "\"5m\"", "\"5G\"", "\"99999999999TiB\"", "\"1.2.3MiB\""],
            &[
                ("guards.max_rss = VALUE".into(), "guards.max_rss"),
                ("retention.max_use = VALUE".into(), "retention.max_use"),
                (trigger("memory_growth = { diff = \"1%\", min = VALUE }"), "rules[0].trigger.memory_growth.min"),
                (trigger("high_water = { step = \"1GiB\", floor = VALUE }"), "rules[0].trigger.high_water.floor"),
                (trigger("high_water = { step = VALUE }"), "rules[0].trigger.high_water.step"),
            ],
        ),
        (
            &["\"5\"", "\"5m\"", "\"-5%\"", "\"nan%\"", "\"5G\"", "\"99999999999TiB\""],
            &[
                ("guards.min_free_disk = VALUE".into(), "guards.min_free_disk"),
                ("retention.keep_free = VALUE".into(), "retention.keep_free"),
                (trigger("memory_usage = { above = VALUE }"), "rules[0].trigger.memory_usage.above"),
                (
                    trigger("memory_usage = { above = \"1GiB\", rearm_below = VALUE }"),
                    "rules[0].trigger.memory_usage.rearm",
                ),
                (trigger("memory_growth = { diff = VALUE }"), "rules[0].trigger.memory_growth.diff"),
                (trigger("memory_projection = { margin = VALUE }"), "rules[0].trigger.memory_projection.margin"),
            ],
        ),
        (
            &["\"5\"", "\"5m\"", "\"5GiB\"", "\"-5%\"", "\"101%\"", "\"%\""],
            &[
                ("guards.max_cpu_pressure = VALUE".into(), "guards.max_cpu_pressure"),
                (timer("sample = VALUE"), "rules[0].sample"),
                (trigger("memory_pressure = { above = VALUE }"), "rules[0].trigger.memory_pressure.above"),
            ],
        ),
    ];
    let mut wrong = Vec::new();
    for (values, keys) in kinds {
        for ((text, key), value) in keys.iter().flat_map(|key| values.iter().chain(&any).map(move |value| (key, value)))
        {
            let found = problems(&text.replace("VALUE", value));
            let shown = value.trim_matches(['[', ']']);
            if !matches!(found.as_slice(), [one] if one.starts_with(key) && one.contains(shown) && one.contains("hint: "))
            {
                wrong.push(format!("{key} = {value}: {found:?}"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn reports_are_sorted_cheapest_first() {
    let text = "[reports.cache]\nproducer = \"application\"\n[[rules]]\nname = \"r\"\n\
                reports = [\"heap_dump\", \"cache\", \"threads\", \"smaps\", \"threads\"]\ntrigger.on_demand = {}";
    let (config, _) = parse(text).unwrap();
    assert_eq!(config.rules[0].reports, ["smaps", "threads", "cache", "heap_dump"]);
}

#[test]
fn flags_and_environment_override_the_file() {
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
fn a_missing_named_file_or_a_relative_store_is_an_error() {
    let missing = load(Some(Path::new("/nonexistent/diagctl.toml")), &Overrides::default()).unwrap_err();
    assert!(matches!(missing, Error::Missing { .. }), "{missing}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("diagctl.toml");
    std::fs::write(&file, "dir = \"relative\"").unwrap();
    let relative = load(Some(&file), &Overrides::default()).unwrap_err();
    assert!(relative.to_string().contains("not an absolute path"), "{relative}");
    std::fs::write(&file, "").unwrap();
    let overrides = Overrides { dir: Some(("relative".into(), SourceOf::Flag)), enabled: None };
    assert!(load(Some(&file), &overrides).unwrap().config.dir.is_absolute());
}
