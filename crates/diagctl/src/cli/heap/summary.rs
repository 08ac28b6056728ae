//! The totals of a dump, above the table of every command and in its JSON.

use std::collections::BTreeMap;

use diagctl_heapdump::analysis::held::{Amount, Totals};
use diagctl_heapdump::analysis::reach::Reach;
use serde::Serialize;

use super::input::Input;
use crate::cli::error::printable;
use crate::units::size;

/// One part in this many that is garbage calls for an explanation.
const NOTABLE_GARBAGE: u64 = 10;

/// A count with its bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Count {
    objects: u64,
    bytes: u64,
}

impl From<Amount> for Count {
    fn from(amount: Amount) -> Self {
        Self { objects: amount.objects, bytes: amount.bytes }
    }
}

/// The totals of a dump.
#[derive(Debug, Serialize)]
pub struct Summary {
    dump: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ruby: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    platform: String,
    producer: &'static str,
    /// False if the dump ends before the heap did, or a part of it is missing.
    complete: bool,
    objects: u64,
    bytes: u64,
    reachable: Count,
    unreachable: Count,
    references: u64,
    /// References to what is not in the dump.
    dangling: u64,
    free_slots: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rss: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    gc_stat: BTreeMap<String, u64>,
    /// Numbers that the dump itself has.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    stats: BTreeMap<String, u64>,
}

impl Summary {
    /// Adds up a dump.
    pub fn new(input: &Input, reach: &Reach) -> Self {
        let (graph, about) = (&input.loaded.graph, &input.loaded.about);
        let totals = Totals::new(graph, reach);
        Self {
            dump: input.name.clone(),
            ruby: about.ruby.clone(),
            platform: about.platform.clone(),
            producer: input.loaded.producer(),
            complete: input.loaded.complete,
            objects: totals.all().objects,
            bytes: totals.all().bytes,
            reachable: totals.reachable.into(),
            unreachable: totals.unreachable.into(),
            references: graph.edges().explicit() as u64,
            dangling: graph.facts().dangling,
            free_slots: graph.facts().free_slots,
            rss: input.process.rss,
            gc_stat: input.process.gc.clone(),
            stats: input.loaded.stats.iter().cloned().collect(),
        }
    }

    /// The reachable bytes.
    pub fn reachable_bytes(&self) -> u64 {
        self.reachable.bytes
    }

    /// The lines above a table.
    pub fn text(&self) -> String {
        let Count { objects, bytes } = self.reachable;
        let all = super::objects(self.objects);
        let mut lines = vec![format!("{all}, {}: reachable {objects}, {}", size(self.bytes), size(bytes))];
        if self.unreachable.objects > 0 {
            let garbage = super::objects(self.unreachable.objects);
            let bytes = size(self.unreachable.bytes);
            lines.push(format!("not counted below: garbage that was not freed yet, {garbage}, {bytes}"));
            if self.producer == "dump_all" && self.unreachable.bytes > self.bytes / NOTABLE_GARBAGE {
                lines.push(
                    "(or, if it was dumped in a forked child, held by local variables of other threads)".to_owned(),
                );
            }
        }
        if let Some(rss) = self.rss {
            let slots = self.gc_stat.get("heap_live_slots").map(|slots| format!(", {slots} live slots (GC.stat)"));
            let share = u128::from(self.bytes) * 100 / u128::from(rss.max(1));
            let said = slots.unwrap_or_default();
            lines.push(format!("the process: RSS {}{said}; Ruby objects are {share} % of it", size(rss)));
        }
        match self.dangling {
            0 => {}
            1 => lines.push("1 reference leads to what is not in the dump".to_owned()),
            many => lines.push(format!("{many} references lead to what is not in the dump")),
        }
        lines.iter().map(|line| printable(line) + "\n").collect::<String>() + "\n"
    }
}

/// A share of bytes, in per cent with one digit.
pub fn share(part: u64, whole: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(whole.max(1));
    format!("{}.{} %", tenths / 10, tenths % 10)
}
