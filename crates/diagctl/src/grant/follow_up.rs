//! The steps after a publication: index, costs, request, retention.

use crate::clock;
use crate::proc::Proc;
use crate::rules::guard;
use crate::state::schedule::{self as state, Found, ReportCost};
use diagctl_store::{Id, Result, Store, cleanup, events, index, meta, requests};

/// Does what follows a publication. The capture is durable, and these steps update caches or conveniences, or are repeated by the
/// next command. A failure of one (on a full disk, say) must not prevent the others.
pub fn follow_up(store: &Store, proc: &Proc, meta: &meta::Meta) {
    let stored = meta.reports.iter().filter(|report| report.file.is_some()).count();
    let damaged = match meta.reports.iter().filter(|report| report.is_damaged()).count() {
        0 => String::new(),
        n => format!(" ({n} damaged)"),
    };
    let entry = index::Entry::of(store, meta);
    let reason = format!(
        "{stored} of {} reports stored{damaged}, {} on disk",
        meta.reports.len(),
        crate::units::size(entry.disk_bytes)
    );
    events::record(
        store,
        &events::Event { rule: meta.rule.clone(), ..events::Event::about("published", meta.id, &reason) },
    );
    let steps = [
        index::append(store, &entry),
        remember_costs(store, meta),
        meta.request.as_ref().map_or(Ok(()), |request| requests::remove(store, request)),
        collect(store, proc, meta.id),
    ];
    for failure in steps.into_iter().filter_map(std::result::Result::err) {
        events::record(store, &events::Event::about("failed", meta.id, &format!("after publishing: {failure}")));
    }
}

fn collect(store: &Store, proc: &Proc, newest: Id) -> Result<()> {
    let found = state::load(store.dir())?;
    let anchor = if let Found::State(state) = &found { state.clock.as_ref() } else { None };
    let now = clock::Anchor::place(anchor, clock::Reading::take(proc.boot_id()));
    cleanup::collect(store, &now, Some(newest)).map(drop)
}

fn remember_costs(store: &Store, meta: &meta::Meta) -> Result<()> {
    let _guard = store.lock()?;
    let Found::State(mut state) = state::load(store.dir())? else { return Ok(()) };
    let memory = meta.cost.get("copied_bytes").and_then(serde_json::Value::as_u64).unwrap_or(0);
    for report in meta.reports.iter().filter(|report| report.file.is_some()) {
        let snapshot = guard::is_snapshot(&report.name);
        let cost = ReportCost { memory_bytes: if snapshot { memory } else { 0 }, stored_bytes: report.stored_bytes };
        state.costs.insert(format!("{}/{}", meta.role, report.name), cost);
    }
    state.lease_until = None;
    state::save(store.dir(), &state)
}
