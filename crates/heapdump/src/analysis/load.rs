//! Reads a heap dump into memory.

use std::io::{BufRead, Read};

use super::builder::{Builder, Wanted};
use super::error::{Error, Result};
use super::memory::Graph;
use crate::block::MAGIC;
use crate::convert::{self, Converter};
use crate::reader::{About, Block, Options, Reader};
use crate::record::Producer;
use crate::spacing;

/// A heap dump in memory.
#[derive(Debug)]
pub struct Loaded {
    /// The objects.
    pub graph: Graph,
    /// The facts at the beginning of the dump.
    pub about: About,
    /// False if the dump ends before the heap did, or a part of it is missing.
    pub complete: bool,
    /// Numbers about the process, by name.
    pub stats: Vec<(String, u64)>,
    /// The damage to the dump, a sentence each.
    pub warnings: Vec<String>,
}

impl Loaded {
    /// The name of what made the dump.
    pub fn producer(&self) -> &'static str {
        match self.about.producer {
            Producer::Walker => "walker",
            Producer::DumpAll => "dump_all",
            Producer::Unknown => "unknown",
        }
    }
}

/// A dump is not complete if more than one in so many of its references leads to nothing. Threads that run while `dump_all` writes
/// allocate objects that it misses: one in 200 references.
const MISSING: u64 = 100;
/// So many references to nothing are never a sign of damage.
const FEW: u64 = 10;

/// The number of damaged blocks that are described one by one.
const DESCRIBED: usize = 3;

/// Reads a graph or what `ObjectSpace.dump_all` wrote, whichever it is.
pub fn any(mut input: impl BufRead, wanted: Wanted) -> Result<Loaded> {
    spacing::skip_byte_order_mark(&mut input)?;
    let start = input.fill_buf()?;
    match start {
        [] => Err(Error::Empty),
        _ if start.starts_with(&MAGIC) || MAGIC.starts_with(start) => graph(input, wanted),
        _ if !start.trim_ascii_start().starts_with(b"{") => Err(Error::Unknown),
        _ => json(spacing::of_ruby(input)?, wanted),
    }
}

/// Reads what `ObjectSpace.dump_all` wrote. Lines that cannot be read are missing.
pub fn json(input: impl Read, wanted: Wanted) -> Result<Loaded> {
    let options = convert::Options::default();
    let converter = Converter::new(input)?;
    let about = About { producer: Producer::DumpAll, ..About::default() };
    let (summary, builder) = converter.run(Builder::new(wanted), &options).map_err(|error| match error {
        convert::Error::Read(error) => Error::Io(error),
        convert::Error::Target(error) => error,
    })?;
    if builder.objects() == 0 {
        return Err(Error::Unknown);
    }
    let mut warnings: Vec<String> = summary.damage.into_iter().collect();
    match summary.repaired {
        0 => {}
        1 => warnings.push("1 damaged line was repaired".to_owned()),
        many => warnings.push(format!("{many} damaged lines were repaired")),
    }
    let stats = builder.named_stats();
    let graph = builder.finish();
    warnings.extend(doubts(&graph));
    let holes = holes(&graph).filter(|_| summary.lost == 0);
    let complete = summary.lost == 0 && holes.is_none();
    warnings.extend(holes);
    Ok(Loaded { graph, about, complete, stats, warnings })
}

// A sentence about references to nothing, if they are so many that objects must be missing.
fn holes(graph: &Graph) -> Option<String> {
    let dangling = graph.facts().dangling;
    let all = graph.edges().explicit() as u64 + dangling;
    let are_many = dangling > FEW && dangling > all / MISSING;
    are_many.then(|| {
        format!("{dangling} of {all} references lead to objects that are not in the dump: a part of it is missing")
    })
}

// Contradictions within the heap.
fn doubts(graph: &Graph) -> impl Iterator<Item = String> {
    let without_roots = graph.roots().is_empty();
    let without_roots =
        without_roots.then(|| "it has no roots: every object counts as reachable, and retains only itself".to_owned());
    let (subject, they) = match graph.facts().misplaced {
        1 => ("1 object is".to_owned(), "it"),
        many => (format!("{many} objects are"), "them"),
    };
    let misplaced = (graph.facts().misplaced > 0).then(|| {
        format!(
            "{subject} at the address of another or at none that an object can have, and no reference leads to {they}; \
             are these several dumps in one file?"
        )
    });
    without_roots.into_iter().chain(misplaced)
}

/// Reads a graph. One that is cut off or damaged is read as far as it goes.
pub fn graph(input: impl BufRead, wanted: Wanted) -> Result<Loaded> {
    let Wanted { labels, slots, flags, strings, sites, .. } = wanted;
    let options = Options { labels, slots, flags, strings, sites, ..Options::default() };
    let mut reader = Reader::with_options(input, options)?;
    let mut loading = Loading { builder: Builder::new(wanted), complete: false };
    let mut damage = Damage::default();
    loop {
        match reader.next_block() {
            Ok(Some(block)) => loading.block(block)?,
            Ok(None) => break,
            Err(error) if error.is_recoverable() => damage.add(&error),
            // The part before it is shown: a dump is cut off when its process runs out of time or memory.
            Err(error) if loading.builder.objects() > 0 => {
                loading.complete = false;
                damage.add(&error);
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let about = reader.about().clone();
    Ok(loading.finish(about, damage))
}

/// Damage that does not keep the rest from being read.
#[derive(Default)]
struct Damage {
    warnings: Vec<String>,
    more: u64,
}

impl Damage {
    fn add(&mut self, error: &crate::Error) {
        match self.warnings.len() {
            described if described < DESCRIBED => self.warnings.push(error.to_string()),
            _ => self.more += 1,
        }
    }
}

struct Loading {
    builder: Builder,
    complete: bool,
}

impl Loading {
    fn block(&mut self, block: Block<'_>) -> Result<()> {
        match block {
            Block::Objects(batch) => self.builder.block(batch)?,
            Block::Names(names) => self.builder.names().add(&names)?,
            Block::Sites(sites) => self.builder.sites().add(&sites)?,
            Block::Roots(roots) => roots.iter().try_for_each(|root| self.builder.root(*root))?,
            Block::Free(runs) => runs.iter().try_for_each(|run| self.builder.free(run))?,
            Block::Pages(pages) => self.builder.pages(pages)?,
            Block::Stats(stats) => self.builder.stats(stats),
            Block::Trailer(trailer) => self.complete = trailer.complete,
            Block::Classes | Block::Skipped(_) => {}
        }
        Ok(())
    }

    fn finish(self, about: About, damage: Damage) -> Loaded {
        let mut warnings = damage.warnings;
        // A block that is lost is a part that is missing, whatever the trailer says.
        let complete = self.complete && warnings.is_empty();
        match damage.more {
            0 => {}
            1 => warnings.push("1 more block is damaged".to_owned()),
            more => warnings.push(format!("{more} more blocks are damaged")),
        }
        if !self.complete && warnings.is_empty() {
            warnings.push("the dump ends before the heap did: its producer was stopped".to_owned());
        }
        let stats = self.builder.named_stats();
        let graph = self.builder.finish();
        warnings.extend(doubts(&graph));
        let holes = holes(&graph).filter(|_| complete);
        let complete = complete && holes.is_none();
        warnings.extend(holes);
        Loaded { graph, about, complete, stats, warnings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::paths::{Paths, spell};

    const LINES: &str = r#"{"type":"ROOT", "root":"vm", "references":["0x7f0000001000"]}
{"address":"0x7f0000001000", "type":"ARRAY", "length":1, "references":["0x7f0000001028"], "memsize":40}
{"address":"0x7f0000001028", "type":"STRING", "value":"secret", "bytesize":6, "memsize":40}
{"address":"0x7f0000001050", "type":"STRING", "value":"garbage", "bytesize":7, "memsize":40}
"#;

    fn graph_of(json: &str) -> Vec<u8> {
        let mut memory = crate::OwnedMemory::new();
        let converter = Converter::new(json.as_bytes()).unwrap();
        let options = convert::Options::default();
        let writer = crate::Writer::new(memory.lend(), Vec::new(), &converter.header(&options)).unwrap();
        let (_, writer) = converter.run(writer, &options).unwrap();
        writer.finish(true, 0, 0).unwrap().1
    }

    #[test]
    fn json_and_the_graph_made_of_it_are_the_same_heap() {
        let (json, graph) = (LINES.as_bytes().to_vec(), graph_of(LINES));
        for dump in [&json, &graph] {
            let loaded = any(&dump[..], Wanted::default()).unwrap();
            let objects: Vec<u64> = loaded.graph.all().map(|object| loaded.graph.address(object)).collect();
            assert_eq!(objects, [0x7f00_0000_1000, 0x7f00_0000_1028, 0x7f00_0000_1050]);
            assert_eq!((loaded.graph.reach().objects(), loaded.complete, loaded.warnings.len()), (2, true, 0));
        }
    }

    #[test]
    fn a_graph_that_is_cut_off_is_read_as_far_as_it_goes() {
        let whole = graph_of(LINES);
        let trailer_lost = any(&whole[..whole.len() - 1], Wanted::default()).unwrap();
        assert_eq!((trailer_lost.graph.objects(), trailer_lost.complete), (3, false));
        assert!(trailer_lost.warnings[0].contains("cut off"), "{:?}", trailer_lost.warnings);
        // A heap or an error is the outcome, whichever byte is cut off or changed.
        for at in 0..whole.len() {
            let _ = any(&whole[..at], Wanted::default());
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            let _ = any(&damaged[..], Wanted { labels: true, ..Wanted::default() });
        }
    }

    #[test]
    fn a_graph_that_lost_a_block_is_not_complete() {
        let mut damaged = graph_of(LINES);
        // The payload of a block in the middle: the checksum finds it, and the trailer is still there.
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x55;
        let loaded = any(&damaged[..], Wanted::default()).unwrap();
        assert!(loaded.warnings[0].contains("block"), "{:?}", loaded.warnings);
        assert!(!loaded.complete);
    }

    #[test]
    fn without_roots_every_object_counts() {
        let lines = LINES.lines().skip(1).collect::<Vec<_>>().join("\n") + "\n";
        let loaded = any(lines.as_bytes(), Wanted::default()).unwrap();
        assert_eq!((loaded.graph.reach().objects(), loaded.warnings.len()), (3, 1));
        let paths = Paths::new(&loaded.graph);
        assert_eq!((paths.order().len(), spell(&loaded.graph, &paths, 1)), (3, "(STRING)".to_owned()));
    }

    #[test]
    fn a_dump_that_another_program_wrote_again_is_the_same_heap() {
        let windows = format!("\u{feff}{}", LINES.replace('\n', "\r\n"));
        let compact = LINES.replace(", ", ",");
        for dump in [windows, compact.replace(':', ": "), compact] {
            let loaded = any(dump.as_bytes(), Wanted::default()).unwrap();
            assert_eq!(
                (loaded.graph.objects(), loaded.graph.reach().objects(), loaded.warnings.len()),
                (3, 2, 0),
                "{dump}"
            );
        }
    }

    #[test]
    fn a_dump_whose_references_lead_to_nothing_is_not_complete() {
        let object = |at: u64, to: u64| {
            format!(
                "{{\"address\":\"{:#x}\", \"type\":\"ARRAY\", \"references\":[\"{:#x}\"], \"memsize\":40}}\n",
                0x7f00_0000_0000 + at * 40,
                0x7f00_0000_0000 + to * 40
            )
        };
        let root = "{\"type\":\"ROOT\", \"root\":\"vm\", \"references\":[\"0x7f0000000000\"]}\n";
        let whole: Vec<String> = (0..5_000).map(|at| object(at, (at + 1) % 5_000)).collect();
        // (one line in so many is missing) → complete
        for (every, complete) in [(usize::MAX, true), (1_000, true), (200, true), (50, false)] {
            let kept =
                whole.iter().enumerate().filter(|(at, _)| at % every != every - 1).map(|(_, line)| line.as_str());
            let json = format!("{root}{}", kept.collect::<String>());
            for dump in [json.clone().into_bytes(), graph_of(&json)] {
                let loaded = any(&dump[..], Wanted::default()).unwrap();
                let dangling = loaded.graph.facts().dangling;
                assert_eq!((loaded.complete, loaded.warnings.len()), (complete, usize::from(!complete)), "{dangling}");
            }
        }
    }

    #[test]
    fn several_dumps_in_one_file_are_noticed() {
        let loaded = any(format!("{LINES}{LINES}").as_bytes(), Wanted::default()).unwrap();
        assert_eq!(loaded.graph.reach().objects(), 2);
        assert!(loaded.warnings[0].contains("3 objects are at the address of another"), "{:?}", loaded.warnings);
        let graphs = [graph_of(LINES), graph_of(LINES)].concat();
        let loaded = any(&graphs[..], Wanted::default()).unwrap();
        assert_eq!((loaded.graph.objects(), loaded.warnings.len()), (3, 1), "{:?}", loaded.warnings);
    }

    #[test]
    fn warnings_about_one_thing_are_in_the_singular() {
        let again = "{\"address\":\"0x7f0000001028\", \"type\":\"STRING\", \"memsize\":40}\n";
        let repaired =
            "{\"address\":\"0x7f0000001078\", \"type\":\"DATA\", \"struct\":\"a \"name\"\", \"memsize\":40}\n";
        for (more, singular, plural) in [
            (vec![again, again], "1 object is at", "2 objects are at"),
            (vec![repaired, &repaired.replace("1078", "10a0")], "1 damaged line was", "2 damaged lines were"),
        ] {
            for (lines, expected) in [(more[0].to_owned(), singular), (more.concat(), plural)] {
                let loaded = any(format!("{LINES}{lines}").as_bytes(), Wanted::default()).unwrap();
                assert!(loaded.warnings[0].starts_with(expected), "{:?}", loaded.warnings);
            }
        }
    }

    #[test]
    fn what_is_no_dump_is_an_error() {
        for input in ["", "x", "{}", "\u{89}RHEAP", "[1]"] {
            assert!(any(input.as_bytes(), Wanted::default()).is_err(), "{input:?}");
        }
    }
}
