//! The earlier heap dumps of a process, which `diagnose` compares.

use diagctl_store::index::Entry;

use super::hints;
use super::target::Target;
use super::view::{From, View, Wanted};
use crate::cli::{Context, Failure, output};
use crate::units::size;

/// Heap dumps of more bytes than this together are not fetched for a comparison that nobody asked for.
const MOST: u64 = 128 << 20;

/// Number of heap dumps that are compared.
const COMPARED: usize = 3;

const DUMP: &str = "heap_dump";

/// Brings what `diagnose` reads of a capture: all but its heap dump, and the heap dumps of its process if there are several.
pub fn view(cx: &Context, from: &From, target: Target) -> Result<View, Failure> {
    let entries = from.captures(cx, &super::Days::default())?;
    let dumps = dumps(&entries, &target.entry);
    let bytes: u64 = dumps.iter().map(|(_, bytes)| bytes).sum();
    let id = target.entry.id;
    let mut targets = vec![target];
    if dumps.len() > 1 && bytes > MOST {
        let ids: Vec<String> = dumps.iter().rev().map(|(entry, _)| entry.id.to_string()).collect();
        let command = hints::of_command(
            &format!("diagctl heap diff --remote {}", ids.join(" ")),
            hints::As { options: &cx.options, host: None },
        );
        output::note(&format!(
            "the {} heap dumps of the process were not compared: they have {}; `{command}` does it",
            dumps.len(),
            size(bytes),
        ));
    } else if dumps.len() > 1 {
        let earlier = dumps.iter().filter(|(entry, _)| entry.id != id);
        targets.extend(earlier.map(|(entry, _)| Target { entry: (*entry).clone(), report: Some(DUMP.to_owned()) }));
    }
    let without: &[&str] = if targets.len() > 1 { &[] } else { &[DUMP] };
    View::of(cx, targets, Wanted::NamedOrAllBut(without))
}

// The capture's heap dump and those before it of the same process, the newest first, with their sizes. A pid may have been used
// again; that shows when they are read.
fn dumps<'e>(entries: &'e [Entry], of: &Entry) -> Vec<(&'e Entry, u64)> {
    let dump = |entry: &Entry| entry.reports.iter().find(|r| r.name == *DUMP && r.has_data()).map(|r| r.stored_bytes);
    if dump(of).is_none() {
        return Vec::new();
    }
    let own = entries.iter().filter(|entry| entry.host == of.host && entry.pid == of.pid && entry.id <= of.id);
    own.filter_map(|entry| Some((entry, dump(entry)?))).take(COMPARED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use diagctl_store::index::EntryReport;

    #[test]
    fn the_dumps_are_those_of_the_process_up_to_the_capture() {
        let entry = |n: u8, host: &str, pid: u32, report: &str| Entry {
            id: format!("20261128T10000000{n}Z-aaaaaaaa").parse().unwrap(),
            host: host.into(),
            pid,
            reports: vec![EntryReport { stored_bytes: u64::from(n), ..EntryReport::new(report.parse().unwrap()) }],
            ..Entry::default()
        };
        let entries = [
            entry(9, "web-1", 7, DUMP),
            entry(8, "web-1", 7, DUMP),
            entry(7, "web-1", 8, DUMP),
            entry(6, "web-2", 7, DUMP),
            entry(5, "web-1", 7, "smaps"),
            entry(4, "web-1", 7, DUMP),
            entry(3, "web-1", 7, DUMP),
            entry(2, "web-1", 7, DUMP),
        ];
        let sizes = |of: &Entry| dumps(&entries, of).iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>();
        assert_eq!((sizes(&entries[1]), sizes(&entries[4]), sizes(&entries[6])), (vec![8, 4, 3], vec![], vec![3, 2]));
    }
}
