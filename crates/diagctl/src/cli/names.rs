//! Names that a person may have meant by one that nothing has.

use std::collections::BTreeSet;

use crate::section::nearest;
use diagctl_fs::printable;

/// No more names than this are listed: the most similar.
const LISTED: usize = 12;

/// Asks if a similar name was meant, or lists the names that there are. Returns nothing if the name is among them, or if there are none.
pub fn meant<'n>(wanted: &str, known: impl IntoIterator<Item = &'n str>) -> Option<String> {
    let known: BTreeSet<&str> = known.into_iter().filter(|name| !name.is_empty()).collect();
    if known.is_empty() || known.contains(wanted) {
        return None;
    }
    Some(similar(wanted, known.iter().copied()).unwrap_or_else(|| match known.len() {
        1 => format!("there is only {}", listed(wanted, &known)),
        _ => format!("there are {}", listed(wanted, &known)),
    }))
}

/// Asks if a similar name was meant.
pub fn similar<'n>(wanted: &str, known: impl IntoIterator<Item = &'n str>) -> Option<String> {
    nearest(wanted, known).filter(|near| *near != wanted).map(|near| format!("did you mean {:?}?", printable(near)))
}

fn listed(wanted: &str, names: &BTreeSet<&str>) -> String {
    let more = names.len().saturating_sub(LISTED);
    let mut nearest: Vec<&str> = names.iter().copied().collect();
    let likeness = |name: &str| strsim::jaro_winkler(wanted, name);
    nearest.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    let mut shown: Vec<String> = nearest.iter().take(LISTED).map(|name| printable(name)).collect();
    shown.sort_unstable();
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

/// Does the same for the options of a command that filter by name: the option, the name that was asked for, and those that there are.
pub fn meant_by<'n>(
    filters: impl IntoIterator<Item = (&'n str, Option<&'n str>, &'n BTreeSet<String>)>,
) -> Vec<String> {
    let meant = |(option, wanted, known): (&str, Option<&str>, &'n BTreeSet<String>)| {
        let wanted = wanted?;
        let meant = meant(wanted, known.iter().map(String::as_str))?;
        Some(format!("{option} {}: {meant}", printable(wanted)))
    };
    filters.into_iter().filter_map(meant).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_similar_name_is_suggested_and_else_all_are_listed() {
        let reports = ["heap_dump", "gc_stat", "smaps", ""];
        let table: [(&str, &[&str], Option<&str>); 7] = [
            ("heapdump", &reports, Some("did you mean \"heap_dump\"?")),
            ("smap", &reports, Some("did you mean \"smaps\"?")),
            ("jemalloc", &reports, Some("there are gc_stat, heap_dump, smaps")),
            ("gc_stat", &reports, None),
            ("", &reports, Some("there are gc_stat, heap_dump, smaps")),
            ("heapdump", &["", ""], None),
            ("jemalloc", &["gc_stat"], Some("there is only gc_stat")),
        ];
        for (wanted, known, expected) in table {
            assert_eq!(meant(wanted, known.iter().copied()).as_deref(), expected, "{wanted}");
        }
        let many: Vec<String> = (10..30).map(|n| format!("rule-{n}")).collect();
        let told = meant("x", many.iter().map(String::as_str)).unwrap();
        assert!(told.ends_with("rule-20, rule-21 and 8 more"), "{told}");
        let told = meant("the-29-th", many.iter().map(String::as_str)).unwrap();
        assert!(told.contains("rule-29"), "{told}");
    }
}
