//! `jemalloc_stats` and `malloc_info`: what the allocator has handed out, and what it keeps.

use serde_json::Value;

/// The allocator of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// jemalloc.
    Jemalloc,
    /// The allocator of glibc.
    Glibc,
}

/// An allocator's figures, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocator {
    /// The allocator.
    pub kind: Kind,
    /// Handed out and not freed.
    pub allocated: u64,
    /// Free or its own, and possibly resident: what the allocator has from the kernel beyond `allocated`.
    pub kept: u64,
    /// The part of `kept` that jemalloc returns by itself after a while.
    pub dirty: u64,
    /// Number of arenas; 0 where the report does not say it.
    pub arenas: u64,
}

impl Kind {
    /// Returns the name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jemalloc => "jemalloc",
            Self::Glibc => "glibc",
        }
    }
}

impl Allocator {
    /// Parses `jemalloc_stats` in its JSON form.
    pub fn of_jemalloc(report: &Value) -> Option<Self> {
        let root = report.get("jemalloc")?;
        let of = |path: &str| root.pointer(path).and_then(Value::as_u64);
        let (allocated, resident) = (of("/stats/allocated")?, of("/stats/resident")?);
        let page = of("/arenas/page").unwrap_or(4096);
        let merged = ["/stats.arenas/merged", "/stats/arenas/merged"].into_iter().find_map(|path| root.pointer(path));
        let pages = |key: &str| merged.and_then(|merged| merged.get(key)?.as_u64()).unwrap_or(0);
        let dirty = pages("pdirty").saturating_add(pages("pmuzzy")).saturating_mul(page);
        let kept = resident.saturating_sub(allocated);
        Some(Self {
            kind: Kind::Jemalloc,
            allocated,
            kept,
            dirty: dirty.min(kept),
            arenas: of("/arenas/narenas").unwrap_or(0),
        })
    }

    /// Parses `malloc_info`, the XML of malloc_info(3). The sums over all arenas are the elements after the last arena.
    pub fn of_glibc(report: &str) -> Option<Self> {
        let (arenas, sums) = report.rsplit_once("</heap>")?;
        let of = |element: &str, kind: &str| {
            let start = format!("<{element} type=\"{kind}\" ");
            let rest = sums.split_once(&start)?.1.split_once("/>")?.0;
            rest.split_once("size=\"")?.1.split_once('"')?.0.parse::<u64>().ok()
        };
        // glibc 2.42 has no fast bins any more.
        let (fast, rest) = (of("total", "fast").unwrap_or(0), of("total", "rest")?);
        let system = of("system", "current")?;
        let mapped = of("total", "mmap").unwrap_or(0);
        let free = fast.checked_add(rest)?;
        Some(Self {
            kind: Kind::Glibc,
            allocated: system.saturating_sub(free).checked_add(mapped)?,
            kept: free,
            dirty: 0,
            arenas: u64::try_from(arenas.matches("<heap nr=").count()).unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn jemalloc_keeps_dirty_pages_for_a_while() {
        let report = json!({ "jemalloc": {
            "arenas": { "narenas": 8, "page": 4096 },
            "stats": { "allocated": 7_000_000, "active": 7_500_000, "metadata": 2_000_000, "resident": 20_000_000 },
            "stats.arenas": { "merged": { "pdirty": 1000, "pmuzzy": 10 } },
        }});
        let expected =
            Allocator { kind: Kind::Jemalloc, allocated: 7_000_000, kept: 13_000_000, dirty: 1010 * 4096, arenas: 8 };
        assert_eq!(Allocator::of_jemalloc(&report), Some(expected));
        assert_eq!(Allocator::of_jemalloc(&json!({ "jemalloc": { "stats": { "allocated": 1 } } })), None);
    }

    #[test]
    fn glibc_sums_follow_the_last_arena() {
        let arena = |n: u32| {
            format!(
                "<heap nr=\"{n}\">\n<sizes>\n</sizes>\n<total type=\"fast\" count=\"1\" size=\"32\"/>\n<total type=\"rest\" count=\"4\" size=\"77\"/>\n<system type=\"current\" size=\"1000\"/>\n</heap>\n"
            )
        };
        let sums = "<total type=\"fast\" count=\"2\" size=\"64\"/>\n<total type=\"rest\" count=\"8\" size=\"159715\"/>\n<total type=\"mmap\" count=\"2\" size=\"1449984\"/>\n<system type=\"current\" size=\"6201344\"/>\n<system type=\"max\" size=\"9201344\"/>\n</malloc>\n";
        let report = format!("<malloc version=\"1\">\n{}{}{sums}", arena(0), arena(1));
        let expected = Allocator {
            kind: Kind::Glibc,
            allocated: 6_201_344 - 159_715 - 64 + 1_449_984,
            kept: 159_715 + 64,
            dirty: 0,
            arenas: 2,
        };
        assert_eq!(Allocator::of_glibc(&report), Some(expected));
        let without_fast_bins = report.replace("<total type=\"fast\" count=\"2\" size=\"64\"/>\n", "");
        let expected = Allocator { allocated: expected.allocated + 64, kept: expected.kept - 64, ..expected };
        assert_eq!(Allocator::of_glibc(&without_fast_bins), Some(expected));
        for bad in ["", "<malloc>", "</heap>", &report.replace("rest", "best")] {
            assert_eq!(Allocator::of_glibc(bad), None, "{bad}");
        }
    }
}
