//! `diagctl metrics`: the store in numbers, for Prometheus.

mod exposition;
mod followed;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::output::Done;
use super::status::followed::Waiting;
use super::status::lease;
use super::{Context, Failure, apart, times};
use crate::cli::error::printable;
use crate::exit_code::Exit;
use crate::fsio::{self, NewFile};
use crate::state::files::load_samples;
use diagctl_observe::Presence;
use diagctl_store::index::{Entry, Present};
use diagctl_store::{Access, Id, Store, events, index, inventory, requests, shipping};
use exposition::{Family, Format, Kind, text};

const HOUR_MS: u64 = 3_600_000;

/// Print the store in numbers, for Prometheus
///
/// OpenMetrics on stdout, or a file for the textfile collector of node_exporter. Nothing is measured that the store does not record: run
/// it as often as the numbers are to be fresh.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  diagctl metrics\n  diagctl metrics --textfile /var/lib/prometheus/node-exporter/diagctl.prom"
)]
pub struct Args {
    /// Write to this file at once, readable for all, in the text format of Prometheus
    #[arg(long, value_name = "FILE")]
    textfile: Option<PathBuf>,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    // The thread that opens the store takes its owner's identity and then ends: the file is written as the caller.
    let families = apart::run(|| gather(cx))??;
    let Some(path) = &args.textfile else { return Ok(Done::text(text(&families, Format::OpenMetrics))) };
    // Replacing a device, a link or a pipe would take it away from everybody else.
    if std::fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        let message = format!("{} is not a regular file, so it is not replaced", path.display());
        return Err(Failure::new(Exit::Usage, message)
            .hint("name a file for the collector; without --textfile the numbers go to stdout"));
    }
    write(path, &text(&families, Format::Prometheus)).map_err(|e| {
        Failure::io("write", path, e)
            .hint("its directory must exist, with room, and be writable for this user; without --textfile the numbers go to stdout")
    })?;
    Ok(Done::silent())
}

// Numbers are no secret, so the file is readable for all, whatever the umask.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = NewFile::create(path, 0o644)?;
    file.write_all(text.as_bytes())?;
    file.set_mode(0o644)?;
    file.replace()
}

#[expect(clippy::cast_precision_loss, reason = "a sample is a floating-point number, exact up to 2^53")]
fn number(value: impl TryInto<u64>) -> f64 {
    value.try_into().unwrap_or(u64::MAX) as f64
}

fn seconds(ms: u64) -> f64 {
    number(ms) / 1000.0
}

fn gather(cx: &Context) -> Result<Vec<Family>, Failure> {
    let config = cx.config();
    let store = cx.open(Access::Read)?;
    let (state, now) = cx.peek(&store)?;
    let gauge = |name, help| Family::new(name, Kind::Gauge, help);
    let counter = |name, help| Family::new(name, Kind::Counter, help);

    let mut build = Family::new("diagctl_build", Kind::Info, "The program.");
    build.add(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let (free, total) = store.space()?;
    let used = inventory::reports_bytes(&store)?.saturating_add(inventory::other_bytes(&store));
    let quarantine = store.path("quarantine");
    let quarantined: u64 =
        fsio::children(&quarantine).map(|entry| fsio::occupied_tree(&quarantine.join(entry.name))).sum();
    let lease = lease::Report::read(&cx.proc, store.dir(), &now)?;
    let paused = state.paused.as_ref().is_some_and(|pause| pause.holds(now.store_ms));
    let mut families = vec![
        build,
        gauge("diagctl_enabled", "1 if captures are switched on in this environment.")
            .only(number(u8::from(config.enabled))),
        gauge("diagctl_paused", "1 while the store is paused.").only(number(u8::from(paused))),
        gauge("diagctl_lease_taken", "1 while a process holds the lease.").only(number(u8::from(lease.taken))),
        gauge("diagctl_lease_overdue_seconds", "Time by which the holder of the lease has passed its deadline.")
            .only(seconds(lease.overdue_ms.unwrap_or(0))),
        gauge("diagctl_store_used_bytes", "Disk usage of the store.").only(number(used)),
        gauge("diagctl_store_max_use_bytes", "The cap, retention.max_use.").only(number(config.retention.max_use)),
        gauge("diagctl_store_free_disk_bytes", "Free space on the filesystem of the store.").only(number(free)),
        gauge("diagctl_store_keep_free_bytes", "The space to be left free, retention.keep_free.")
            .only(number(config.retention.keep_free.of(total))),
        gauge("diagctl_quarantine_bytes", "Disk usage of what is not trusted.").only(number(quarantined)),
        gauge("diagctl_requests_waiting", "Requests that wait for a process.")
            .only(number(requests::list(&store)?.len())),
    ];
    let mut spent = gauge("diagctl_cost_units", "Cost units spent within a window.");
    for (window, ms) in [("hour", HOUR_MS), ("day", 24 * HOUR_MS)] {
        let recent = state.spent.iter().filter(|spent| now.store_ms.saturating_sub(spent.at) < ms);
        spent.add(&[("window", window)], number(recent.map(|spent| u64::from(spent.units)).sum::<u64>()));
    }
    families.push(spent);
    let (of_captures, waiting) = captures(&store, config.remote.is_some())?;
    families.extend(of_captures);
    if config.remote.is_some() {
        families.extend(followed::shipping(&store, &waiting, now.store_ms));
    }
    families.push(processes(cx, &store));
    let counts = events::counts(&store);
    let mut events =
        counter("diagctl_events", "Events since the store exists: verdicts, captures, deletions, failures.");
    for (key, count) in &counts {
        let labels = [("event", &key.event), ("verdict", &key.verdict), ("rule", &key.rule), ("cause", &key.cause)];
        events.add(&labels.map(|(name, value)| (name, value.as_str())), number(*count));
    }
    families.push(events);
    let waits = counts.iter().filter(|(key, _)| key.event == "verdict" && key.verdict == "busy");
    families.push(
        counter("diagctl_lease_waits", "Times that a process found the lease taken when it was to capture.")
            .only(number(waits.map(|(_, count)| *count).sum::<u64>())),
    );
    if config.on_capture.is_some() {
        families.extend(followed::hooks(&store, &counts));
    }
    Ok(families)
}

#[derive(Default)]
struct OfRule {
    captures: u64,
    bytes: u64,
}

fn captures(store: &Store, is_shipped: bool) -> Result<(Vec<Family>, Waiting), Failure> {
    let (mut rules, mut taken, mut newest) = (BTreeMap::<String, OfRule>::new(), 0, None);
    let mut waiting = Waiting::default();
    let unknown = index::visit(store, &mut Present::list(store)?, |entry: Entry| {
        let rule = rules.entry(printable(&entry.rule)).or_default();
        rule.captures += 1;
        rule.bytes = rule.bytes.saturating_add(entry.disk_bytes);
        taken = taken.max(entry.sequence);
        waiting.add(store, &entry);
        index::keep_newest(&mut newest, entry);
    });
    let mut damaged: BTreeSet<Id> = unknown.into_iter().map(|(id, _)| id).collect();
    // The index does not tell of damage since it was written, and a capture that waits cannot be shipped then.
    if is_shipped {
        damaged.extend(shipping::queue(store)?.damaged.into_iter().map(|(id, _)| id));
    }
    let mut count = Family::new("diagctl_captures", Kind::Gauge, "Captures in the store.");
    let mut bytes = Family::new("diagctl_capture_bytes", Kind::Gauge, "Disk usage of the captures in the store.");
    for (rule, of_rule) in &rules {
        count.add(&[("rule", rule)], number(of_rule.captures));
        bytes.add(&[("rule", rule)], number(of_rule.bytes));
    }
    let gauge = |name, help| Family::new(name, Kind::Gauge, help);
    let mut families = vec![
        count,
        bytes,
        Family::new("diagctl_captures_taken", Kind::Counter, "Captures since the store exists.").only(number(taken)),
        gauge("diagctl_captures_damaged", "Captures whose record cannot be read.").only(number(damaged.len())),
    ];
    if let Some(entry) = newest {
        let help = "Time of the newest capture, seconds since the epoch.";
        families
            .push(gauge("diagctl_last_capture_timestamp_seconds", help).only(seconds(times::wall_ms(&entry.created))));
    }
    Ok((families, waiting))
}

// The processes that poll and are there, as far as this one can tell.
fn processes(cx: &Context, store: &Store) -> Family {
    let mut roles: BTreeMap<String, u64> = BTreeMap::new();
    for (id, sample) in load_samples(store).processes {
        if cx.proc.presence(&id) != Presence::Gone {
            *roles.entry(sample.role).or_default() += 1;
        }
    }
    let mut family = Family::new("diagctl_processes", Kind::Gauge, "Processes that poll the store.");
    roles.iter().for_each(|(role, count)| family.add(&[("role", role)], number(*count)));
    family
}
