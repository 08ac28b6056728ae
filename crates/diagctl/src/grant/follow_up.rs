//! The steps after a publication: index, costs, request, retention.

use crate::clock;
use crate::context::Context;
use crate::proc::Proc;
use crate::rules::guard;
use crate::state::schedule::{self as state, Found, ReportCost};
use diagctl_store::{Id, Result, Store, cleanup, events, hooks, index, meta, requests};

/// The environment variable of everything that a hook starts: the store.
pub const IN_HOOK: &str = "DIAGCTL_IN_HOOK";

/// Returns true if a hook has started this process. Its captures are not told to the hook, which would never end.
pub fn is_in_hook() -> bool {
    std::env::var_os(IN_HOOK).is_some()
}

/// Does what follows a publication. The capture is durable, and these steps update caches or conveniences, or are repeated by the
/// next command. A failure of one (on a full disk, say) must not prevent the others.
pub fn follow_up(cx: &Context, store: &Store, meta: &meta::Meta) {
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
        announce(cx, store, meta),
        collect(store, &cx.proc, meta.id),
    ];
    for failure in steps.into_iter().filter_map(std::result::Result::err) {
        events::record(store, &events::Event::about("failed", meta.id, &format!("after publishing: {failure}")));
    }
}

// Leaves a note for the hook. It runs when the lease is free.
fn announce(cx: &Context, store: &Store, meta: &meta::Meta) -> Result<()> {
    cx.note_publication();
    let wanted = cx.config().on_capture.as_ref().is_some_and(|hook| hook.wants(&meta.rule) && !is_in_hook());
    if wanted && !hooks::add(store, meta.id)? {
        let why = format!("not told: {} captures wait for the hook already", hooks::MOST);
        let about = events::Event::about("hook_failed", meta.id, &why);
        events::record(store, &events::Event { rule: meta.rule.clone(), ..about });
    }
    Ok(())
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
