//! Fuzz targets of this crate. None of this is in the released program.

use std::io::Read;

use crate::block::{self, kind};
use crate::convert::{Options, to_graph};
use crate::json;
use crate::reader::{Block, Reader};
use crate::record::Trailer;

/// Reads a heap graph, and exports it. The input is tried as it is, and as the content of blocks with good checksums, which no fuzzer
/// guesses.
pub fn graph(data: &[u8]) {
    read(data);
    let graph = framed(data);
    read(&graph);
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
