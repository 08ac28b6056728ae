//! The life of a capture: begun under the lease, and ended by publishing it or giving it up.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use super::error::Error;
use super::follow_up::follow_up;
use super::leftovers;
use crate::clock::{self, Now};
use crate::config::{COMMANDS_TIMEOUT_MS, Config, ReportCommand};
use crate::context::Context;
use crate::fsio;
use crate::operator_command::{self, Output};
use crate::reports::{self, Source};
use crate::rules::decide::Plan;
use crate::state::schedule::{self as state, Found};
use crate::units;
use diagctl_store::Id;
use diagctl_store::Process;
use diagctl_store::Result;
use diagctl_store::commit::{self, Told};
use diagctl_store::lease::{self, Lease, NotHolder};
use diagctl_store::report_kind::Producer;
use diagctl_store::staging::{self, Grant};
use diagctl_store::writer::{self, Room};
use diagctl_store::{Store, events, inventory, meta, requests};

/// The time within which a killed dumper, and a `put` killed with it, release the lease.
const DYING: Duration = Duration::from_secs(5);

/// Sets a capture up: `lease.json`, the staging directory and the grant. The caller holds the lease and has written the state.
pub fn begin(
    store: &Store,
    config: &Config,
    source: Source<'_>,
    process: &Process,
    plan: &Plan,
    generation: u64,
    now: &Now,
) -> Result<Grant> {
    let reports_bytes = Some(inventory::reports_bytes(store)?);
    let id = format!("{}-{}", clock::compact_utc(now.clock.wall_ms), fsio::random_hex()?);
    let id: Id = id.parse().map_err(diagctl_store::Error::from)?;
    let staging = store.staging(&id);
    fsio::create_dir(&staging, store.directory_mode()?)?;
    let grant = Grant {
        meta: meta::Meta {
            schema: meta::SCHEMA,
            id,
            sequence: generation,
            created: clock::utc(now.clock.wall_ms),
            store_ms: now.store_ms,
            host: source.proc.hostname(),
            boot_id: now.clock.boot_id.clone(),
            pid_ns: process.id.pid_ns,
            pid: process.id.pid,
            start_time: process.id.start_ticks,
            role: process.role.clone(),
            worker: process.name.clone(),
            versions: BTreeMap::from([("diagctl".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
            rule: plan.rule.to_string(),
            trigger: meta::Trigger {
                name: plan.trigger.to_owned(),
                reason: plan.reason.clone(),
                observed: plan.observed.clone(),
            },
            request: plan.request.clone(),
            labels: plan
                .second_of
                .map(|first| ("pair_of_sequence".to_owned(), first.to_string()))
                .into_iter()
                .chain(super::labels::of_environment())
                .collect(),
            ..meta::Meta::default()
        },
        planned: plan.reports.clone(),
        generation,
        snapshot: plan.snapshot,
        granted_boot_ms: now.clock.boot_ms,
        reports_bytes,
    };
    staging::write(&staging, &grant)?;
    lease::write_record(
        store.dir(),
        &lease::Record {
            schema: 1,
            capture: id,
            generation,
            pid: process.id.pid,
            pid_ns: process.id.pid_ns,
            start_ticks: process.id.start_ticks,
            boot_id: now.clock.boot_id.clone(),
            role: process.role.clone(),
            worker: process.name.clone(),
            rule: plan.rule.to_string(),
            program: source.proc.program(process.id.pid),
            granted_boot_ms: now.clock.boot_ms,
            deadline_boot_ms: now.clock.boot_ms + crate::units::ms(config.guards.deadline),
            ended: false,
        },
    )?;
    if let Some(request) = &plan.request {
        take_request(store, request, id)?;
    }
    Ok(grant)
}

fn take_request(store: &Store, id: &str, capture: Id) -> Result<()> {
    let Some(mut request) = requests::read(store, id) else { return Ok(()) };
    request.attempts = request.attempts.saturating_add(1);
    request.capture = Some(capture);
    requests::write(store, &request)
}

/// Collects the native reports and those of the operator's commands. A report that cannot be made is recorded with the reason;
/// only a store that cannot be written is a failure.
pub fn collect_native(store: &Store, config: &Config, source: Source<'_>, grant: &Grant) -> Result<()> {
    let native: Vec<_> = grant.planned.iter().filter(|name| config.producer(name) == Producer::Native).collect();
    if native.is_empty() {
        return Ok(());
    }
    let staging = &store.own_staging(&grant.meta.id)?;
    let mut room = Room::of(store, grant)?;
    let mut commands_ms = COMMANDS_TIMEOUT_MS;
    for name in native {
        let watch = clock::Stopwatch::start();
        let command = config.command(name);
        let opened = match command {
            Some(command) => open_command(command, &grant.meta, commands_ms),
            None => reports::open(name, source),
        };
        match opened {
            Ok(mut data) => {
                // A report that cannot be stored is recorded as failed.
                if let Ok(report) = writer::store_report(&mut room, staging, name, &mut data) {
                    let took_ms = milliseconds(watch.elapsed());
                    staging::write_sidecar(staging, &meta::Report { took_ms, ..report })?;
                }
            }
            Err(why) => staging::write_sidecar(staging, &meta::Report::failed(name.clone(), why))?,
        }
        if command.is_some() {
            commands_ms = commands_ms.saturating_sub(units::ms(watch.elapsed()));
        }
    }
    if grant.planned.iter().any(|name| config.command(name).is_some()) {
        // Something that daemonized itself and dropped its environment is found only by its ancestors.
        operator_command::kill_remains();
    }
    Ok(())
}

// Rounds to the microsecond, the precision of a record.
fn milliseconds(time: Duration) -> Option<serde_json::Number> {
    serde_json::Number::from_f64((time.as_secs_f64() * 1e6).round() / 1e3)
}

// Starts a command that prints a report. Its environment describes the capture.
fn open_command(
    command: &ReportCommand,
    meta: &meta::Meta,
    left_ms: u64,
) -> std::result::Result<Box<dyn Read>, String> {
    if left_ms == 0 {
        return Err(format!(
            "earlier commands used up the {} that all commands share",
            units::duration(COMMANDS_TIMEOUT_MS)
        ));
    }
    let environment = [
        ("DIAGCTL_CAPTURE", meta.id.to_string()),
        ("DIAGCTL_PID", meta.pid.to_string()),
        ("DIAGCTL_ROLE", meta.role.clone()),
        ("DIAGCTL_WORKER", meta.worker.clone()),
    ];
    let output = Output::of(&command.command, command.timeout_ms.min(left_ms), &environment)?;
    Ok(Box::new(output))
}

/// Proves that the caller may write into a capture, and reads its grant. If the caller has lost the lease, its work is
/// quarantined.
pub fn join(store: &Store, lease: &Lease, id: &str) -> super::error::Result<Grant> {
    let id: Id = id.parse().map_err(diagctl_store::Error::from)?;
    let refusal = match lease.prove(store.dir(), id) {
        Ok(record) => {
            let grant = staging::read(&store.own_staging(&id)?)?;
            if grant.generation == record.generation {
                return Ok(grant);
            }
            return Err(Error::AnotherGeneration { capture: id });
        }
        Err(NotHolder::Unknown(error)) => return Err(error.into()),
        Err(NotHolder::NotHeld { current } | NotHolder::Stale { current }) => current,
    };
    let staging = store.staging(&id);
    let superseded = refusal != Some(id);
    if superseded && staging.is_dir() {
        diagctl_store::trash::quarantine(store, &staging, "its dumper had lost the lease")?;
    }
    Err(Error::NotHolder { capture: id, current: refusal.filter(|_| superseded) })
}

/// Takes the lease of a killed dumper on a description of the worker's own, so that the worker can say how the dumper ended. The
/// caller proves afterwards, with [`join`], that this was allowed.
pub fn inherit_from_the_dead(store: &Store, lease: &Lease, id: &str) -> super::error::Result<()> {
    let id: Id = id.parse().map_err(diagctl_store::Error::from)?;
    let step = Duration::from_millis(20);
    for _ in 0..DYING.as_millis() / step.as_millis() {
        let record = lease::read_record(store.dir())?;
        let passed_on = record.is_none_or(|record| record.ended || record.capture != id);
        if passed_on || lease.try_take()? {
            return Ok(());
        }
        std::thread::sleep(step);
    }
    Err(Error::DumperLives { capture: id })
}

/// Publishes a capture and does what follows: index, costs, request, retention, end of the lease.
pub fn finish(cx: &Context, store: &Store, lease: &Lease, grant: &Grant, told: &mut Told) -> Result<meta::Meta> {
    let boot_ms = clock::Reading::take(String::new()).boot_ms;
    let duration = boot_ms.saturating_sub(grant.granted_boot_ms);
    told.cost.insert("duration_ms".into(), duration.into());
    let meta = match commit::publish(store, grant, told) {
        Ok(meta) => meta,
        Err(error) => {
            // Nothing was stored, so the staging directory is useless.
            give_up(store, lease, grant, "failed", &error.to_string())?;
            return Err(error);
        }
    };
    follow_up(cx, store, &meta);
    // The capture is published even if the lock cannot be released; the lock ends with the last process that holds it.
    if let Err(failure) = leftovers::end_lease(store, lease) {
        events::record(store, &events::Event::about("failed", meta.id, &failure.to_string()));
    }
    Ok(meta)
}

/// Discards a capture that failed, records the reason, and ends the lease.
pub fn give_up(store: &Store, lease: &Lease, grant: &Grant, event: &str, reason: &str) -> Result<()> {
    let discarded = leftovers::discard(store, grant.meta.id, event, reason);
    forget_lease(store)?;
    leftovers::end_lease(store, lease)?;
    discarded
}

// The lease is given back, so no poll has to look after it.
fn forget_lease(store: &Store) -> Result<()> {
    let _guard = store.lock()?;
    let Found::State(mut state) = state::load(store.dir())? else { return Ok(()) };
    state.lease_until = None;
    state::save(store.dir(), &state)
}
