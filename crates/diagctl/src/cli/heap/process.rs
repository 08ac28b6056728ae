//! The data about the process in a capture, apart from the heap dump.

use std::collections::BTreeMap;

use diagctl_store::{Id, ProcessId};

/// The capture's data about the process at the time of the dump.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// The capture; none for a dump in a file.
    pub capture: Option<Id>,
    /// Its resident memory, bytes.
    pub rss: Option<u64>,
    /// The process itself.
    pub id: Option<ProcessId>,
    /// `GC.stat`.
    pub gc: BTreeMap<String, u64>,
}

impl Process {
    /// Parses `smaps_rollup`.
    pub fn rss_of(smaps_rollup: &str) -> Option<u64> {
        crate::proc::figure(smaps_rollup, "Rss")
    }

    /// Parses the report `gc_stat`: the numbers at its top or one level below.
    pub fn gc_of(json: &str) -> Option<BTreeMap<String, u64>> {
        let value: serde_json::Value = serde_json::from_str(json).ok()?;
        let map = value.get("stat").or_else(|| value.get("gc_stat")).unwrap_or(&value).as_object()?;
        Some(map.iter().filter_map(|(key, value)| Some((key.clone(), value.as_u64()?))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_taken_from_the_reports_as_they_are() {
        assert_eq!(
            Process::rss_of("5581-7ffe ---p 00000000 00:00 0 [rollup]\nRss:   1024 kB\nPss: 512 kB\n"),
            Some(1 << 20)
        );
        assert_eq!(Process::rss_of("torn"), None);
        for json in [r#"{"heap_live_slots":7,"x":"y"}"#, r#"{"stat":{"heap_live_slots":7}}"#] {
            assert_eq!(Process::gc_of(json).unwrap().get("heap_live_slots"), Some(&7));
        }
        assert_eq!(Process::gc_of("[]"), None);
    }
}
