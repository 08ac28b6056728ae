//! Checks that can refuse any capture. Pure functions from figures to a refusal.

use diagctl_observe::pressure::Scope;
use diagctl_store::ReportName;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::state::schedule::ReportCost;
use crate::units::{Amount, duration, size};
use diagctl_store::report_kind::{self, Producer};

/// The keys of `[guards]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guards {
    /// Free memory must be at least this multiple of what the last such snapshot cost.
    pub memory_headroom: f64,
    /// Free space that must remain on the store's filesystem.
    pub min_free_disk: Amount,
    /// The largest resident set of a process that is dumped, bytes.
    pub max_rss: Option<u64>,
    /// No capture is taken while tasks stall for CPU during more than this percentage of the time.
    pub max_cpu_pressure: Option<f64>,
    /// Time limit of a dump.
    pub deadline: Duration,
}

/// The room in the store that a capture of unknown size is assumed to need, in bytes. The cap holds in any case, because `put`
/// counts.
const UNKNOWN_CAPTURE: u64 = 64 << 10;

/// The figures that guards check.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Resident set of the process to be dumped, bytes.
    pub rss: u64,
    /// Memory that another process could use, in bytes: what is free under the cgroup's limit or on the host, less the reserve
    /// below which a running dump would be given up.
    pub available_memory: u64,
    /// Free space on the store's filesystem that this user may use, bytes.
    pub free_disk: u64,
    /// Size of that filesystem, bytes.
    pub total_disk: u64,
    /// PSI `some avg10` of the CPU, percent, and its scope; `None` if it cannot be read.
    pub cpu_pressure: Option<(Scope, f64)>,
    /// Time by which the wall clock was set back since the last durable anchor, milliseconds.
    pub clock_stepped_back_ms: Option<u64>,
}

/// A refusal by a guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The guard's name.
    pub guard: &'static str,
    /// One sentence with the observed value and the threshold.
    pub reason: String,
}

/// Runs every check that does not need to walk the store.
pub fn check(
    guards: &Guards,
    figures: &Figures,
    reports: &[ReportName],
    cost: impl Fn(&str) -> Option<ReportCost>,
) -> Option<Refusal> {
    let refuse = |guard, reason| Some(Refusal { guard, reason });
    if let Some(back) = figures.clock_stepped_back_ms {
        return refuse(
            "clock",
            format!("the wall clock went backwards by {}; the next attempt goes by the new time", duration(back)),
        );
    }
    let floor = guards.min_free_disk.of(figures.total_disk);
    let needed = expected_bytes(reports, &cost);
    if figures.free_disk.saturating_sub(needed) < floor {
        return refuse(
            "disk",
            format!(
                "{} are free, the capture needs about {} and guards.min_free_disk keeps {} ({})",
                size(figures.free_disk),
                size(needed),
                size(floor),
                guards.min_free_disk
            ),
        );
    }
    if let Some(max) = guards.max_cpu_pressure
        && let Some((whose, pressure)) = figures.cpu_pressure
        && pressure > max
    {
        let whose = whose.name();
        let reason = format!("CPU pressure of the {whose} {pressure}% is above guards.max_cpu_pressure {max}%");
        return refuse("cpu_pressure", reason);
    }
    let snapshots = || reports.iter().filter(|name| is_snapshot(name));
    // A capture without snapshots needs no memory.
    snapshots().next()?;
    if let Some(max) = guards.max_rss
        && figures.rss > max
    {
        return refuse("max_rss", format!("rss {} is above guards.max_rss {}", size(figures.rss), size(max)));
    }
    let last = snapshots().filter_map(|name| cost(name)).map(|c| c.memory_bytes).max().filter(|bytes| *bytes > 0);
    let (whole, of) = last.map_or((figures.rss, "rss"), |bytes| (bytes, "the last snapshot's cost"));
    let required = times(whole, guards.memory_headroom);
    if figures.available_memory < required {
        return refuse(
            "memory_headroom",
            format!(
                "{} of memory are free beyond the reserve, guards.memory_headroom wants {} ({} × {of} {})",
                size(figures.available_memory),
                size(required),
                guards.memory_headroom,
                size(whole)
            ),
        );
    }
    None
}

/// The expected size of a capture in the store, in bytes: the sum of what each report took last time.
pub fn expected_bytes(reports: &[ReportName], cost: impl Fn(&str) -> Option<ReportCost>) -> u64 {
    UNKNOWN_CAPTURE + reports.iter().filter_map(|name| cost(name)).map(|c| c.stored_bytes).sum::<u64>()
}

/// Returns true if a forked child makes the report.
pub fn is_snapshot(name: &str) -> bool {
    report_kind::builtin(name).is_some_and(|(_, kind)| kind.producer == Producer::Snapshot)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a factor of a byte count; both are checked not to be negative"
)]
fn times(bytes: u64, factor: f64) -> u64 {
    (bytes as f64 * factor) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const GIB: u64 = 1 << 30;

    fn healthy() -> Figures {
        Figures {
            rss: GIB,
            available_memory: 4 * GIB,
            free_disk: 50 * GIB,
            total_disk: 100 * GIB,
            cpu_pressure: Some((Scope::Cgroup, 1.0)),
            clock_stepped_back_ms: None,
        }
    }

    #[test]
    fn each_guard_refuses_beyond_its_threshold_with_both_figures() {
        let guards = Guards { max_rss: Some(2 * GIB), max_cpu_pressure: Some(50.0), ..Config::default().guards };
        let heap = [ReportName::parse("heap_dump").unwrap()];
        let light = [ReportName::parse("smaps").unwrap()];
        let none = |_: &str| None;
        assert_eq!(check(&guards, &healthy(), &heap, none), None);
        let table = [
            (Figures { free_disk: 15 * GIB, ..healthy() }, "disk", "15.0 GiB"),
            (Figures { rss: 3 * GIB, ..healthy() }, "max_rss", "3.00 GiB"),
            (Figures { available_memory: GIB / 2, ..healthy() }, "memory_headroom", "512.0 MiB"),
            (Figures { cpu_pressure: Some((Scope::Host, 80.0)), ..healthy() }, "cpu_pressure", "of the host 80%"),
            (Figures { clock_stepped_back_ms: Some(60_000), ..healthy() }, "clock", "1m"),
        ];
        for (figures, guard, value) in table {
            let refusal = check(&guards, &figures, &heap, none).unwrap();
            assert_eq!(refusal.guard, guard);
            assert!(refusal.reason.contains(value), "{}", refusal.reason);
        }
        // A capture without snapshots needs no memory.
        let tight = Figures { available_memory: 0, rss: 3 * GIB, ..healthy() };
        assert_eq!(check(&guards, &tight, &light, none), None);
    }

    #[test]
    fn the_last_measured_cost_replaces_the_estimate() {
        let guards = Config::default().guards;
        let heap = [ReportName::parse("heap_dump").unwrap()];
        let figures = Figures { available_memory: GIB / 2, ..healthy() };
        let cheap = |_: &str| Some(ReportCost { memory_bytes: GIB / 4, stored_bytes: GIB });
        assert_eq!(check(&guards, &figures, &heap, cheap), None);
        let full = Figures { free_disk: 16 * GIB - 1, ..healthy() };
        assert_eq!(check(&guards, &full, &heap, cheap).unwrap().guard, "disk");
    }
}
