//! `object_counts` and `heap_summary`: the objects with the memory that Ruby knows behind them, by class.
//!
//! The figures could as well come from a heap graph: whatever fills [`Objects`] sharpens the account.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use diagctl_heapdump::summary::Summary;
use serde_json::Value;

/// The objects of a heap. Sizes are in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// The report that the figures are from.
    pub source: &'static str,
    /// Number of objects.
    pub count: u64,
    /// Their slots and the memory behind them, as each object reports it (`memsize`).
    pub size: u64,
    /// Number and size by class.
    pub classes: BTreeMap<String, (u64, u64)>,
}

/// Objects of a class that keep memory which `memsize` does not report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The class.
    pub class: String,
    /// Number of objects.
    pub count: u64,
    /// An estimate of the memory that they keep, bytes.
    pub bytes: u64,
}

// Classes of Ruby's own extensions that keep native memory, with an estimate for one object, bytes.
// Zlib: (1 << (windowBits + 2)) + (1 << (memLevel + 9)) for deflate, 32 KiB and 7 KiB for inflate (zconf.h).
// OpenSSL: measured with OpenSSL 3.0; a store with the system's certificates takes 0.9 MiB, a connection has two buffers of 16 KiB.
const HOLDERS: [(&str, u64); 14] = [
    ("Zlib::Deflate", 268 << 10),
    ("Zlib::GzipWriter", 268 << 10),
    ("Zlib::Inflate", 40 << 10),
    ("Zlib::GzipReader", 40 << 10),
    ("OpenSSL::X509::Store", 900 << 10),
    ("OpenSSL::SSL::SSLContext", 13 << 10),
    ("OpenSSL::SSL::SSLSocket", 40 << 10),
    ("OpenSSL::X509::Certificate", 3500),
    ("OpenSSL::PKey::RSA", 2400),
    ("OpenSSL::PKey::EC", 2 << 10),
    ("OpenSSL::BN", 500),
    ("OpenSSL::Digest", 300),
    ("OpenSSL::Cipher", 1400),
    ("OpenSSL::HMAC", 1700),
];

impl Objects {
    /// Parses the report `object_counts`.
    pub fn of_counts(report: &Value) -> Option<Self> {
        let of = |path: &str| report.pointer(path).and_then(Value::as_u64);
        let mut classes: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for row in report.get("classes").and_then(Value::as_array).into_iter().flatten() {
            let (Some(name), Some(count)) = (row.get("class")?.as_str(), row.get("count")?.as_u64()) else { continue };
            let total = classes.entry(name.to_owned()).or_default();
            total.0 = total.0.saturating_add(count);
            total.1 = total.1.saturating_add(row.get("memsize").and_then(Value::as_u64).unwrap_or(0));
        }
        Some(Self {
            source: "object_counts",
            count: of("/count_objects/TOTAL")?.saturating_sub(of("/count_objects/FREE")?),
            size: of("/count_objects_size/TOTAL")?,
            classes,
        })
    }

    /// Takes the figures of a heap summary. Those of a part of a heap are none.
    pub fn of_summary(summary: &Summary) -> Option<Self> {
        let groups = summary.classes.groups.iter();
        summary.complete.then(|| Self {
            source: "heap_summary",
            count: summary.objects.count,
            size: summary.objects.bytes,
            classes: groups.map(|group| (group.name.clone(), (group.amount.count, group.amount.bytes))).collect(),
        })
    }

    /// Returns the memory behind the objects, outside their slots, with a slot's size on average.
    pub fn behind(&self, live_slots: u64, live_bytes: u64) -> u64 {
        let slots = u128::from(self.count) * u128::from(live_bytes) / u128::from(live_slots.max(1));
        self.size.saturating_sub(u64::try_from(slots).unwrap_or(u64::MAX))
    }

    /// Returns the classes that are known to keep native memory, largest estimate first.
    pub fn holders(&self) -> Vec<Holder> {
        let holder = |(class, each): &(&str, u64)| {
            let (count, _) = *self.classes.get(*class)?;
            Some(Holder { class: (*class).to_owned(), count, bytes: count.saturating_mul(*each) })
        };
        let mut holders: Vec<Holder> = HOLDERS.iter().filter_map(holder).collect();
        holders.sort_by_key(|holder| Reverse(holder.bytes));
        holders
    }

    /// Returns the class with the most memory, its count and its size.
    pub fn largest(&self) -> Option<(&str, u64, u64)> {
        let named = self.classes.iter().filter(|(name, _)| !name.starts_with('('));
        named.max_by_key(|(_, (_, size))| *size).map(|(name, (count, size))| (name.as_str(), *count, *size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report() -> Value {
        json!({
            "count_objects": { "TOTAL": 1100, "FREE": 100, "T_STRING": 1000 },
            "count_objects_size": { "T_STRING": 90_000, "TOTAL": 90_000 },
            "memsize_of_all": 90_000,
            "classes": [
                { "class": "(internal)", "count": 9, "memsize": 1 << 30 },
                { "class": "String", "count": 900, "memsize": 80_000 },
                { "class": "Zlib::Deflate", "count": 10, "memsize": 400 },
                { "class": "OpenSSL::X509::Store", "count": 7, "memsize": 280 },
            ],
        })
    }

    #[test]
    fn the_memory_behind_objects_is_what_their_slots_do_not_hold() {
        let objects = Objects::of_counts(&report()).unwrap();
        assert_eq!((objects.count, objects.size), (1000, 90_000));
        assert_eq!(objects.behind(1000, 40_000), 50_000);
        // The heap grew between the two reports.
        assert_eq!(objects.behind(500, 20_000), 50_000);
        assert_eq!(objects.behind(0, 0), 90_000);
        assert_eq!(objects.largest(), Some(("String", 900, 80_000)));
    }

    #[test]
    fn classes_with_native_memory_are_known_by_name() {
        let holders = Objects::of_counts(&report()).unwrap().holders();
        let shown: Vec<(&str, u64)> = holders.iter().map(|h| (h.class.as_str(), h.bytes >> 10)).collect();
        assert_eq!(shown, [("OpenSSL::X509::Store", 6300), ("Zlib::Deflate", 2680)]);
    }

    #[test]
    fn a_summary_tells_the_same_as_counts_unless_it_is_of_a_part() {
        let group = |name: &str, count, bytes| json!({ "name": name, "count": count, "bytes": bytes, "old": 0, "old_bytes": 0 });
        let amount = json!({ "count": 1000, "bytes": 90_000, "old": 0, "old_bytes": 0 });
        let groups = json!({ "groups": [group("(IMEMO iseq)", 9, 1 << 30), group("Zlib::Deflate", 10, 400)] });
        let none = json!({ "groups": [] });
        let mut summary: Summary = serde_json::from_value(json!({
            "schema": 1, "producer": "walker", "complete": true, "objects": amount, "free_slots": 0, "free_bytes": 0,
            "types": none, "classes": groups, "sites": none, "generations": none,
        }))
        .unwrap();
        let objects = Objects::of_summary(&summary).unwrap();
        assert_eq!((objects.count, objects.size), (1000, 90_000));
        assert_eq!(objects.holders()[0].bytes >> 10, 2680);
        assert_eq!(objects.largest(), Some(("Zlib::Deflate", 10, 400)));
        summary.complete = false;
        assert_eq!(Objects::of_summary(&summary), None);
    }

    #[test]
    fn anything_else_is_not_an_object_count() {
        for other in [json!({}), json!([]), json!({ "classes": [{}] })] {
            assert_eq!(Objects::of_counts(&other), None, "{other}");
        }
    }
}
