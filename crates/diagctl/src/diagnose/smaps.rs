//! `smaps` and `smaps_rollup`: resident memory by what is mapped.
//!
//! Source: Documentation/filesystems/proc.rst.

use std::collections::BTreeMap;

use crate::proc::figures;

/// Guard pages below a stack are at most this large, bytes. glibc leaves larger gaps behind its arenas.
const LARGEST_GUARD: u64 = 64 << 10;

/// A stack of a size that no other has is not believed to have more than this in use, bytes. The kernel joins the last stack of a
/// pool with other memory above it.
const LONE_STACK: u64 = 1 << 20;

/// Alignment of glibc's arenas (`HEAP_MAX_SIZE`), bytes.
const ARENA_ALIGNMENT: u64 = 64 << 20;

/// Size of the transient heap of Ruby 2.6 to 3.2 (`TRANSIENT_HEAP_TOTAL_SIZE`), bytes.
const TRANSIENT_HEAP: u64 = 32 << 20;

/// The resident memory of a process. All figures are in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mappings {
    /// Resident set.
    pub rss: u64,
    /// Resident set with shared pages divided by the number of processes that share them.
    pub pss: u64,
    /// Pages that belong to no file, including written pages of private file mappings.
    pub anonymous: u64,
    /// Pages that other processes map too.
    pub shared: u64,
    /// Anonymous pages that other processes map too: those of a fork that neither side has written since.
    pub shared_anonymous: u64,
    /// Swapped out.
    pub swap: u64,
    /// In transparent huge pages.
    pub huge: u64,
    /// The anonymous memory by use. Only `smaps` has it.
    pub uses: Option<Uses>,
}

/// Resident memory by what is mapped, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Mapped files, with their written pages.
    pub files: u64,
    /// Stacks of threads and fibers, and the process's own.
    pub stacks: u64,
    /// Number of stacks.
    pub stack_count: u64,
    /// Executable memory of no file: compiled code.
    pub code: u64,
    /// The transient heap of Ruby up to 3.2, which holds the content of young arrays and hashes.
    pub transient: u64,
    /// Everything else: slots, the allocator's memory, memory that a library mapped itself.
    pub other: u64,
    /// True if jemalloc is mapped as a library.
    pub jemalloc: bool,
}

struct Mapping {
    start: u64,
    size: u64,
    permissions: String,
    is_file: bool,
    name: String,
    text: String,
}

impl Mappings {
    /// Parses `smaps` or `smaps_rollup`. Returns `None` if the text is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let mappings = split(text);
        let first = mappings.first()?;
        if mappings.len() == 1 && first.name == "[rollup]" {
            let mut all = Self::default();
            all.add(&first.text);
            // A page that is shared and dirty is anonymous, but for MAP_SHARED mappings of files.
            all.shared_anonymous = figures(&first.text).get("Shared_Dirty").copied().unwrap_or(0).min(all.anonymous);
            return Some(all);
        }
        let (mut all, mut uses) = (Self::default(), Uses::default());
        let below = |i: usize| i.checked_sub(1).map(|i| &mappings[i]);
        let stacks: Vec<bool> = mappings.iter().enumerate().map(|(i, mapping)| is_stack(mapping, below(i))).collect();
        let mut sizes: BTreeMap<u64, u32> = BTreeMap::new();
        mappings.iter().zip(&stacks).filter(|(_, is)| **is).for_each(|(m, _)| *sizes.entry(m.size).or_default() += 1);
        for (i, mapping) in mappings.iter().enumerate() {
            let (rss, anonymous) = all.add(&mapping.text);
            if mapping.is_file {
                uses.jemalloc |= mapping.name.contains("jemalloc");
                uses.files += rss;
                continue;
            }
            let shared = figures(&mapping.text);
            let of = |key: &str| shared.get(key).copied().unwrap_or(0);
            all.shared_anonymous += (of("Shared_Dirty") + of("Shared_Clean")).min(anonymous);
            let is_lone = sizes.get(&mapping.size) == Some(&1) && !mapping.name.contains("stack");
            if stacks[i] && !(is_lone && rss > LONE_STACK) {
                uses.stacks += rss;
                uses.stack_count += 1;
            } else if mapping.permissions.contains('x') && !mapping.name.starts_with("[v") {
                uses.code += rss;
            } else if (TRANSIENT_HEAP..TRANSIENT_HEAP + (64 << 10)).contains(&mapping.size) && mapping.name.is_empty() {
                uses.transient += rss;
            } else {
                uses.other += rss;
            }
        }
        all.uses = Some(uses);
        Some(all)
    }

    // Adds one mapping, and returns its resident and anonymous bytes.
    fn add(&mut self, text: &str) -> (u64, u64) {
        let figures = figures(text);
        let of = |key: &str| figures.get(key).copied().unwrap_or(0);
        self.rss += of("Rss");
        self.pss += of("Pss");
        self.anonymous += of("Anonymous");
        self.shared += of("Shared_Clean") + of("Shared_Dirty");
        self.swap += of("Swap");
        self.huge += of("AnonHugePages");
        (of("Rss"), of("Anonymous"))
    }

    /// Mapped files: exact with `smaps`, without their written pages with `smaps_rollup`.
    pub fn files(&self) -> u64 {
        self.uses.map_or(self.rss.saturating_sub(self.anonymous), |uses| uses.files)
    }
}

// A stack has a guard below it that cannot be touched. Arenas of glibc, too, can follow such a mapping, but they are aligned.
fn is_stack(mapping: &Mapping, below: Option<&Mapping>) -> bool {
    if mapping.name.starts_with("[stack") || mapping.name.contains("stack:") {
        return true;
    }
    mapping.name.is_empty()
        && mapping.permissions.starts_with("rw")
        && !mapping.start.is_multiple_of(ARENA_ALIGNMENT)
        && below.is_some_and(|guard| {
            guard.permissions.starts_with("---")
                && guard.size <= LARGEST_GUARD
                && guard.start + guard.size == mapping.start
                && !guard.is_file
        })
}

// Splits the text at its headings: `start-end permissions offset device inode name`.
fn split(text: &str) -> Vec<Mapping> {
    let mut all: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        if let Some(mapping) = heading(line) {
            all.push(mapping);
        } else if let Some(mapping) = all.last_mut() {
            mapping.text.push_str(line);
            mapping.text.push('\n');
        }
    }
    all
}

fn heading(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    let permissions = fields.next()?.to_owned();
    let inode: u64 = fields.nth(2)?.parse().ok()?;
    let name = fields.next().unwrap_or_default().to_owned();
    // Memory that is shared with children, such as `mmap(MAP_SHARED | MAP_ANONYMOUS)`, has an inode of its own.
    let is_file = inode > 0;
    Some(Mapping { start, size: end.checked_sub(start)?, permissions, is_file, name, text: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    fn mapping(heading: &str, rss: u64, anonymous: u64, shared_dirty: u64) -> String {
        format!(
            "{heading}\nSize: 9 kB\nRss: {rss} kB\nPss: {rss} kB\nShared_Clean: 0 kB\nShared_Dirty: {shared_dirty} kB\nAnonymous: {anonymous} kB\nVmFlags: rd wr\n"
        )
    }

    #[test]
    fn mappings_are_told_apart_by_what_is_mapped() {
        // (heading, resident KiB, anonymous KiB) → the use that has them
        type Row = (&'static str, u64, u64, fn(&Uses) -> u64);
        let table: [Row; 10] = [
            ("00400000-00500000 r-xp 00000000 fe:00 12   /usr/bin/ruby", 100, 0, |u| u.files),
            ("00600000-00601000 rw-p 00000000 fe:00 12   /usr/bin/ruby", 200, 200, |u| u.files),
            ("10000000-20000000 rw-p 00000000 00:00 0    [heap]", 1000, 1000, |u| u.other),
            ("7f0000021000-7f0000022000 ---p 00000000 00:00 0 ", 0, 0, |u| u.stacks),
            ("7f0000022000-7f00000c3000 rw-p 00000000 00:00 0 ", 20, 20, |u| u.stacks),
            ("7f0003ff0000-7f0004000000 ---p 00000000 00:00 0 ", 0, 0, |u| u.other),
            ("7f0004000000-7f0006000000 rw-p 00000000 00:00 0 ", 3000, 3000, |u| u.transient),
            ("7f0009000000-7f0009100000 rwxp 00000000 00:00 0 ", 40, 40, |u| u.code),
            ("7ffd00000000-7ffd00100000 rw-p 00000000 00:00 0 [stack]", 50, 50, |u| u.stacks),
            ("7ffd00200000-7ffd00202000 r-xp 00000000 00:00 0 [vdso]", 4, 0, |u| u.other),
        ];
        let text: String = table.iter().map(|(heading, rss, anon, _)| mapping(heading, *rss, *anon, 0)).collect();
        let parsed = Mappings::parse(&text).unwrap();
        let uses = parsed.uses.unwrap();
        assert_eq!(parsed.rss, 4414 * KIB);
        let expected = Uses {
            files: 300 * KIB,
            stacks: 70 * KIB,
            stack_count: 2,
            code: 40 * KIB,
            transient: 3000 * KIB,
            other: 1004 * KIB,
            jemalloc: false,
        };
        assert_eq!(uses, expected);
        for (heading, rss, _, of) in table.iter().filter(|row| row.1 > 0) {
            let alone = Mappings::parse(&mapping(heading, *rss, 0, 0)).unwrap().uses.unwrap();
            // A stack is known by the guard below it, which is missing here.
            assert!(of(&alone) == rss * KIB || heading.starts_with("7f0000022000"), "{heading}: {alone:?}");
        }
    }

    #[test]
    fn an_arena_behind_a_small_gap_is_not_a_stack() {
        let text = mapping("7f000bfff000-7f000c000000 ---p 00000000 00:00 0", 0, 0, 0)
            + &mapping("7f000c000000-7f000d000000 rw-p 00000000 00:00 0", 500, 500, 0);
        assert_eq!(Mappings::parse(&text).unwrap().uses.unwrap().other, 500 * KIB);
    }

    #[test]
    fn the_last_stack_of_a_pool_may_be_joined_with_other_memory() {
        let guard = |start: &str, end: &str| mapping(&format!("{start}-{end} ---p 00000000 00:00 0"), 0, 0, 0);
        let pool = guard("7f0000022000", "7f0000023000")
            + &mapping("7f0000023000-7f00000c4000 rw-p 00000000 00:00 0", 2000, 2000, 0)
            + &guard("7f00000c4000", "7f00000c5000")
            + &mapping("7f00000c5000-7f0000166000 rw-p 00000000 00:00 0", 8, 8, 0)
            + &guard("7f0000166000", "7f0000167000")
            + &mapping("7f0000167000-7f0001000000 rw-p 00000000 00:00 0", 9000, 9000, 0);
        let uses = Mappings::parse(&pool).unwrap().uses.unwrap();
        assert_eq!((uses.stacks, uses.stack_count, uses.other), (2008 * KIB, 2, 9000 * KIB));
    }

    #[test]
    fn shared_pages_of_files_are_not_those_of_a_fork() {
        let text = mapping("00400000-00500000 rw-s 00000000 fe:00 12 /dev/shm/x", 100, 0, 100)
            + &mapping("10000000-20000000 rw-p 00000000 00:00 0 [heap]", 80, 80, 60);
        let parsed = Mappings::parse(&text).unwrap();
        assert_eq!((parsed.shared, parsed.shared_anonymous), (160 * KIB, 60 * KIB));
    }

    #[test]
    fn a_rollup_has_sums_only_and_other_text_is_refused() {
        let rollup = mapping("55c8550c3000-7fff78860000 ---p 00000000 00:00 0   [rollup]", 1616, 112, 30);
        let parsed = Mappings::parse(&rollup).unwrap();
        assert_eq!((parsed.rss, parsed.anonymous, parsed.shared_anonymous), (1616 * KIB, 112 * KIB, 30 * KIB));
        assert_eq!((parsed.files(), parsed.uses), (1504 * KIB, None));
        for bad in ["", "x", "{}", "Rss: 12 kB"] {
            assert_eq!(Mappings::parse(bad), None, "{bad}");
        }
    }
}
