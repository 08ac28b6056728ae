//! The roots that keep the objects of a process, from its heap dumps: a summary has no references.
//!
//! An object counts for the root at the beginning of its shortest path, so each reachable object counts once, and the roots add up to
//! the heap. Garbage counts for none.

use diagctl_heapdump::analysis::builder::Wanted;
use diagctl_heapdump::analysis::diff::ByName;
use diagctl_heapdump::summary::trend::Point;
use diagctl_heapdump::summary::{Amount, Group, Groups, Summary};
use diagctl_store::Store;
use diagctl_store::index::Entry;

use super::super::leak::{self, STEP};
use super::points::{Taken, taken};
use crate::cli::output;
use crate::cli::{Context, Failure};

/// The most dumps that are read, the newest. Each takes about a second for a million objects.
const MOST: usize = 8;

/// Reads the dumps, oldest first. One that cannot be read, or ends early, is left out.
pub(super) fn read(cx: &Context, store: &Store, entries: &[Entry]) -> (Vec<Taken>, Vec<Point>) {
    let has_dump = |entry: &&Entry| entry.reports.iter().any(|report| report.name == *"heap_dump" && report.has_data());
    let dumps: Vec<&Entry> = entries.iter().filter(has_dump).collect();
    let cut = dumps.len().saturating_sub(MOST);
    if cut > 0 {
        output::note(&format!("the newest {MOST} heap dumps are read; {cut} older ones are not"));
    }
    let (mut all, mut points) = (Vec::new(), Vec::new());
    for entry in &dumps[cut..] {
        match one(cx, store, entry) {
            Ok(Some((of, summary))) => {
                all.push(of);
                points.push(Point { at_ms: entry.store_ms, summary });
            }
            Ok(None) => output::note(&format!("skipped {}: its dump is of a part of the heap", entry.id)),
            Err(why) => output::note(&format!("skipped {}: {}", entry.id, why.message)),
        }
    }
    (all, points)
}

fn one(cx: &Context, store: &Store, entry: &Entry) -> Result<Option<(Taken, Summary)>, Failure> {
    let capture = store.capture(&entry.id)?;
    let input = leak::load(cx, &entry.id, Wanted { labels: true, sites: true, ..Wanted::default() })?;
    if !input.loaded.complete {
        return Ok(None);
    }
    let paths = leak::by_path(&input.loaded.graph, |_| true);
    Ok(Some((taken(entry, &capture), by_root(&paths))))
}

// The roots stand where a summary has its classes, so that a trend of either is made in the same way.
fn by_root(paths: &ByName) -> Summary {
    let mut roots: std::collections::BTreeMap<&str, Amount> = std::collections::BTreeMap::new();
    let mut objects = Amount::default();
    for (path, held) in paths {
        let root = path.split_once(STEP).map_or(path.as_str(), |(root, _)| root);
        for amount in [&mut objects, roots.entry(root).or_default()] {
            amount.count += held.objects;
            amount.bytes = amount.bytes.saturating_add(held.bytes);
        }
    }
    let groups = roots.into_iter().map(|(name, amount)| Group { name: name.to_owned(), amount }).collect();
    Summary { complete: true, objects, classes: Groups { groups, ..Groups::default() }, ..Summary::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diagctl_heapdump::analysis::held;

    #[test]
    fn each_object_counts_for_the_root_of_its_path() {
        let paths: ByName =
            [("App → Array[] → Session", 3, 120), ("App", 1, 40), ("Apple → String", 1, 7), ("$g → Hash", 1, 9)]
                .into_iter()
                .map(|(path, objects, bytes)| (path.to_owned(), held::Amount { objects, bytes }))
                .collect();
        let summary = by_root(&paths);
        let found: Vec<_> =
            summary.classes.groups.iter().map(|g| (g.name.as_str(), g.amount.count, g.amount.bytes)).collect();
        assert_eq!(found, [("$g", 1, 9), ("App", 4, 160), ("Apple", 1, 7)]);
        assert_eq!((summary.objects.count, summary.objects.bytes), (6, 176));
    }
}
