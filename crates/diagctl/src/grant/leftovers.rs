//! The staging directories of dead dumpers. Whole reports are published; the rest is discarded with the reason.

use crate::context::Context;
use diagctl_store::commit::{self, Told};
use diagctl_store::lease::{self, Lease};
use diagctl_store::{Id, Result, Store, events, meta, requests, staging, trash};

use super::follow_up::follow_up;

/// The reason for an unfinished capture if no other is known.
const UNKNOWN: &str = "its dumper ended without publishing it";

/// Clears staging. The caller must hold the lease, which means that no dumper is alive. `why` says how the dumper of this capture
/// ended, if the caller knows.
pub fn clear(cx: &Context, store: &Store, why: Option<(Id, &str)>) -> Result<()> {
    for entry in diagctl_fs::list(&store.path("staging"))?.flatten() {
        let Some(id) = entry.name.to_str().and_then(Id::parse) else { continue };
        let why = why.filter(|(of, _)| *of == id).map_or(UNKNOWN, |(_, why)| why);
        salvage(cx, store, id, "cleaned", &mut Told { broken_off: Some(why.to_owned()), ..Told::default() })?;
    }
    trash::empty(store)
}

/// Publishes what is whole of a capture whose dump broke off, and returns its record. If nothing is whole, discards the capture
/// and gives its request back. Does not end the lease.
pub fn salvage(cx: &Context, store: &Store, id: Id, event: &str, told: &mut Told) -> Result<Option<meta::Meta>> {
    let why = told.broken_off.get_or_insert_with(|| UNKNOWN.to_owned()).clone();
    // A record or a file that cannot be read makes the capture useless, and must not prevent the next one.
    if let Ok(Some(meta)) = commit::salvage(store, id, told) {
        follow_up(cx, store, &meta);
        return Ok(Some(meta));
    }
    discard(store, id, event, &why)?;
    Ok(None)
}

/// Discards a capture, records the reason, and gives its request back.
pub fn discard(store: &Store, id: Id, event: &str, why: &str) -> Result<()> {
    let staged = store.staging(&id);
    let grant = staging::read(&staged).ok();
    let rule = grant.as_ref().map(|grant| grant.meta.rule.clone()).unwrap_or_default();
    let discarded = trash::clear_away(store, &staged);
    events::record(store, &events::Event { rule, ..events::Event::about(event, id, why) });
    if let Some(request) = grant.and_then(|grant| grant.meta.request) {
        requests::give_back(store, &request, &format!("capture {id}: {why}"))?;
    }
    discarded
}

/// Marks the record of the lease as ended, for people, and releases the lock last.
pub fn end_lease(store: &Store, lease: &Lease) -> Result<()> {
    // A record that cannot be read or marked does no harm: the lock decides, and it is released in any case.
    if let Ok(Some(record)) = lease::read_record(store.dir()) {
        let _ = lease::write_record(store.dir(), &lease::Record { ended: true, ..record });
    }
    lease.release()
}
