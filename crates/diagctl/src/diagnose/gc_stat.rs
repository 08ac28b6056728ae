//! `gc_stat`: the slots of Ruby's heap.
//!
//! Ruby maps its heap pages itself, outside the allocator, since 2.x wherever a memory page is no larger than a heap page
//! (`USE_MMAP_ALIGNED_ALLOC`, `HEAP_PAGE_ALLOC_USE_MMAP` in gc.c).

use serde_json::Value;

/// Size of a slot where the report does not say it, bytes (`RVALUE_SIZE`).
const SLOT: u64 = 40;

/// The slots of Ruby's heap. Sizes are in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// All heap pages.
    pub pages: u64,
    /// Slots with an object in them, including garbage that has not been swept.
    pub live: u64,
    /// Number of such slots.
    pub live_count: u64,
    /// Number of free slots.
    pub free_count: u64,
    /// Objects that survived several collections.
    pub old_count: u64,
    /// Number of collections.
    pub collections: u64,
}

impl Slots {
    /// Parses the report. `ruby` is the version of Ruby, which decides the size of a page where the report does not have it.
    pub fn parse(report: &Value, ruby: &str) -> Option<Self> {
        let stat = report.get("stat")?;
        let of = |key: &str| stat.get(key).and_then(Value::as_u64);
        let live_count = of("heap_live_slots")?;
        let page_size = report.pointer("/constants/HEAP_PAGE_SIZE").and_then(Value::as_u64);
        let pages = of("heap_allocated_pages")?.saturating_mul(page_size.unwrap_or_else(|| page_size_of(ruby)));
        let by_pool = report.get("stat_heap").and_then(live_by_pool);
        Some(Self {
            pages,
            live: by_pool.unwrap_or(live_count.saturating_mul(SLOT)).min(pages),
            live_count,
            free_count: of("heap_free_slots").unwrap_or(0),
            old_count: of("old_objects").unwrap_or(0),
            collections: of("count").unwrap_or(0),
        })
    }

    /// Free slots, with the heads of the pages.
    pub fn free(&self) -> u64 {
        self.pages.saturating_sub(self.live)
    }
}

// Ruby 3.2 made a page 64 KiB (HEAP_PAGE_ALIGN_LOG, from 14 to 16). An unknown version is a newer one.
fn page_size_of(ruby: &str) -> u64 {
    let mut numbers = ruby.split('.').map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) < (3, 2) => 16 << 10,
        _ => 64 << 10,
    }
}

// Pools differ in the size of their slots. Nothing for Ruby 3.1, which has one pool and no counts of it.
fn live_by_pool(pools: &Value) -> Option<u64> {
    let live = |pool: &Value| {
        let of = |key: &str| pool.get(key).and_then(Value::as_u64);
        let count = match of("heap_live_slots") {
            Some(live) => live,
            None => of("total_allocated_objects")?.saturating_sub(of("total_freed_objects")?),
        };
        count.checked_mul(of("slot_size")?)
    };
    pools.as_object()?.values().map(live).try_fold(0_u64, |sum, bytes| sum.checked_add(bytes?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn slots_of_each_ruby() {
        let stat = |pages: u64| json!({ "heap_allocated_pages": pages, "heap_live_slots": 1000, "heap_free_slots": 20, "old_objects": 900, "count": 7 });
        let pool = |size: u64, fields: Value| {
            let mut pool = fields;
            pool["slot_size"] = size.into();
            pool
        };
        let pools_33 = json!({
            "0": pool(40, json!({ "total_allocated_objects": 5000, "total_freed_objects": 4100 })),
            "1": pool(80, json!({ "total_allocated_objects": 100, "total_freed_objects": 0 })),
        });
        let pools_35 = json!({ "0": pool(40, json!({ "heap_live_slots": 900, "total_allocated_objects": 1, "total_freed_objects": 9 })) });
        // (report, Ruby) → (pages, live)
        let table = [
            (json!({ "stat": stat(10) }), "3.1.2", (160 << 10, 40_000)),
            (json!({ "stat": stat(10), "stat_heap": pools_33 }), "3.3.8", (640 << 10, 44_000)),
            (json!({ "stat": stat(10), "stat_heap": pools_35 }), "4.0.0", (640 << 10, 36_000)),
            (json!({ "stat": stat(10), "constants": { "HEAP_PAGE_SIZE": 16384 } }), "", (160 << 10, 40_000)),
            // The counts of a pool and those of the heap are not read at the same moment.
            (json!({ "stat": stat(1) }), "3.1.2", (16 << 10, 16 << 10)),
        ];
        for (report, ruby, (pages, live)) in table {
            let slots = Slots::parse(&report, ruby).unwrap();
            assert_eq!((slots.pages, slots.live, slots.free()), (pages, live, pages - live), "{report}");
            assert_eq!((slots.live_count, slots.free_count, slots.old_count, slots.collections), (1000, 20, 900, 7));
        }
    }

    #[test]
    fn anything_else_is_not_a_gc_stat() {
        for other in [json!({}), json!([]), json!({ "stat": {} }), json!({ "stat": { "heap_live_slots": "7" } })] {
            assert_eq!(Slots::parse(&other, "3.3.0"), None, "{other}");
        }
    }
}
