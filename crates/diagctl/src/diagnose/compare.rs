//! Two accounts of one process: the difference of each part, and the part that grew.

use serde::Serialize;

use super::account::{Account, Part};
use super::evidence::Evidence;
use crate::units::size;

/// Number of classes that are shown.
const CLASSES: usize = 5;

/// A part in both accounts, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The part.
    pub part: Part,
    /// In the first account.
    pub before: u64,
    /// In the second account.
    pub after: u64,
}

/// A class in both captures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassChange {
    /// The class.
    pub class: String,
    /// More objects in the second capture than in the first.
    pub count: i64,
    /// More bytes in the second capture than in the first, as Ruby reports them.
    pub bytes: i64,
}

/// The difference of two accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Resident set in the first account, bytes.
    pub rss_before: u64,
    /// Resident set in the second account, bytes.
    pub rss_after: u64,
    /// The parts of either account.
    pub parts: Vec<Change>,
    /// The classes that grew most.
    pub classes: Vec<ClassChange>,
    /// The part that explains more than half of the growth.
    pub grew: Option<Part>,
    /// The verdict in one sentence.
    pub sentence: String,
}

impl Change {
    /// Returns the growth, bytes.
    pub fn bytes(&self) -> i64 {
        difference(self.before, self.after)
    }
}

/// Compares two moments of one process, or two processes, of which neither has grown into the other.
pub fn compare(before: (&Evidence, &Account), after: (&Evidence, &Account), same_process: bool) -> Comparison {
    let mut parts: Vec<Part> = before.1.lines.iter().chain(&after.1.lines).map(|line| line.part).collect();
    parts.sort_unstable();
    parts.dedup();
    let changes =
        parts.into_iter().map(|part| Change { part, before: before.1.bytes(part), after: after.1.bytes(part) });
    let parts: Vec<Change> = changes.collect();
    let (rss_before, rss_after) = (before.1.rss, after.1.rss);
    let growth = difference(rss_before, rss_after);
    let (grew_by, did_not_grow) =
        if same_process { ("RSS grew by", "RSS did not grow") } else { ("B is larger by", "B is not larger") };
    // A part that only one of the two can tell from others says nothing about growth.
    let comparable = comparable(before.0, after.0);
    let largest = parts.iter().filter(|_| comparable).max_by_key(|change| change.bytes());
    let grew = largest.filter(|change| growth > 0 && change.part != Part::Unknown && change.bytes() > growth / 2);
    let sentence = match grew {
        Some(change) => format!(
            "{grew_by} {}; {} by {}.",
            size(growth.unsigned_abs()),
            change.part.name(),
            size(change.bytes().unsigned_abs())
        ),
        None if growth <= 0 => format!("{did_not_grow}: {} in A, {} in B.", size(rss_before), size(rss_after)),
        None if !comparable => {
            let growth = size(growth.unsigned_abs());
            format!("{grew_by} {growth}. The captures have different reports, so no part can be named.")
        }
        None => format!("{grew_by} {}, and no part explains half of it.", size(growth.unsigned_abs())),
    };
    let grew = grew.map(|change| change.part);
    Comparison { rss_before, rss_after, parts, classes: classes(before.0, after.0), grew, sentence }
}

fn comparable(before: &Evidence, after: &Evidence) -> bool {
    let has =
        |evidence: &Evidence| (evidence.slots.is_some(), evidence.allocator.is_some(), evidence.objects.is_some());
    has(before) == has(after)
}

fn classes(before: &Evidence, after: &Evidence) -> Vec<ClassChange> {
    let (Some(before), Some(after)) = (&before.objects, &after.objects) else { return Vec::new() };
    let mut changes: Vec<ClassChange> = after
        .classes
        .iter()
        .map(|(class, (count, bytes))| {
            let (count_before, bytes_before) = before.classes.get(class).copied().unwrap_or_default();
            let (count, bytes) = (difference(count_before, *count), difference(bytes_before, *bytes));
            ClassChange { class: class.clone(), count, bytes }
        })
        .filter(|change| change.count > 0 && change.bytes > 0)
        .collect();
    changes.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.class.cmp(&b.class)));
    changes.truncate(CLASSES);
    changes
}

fn difference(before: u64, after: u64) -> i64 {
    let of = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    of(after) - of(before)
}

#[cfg(test)]
mod tests {
    use super::super::account::Line;
    use super::super::gc_stat::Slots;
    use super::super::objects::Objects;
    use super::*;

    const MIB: u64 = 1 << 20;

    fn account(live: u64, native: u64, unknown: u64) -> Account {
        let line = |part, mib: u64| Line { part, bytes: mib * MIB, detail: String::new() };
        let lines = vec![line(Part::LiveObjects, live), line(Part::Native, native), line(Part::Unknown, unknown)];
        Account { rss: (live + native + unknown) * MIB, lines, excess: 0 }
    }

    #[test]
    fn the_part_that_explains_most_of_the_growth_is_named() {
        // (live, native, unknown) before and after → the part
        let table = [
            ((50, 20, 1), (150, 25, 1), Some(Part::LiveObjects)),
            ((50, 20, 1), (55, 90, 1), Some(Part::Native)),
            // Nothing explains half of it.
            ((50, 20, 1), (90, 60, 5), None),
            ((50, 20, 1), (51, 21, 60), None),
            ((50, 20, 1), (40, 30, 1), None),
        ];
        for (before, after, expected) in table {
            let of = |(live, native, unknown)| account(live, native, unknown);
            let (before, after) = (of(before), of(after));
            let evidence = Evidence::default();
            let compared = compare((&evidence, &before), (&evidence, &after), true);
            assert_eq!(compared.grew, expected, "{}", compared.sentence);
        }
    }

    #[test]
    fn captures_with_different_reports_are_not_judged() {
        let (bare, full) = (Evidence::default(), Evidence { slots: Some(Slots::default()), ..Evidence::default() });
        let compared = compare((&bare, &account(10, 10, 0)), (&full, &account(90, 10, 0)), true);
        assert_eq!(compared.grew, None);
        assert!(compared.sentence.contains("different reports"), "{}", compared.sentence);
    }

    #[test]
    fn the_classes_that_grew_come_largest_first() {
        let objects = |classes: &[(&str, (u64, u64))]| {
            let classes = classes.iter().map(|(name, figures)| ((*name).to_owned(), *figures)).collect();
            Evidence { objects: Some(Objects { classes, ..Objects::default() }), ..Evidence::default() }
        };
        let before = objects(&[("String", (10, 1000)), ("Hash", (5, 500)), ("Gone", (5, 5))]);
        let after = objects(&[("String", (11, 1100)), ("Hash", (5, 400)), ("Session", (7, 7000))]);
        let found: Vec<(String, i64, i64)> =
            classes(&before, &after).into_iter().map(|change| (change.class, change.count, change.bytes)).collect();
        assert_eq!(found, [("Session".to_owned(), 7, 7000), ("String".to_owned(), 1, 100)]);
    }
}
