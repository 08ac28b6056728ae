//! Commands about processes: status, request, pause, resume, acquire, doctor.

use std::fs;

use serde_json::json;

use super::environment::{BIN, Environment, assert_fits, set_mode};
use super::fixture::{self, change_json, now_ms, poll, record_grant, start_of, take_lease, this_process};

const RULES: &str = r#"
poll_interval = "1m"
[guards]
min_free_disk = "0"
[retention]
keep_free = "0"
[[rules]]
name = "heap-on-growth"
reports = ["smaps", "heap_dump"]
trigger.memory_usage = { of = "host", above = "80%" }
for = "5m"
limits = { cooldown = "12h", max_count = 2 }
[[rules]]
name = "watch"
reports = ["smaps_rollup"]
trigger.timer = { every = "5h" }
mode = "dry_run"
"#;

// A store with its configuration, as it shows on every machine.
fn environment() -> Environment {
    let mut environment = fixture::environment();
    environment.configure(RULES);
    environment.redact(r"\d+(\.\d+)? [KMGT]iB free", "SIZE free");
    environment.redact(r"(?m)^quarantine .*", "quarantine SIZE");
    environment.redact(r"captures, \d+(\.\d+)? ([KMGT]i)?B", "captures, SIZE");
    environment.redact(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b", "2026-01-01 00:00:00");
    environment.redact(r"; [\w ]+ had paused it", "; USER had paused it");
    environment.redact(r"\(\d+(\.\d+)? [KMGT]iB\)", "(SIZE)");
    // The pid of this process has more digits at one time than at another, and so the columns beside it.
    environment.redact(&format!(r"\b{}\b", this_process().0), "PID");
    environment.redact(r" *PID( +)ROLE", "  PID  ROLE");
    environment.redact(r"  +PID  +", "  PID  ");
    environment.redact(r"\((wording-\w+|\w*harness\w*)\)", "(COMM)");
    environment.redact(r"\b\d+s ago", "Ns ago");
    environment.redact(r"(held for|pause it|paused it|another) [\dhms ]+\d+s", "$1 N");
    environment.redact(r"deadline in [\dms ]+", "deadline in N");
    environment.redact(r"overdue by [\dhdms ]+", "overdue by N");
    environment
}

#[test]
fn status() {
    let mut environment = environment();
    environment.run_table("status");
    environment.comment("two processes poll, one is gone, and a rule has fired");
    let (pid, start, _) = this_process();
    poll(&environment, pid, start, &json!({ "verdict": "idle", "reason": "no rule holds" }));
    let pending = json!({
        "name": "worker-1", "verdict": "pending", "reason": "rss 1.62 GiB is above 80% (1.60 GiB), for 10s of 5m",
        "refusals": { "heap-on-growth": { "verdict": "pending", "reason": "rss 1.62 GiB is above 80% (1.60 GiB)" } },
        "holding": { "heap-on-growth": { "since": now_ms() - 14_000, "last": now_ms() - 4_000 } },
    });
    poll(&environment, 4_194_305, 1, &pending);
    change_json(&environment, "state.json", |state| {
        *state = json!({
            "schema": 1, "clock": null, "generation": 4,
            "spent": [{ "at": now_ms() - 7_200_000, "units": 11 }],
            "rules": {
                "heap-on-growth": { "fires": [now_ms() - 7_830_000] },
                "watch": { "due": { "timer": now_ms() + 7_230_000 } },
            },
        });
    });
    environment.run_table("status");
    environment.run("pause");
    environment.run("resume");
    environment.run_table("status --explain");
    environment.snapshot("status");
}

#[test]
fn status_json() {
    let mut environment = environment();
    environment.redact(r#"("(free_disk_bytes|used_bytes|latest_age_ms|polled_ms|holding_ms)": )\d+"#, "${1}0");
    let (pid, start, _) = this_process();
    poll(&environment, pid, start, &json!({ "verdict": "idle", "reason": "no rule holds" }));
    environment.run_json("status --json");
    environment.snapshot("status_json");
}

#[test]
fn status_of_the_lease() {
    let mut environment = environment();
    let (pid, start, _) = this_process();
    environment.comment("its worker and its dumper have ended");
    record_grant(&environment, (4_194_305, 1), &json!({}));
    environment.shell("diagctl status | grep -e ^lease -e ^holders");
    for (what, worker, fields) in [
        ("a capture is being taken", (pid, start), json!({})),
        ("it takes longer than its deadline", (pid, start), json!({ "deadline_boot_ms": 1 })),
        ("its worker has ended, and its dumper has not", (4_194_305, 1), json!({})),
        ("it is over, and its lease is still held", (pid, start), json!({ "ended": true })),
    ] {
        environment.comment(what);
        let lease = take_lease(&environment, worker, &fields);
        environment.shell("diagctl status | grep -e ^lease -e ^holders");
        environment.run_part("doctor", |text| checks(text, &["lease"]));
        drop(lease);
    }
    environment.snapshot("status_of_the_lease");
}

#[test]
fn status_of_what_is_wrong() {
    let mut environment = environment();
    let poll = format!("DIAGCTL_ENABLED=1 {BIN} acquire --lease-fd=5 --pid={} 5<>store/lease.lock", this_process().0);
    let polled = environment.command("/bin/sh").args(["-c", &poll]).output().unwrap();
    assert_eq!(polled.status.code(), Some(10), "{polled:?}");
    environment.shell("DIAGCTL_ENABLED=0 diagctl status | head -n 3");
    environment.write("store/reports/20261101T030000000Z-1111aaaa/meta.json", "{");
    environment.write("store/quarantine/state.json.0badcafe", "{");
    environment.run("request heap_dump --reason 'memory grows'");
    environment.comment("the configuration breaks after a poll");
    environment.configure(&format!("colour = 1\n{RULES}"));
    environment.shell("diagctl status | sed -n '1,/^$/p'");
    environment.comment("a rule can never fire");
    environment.configure(&RULES.replace("80%", "900TiB"));
    environment.shell("diagctl status | grep ^warning");
    environment.comment("tables have no effect");
    environment.configure(&format!("{RULES}[remote]\n[on_capture]\ncommand = [\"/bin/true\"]\nrules = []\n"));
    environment.shell("diagctl status | grep -A1 ^warning");
    environment.run_part("doctor", |text| checks(text, &["config.rules"]));
    environment.snapshot("status_of_what_is_wrong");
}

#[test]
fn pause_and_resume() {
    let mut environment = environment();
    environment.run("pause");
    environment.run_table("status");
    environment.run("request heap_dump --reason 'memory grows'");
    environment.run("resume");
    environment.run("resume");
    environment.run("pause --for 2h");
    environment.write("store/state.json", "{\"schema\":1,");
    environment.run("pause --for 30m");
    environment.snapshot("pause_and_resume");
}

#[test]
fn request() {
    let mut environment = environment();
    environment.run("request heap_dump smaps --reason 'memory grows'");
    let (pid, start, _) = this_process();
    poll(&environment, pid, start, &json!({ "verdict": "idle" }));
    environment.run("request --role puma --reason 'memory grows' --expires 2h");
    environment.run("request --role sidekiq --reason 'memory grows'");
    environment.run("request --reason 'memory grows' --wait --expires 200ms");
    poll(&environment, 1, start_of("1"), &json!({ "verdict": "idle", "name": "worker-1" }));
    environment.redact(r"\(pid 1\)", "(pid PID)");
    environment.run("request heap_dump --role pumma --reason 'memory grows' --wait --expires 200ms");
    environment.snapshot("request");
}

#[test]
fn events() {
    let mut environment = environment();
    environment.redact(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "2026-01-01T00:00:00.000Z");
    environment.run("events");
    environment.run("pause");
    environment.run("resume");
    environment.run_text_table("events", &["WHY"]);
    environment.run_json("events --json --since 1h");
    environment.run("events --pid 7");
    environment.run("events --until 2020-01-01");
    environment.run("events --limit 1");
    environment.run("events -n 0");
    environment.comment("a reason with a word that is wider than its column");
    let path = "/var/lib/diagctl/on/a/volume/with/a/path/that/somebody/made/very/long/indeed/reports";
    let event = |id: &str, rule: &str, reason: &str| {
        let at = "2026-01-01T00:00:00.000Z";
        json!({ "at": at, "event": "published", "id": id, "rule": rule, "pid": 7, "reason": reason }).to_string() + "\n"
    };
    let events =
        event("20261121T040000000Z-3333dddd", "heap-on-growth", &format!("with heap_dump in {path}, after 3.2 s"));
    environment.write("store/events.jsonl", &events);
    environment.run_text_table("events", &["WHY"]);
    environment.run("events --rule heap-on-groth");
    environment.run("events --rule x");
    let watch = environment.command("timeout").args(["2", BIN, "events", "--watch", "-n", "1"]).output().unwrap();
    let line = String::from_utf8(watch.stdout).unwrap();
    assert!(line.lines().count() > 2, "{line}");
    assert_fits(&line, "events --watch");
    environment.snapshot("events");
}

#[test]
fn request_list_and_cancel() {
    let mut environment = environment();
    environment.redact(r"\b(59m \d+s|1h 59m)\b", "59m");
    environment.redact(r"  [\d]+s  +59m", "  Ns  59m");
    environment.run("request --list");
    let (pid, start, _) = this_process();
    environment.run("request heap_dump --role puma --reason 'memory grows'");
    let id = fs::read_dir(environment.store().join("requests")).unwrap().next().unwrap().unwrap().file_name();
    let cooldown = json!({ "verdict": "cooldown", "reason": "min_interval 1m: 40s left" });
    let refused = json!({ id.to_str().unwrap().trim_end_matches(".json"): cooldown });
    let poll_with =
        json!({ "verdict": "cooldown", "reason": "x", "last_seen": now_ms() + 1000, "refused_requests": refused });
    poll(&environment, pid, start, &poll_with);
    environment.run("request --name worker-9 --reason 'it hangs'");
    environment.run("request gc_stat --role puma --reason 'another of the same process'");
    environment.redact(r"59m     \S+ +(heap_dump|routine|gc_stat)", "59m     USER  $1");
    environment.redact(r"BY +REPORTS", "BY    REPORTS");
    // Wide, because the length of the pid would decide where a line is broken.
    environment.shell("COLUMNS=200 diagctl request --list");
    environment.comment("the process is switched off");
    poll(
        &environment,
        pid,
        start,
        &json!({ "verdict": "disabled", "reason": "switched off: enabled = false in /diagctl.toml" }),
    );
    environment.shell("COLUMNS=200 diagctl request --list");
    environment.redact(r#"("(created|expires|age_ms|expires_in_ms)": )\d+"#, "${1}0");
    environment.redact(r#"("by": )"[^"]*""#, "${1}\"USER\"");
    environment.run_json("request --list --json");
    environment.run("request --cancel 2025");
    environment.run("request --cancel 2");
    environment.shell("diagctl request --cancel \"$(basename $(ls store/requests/*.json | head -n 1) .json)\"");
    environment.shell("ls store/requests | wc -l");
    environment.snapshot("request_list_and_cancel");
}

#[test]
fn request_json() {
    let mut environment = environment();
    environment.redact(r#"("(created|expires)": )\d+"#, "${1}0");
    environment.redact(r#""by": "[^"]*""#, r#""by": "USER""#);
    environment.redact(r#"("(pid_ns|start_ticks)": )\d+"#, "${1}0");
    environment.redact(r#""boot_id": "[^"]+""#, r#""boot_id": "BOOT""#);
    environment.run_json(&format!("request heap_dump --json --pid {} --reason 'memory grows'", this_process().0));
    environment.snapshot("request_json");
}

// Of the verdicts those that do not depend on what this machine has to spare.
#[test]
fn acquire() {
    let mut environment = environment();
    environment.configure(&RULES.replace("of = \"host\", ", ""));
    environment.redact(r#""retry_after":[\d.]+"#, r#""retry_after":0"#);
    environment.redact(r#"("rss":)\d+"#, "${1}0");
    environment.redact(r"rss [\d.]+ [KMG]iB", "rss SIZE");
    let pid = this_process().0;
    let acquire = format!("diagctl acquire --lease-fd=5 --pid={pid} --role=puma --name=worker-0 5<>store/lease.lock");
    for enabled in ["''", "0", "1"] {
        environment.shell(&format!("DIAGCTL_ENABLED={enabled}; export DIAGCTL_ENABLED; {acquire}"));
    }
    environment.run("pause");
    environment.shell(&format!("DIAGCTL_ENABLED=1; export DIAGCTL_ENABLED; {acquire}"));
    environment.snapshot("acquire");
}

// The checks of the machine differ from machine to machine. These checks concern the store and the configuration.
const SAME_EVERYWHERE: [&str; 13] = [
    "config.file",
    "config.rules",
    "switch",
    "store.directory",
    "store.format",
    "store.state",
    "pause",
    "store.captures",
    "store.quarantine",
    "store.trash",
    "store.files",
    "lease",
    "processes.polling",
];

// Some checks of many, each with its hint.
fn checks(report: &str, ids: &[&str]) -> String {
    let mut shown = false;
    let wanted = |line: &&str| {
        let id = line.split_whitespace().nth(1).filter(|_| !line.starts_with(' '));
        shown = id.map_or(shown && !line.is_empty(), |id| ids.contains(&id));
        shown
    };
    report.lines().filter(wanted).map(|line| format!("{line}\n")).collect()
}

#[test]
fn doctor() {
    let mut environment = environment();
    environment.redact(r"\(this is root\)", "");
    environment.comment("a healthy store");
    environment.run_part("doctor", |text| checks(text, &SAME_EVERYWHERE));
    environment.comment("a store in which everything is wrong");
    environment.write("store/reports/20261101T030000000Z-1111aaaa/meta.json", "{");
    environment.write("store/quarantine/state.json.0badcafe", "{");
    environment.run("pause");
    environment.write("store/state.json", "{");
    fs::remove_file(environment.store().join("state.lock")).unwrap();
    std::os::unix::fs::symlink("FORMAT", environment.store().join("state.lock")).unwrap();
    change_json(&environment, "reports/20261121T040000000Z-3333dddd/meta.json", |meta| {
        meta["versions"]["diagctl_gem"] = "99.0.0".into();
    });
    poll(
        &environment,
        this_process().0,
        this_process().1,
        &json!({ "last_seen": now_ms() - 3_500_000, "next_poll": 0 }),
    );
    environment.configure(
        "[[rules]]\nname = \"never\"\nreports = [\"smaps\"]\ntrigger.memory_usage = { above = \"900TiB\" }\n",
    );
    environment.run_part("doctor", |text| checks(text, &SAME_EVERYWHERE));
    environment.snapshot("doctor");
}

#[test]
fn doctor_where_there_is_no_store() {
    let mut environment = Environment::new();
    environment.redact(r"uid \d+", "uid N");
    environment.run_part("doctor", |text| checks(text, &SAME_EVERYWHERE));
    environment.configure("colour = 1\n");
    environment.write("store/notes.txt", "mine");
    set_mode(&environment.store(), 0o700);
    environment.run_part("doctor", |text| checks(text, &SAME_EVERYWHERE));
    environment.snapshot("doctor_where_there_is_no_store");
}
