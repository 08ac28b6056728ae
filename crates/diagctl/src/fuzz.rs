//! Fuzz targets: every parser of data from outside, with the code that uses the result. There is one function per target.
//! `fuzz/fuzz_targets` calls them, and a test here replays `fuzz/seeds` (written by diagctl itself) and `fuzz/corpus` (found by
//! fuzzing; `make unit` unpacks it). None of this is in the released program.
//!
//! Every target proves the same: for any bytes there is a value or an error, but never a panic, an overflow (seen only in a
//! build with overflow checks), or more memory than the input justifies.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::LazyLock;

use diagctl_observe::pressure;

use crate::clock::{Anchor, Reading};
use crate::config::{self, Config, Place};
use crate::deaths::Deaths;
use crate::grant::records::{self, Fact};
use crate::history::{self, Lines};
use crate::rules::decide::{self, Inputs};
use crate::rules::guard::Figures;
use crate::rules::limit;
use crate::rules::memory::Metric;
use crate::rules::readings::Readings;
use crate::state::samples::{Sample, Samples};
use crate::state::schedule::{self as state, Found, State};
use crate::{cgroup, proc, units};
use diagctl_fs::printable;
use diagctl_store::Id;
use diagctl_store::commit::Told;
use diagctl_store::encryption::{self, Identities};
use diagctl_store::index;
use diagctl_store::lease;
use diagctl_store::retention::{self, Captures, Policy, Pressure, Usage};
use diagctl_store::{Process, ProcessId};
use diagctl_store::{events, meta, requests, staging};

/// A target with its name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, named like their corpora.
pub const TARGETS: [Target; 17] = [
    ("age", age),
    ("config", config),
    ("config_cache", config_cache),
    ("engine", engine),
    ("heap_analysis", diagctl_heapdump::fuzz::analysis),
    ("heap_dump", diagctl_heapdump::fuzz::dump),
    ("heap_graph", diagctl_heapdump::fuzz::graph),
    ("index", index),
    ("lease", lease),
    ("meta", meta),
    ("proc", proc),
    ("records", records),
    ("requests", requests),
    ("samples", samples),
    ("state", state),
    ("text", text),
    ("units", units),
];

const ID: &str = "20260101T000000000Z-aaaaaaaa";

/// The key of nobody, which the seeds are encrypted to.
const IDENTITY: &[u8] = include_bytes!("../../../fuzz/seeds/age/identity");

/// Decrypts a report, and parses an identity file.
pub fn age(data: &[u8]) {
    drop(Identities::parse("fuzz", data).map_err(|bad| bad.to_string()));
    let Ok(own) = Identities::parse("fuzz", IDENTITY) else { return };
    let mut content = Vec::new();
    if let Ok(mut report) = encryption::decrypt(data, &own) {
        let _ = report.read_to_end(&mut content);
    }
    assert!(content.len() <= data.len());
}

/// Parses a configuration and looks for warnings about it.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match config::parse(text) {
        Ok((config, _)) => {
            drop(config.warnings(&[], &Place { host: Some(1 << 30), disk: Some(1 << 30), ..Place::default() }))
        }
        Err(problems) => drop(config::Error::Invalid { path: "fuzz.toml".into(), problems }.to_string()),
    }
}

/// Parses `config.cache`, which is read before its origin is known.
pub fn config_cache(data: &[u8]) {
    config::cache::is_readable(data);
}

/// Parses `state.json`, and applies limits and pauses from it.
pub fn state(data: &[u8]) {
    let Ok(Found::State(state)) = state::parse(Path::new("state.json"), data) else { return };
    let now = Anchor::place(state.clock.as_ref(), clock());
    let config = rules();
    for rule in &config.rules {
        if let Some(marks) = state.rules.get(&*rule.name) {
            limit::check_rule(&rule.limits, marks, now.store_ms);
        }
    }
    limit::check_budgets(&config.limits, &state.spent, 10, now.store_ms);
    if let Some(pause) = state.paused.filter(|pause| pause.holds(now.store_ms)) {
        is_printable(&pause.reason(now.store_ms));
    }
}

/// Parses `meta.json`: an accepted record names only plain files beneath its directory.
pub fn meta(data: &[u8]) {
    let Ok(meta) = meta::parse(Path::new(ID), data) else { return };
    for file in meta.reports.iter().filter_map(|report| report.file.as_deref()) {
        let path = Path::new("reports").join(file);
        assert_eq!(path.parent(), Some(Path::new("reports")), "{file:?} leads out of the capture");
    }
}

/// Parses `index.jsonl`, and plans retention from it.
pub fn index(data: &[u8]) {
    let mut entries = BTreeMap::new();
    index::parse(data, |_, entry, _| {
        entries.insert(entry.id, entry);
    });
    let mut captures = Captures::default();
    entries.values().for_each(|entry| captures.push(entry));
    let policy = Policy {
        max_use: 1 << 20,
        keep_free: 1 << 20,
        max_age_ms: 86_400_000,
        keep_last: 1,
        max_captures: Some(3),
        ships: false,
    };
    let usage = Usage { other_bytes: 4096, free_disk: 1 << 19, incoming: 4096, staged: 4096 };
    for pressure in [Pressure::Routine, Pressure::Admission] {
        let plan = retention::plan(&captures, &policy, &usage, pressure, 1_800_000_000_000, Id::parse(ID));
        assert_eq!(plan.verdicts(&captures).count(), captures.count(), "one verdict a capture");
        assert!(plan.deletions(&captures).all(|(_, verdict)| verdict.id.as_str() != ID), "the newest goes");
    }
}

/// Parses the records that `put` and `finalize` read from their stdin.
pub fn records(data: &[u8]) {
    let mut told = Told::default();
    let mut taken = 0;
    let facts = records::parse(&mut &*data, &mut told, |_, report| {
        // A report that cannot be stored is not read to its end.
        let limit = if taken % 2 == 0 { u64::MAX } else { 3 };
        taken += std::io::copy(&mut report.take(limit), &mut std::io::sink()).unwrap_or_default();
        Ok(None)
    });
    assert!(taken <= data.len() as u64, "a report has no more bytes than there are");
    for fact in facts.into_iter().flatten() {
        let (Fact::Failed(_, text) | Fact::Set(_, text)) = fact;
        assert!(text.len() as u64 <= 3 * records::LONGEST_TEXT, "a text is cut");
    }
}

/// Parses a request.
pub fn requests(data: &[u8]) {
    let process = worker();
    if let Some(request) = requests::parse(ID, data) {
        request.is_for(&process);
    }
}

/// Parses a sample, a recorded poll and an event.
pub fn samples(data: &[u8]) {
    if let Some(sample) = Sample::parse(data) {
        sample.is_fresh(1_800_000_000_000, 10_000);
    }
    history::parse(data).for_each(|recorded| drop(recorded.replay()));
    let files = [data];
    let lines = Lines::of(&files);
    for death in Deaths::find(&lines, |_| false).iter() {
        is_printable(&printable(&death.how()));
    }
    events::parse(data).for_each(|event| is_printable(&printable(&event.reason)));
}

/// Parses `lease.json`, and the grant and the notes of a staged capture.
pub fn lease(data: &[u8]) {
    lease::parse(data);
    let _ = serde_json::from_slice::<staging::Grant>(data);
    let _ = serde_json::from_slice::<meta::Report>(data);
}

/// Parses the kernel's files, which a container may replace.
pub fn proc(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    proc::parse_stat(&text);
    proc::figures(&text);
    cgroup::counters(&text);
    let _ = pressure::parse_stalls(&text);
}

/// Prints text: nothing in the output controls a terminal, and harmless text is unchanged.
pub fn text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let shown = printable(&text);
    is_printable(&shown);
    assert_eq!(printable(&shown), shown, "shown twice it is the same");
}

/// Parses durations, sizes and percentages.
pub fn units(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(duration) = units::parse_duration(text) {
        let _ = units::duration(units::ms(duration));
    }
    if let Ok(bytes) = units::parse_size(text) {
        let _ = units::size(bytes);
    }
    let _ = units::parse_percent(text);
    for amount in [units::parse_amount(text), units::parse_increase(text)].into_iter().flatten() {
        let _ = (amount.of(1 << 40), amount.to_string());
    }
}

/// Runs polls from a state, a sample, a request and readings: one JSON document a line, in this order.
pub fn engine(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let mut state = match state::parse(Path::new("state.json"), next()) {
        Ok(Found::State(state)) => *state,
        _ => State::default(),
    };
    let mut samples = Samples::default();
    if let Some(sample) = Sample::parse(next()) {
        samples.processes.insert(worker().id, sample);
    }
    let requests: Vec<_> = requests::parse(ID, next()).into_iter().collect();
    let recorded = history::parse(next()).next();
    let (process, readings) = match &recorded {
        Some(recorded) => recorded.replay(),
        None => (worker(), Readings::default()),
    };
    let config = rules();
    let figures = Figures {
        rss: readings.memory.get(Metric::Rss).unwrap_or(0),
        available_memory: u64::MAX,
        free_disk: 1 << 40,
        total_disk: 1 << 41,
        ..Figures::default()
    };
    for later_ms in [0, 1_000, 120_000] {
        let reading = Reading { boot_ms: clock().boot_ms + later_ms, ..clock() };
        let now = Anchor::place(state.clock.as_ref(), reading);
        let inputs = Inputs {
            settings: config.settings(),
            process: &process,
            readings: &readings,
            requests: &requests,
            figures: &figures,
            host: "web-1",
            now: &now,
            seed: 12_345,
            state: &state,
            sample: samples.processes.get(&process.id),
            others: &samples,
        };
        let decision = decide::decide(inputs);
        let mut changes = decision.changes;
        if let Some(plan) = decision.plans.first() {
            changes = decide::charge(Inputs { state: &changes.state, sample: Some(&changes.sample), ..inputs }, plan);
        }
        state = changes.state;
        samples.processes.insert(process.id.clone(), changes.sample);
    }
}

fn worker() -> Process {
    let id = ProcessId { pid: 7, pid_ns: 4_026_531_836, start_ticks: 7, boot_id: "a".into() };
    Process { id, role: "puma".into(), name: "worker-0".into() }
}

fn clock() -> Reading {
    Reading { wall_ms: 1_800_000_000_000, boot_ms: 1_000_000, boot_id: "a".into() }
}

// Every trigger twice: bare, and with every option of a rule. Cached, because parsing takes longer than the rest of a target.
fn rules() -> &'static Config {
    static RULES: LazyLock<Config> = LazyLock::new(|| {
        let text = include_str!("fuzz/rules.toml");
        config::parse(text).map(|(config, _)| config).unwrap_or_default()
    });
    &RULES
}

fn is_printable(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?} would steer a terminal");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::trigger::Trigger;

    #[test]
    fn the_stored_corpora_pass() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        for (name, target) in TARGETS {
            let mut replayed = 0;
            // A target may have no corpus.
            for dir in [fuzz.join("seeds").join(name), fuzz.join("corpus").join(name)] {
                for entry in std::fs::read_dir(dir).into_iter().flatten() {
                    target(&std::fs::read(entry.unwrap().path()).unwrap());
                    replayed += 1;
                }
            }
            assert!(replayed > 0, "{name} has no corpus");
        }
    }

    // Simulates a torn write and a failing disk: every prefix, and every byte with one bit flipped.
    #[test]
    fn no_truncated_or_bit_flipped_input_panics() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
        for (name, target) in TARGETS {
            for entry in std::fs::read_dir(corpus.join(name)).unwrap_or_else(|e| panic!("{name}: {e}")) {
                let data = std::fs::read(entry.unwrap().path()).unwrap();
                let stride = data.len() / 200 + 1;
                for i in (0..data.len()).step_by(stride) {
                    target(&data[..i]);
                    let mut turned = data.clone();
                    turned[i] ^= 1 << (i % 8);
                    target(&turned);
                    // One more digit makes an unexpectedly large number.
                    turned[i] = b'9';
                    turned.insert(i, b'9');
                    target(&turned);
                }
            }
        }
    }

    #[test]
    fn the_fuzzed_rules_include_every_trigger() {
        let config = rules();
        let mut names = std::collections::BTreeSet::new();
        for rule in &config.rules {
            rule.trigger.visit(&mut |trigger| {
                names.insert(trigger.name());
            });
        }
        for name in Trigger::NAMES {
            assert!(names.contains(name), "add a rule with {name} to crates/diagctl/src/fuzz/rules.toml");
        }
    }
}
