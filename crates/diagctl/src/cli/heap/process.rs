//! The data about the process in a capture, apart from the heap dump.

use std::collections::BTreeMap;
use std::io::Read as _;

use diagctl_store::{Capture, Id, ProcessId};

use crate::diagnose::Mappings;
use crate::proc::figure;

/// The most that is read of a capture's mappings, bytes.
const MAX_MAPPINGS: u64 = 16 << 20;

/// The capture's data about the process at the time of the dump.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// The capture; none for a dump in a file.
    pub capture: Option<Id>,
    /// Its resident memory, bytes.
    pub rss: Option<u64>,
    /// The process itself.
    pub id: Option<ProcessId>,
    /// The capture says that the dump is not whole.
    pub is_damaged: bool,
    /// `GC.stat`.
    pub gc: BTreeMap<String, u64>,
}

/// The resident memory of the process as the capture itself has it, bytes.
pub fn rss_of(capture: &Capture) -> Option<u64> {
    let text = |report| {
        let mut text = String::new();
        capture.reader(report).ok()?.take(MAX_MAPPINGS).read_to_string(&mut text).ok()?;
        Some(text)
    };
    text("smaps_rollup")
        .and_then(|rollup| rss_of_rollup(&rollup))
        .or_else(|| Some(Mappings::parse(&text("smaps")?)?.rss))
}

fn rss_of_rollup(text: &str) -> Option<u64> {
    figure(text, "Rss")
}

impl Process {
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
        let rollup = "5581-7ffe ---p 00000000 00:00 0 [rollup]\nRss:   1024 kB\nPss: 512 kB\n";
        assert_eq!(rss_of_rollup(rollup), Some(1 << 20));
        assert_eq!(rss_of_rollup("torn"), None);
        for json in [r#"{"heap_live_slots":7,"x":"y"}"#, r#"{"stat":{"heap_live_slots":7}}"#] {
            assert_eq!(Process::gc_of(json).unwrap().get("heap_live_slots"), Some(&7));
        }
        assert_eq!(Process::gc_of("[]"), None);
    }
}
