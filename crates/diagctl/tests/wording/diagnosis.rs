//! Why a process is large, which part grew, and which processes are gone: diagnose, compare, deaths.

use super::environment::Environment;
use super::fixture::{self, HEAP, REQUESTED, ROUTINE, RUN, store_report};

/// A process of 1.2 GiB, most of it live objects. `live` and `behind` are in MiB.
fn store_figures(environment: &Environment, id: &str, live: u64, behind: u64) {
    let kib = (live + behind + 120) * 1024;
    let mapping = |heading: &str, rss: u64, anonymous: u64| {
        format!("{heading}\nRss: {rss} kB\nPss: {rss} kB\nShared_Clean: 9000 kB\nAnonymous: {anonymous} kB\n")
    };
    let smaps = mapping("00400000-00500000 r-xp 00000000 fe:00 12 /usr/bin/ruby", 30 * 1024, 0)
        + &mapping("10000000-80000000 rw-p 00000000 00:00 0 [heap]", kib, kib);
    let slots = live * 1024 * 1024 / 40;
    let pages = (live + 20) * 64;
    let gc_stat = format!(
        r#"{{"count":812,"stat":{{"heap_allocated_pages":{pages},"heap_live_slots":{slots},"heap_free_slots":9000,"old_objects":{}}},"constants":{{"HEAP_PAGE_SIZE":16384}}}}"#,
        slots * 9 / 10
    );
    let (allocated, resident) = ((behind + 40) << 20, (behind + 100) << 20);
    let jemalloc = format!(
        r#"{{"jemalloc":{{"arenas":{{"narenas":8,"page":4096}},"stats":{{"allocated":{allocated},"resident":{resident}}}}}}}"#
    );
    let size = (live + behind) << 20;
    let counts = format!(
        r#"{{"count_objects":{{"TOTAL":{slots},"FREE":0}},"count_objects_size":{{"TOTAL":{size}}},"classes":[{{"class":"Session","count":{live},"memsize":{size}}},{{"class":"String","count":77,"memsize":4000}}]}}"#
    );
    for (name, content) in
        [("smaps", smaps), ("gc_stat", gc_stat), ("jemalloc_stats", jemalloc), ("object_counts", counts)]
    {
        store_report(environment, id, name, &content);
    }
}

#[test]
fn diagnose() {
    let mut environment = fixture::environment();
    store_figures(&environment, HEAP, 300, 750);
    environment.run(&format!("diagnose {HEAP}"));
    environment.comment("only smaps");
    store_report(
        &environment,
        ROUTINE,
        "smaps",
        "1000-2000 rw-p 0 00:00 0 [heap]\nRss: 900000 kB\nAnonymous: 900000 kB\n",
    );
    environment.run(&format!("diagnose {ROUTINE}"));
    environment.comment("a report that says nothing");
    environment.run("diagnose 20261120");
    environment.run(&format!("diagnose {RUN}"));
    environment.run("diagnose --role nobody");
    environment.run("diagnose --pid 4194305");
    environment.snapshot("diagnose");
}

#[test]
fn deaths() {
    let mut environment = fixture::environment();
    environment.redact(r"\d+d( \d+h)? ago +", "5d ago     ");
    environment.redact("LAST SEEN +", "LAST SEEN  ");
    environment.redact(r#"("last_seen_ago_ms": )\d+"#, "${1}0");
    environment.widen();
    environment.run("deaths");
    environment.run_part("deaths --json", |json| json.split("\"polls\"").next().unwrap_or_default().to_owned());
    environment.run("deaths --since 1m");
    environment.snapshot("deaths");
}

#[test]
fn diagnose_json() {
    let mut environment = fixture::environment();
    store_figures(&environment, HEAP, 300, 750);
    environment.redact(r#"("age_ms": )\d+"#, "${1}0");
    environment.run_json(&format!("diagnose {HEAP} --json"));
    environment.snapshot("diagnose_json");
}

#[test]
fn compare() {
    let mut environment = fixture::environment();
    store_figures(&environment, HEAP, 300, 750);
    store_figures(&environment, REQUESTED, 500, 800);
    environment.redact(r"\d[\dhmds ]* apart", "1d apart");
    environment.redact(r#"("apart_ms": )\d+"#, "${1}0");
    environment.run(&format!("compare {HEAP} {REQUESTED}"));
    environment.run_json(&format!("compare {REQUESTED} {HEAP} --json"));
    environment.run(&format!("compare {HEAP} {RUN}"));
    environment.snapshot("compare");
}
