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
    let roots = leak::by_part_of_path(&input.loaded.graph, |_| true, root);
    Ok(Some((taken(entry, &capture), by_root(roots))))
}

// The root at the beginning of a path.
fn root(mut path: String) -> String {
    path.truncate(path.find(STEP).unwrap_or(path.len()));
    path
}

// The roots stand where a summary has its classes, so that a trend of either is made in the same way.
fn by_root(roots: ByName) -> Summary {
    let mut objects = Amount::default();
    let mut groups = Vec::new();
    for (name, held) in roots {
        objects.count += held.objects;
        objects.bytes = objects.bytes.saturating_add(held.bytes);
        groups.push(Group { name, amount: Amount { count: held.objects, bytes: held.bytes, ..Amount::default() } });
    }
    groups.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Summary { complete: true, objects, classes: Groups { groups, ..Groups::default() }, ..Summary::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diagctl_heapdump::analysis::held;

    #[test]
    fn each_object_counts_for_the_root_of_its_path() {
        let paths = ["App → Array[] → Session", "App", "Apple → String", "$g → Hash"];
        assert_eq!(paths.map(|path| root(path.to_owned())), ["App", "App", "Apple", "$g"]);
        let roots: ByName = [("App", 4, 160), ("Apple", 1, 7), ("$g", 1, 9)]
            .into_iter()
            .map(|(root, objects, bytes)| (root.to_owned(), held::Amount { objects, bytes }))
            .collect();
        let summary = by_root(roots);
        let found: Vec<_> =
            summary.classes.groups.iter().map(|g| (g.name.as_str(), g.amount.count, g.amount.bytes)).collect();
        assert_eq!(found, [("$g", 1, 9), ("App", 4, 160), ("Apple", 1, 7)]);
        assert_eq!((summary.objects.count, summary.objects.bytes), (6, 176));
    }
}
