//! Fuzz targets of this crate. None of this is in the released program.

use std::io::Read;

use crate::analysis::builder::Wanted;
use crate::analysis::diff::{self, Inhabitants, Landmarks};
use crate::analysis::export::{folded, heapsnapshot, pprof};
use crate::analysis::families::Families;
use crate::analysis::frames::Frames;
use crate::analysis::held::{Held, Totals};
use crate::analysis::memory::Graph;
use crate::analysis::paths::{self, Paths};
use crate::analysis::strings::Strings;
use crate::analysis::top::{By, Groups};
use crate::analysis::{load, waste};
use crate::block::{self, kind};
use crate::convert::{Options, to_graph};
use crate::json;
use crate::reader::{Block, Reader};
use crate::record::Trailer;
use crate::summary;

/// Reads a heap graph, and exports it. The input is tried as it is, and as the content of blocks with good checksums, which no fuzzer
/// guesses.
pub fn graph(data: &[u8]) {
    read(data);
    let graph = framed(data);
    read(&graph);
    let _ = summary::of_graph(&*graph);
    let mut json = Vec::new();
    if json::export(&*graph, &mut json).is_ok() {
        assert_lines(&json);
    }
}

/// Converts a heap dump in JSON: the graph is whole, and what is exported from it is JSON.
pub fn dump(data: &[u8]) {
    let Ok((summary, trailer, graph)) = to_graph(data, Vec::new(), &Options::default()) else { return };
    assert_eq!(summary.bytes, data.len() as u64, "all of it was read");
    assert_eq!(read(&graph), Some(trailer), "the graph is whole");
    assert_eq!(summary::check_counts(&graph), trailer.complete);
    let mut json = Vec::new();
    let exported = json::export(&*graph, &mut json).map_or_else(|error| Some(error.to_string()), |told| told.damage);
    assert_eq!(exported, None, "the graph can be exported");
    assert_lines(&json);
}

fn assert_lines(json: &[u8]) {
    let text = String::from_utf8_lossy(json);
    for line in text.lines() {
        assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

/// Analyses a heap: what the commands of `diagctl heap` ask of a dump, for a graph, for the content of blocks, and for JSON.
pub fn analysis(data: &[u8]) {
    let wanted = Wanted {
        labels: true,
        sites: true,
        strings: true,
        slots: true,
        flags: true,
        no_class_edges: data.len().is_multiple_of(3),
        most_bytes: Some(64 << 20),
    };
    let graphs = [data, &framed(data)].map(|dump| load::any(dump, wanted).map(|loaded| loaded.graph));
    for graph in graphs.iter().flatten() {
        analyse(graph);
    }
    if let [Ok(before), Ok(after)] = &graphs {
        compare(before, after);
    }
}

fn analyse(graph: &Graph) {
    let held = Held::new(graph);
    let totals = Totals::new(graph, &held.reach);
    assert_eq!(totals.reachable.objects, held.reach.objects() as u64);
    for by in [By::Class, By::Type, By::Site, By::Generation] {
        let groups = Groups::new(graph, by);
        let sums = groups.sums(&held);
        assert_eq!(sums.iter().map(|sums| sums.count).sum::<u64>(), totals.reachable.objects);
        (0..groups.count() as u32).take(100).for_each(|group| drop(groups.name(group)));
    }
    let paths = Paths::new(graph);
    let families = Families::new(graph, &paths);
    for object in held.largest(20) {
        paths::spell(graph, &paths, object);
        families.of(object).map(|family| families.spell(graph, family));
    }
    let strings = Strings::new(graph, &held.reach);
    strings.wasted();
    for slots in waste::slot_sizes(graph, &held.reach, "3.4.1") {
        assert!(slots.free_bytes() >= slots.free.min(1));
        slots.sparse_bytes();
    }
    let frames = Frames::new(graph, &held);
    for line in folded::lines(&frames) {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    // Nothing is written that could fail.
    let _ = pprof::write(&frames, &mut std::io::sink());
    let _ = heapsnapshot::write(graph, &held.reach, &mut std::io::sink());
}

fn compare(before: &Graph, after: &Graph) {
    let new = Inhabitants::new(after, &after.reach()).without(&Inhabitants::new(before, &before.reach()));
    assert!(new.count() <= after.objects());
    Landmarks::new(before).differ(&Landmarks::new(after));
    let names = |graph: &Graph| {
        let reach = graph.reach();
        let reachable = reach.numbers().map(|number| reach.object(number));
        let class = |object| Some(graph.class(object));
        diff::sums(graph, reachable, graph.classes().len(), class, |class| graph.class_name(class).into_owned())
    };
    for change in diff::changes(&names(before), &names(after)) {
        assert_ne!((change.objects(), change.bytes()), (i64::MIN, i64::MIN));
    }
}

// Reads blocks as long as that is possible, and returns the trailer if nothing was damaged.
fn read(graph: &[u8]) -> Option<Trailer> {
    let mut reader = Reader::new(graph).ok()?;
    let mut end = None;
    let mut damaged = false;
    loop {
        match reader.next_block() {
            Ok(None) => break,
            Ok(Some(Block::Trailer(trailer))) => end = Some(*trailer),
            Ok(Some(Block::Objects(batch))) => {
                assert!(batch.objects().len() <= block::MAX_OBJECTS && batch.edges().len() <= block::MAX_EDGES);
                let edges = (0..batch.objects().len()).map(|i| batch.edges_of(i).len()).sum::<usize>();
                assert_eq!(edges + batch.continued().map_or(0, |(_, edges)| edges.len()), batch.edges().len());
            }
            Ok(Some(Block::Names(names))) => drop(names.iter().count()),
            Ok(Some(_)) => {}
            Err(error) if error.is_recoverable() => damaged = true,
            Err(_) => return None,
        }
    }
    end.filter(|_| !damaged)
}

// Makes a graph whose blocks have the input as content.
fn framed(mut data: &[u8]) -> Vec<u8> {
    let mut graph = block::MAGIC.to_vec();
    graph.extend_from_slice(&block::VERSION.to_le_bytes());
    let header = [5, 1, data.len().to_le_bytes()[0] % 4];
    let mut blocks = vec![(kind::HEADER, header.to_vec())];
    let mut head = [0; 3];
    while data.read_exact(&mut head).is_ok() {
        let kind = u16::from(head[0] % 11) + kind::NAMES;
        let length = usize::from(u16::from_le_bytes([head[1], head[2]])).min(data.len());
        let (content, rest) = data.split_at(length);
        blocks.push((kind, content.to_vec()));
        data = rest;
    }
    for (ordinal, (kind, content)) in (0..).zip(blocks) {
        let length = u32::try_from(content.len()).unwrap_or(0).to_le_bytes();
        let kind = if kind > kind::STATS { kind::TRAILER } else { kind }.to_le_bytes();
        let start = [length[0], length[1], length[2], length[3], kind[0], kind[1], 0, 0];
        graph.extend_from_slice(&start);
        graph.extend_from_slice(&block::checksum(&start, &content, ordinal).to_le_bytes());
        graph.extend_from_slice(&content);
    }
    graph
}
