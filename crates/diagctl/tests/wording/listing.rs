//! Commands about the contents of the store: list, show, fetch, verify, rm, pin, unpin, gc, samples, simulate.

use std::fs;

use super::environment::Environment;
use super::fixture::{self, HEAP, REQUESTED, ROUTINE, RUN, change_json};

#[test]
fn list() {
    let mut environment = fixture::environment();
    environment.redact_sizes();
    environment.run_table("list");
    environment.run_table("list --utc --limit 2");
    environment.run_table("list --rule heap-on-growth");
    environment.run_table("list --since 3d --role puma");
    environment.run_table("list --report heap_dump --name default");
    environment.run("list --worker default --quiet");
    environment.run_table("list --pinned --until 1d");
    environment.run_table("list --sort size -n 2 --since 2026-11-01");
    environment.run("list -q --sort role --until '2026-11-21 04:00:00' --utc");
    environment.comment("with encrypted reports");
    for id in [HEAP, REQUESTED] {
        change_json(&environment, &format!("reports/{id}/meta.json"), |meta| {
            let reports = meta["reports"].as_array_mut().unwrap().iter_mut();
            reports.filter(|report| report["file"].is_string()).for_each(|report| report["encryption"] = "age".into());
        });
    }
    environment.run_table("list");
    environment.comment("into a pipe, every column");
    environment.shell("unset COLUMNS; diagctl list | cat");
    environment.snapshot("list");
}

#[test]
fn list_json() {
    let mut environment = fixture::environment();
    environment.redact(r#"("(store_ms|disk_bytes)": )\d+"#, "${1}0");
    environment.run_json("list --json --limit 1 --report heap_dump");
    environment.snapshot("list_json");
}

#[test]
fn list_of_nothing() {
    let mut environment = fixture::environment();
    environment.run_table("list --role nobody");
    environment.run_json("list --json --role nobody");
    environment.comment("a name that is misspelt");
    for filters in ["--report heapdump", "--rule rutine --name worker-O", "--role puma --rule on_demand", "--rule x -q"]
    {
        environment.run(&format!("list {filters}"));
    }
    environment.comment("machines");
    for filters in ["--host nobody", "--host 'nobody*' -q"] {
        environment.run(&format!("list {filters}"));
    }
    environment.comment("a store without captures");
    fs::remove_dir_all(environment.store().join("reports")).unwrap();
    environment.run_table("list");
    environment.run_json("list --json");
    environment.snapshot("list_of_nothing");
}

#[test]
fn list_with_a_damaged_capture() {
    let mut environment = fixture::environment();
    environment.redact_sizes();
    fs::write(environment.store().join(format!("reports/{ROUTINE}/meta.json")), "{\"schema\":1,").unwrap();
    environment.run_table("list --limit 1");
    change_json(&environment, &format!("reports/{RUN}/meta.json"), |meta| meta["schema"] = 2.into());
    environment.run_table("list --limit 1");
    environment.comment("the whole list tells of it, too");
    environment.run_table("list");
    environment.snapshot("list_with_a_damaged_capture");
}

#[test]
fn show() {
    let mut environment = fixture::environment();
    for id in [ROUTINE, HEAP, REQUESTED, RUN] {
        environment.run_text_table(&format!("show {id}"), &["ERROR"]);
    }
    environment.snapshot("show");
}

#[test]
fn show_json() {
    let mut environment = fixture::environment();
    environment.redact(r#"("store_ms": )\d+"#, "${1}0");
    environment.run_json("show latest:heap_dump --json");
    environment.snapshot("show_json");
}

#[test]
fn fetch() {
    let mut environment = fixture::environment();
    environment.run("fetch latest:gc_stat");
    environment.run("fetch 20261101:gc_stat -o gc.json");
    environment.run("fetch 20261101 threads -o -");
    environment.run(&format!("fetch {HEAP}"));
    environment.run(&format!("fetch {HEAP} --raw -o raw"));
    environment.run_json("fetch latest --json --force -o vmstat.txt");
    environment.snapshot("fetch");
}

#[test]
fn fetch_of_damaged_and_failed_reports() {
    let mut environment = fixture::environment();
    environment.run(&format!("fetch {REQUESTED}:heap_dump -o heap.json"));
    environment.run(&format!("fetch {ROUTINE}:jemalloc_stats"));
    environment.run(&format!("fetch {ROUTINE}"));
    fs::write(environment.store().join(format!("reports/{ROUTINE}/threads.txt.gz")), "torn").unwrap();
    environment.comment("a file is damaged");
    environment.run(&format!("fetch {ROUTINE}:threads"));
    environment.run_json(&format!("fetch {ROUTINE} --json -o all"));
    environment.snapshot("fetch_of_damaged_and_failed_reports");
}

#[test]
fn verify() {
    let mut environment = fixture::environment();
    environment.run_table("verify latest");
    environment.run_json("verify --all --json");
    environment.comment("damage of every kind");
    let heap = environment.store().join(format!("reports/{HEAP}"));
    let mut data = fs::read(heap.join("heap_dump.json.gz")).unwrap();
    data[1000] ^= 1;
    fs::write(heap.join("heap_dump.json.gz"), data).unwrap();
    fs::write(heap.join("gc_stat.json.gz"), "short").unwrap();
    fs::remove_file(heap.join("smaps_rollup.txt.gz")).unwrap();
    fs::write(heap.join("core"), "").unwrap();
    fs::write(environment.store().join(format!("reports/{ROUTINE}/meta.json")), "{").unwrap();
    environment.run("verify --all");
    environment.run_json("verify --all --json");
    environment.snapshot("verify");
}

#[test]
fn rm_pin_and_unpin() {
    let mut environment = fixture::environment();
    environment.run("pin 20261101 latest");
    environment.run("pin latest");
    environment.run("unpin latest 20261120 nonsense");
    environment.run("unpin nonsense");
    environment.run("rm 20261101");
    environment.run("rm 20261101 latest");
    environment.run("rm 20261101 --force");
    environment.run("rm latest latest:heap_dump");
    environment.snapshot("rm_pin_and_unpin");
}

#[test]
fn gc() {
    let mut environment = fixture::environment();
    environment.redact_sizes();
    environment.configure("[retention]\nkeep_free = \"0\"\nkeep_last = 1\n");
    environment.run_text_table("gc --dry-run", &["REASON"]);
    environment.configure("[retention]\nkeep_free = \"0\"\nkeep_last = 0\nmax_captures = 2\n");
    environment.run_text_table("gc --dry-run", &["REASON"]);
    environment.run_text_table("gc", &["REASON"]);
    environment.run_table("gc");
    environment.snapshot("gc");
}

#[test]
fn gc_json() {
    let mut environment = fixture::environment();
    environment.redact(r#"("(\w+_bytes)": )\d+"#, "${1}0");
    environment.configure("[retention]\nkeep_free = \"0\"\nkeep_last = 0\nmax_captures = 3\n");
    environment.run_json("gc --dry-run --json");
    environment.snapshot("gc_json");
}

#[test]
fn samples() {
    let mut environment = fixture::environment();
    environment.shell("diagctl samples | head -n 3");
    environment.shell("diagctl samples | wc -l");
    environment.run("samples --since 1m");
    environment.snapshot("samples");
}

const GROWTH: &str = r#"
[[rules]]
name = "heap-on-growth"
reports = ["smaps", "heap_dump"]
trigger.memory_usage = { above = "1.5GiB" }
for = "30s"
limits = { cooldown = "2m", max_count = 2 }

[[rules]]
name = "watch"
reports = ["smaps_rollup"]
trigger.timer = { every = "5m" }
mode = "dry_run"
"#;

#[test]
fn simulate() {
    let mut environment = fixture::environment();
    environment.configure(GROWTH);
    environment.run_text_table("simulate --samples store/samples.jsonl", &["REASON", "POLLS ANSWERED"]);
    environment.configure(&format!("poll_interval = \"1s\"\n{GROWTH}"));
    environment.run_text_table("simulate --samples store/samples.jsonl", &["REASON", "POLLS ANSWERED"]);
    environment
        .configure("[[rules]]\nname = \"never\"\nreports = [\"smaps\"]\ntrigger.memory_usage = { above = \"3GiB\" }\n");
    environment.run_table("simulate --samples store/samples.jsonl");
    environment.snapshot("simulate");
}

#[test]
fn simulate_json() {
    let mut environment = fixture::environment();
    environment.configure(GROWTH);
    environment.run_json("simulate --json --samples store/samples.jsonl");
    environment.snapshot("simulate_json");
}

#[test]
fn run() {
    let mut environment = Environment::new();
    environment.configure(NO_GUARDS);
    environment.redact(r#"("(store_ms|pid|pid_ns|start_time|duration_ms)": )\d+"#, "${1}0");
    environment.redact(r#"("took_ms": )[\d.]+"#, "${1}0");
    environment.redact(r#"("(host|boot_id)": )"[^"]*""#, r#"${1}"…""#);
    environment.redact(r#""created": "[^"]*""#, r#""created": "2026-01-01T00:00:00.000Z""#);
    environment.redact(r#""diagctl": "\d[^"]*""#, r#""diagctl": "0.0.0""#);
    environment.redact(r#""sha256": "[0-9a-f]{64}""#, r#""sha256": "…""#);
    environment.redact(r#"("stored_bytes": )\d+"#, "${1}0");
    environment.run("run --report vmstat --reason 'it is slow' -- printf 'procs memory'");
    environment.run_json("run --json --report vmstat -- printf 'procs memory'");
    environment.comment("a heap dump that is none");
    environment.shell("diagctl run -- sh -c 'echo hello > \"$DIAGCTL_CAPTURE_DIR/heap_dump\"'");
    environment.shell(
        "diagctl run --json -- sh -c 'echo hello > \"$DIAGCTL_CAPTURE_DIR/heap_dump.txt\"' | grep -o 'name.:.heap[^,]*'",
    );
    environment.run("run -- false");
    environment.run("run -- no-such-program");
    environment.shell("diagctl run --report vmstat -- sh -c 'echo half; exit 3' >/dev/null");
    environment.shell("DIAGCTL_ENABLED=0 && export DIAGCTL_ENABLED && diagctl run --report vmstat -- true");
    environment.snapshot("run");
}

/// Turns off the guards that depend on the free space and memory of this machine.
const NO_GUARDS: &str = "[guards]\nmemory_headroom = 0\nmin_free_disk = \"0\"\n[retention]\nkeep_free = \"0\"\n";
