//! The metrics of what follows a capture: shipments and hooks.

use super::exposition::{Family, Kind};
use super::{number, seconds};
use crate::cli::status::followed::Waiting;
use crate::cli::times;
use diagctl_store::events::Counts;
use diagctl_store::{Store, hooks, shipping};

/// Returns the metrics of shipping.
pub fn shipping(store: &Store, waiting: &Waiting, now_ms: u64) -> Vec<Family> {
    let gauge = |name, help| Family::new(name, Kind::Gauge, help);
    let counter = |name, help| Family::new(name, Kind::Counter, help);
    let (dropped, last) = (shipping::dropped(store), shipping::outcome(store));
    let lag = waiting.oldest.as_ref().map_or(0, |(at, _)| now_ms.saturating_sub(*at));
    let mut families = vec![
        gauge("diagctl_unshipped_captures", "Captures that the remote has not confirmed.")
            .only(number(waiting.captures)),
        gauge("diagctl_unshipped_bytes", "Their disk usage.").only(number(waiting.bytes)),
        gauge("diagctl_ship_lag_seconds", "Age of the oldest capture that the remote has not confirmed.")
            .only(seconds(lag)),
        gauge("diagctl_ship_failing", "1 if nothing was shipped since the last failure.")
            .only(number(u8::from(last.failing))),
        counter("diagctl_ship_failures", "Failures of shipping.").only(number(last.failures)),
        counter("diagctl_dropped_captures", "Captures that were deleted unshipped.").only(number(dropped.captures)),
        counter("diagctl_dropped_bytes", "Their disk usage.").only(number(dropped.bytes)),
    ];
    let times = [
        (
            "diagctl_last_shipped_timestamp_seconds",
            "Time of the last confirmation, seconds since the epoch.",
            &last.shipped_at,
        ),
        (
            "diagctl_last_ship_failure_timestamp_seconds",
            "Time of the last failure, seconds since the epoch.",
            &last.failed_at,
        ),
    ];
    let known = times.into_iter().filter(|(.., at)| !at.is_empty());
    families.extend(known.map(|(name, help, at)| gauge(name, help).only(seconds(times::wall_ms(at)))));
    families
}

/// Returns the metrics of the hook.
pub fn hooks(store: &Store, counts: &Counts) -> Vec<Family> {
    let mut told = Family::new("diagctl_hooks", Kind::Counter, "Captures that the hook was told about.");
    for kind in ["command", "webhook"] {
        for (event, outcome) in [("hook", "ok"), ("hook_failed", "failed")] {
            let of_kind = counts.iter().filter(|(key, _)| key.event == event && key.cause == kind);
            told.add(&[("hook", kind), ("outcome", outcome)], number(of_kind.map(|(_, count)| *count).sum::<u64>()));
        }
    }
    let help = "Captures that the hook has not been told about.";
    vec![told, Family::new("diagctl_hooks_waiting", Kind::Gauge, help).only(number(hooks::waiting(store).len()))]
}
