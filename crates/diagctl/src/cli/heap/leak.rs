//! The leak finding: what came between the heap dumps of one process, what keeps it, and how much of it stayed.
//!
//! Computed when somebody looks: the graphs are in the store.

use std::collections::BTreeMap;

use diagctl_heapdump::analysis::address::ObjectIndex;
use diagctl_heapdump::analysis::builder::Wanted;
use diagctl_heapdump::analysis::diff::{self, ByName, Inhabitants, Landmarks};
use diagctl_heapdump::analysis::families::Families;
use diagctl_heapdump::analysis::held::Amount;
use diagctl_heapdump::analysis::memory::Graph;
use diagctl_heapdump::analysis::paths::Paths;
use diagctl_store::index::Listing;
use diagctl_store::meta::Meta;
use diagctl_store::{Id, Store};
use serde::Serialize;

use super::input::{self, Input};
use crate::cli::{Context, Failure};
use crate::diagnose::Step;
use crate::units::size;

/// Fewer objects or bytes are no finding.
const FEWEST: u64 = 100;
const LEAST_BYTES: u64 = 256 << 10;
/// Separates the steps of a path.
pub const STEP: &str = " → ";
/// Follows the class of an object in the path of another that it keeps.
const BEYOND: [char; 6] = [' ', '#', '[', '{', '.', ':'];
/// Captures of a process that are looked through for heap dumps.
const LOOKED_AT: usize = 50;

/// Growth in one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leak {
    /// The captures that were compared, the oldest first.
    pub captures: Vec<Id>,
    /// The path that keeps the objects.
    pub kept_by: String,
    /// The class of the objects.
    pub class: String,
    /// The number of objects that came between the first capture and the second.
    pub objects: u64,
    /// Their bytes, with everything new that only they keep in reach by the shortest path.
    pub bytes: u64,
    /// The percentage of them that is there in the third capture, if there is one.
    pub still_there_percent: Option<u64>,
}

impl Leak {
    /// Says it in one sentence.
    pub fn sentence(&self) -> String {
        let grew = format!(
            "`{}` grew by {} {} objects ({})",
            self.kept_by,
            grouped(self.objects),
            self.class,
            size(self.bytes)
        );
        match self.still_there_percent {
            Some(100) => format!("{grew} between A and B, and all of it is still there in C."),
            Some(percent) => format!("{grew} between A and B, and {percent} % of it is still there in C."),
            None => format!("{grew} between A and B. A third heap dump of the process tells whether it stays."),
        }
    }

    /// The letters of the sentence, each with its capture.
    pub fn legend(&self) -> String {
        let letters = ["A", "B", "C"].iter().zip(&self.captures).map(|(letter, id)| format!("{letter} {id}"));
        letters.collect::<Vec<_>>().join("\n")
    }

    /// The command that shows more.
    pub fn step(&self) -> Step {
        let ids: Vec<&str> = self.captures.iter().map(AsRef::as_ref).collect();
        let why = "see everything that came and what keeps it".to_owned();
        Step { why, command: format!("diagctl heap diff {}", ids.join(" ")) }
    }
}

// With commas, as in 120,000.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The newest capture with a heap dump of the process of a capture.
pub fn last_dump(store: &Store, of: &Meta) -> Result<Option<Meta>, Failure> {
    Ok(dumps_until(store, of, u64::MAX, 1)?.pop())
}

/// The last heap dumps of the process of a capture, at most three, the oldest first and that of the capture last. Fewer than two are
/// none.
pub fn dumps_of(store: &Store, meta: &Meta) -> Result<Vec<Meta>, Failure> {
    if !has_dump(meta) {
        return Ok(Vec::new());
    }
    let dumps = dumps_until(store, meta, meta.sequence, 3)?;
    Ok(if dumps.len() < 2 { Vec::new() } else { dumps })
}

fn has_dump(meta: &Meta) -> bool {
    meta.reports.iter().any(|report| report.name == *"heap_dump" && report.file.is_some())
}

// Oldest first.
fn dumps_until(store: &Store, of: &Meta, sequence: u64, most: usize) -> Result<Vec<Meta>, Failure> {
    if of.start_time == 0 || of.role == "run" {
        return Ok(Vec::new());
    }
    let listing = Listing::all(store)?;
    let entries = listing.newest_first().filter_map(|number| listing.entry(number));
    let own = entries.filter(|entry| {
        entry.pid == of.pid && entry.sequence <= sequence && entry.reports.iter().any(|r| r.name == *"heap_dump")
    });
    let read = own.take(LOOKED_AT).filter_map(|entry| Some(store.capture(&entry.id).ok()?.meta().clone()));
    let is_of_it = |other: &Meta| {
        has_dump(other) && (other.start_time, other.pid_ns, &other.boot_id) == (of.start_time, of.pid_ns, &of.boot_id)
    };
    let mut dumps: Vec<Meta> = read.filter(is_of_it).take(most).collect();
    dumps.reverse();
    Ok(dumps)
}

/// Compares the dumps. `None` if nothing stands out, or the heap was compacted in between.
pub fn find(cx: &Context, dumps: &[Meta]) -> Result<Option<Leak>, Failure> {
    let captures: Vec<Id> = dumps.iter().map(|meta| meta.id).collect();
    let [a, b, rest @ ..] = captures.as_slice() else { return Ok(None) };
    let sites = Wanted { sites: true, ..Wanted::default() };
    let (old, landmarks) = {
        let input = load(cx, a, sites)?;
        let graph = &input.loaded.graph;
        (Inhabitants::new(graph, &graph.reach()), Landmarks::new(graph))
    };
    let wanted = Wanted { labels: true, sites: true, ..Wanted::default() };
    let (new, came) = {
        let input = load(cx, b, wanted)?;
        let graph = &input.loaded.graph;
        if landmarks.differ(&Landmarks::new(graph)) {
            return Ok(None);
        }
        let new = Inhabitants::new(graph, &graph.reach()).without(&old);
        let came = by_path(graph, |object| new.has(graph, object));
        (new, came)
    };
    let stayed = match rest {
        [c, ..] => {
            let input = load(cx, c, wanted)?;
            let graph = &input.loaded.graph;
            if landmarks.differ(&Landmarks::new(graph)) {
                return Ok(None);
            }
            Some(by_path(graph, |object| new.has(graph, object)))
        }
        [] => None,
    };
    Ok(named(&came, stayed.as_ref()).map(|found| Leak { captures, ..found }))
}

/// Reads the heap dump of a capture.
pub fn load(cx: &Context, id: &Id, wanted: Wanted) -> Result<Input, Failure> {
    input::load(cx, &format!("{id}:heap_dump"), wanted)
}

/// Sums the reachable objects by their paths.
pub fn by_path(graph: &Graph, counts: impl Fn(ObjectIndex) -> bool) -> ByName {
    by_part_of_path(graph, counts, |path| path)
}

/// Sums the reachable objects by a part of their paths.
pub fn by_part_of_path(graph: &Graph, counts: impl Fn(ObjectIndex) -> bool, part: impl Fn(String) -> String) -> ByName {
    let paths = Paths::new(graph);
    let families = Families::new(graph, &paths);
    let those = paths.order().iter().copied().filter(|object| counts(*object));
    let name = |family| part(families.spell(graph, family));
    diff::by_name(graph, those, families.count(), |object| families.of(object), name)
}

fn sorted(all: &ByName) -> BTreeMap<&str, Amount> {
    all.iter().map(|(path, amount)| (path.as_str(), *amount)).collect()
}

// The bytes of a place with all that is kept beneath it.
fn beneath(all: &BTreeMap<&str, Amount>, path: &str) -> u64 {
    let candidates = all.range(path..).take_while(|(name, _)| name.starts_with(path));
    let inside = |name: &str| name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(BEYOND));
    candidates.filter(|(name, _)| inside(name)).map(|(_, amount)| amount.bytes).sum()
}

// Names the place that explains most. `came` are the new objects of the second dump, `stayed` those of them in the third.
fn named(came: &ByName, stayed: Option<&ByName>) -> Option<Leak> {
    let came = sorted(came);
    let judged = stayed.map_or_else(|| came.clone(), sorted);
    let many = judged.iter().filter(|(_, amount)| amount.objects >= FEWEST);
    let mut places: Vec<(u64, Amount, &str)> =
        many.map(|(path, amount)| (beneath(&judged, path), *amount, *path)).collect();
    places.sort_unstable_by(|a, b| (b.0, a.2.len(), a.2).cmp(&(a.0, b.2.len(), b.2)));
    let &(bytes, amount, path) = places.first()?;
    if bytes < LEAST_BYTES {
        return None;
    }
    let (kept_by, class) = path.rsplit_once(STEP).unwrap_or(("(a root)", path));
    let before = came.get(path).copied().unwrap_or(amount);
    let percent = amount.objects.saturating_mul(100) / before.objects.max(1);
    let leak = Leak {
        captures: Vec::new(),
        kept_by: kept_by.to_owned(),
        class: class.to_owned(),
        objects: before.objects.max(amount.objects),
        bytes: beneath(&came, path).max(bytes),
        still_there_percent: stayed.map(|_| percent.min(100)),
    };
    // Objects that go again are no leak.
    (leak.still_there_percent.is_none_or(|percent| percent >= 50)).then_some(leak)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(rows: &[(&str, u64, u64)]) -> ByName {
        rows.iter()
            .map(|(name, objects, bytes)| ((*name).to_owned(), Amount { objects: *objects, bytes: *bytes }))
            .collect()
    }

    #[test]
    fn the_place_that_keeps_most_is_named_with_all_beneath_it() {
        let came = names(&[
            ("Rails.cache → @store → Session", 120_000, 4_800_000),
            ("Rails.cache → @store → Session#@user → String", 120_000, 35_000_000),
            ("Rails.cache → @store → SessionStore → String", 300, 9_000_000),
            ("(machine stack) → String", 5, 90_000_000),
        ]);
        let leak = named(&came, Some(&came)).unwrap();
        assert_eq!(
            leak.sentence(),
            "`Rails.cache → @store` grew by 120,000 Session objects (38.0 MiB) between A and B, and all of it is still there in C."
        );
        let two = named(&came, None).unwrap();
        assert!(two.sentence().ends_with("A third heap dump of the process tells whether it stays."));
    }

    #[test]
    fn what_goes_again_is_small_or_is_few_objects_is_no_finding() {
        let came = names(&[("App → Session", 1000, 1 << 20)]);
        for (stayed, expected) in [
            (names(&[("App → Session", 900, 900 << 10)]), Some(90)),
            (names(&[("App → Session", 400, 400 << 10)]), None),
            (names(&[("App → Session", 1000, 1 << 10)]), None),
            (names(&[("App → Blob", 2, 9 << 20)]), None),
            (names(&[]), None),
        ] {
            let found = named(&came, Some(&stayed)).and_then(|leak| leak.still_there_percent);
            assert_eq!(found, expected, "{stayed:?}");
        }
    }
}
