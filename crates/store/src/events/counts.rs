//! The number of events since the store exists. `event_counts.json` has those that `events.jsonl` no longer holds, so that an event costs
//! nothing more than its line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Event, read};
use crate::error::{Error, Result};
use crate::{Store, layout};
use diagctl_fs::{self as fs, Durability};

/// The most kinds of events that are told apart.
const MOST: usize = 2000;

/// Maximum size of the file, bytes.
const MAX_FILE: u64 = 1 << 20;

/// The key of a count.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Key {
    /// The type of the event.
    pub event: String,
    /// The verdict.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verdict: String,
    /// The rule.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rule: String,
    /// The cause of a deletion.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cause: String,
}

/// Numbers of events.
pub type Counts = BTreeMap<Key, u64>;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct File {
    schema: u32,
    counts: Vec<(Key, u64)>,
}

/// Returns the number of events of each kind since the store exists.
pub fn counts(store: &Store) -> Counts {
    let mut counts = of_file(store);
    read(store).iter().for_each(|event| count(&mut counts, event));
    counts
}

/// Adds events that `events.jsonl` is about to lose.
pub(super) fn add(store: &Store, events: &[Event]) -> Result<()> {
    let mut counts = of_file(store);
    events.iter().for_each(|event| count(&mut counts, event));
    let file = File { schema: 1, counts: counts.into_iter().collect() };
    let data = serde_json::to_vec(&file).map_err(Error::encode("the counts of events"))?;
    Ok(fs::write_atomic(&store.path(layout::EVENT_COUNTS), &data, Durability::Volatile)?)
}

fn of_file(store: &Store) -> Counts {
    let data = fs::read_bounded(&store.path(layout::EVENT_COUNTS), MAX_FILE).unwrap_or_default();
    let file: File = serde_json::from_slice(&data).unwrap_or_default();
    file.counts.into_iter().collect()
}

fn count(counts: &mut Counts, event: &Event) {
    let text = |text: &str| text.chars().take(100).collect::<String>();
    let mut key = Key {
        event: text(&event.event),
        verdict: text(&event.verdict),
        rule: text(&event.rule),
        cause: text(&event.cause),
    };
    if counts.len() >= MOST && !counts.contains_key(&key) {
        key = Key { event: key.event, ..Key::default() };
    }
    let number = counts.entry(key).or_default();
    *number = number.saturating_add(1);
}

#[cfg(test)]
mod tests {
    use super::super::record;
    use super::*;
    use crate::{Access, StoreOptions};

    #[test]
    fn events_are_counted_also_when_their_lines_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path().join("store")), Access::Create).unwrap();
        let deleted = Event { cause: "age".into(), ..Event::about("deleted", "x", &"w".repeat(200)) };
        for n in 0..900 {
            record(&store, &deleted);
            if n % 3 == 0 {
                record(&store, &Event { rule: "r".into(), ..Event::about("published", "y", "") });
            }
        }
        assert!(read(&store).len() < 600, "the file is bounded");
        let counts = counts(&store);
        let numbers: Vec<_> = counts.iter().map(|(key, n)| (key.event.as_str(), key.cause.as_str(), *n)).collect();
        assert_eq!(numbers, [("deleted", "age", 900), ("published", "", 300)]);
    }
}
