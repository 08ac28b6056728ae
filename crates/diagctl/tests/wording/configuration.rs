//! config check, config show, config init, and everything that can be wrong with a configuration.

use serde_json::json;

use super::environment::{BIN, Environment, compare};
use super::fixture;

const VALID: &str = r#"
dir = "/srv/diagctl"
poll_interval = "30s"
[guards]
max_rss = "4GiB"
[reports.vmstat]
command = ["/usr/bin/vmstat", "-s"]
[defaults]
limits = { cooldown = "1h" }
[templates.heap]
reports = ["smaps", "heap_dump"]
select = "largest"
[[rules]]
name = "heap-on-growth"
template = "heap"
trigger.memory_usage = { of = "host", above = ["70%", "80%"] }
limits = { max_count = 3, window = "24h" }
"#;

#[test]
fn config_show() {
    let mut environment = Environment::new();
    environment.configure(VALID);
    environment.redact(r#"(dir = "[^"]*") +#"#, "$1  #");
    environment.run_table("config show");
    environment.snapshot("config_show");
}

#[test]
fn config_show_json() {
    let mut environment = Environment::new();
    environment.configure(VALID);
    environment.run_json("config show --json");
    environment.snapshot("config_show_json");
}

// A day of polls of a process that fills its container. The heap rule must get its capture, whatever the others spent.
#[test]
fn every_rule_of_config_init_captures() {
    let environment = Environment::new();
    let written = environment.command(BIN).args(["config", "init", "-o", "new.toml"]).output().unwrap();
    assert!(written.status.success(), "{written:?}");
    let checked = environment.command(BIN).args(["config", "check", "new.toml", "--elsewhere"]).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let mut samples = String::new();
    for poll in 0..8640_u64 {
        let rss = (200 << 20) + poll * (190 << 10);
        samples.push_str(&format!(
            "{{\"at\":{},\"pid\":7,\"start_ticks\":1,\"role\":\"puma\",\"name\":\"worker-0\",\"limit\":2147483648,\
             \"host_total\":8589934592,\"memory\":{{\"rss\":{rss},\"cgroup_working_set\":{rss}}}}}\n",
            1_800_000_000_000 + poll * 10_000
        ));
    }
    environment.write("samples.jsonl", &samples);
    let mut simulate = environment.command(BIN);
    simulate.args(["--config", "new.toml", "simulate", "--samples", "samples.jsonl", "--json"]);
    let output = simulate.output().unwrap();
    let simulation: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let fired: Vec<&str> =
        simulation["fired"].as_array().unwrap().iter().map(|f| f["rule"].as_str().unwrap()).collect();
    for rule in ["routine", "heap-on-growth", "container-filling-up"] {
        assert!(fired.contains(&rule), "{rule} captured nothing: {fired:?}");
    }
}

#[test]
fn config_init() {
    let mut environment = Environment::new();
    let example = environment.command(BIN).args(["config", "init"]).output().unwrap().stdout;
    compare("config_init_example", &String::from_utf8(example).unwrap());
    environment.run("config init -o new.toml");
    environment.run("config check new.toml --elsewhere");
    environment.run("config init -o new.toml");
    environment.run("config init -o missing/new.toml");
    environment.snapshot("config_init");
}

#[test]
fn config_check() {
    let mut environment = Environment::new();
    environment.configure(VALID);
    environment.run("config check --elsewhere");
    environment.run_json("config check --elsewhere --json");
    environment.run("config check missing.toml");
    environment.run("config check /");
    environment.snapshot("config_check");
}

#[test]
fn config_check_of_syntax_errors() {
    let mut environment = Environment::new();
    for text in
        ["poll_interval = 10s\n", "[guards\n", "poll_interval = \"10s\"\npoll_interval = \"20s\"\n", "dir = 'C:\n"]
    {
        environment.configure(text);
        environment.run("config check");
    }
    std::fs::write(environment.path("diagctl.toml"), b"dir = \"\xff\"").unwrap();
    environment.run("config check");
    environment.snapshot("config_check_of_syntax_errors");
}

const WRONG: &str = r#"
dir = "relative"
poll_intervall = "10s"
enabled = "yes"
group = ""
colour = 1
[guards]
memory_headroom = -1
min_free_disk = "110%"
max_rss = "4 gigs"
max_cpu_pressure = 50
deadline = "0s"
[limits]
budget_hour = 2.5
[retention]
max_use = "1KiB"
keep_free = "ten"
max_age = "14"
keep_last = -1
max_captures = 0
compression = "lzma"
[reports.heap_dump]
producer = "application"
[reports.cpu_profile]
duration = "2h"
[reports.jemalloc_stats]
options = "J;x"
[reports.Mine]
command = ["true"]
[reports.both]
command = ["true"]
producer = "application"
[reports.neither]
[reports.timeless]
producer = "application"
timeout = "5s"
[reports.empty]
command = []
timeout = "1m"
cost = 5000
"#;

const WRONG_RULES: &str = r#"
[defaults]
name = "x"
[templates.heap]
selekt = "first"
[[rules]]
[[rules]]
name = "on_demand"
reports = ["heapdump", 3]
trigger.timer = { every = "0s" }
[[rules]]
name = "twice"
template = "heep"
reports = ["heapdump", "nonsense"]
trigger = { timer = { every = "1h", jitter = "2h" }, memory_usage = { above = "1GiB" } }
sample = "0%"
select = "smallest"
mode = "test"
snapshot = "thread"
pair_delay = "1s"
[[rules]]
name = "twice"
reports = []
trigger.memory_usage = { above = ["80%", "70%"], of = "everything", rearm = "90%" }
for = "1s"
capture = "pair"
pair_delay = "1s"
limits = { window = "0s", max_count = 0 }
[[rules]]
name = "gauges"
reports = ["smaps"]
trigger.any = [ { gauge = { name = "puma backlog" } }, { gauge = { name = "a", above = 5, below = 3 } }, { event = {} } ]
[[rules]]
name = "growth"
reports = ["smaps"]
trigger.all = [ { memory_growth = { diff = "-5%" } }, { high_water = { floor = "1GiB" } }, { memory_projection = {} } ]
[[rules]]
name = "kernel"
reports = ["smaps"]
trigger.any = [ { memory_event = { events = ["oom", "boom"] } }, { memory_pressure = { above = "5" } }, { exec = { command = [] } } ]
[[rules]]
name = "momentary"
reports = ["smaps"]
trigger.event = { name = "deploy" }
for = "1m"
[[rules]]
name = "nothing"
reports = ["smaps"]
trigger = {}
[[rules]]
name = "unknown"
reports = ["smaps"]
trigger.memory_usag = { above = "1GiB" }
limits = { window = "1h" }
match = { rolle = "puma" }
"#;

#[test]
fn config_check_of_wrong_values() {
    let mut environment = Environment::new();
    environment.configure(WRONG);
    environment.run("config check --elsewhere");
    environment.configure(WRONG_RULES);
    environment.run("config check --elsewhere");
    environment.run("list");
    environment.snapshot("config_check_of_wrong_values");
}

const DOUBTFUL: &str = r#"
group = "no-such-group"
[guards]
min_free_disk = "100%"
max_rss = "0B"
max_cpu_pressure = "0%"
[limits]
budget_hour = 60
budget_day = 50
[[rules]]
name = "usage"
reports = ["heap_dump"]
trigger.any = [ { memory_usage = { above = ["0%", "900TiB"] } }, { memory_usage = { of = "host", above = "100%" } } ]
[[rules]]
name = "growth"
reports = ["heap_dump", "smaps"]
trigger.memory_growth = { min = "900TiB", diff = "1GiB" }
limits = { cooldown = "6h", max_count = 5, window = "1d" }
[[rules]]
name = "often"
reports = ["smaps"]
trigger.timer = { every = "1s" }
[[rules]]
name = "projection"
reports = ["smaps"]
trigger.memory_projection = { margin = "100%" }
"#;

#[test]
fn config_check_of_warnings() {
    let mut environment = Environment::new();
    environment.redact(r"\(\d+(\.\d+)? [KMGT]iB\)", "(SIZE)");
    environment.configure(DOUBTFUL);
    environment.run("config check");
    environment.run_json("config check --json");
    environment.configure("[limits]\nbudget_hour = 5\n[[rules]]\nname = \"a\"\nreports = [\"heap_dump\"]\ntrigger.timer = { every = \"1h\" }\n");
    environment.run("config check");
    environment.snapshot("config_check_of_warnings");
}

#[test]
fn config_check_of_a_file_of_another_store() {
    let mut environment = fixture::environment();
    let record = json!({ "schema": 1, "on": true, "since": "2026-11-01T00:00:00.000Z", "recipients": ["age1x"] });
    environment.write("store/encryption.json", &record.to_string());
    environment.write("new.toml", "");
    environment.run("config check new.toml");
    environment.run_json("config check new.toml --json");
    environment.run("config check new.toml --elsewhere");
    environment.comment("it names a store, which is not that of the shell");
    environment.write("new.toml", &format!("dir = {:?}\n", environment.path("other").display().to_string()));
    environment.run("config check new.toml");
    environment.run_json("config check new.toml --json");
    environment.run("config check new.toml --dir store");
    environment.write("new.toml", &format!("dir = {:?}\n", environment.store().display().to_string()));
    environment.run("config check new.toml");
    environment.snapshot("config_check_of_a_file_of_another_store");
}

const BRACKETS: &str = r#"
[[guards]]
max_rss = "4GiB"
[[reports.vmstat]]
command = ["/bin/true"]
[[defaults]]
select = "largest"
[[templates.heap]]
select = "largest"
[[rules]]
name = "a"
reports = ["smaps"]
[rules.trigger.any]
timer = { every = "1h" }
[[rules.limits]]
cooldown = "1h"
"#;

#[test]
fn config_check_of_brackets() {
    let mut environment = Environment::new();
    let rule = "name = \"a\"\nreports = [\"smaps\"]\ntrigger.timer = { every = \"1h\" }\n";
    for text in [
        BRACKETS.to_owned(),
        format!("[rules]\n{rule}"),
        format!("[rules]\n{rule}[rules]\n{rule}"),
        format!("[[rules]]\n{rule}[rules]\n{rule}"),
        format!("[rules.heap-on-growth]\n{rule}"),
        "rules = 1\nguards = \"4GiB\"\n".to_owned(),
    ] {
        environment.configure(&text);
        environment.run("config check --elsewhere");
    }
    environment.snapshot("config_check_of_brackets");
}

#[test]
fn config_check_of_encryption() {
    let mut environment = Environment::new();
    let key = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
    for recipients in [
        "[]",
        "\"age1x\"",
        "[\"age1x\", \"age1pq1x\", \"ssh-ed25519 A\", \"ops@example.org\", 1]",
        &format!("[{key:?}]"),
    ] {
        environment.configure(&format!("[encrypt]\nrecipients = {recipients}\nexcept = [\"gc_stats\"]\n"));
        environment.run("config check");
    }
    environment.configure(&format!("# {key}\n[encrypted]\n"));
    environment.run("config check");
    environment.snapshot("config_check_of_encryption");
}
