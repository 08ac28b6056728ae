//! The evidence about a process: the figures of its reports, and why others are missing.

use serde_json::Value;

use super::allocator::{Allocator, Kind};
use super::family::{Family, Limit};
use super::gc_stat::Slots;
use super::growth::Growth;
use super::objects::Objects;
use super::smaps::Mappings;

/// The reports that the account is made from.
pub const REPORTS: [&str; 10] = [
    "smaps",
    "smaps_rollup",
    "gc_stat",
    "jemalloc_stats",
    "malloc_info",
    "object_counts",
    "heap_summary",
    "siblings",
    "cgroup",
    "system",
];

/// The evidence about one process at one moment. Every figure may be missing.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The process's pid.
    pub pid: u32,
    /// Resident memory by mapping.
    pub mappings: Option<Mappings>,
    /// Slots of Ruby's heap.
    pub slots: Option<Slots>,
    /// The allocator's figures.
    pub allocator: Option<Allocator>,
    /// Objects by class.
    pub objects: Option<Objects>,
    /// Parent and siblings.
    pub family: Option<Family>,
    /// The memory limit.
    pub limit: Option<Limit>,
    /// The recorded polls.
    pub growth: Option<Growth>,
    /// Reports that should have had figures, each with the reason why they have none.
    pub unusable: Vec<(&'static str, String)>,
}

/// The content of a report, or the reason why there is none. `None` if it was not asked for.
pub type Content = Option<Result<Vec<u8>, String>>;

impl Evidence {
    /// Reads the reports of [`REPORTS`]. `ruby` is the version of Ruby, or empty.
    pub fn read(pid: u32, ruby: &str, mut report: impl FnMut(&'static str) -> Content) -> Self {
        let mut evidence = Self { pid, ..Self::default() };
        let (mut cgroup, mut system) = (None, None);
        for name in REPORTS {
            let data = match report(name) {
                None => continue,
                Some(Ok(data)) => data,
                Some(Err(why)) => {
                    evidence.unusable.push((name, why));
                    continue;
                }
            };
            let text = String::from_utf8_lossy(&data);
            let json = || serde_json::from_slice::<Value>(&data).ok();
            let understood = match name {
                "smaps" => set(&mut evidence.mappings, Mappings::parse(&text)),
                "smaps_rollup" if evidence.mappings.is_some() => true,
                "smaps_rollup" => set(&mut evidence.mappings, Mappings::parse(&text)),
                "gc_stat" => set(&mut evidence.slots, json().and_then(|report| Slots::parse(&report, ruby))),
                "jemalloc_stats" => {
                    set(&mut evidence.allocator, json().and_then(|report| Allocator::of_jemalloc(&report)))
                }
                "malloc_info" => set(&mut evidence.allocator, Allocator::of_glibc(&text)),
                "object_counts" => set(&mut evidence.objects, json().and_then(|report| Objects::of_counts(&report))),
                "heap_summary" if evidence.objects.is_some() => true,
                "heap_summary" => {
                    let summary = serde_json::from_slice(&data).ok();
                    set(&mut evidence.objects, summary.as_ref().and_then(Objects::of_summary))
                }
                "siblings" => set(&mut evidence.family, json().and_then(|report| Family::parse(&report))),
                "cgroup" => set(&mut cgroup, json()),
                _ => set(&mut system, json()),
            };
            if !understood {
                evidence.unusable.push((name, "it has none of the expected figures".into()));
            }
        }
        evidence.limit = Limit::parse(cgroup.as_ref(), system.as_ref());
        evidence
    }

    /// Returns true if no report would explain more of this process alone.
    pub fn is_complete(&self) -> bool {
        self.missing().iter().all(|report| *report == "siblings")
    }

    /// Returns the report that the allocator of this process can make: jemalloc's fails with glibc, and the other way round. `None` if
    /// nothing tells the allocator.
    pub fn allocator_report(&self) -> Option<&'static str> {
        let failed = |name: &str| self.unusable.iter().any(|(report, _)| *report == name);
        let uses = self.mappings.as_ref().and_then(|mappings| mappings.uses);
        match (self.allocator.map(|allocator| allocator.kind), uses) {
            (Some(Kind::Jemalloc), _) => Some("jemalloc_stats"),
            (Some(Kind::Glibc), _) => Some("malloc_info"),
            (None, _) if failed("jemalloc_stats") => Some("malloc_info"),
            (None, _) if failed("malloc_info") => Some("jemalloc_stats"),
            (None, Some(uses)) => Some(if uses.jemalloc { "jemalloc_stats" } else { "malloc_info" }),
            (None, None) => None,
        }
    }

    /// Returns the reports that would fill a gap in the account.
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing = Vec::new();
        if self.mappings.as_ref().is_none_or(|mappings| mappings.uses.is_none()) {
            missing.push("smaps");
        }
        if self.slots.is_none() {
            missing.push("gc_stat");
        }
        if self.allocator.is_none() {
            missing.push(self.allocator_report().unwrap_or("jemalloc_stats"));
        }
        if self.objects.is_none() {
            missing.push("object_counts");
        }
        if self.family.is_none() {
            missing.push("siblings");
        }
        missing
    }
}

fn set<T>(place: &mut Option<T>, found: Option<T>) -> bool {
    let understood = found.is_some();
    if understood {
        *place = found;
    }
    understood
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_failed_or_says_nothing_is_named_with_the_reason() {
        let evidence = Evidence::read(7, "3.1.2", |name| match name {
            "smaps_rollup" => Some(Ok(b"1000-2000 ---p 00000000 00:00 0 [rollup]\nRss: 9 kB\n".to_vec())),
            "gc_stat" => Some(Ok(b"{\"stat\":{}}".to_vec())),
            "jemalloc_stats" => Some(Err("jemalloc is not loaded".into())),
            "siblings" => Some(Ok(b"torn".to_vec())),
            _ => None,
        });
        assert_eq!(evidence.mappings.as_ref().map(|mappings| mappings.rss), Some(9 << 10));
        let named: Vec<&str> = evidence.unusable.iter().map(|(name, _)| *name).collect();
        assert_eq!(named, ["gc_stat", "jemalloc_stats", "siblings"]);
        assert_eq!(evidence.missing(), ["smaps", "gc_stat", "malloc_info", "object_counts", "siblings"]);
        let nothing = Evidence::read(7, "", |_| None);
        assert_eq!(nothing.missing(), ["smaps", "gc_stat", "jemalloc_stats", "object_counts", "siblings"]);
        assert!(nothing.unusable.is_empty());
    }

    #[test]
    fn the_allocators_report_is_the_one_that_the_process_can_make() {
        let smaps = |library: &str| {
            let text = format!("7f0000000000-7f0000100000 r-xp 00000000 fe:00 12 /usr/lib/{library}\nRss: 9 kB\n");
            Some(Ok(text.into_bytes()))
        };
        let failed = || Some(Err("jemalloc is not loaded".to_owned()));
        // (smaps, jemalloc_stats) → the report that is asked for
        let table: [(Content, Content, Option<&str>); 5] = [
            (smaps("libc.so.6"), None, Some("malloc_info")),
            (smaps("libjemalloc.so.2"), None, Some("jemalloc_stats")),
            (smaps("libjemalloc.so.2"), failed(), Some("malloc_info")),
            (None, failed(), Some("malloc_info")),
            (None, None, None),
        ];
        for (smaps, jemalloc, expected) in table {
            let evidence = Evidence::read(7, "", |name| match name {
                "smaps" => smaps.clone(),
                "jemalloc_stats" => jemalloc.clone(),
                _ => None,
            });
            assert_eq!(evidence.allocator_report(), expected);
            assert!(evidence.missing().contains(&expected.unwrap_or("jemalloc_stats")));
        }
    }
}
