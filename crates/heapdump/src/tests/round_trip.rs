//! A graph that was written is read back, and damage to it is found.

use crate::block;
use crate::reader::Options;
use crate::record::*;
use crate::tables::{Names, Sites};
use crate::{Block, Error, OwnedMemory, Reader, Writer};

/// Everything in a graph.
#[derive(Debug, Default, PartialEq)]
struct Graph {
    objects: Vec<(Object, Vec<Edge>)>,
    roots: Vec<Root>,
    free: Vec<FreeSlots>,
    pages: Vec<Page>,
    stats: Vec<(NameId, u64)>,
    sites: Vec<Site>,
    names: Vec<(NameKind, Vec<u8>)>,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ (self.0 >> 29)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn small(&mut self, limit: u32) -> u32 {
        u32::try_from(self.below(limit.into())).unwrap()
    }
}

impl Graph {
    fn random(seed: u64, objects: u64) -> Self {
        let mut random = Random(seed);
        let mut graph = Self::default();
        for i in 0..50 {
            graph.names.push((NameKind::from(u8::try_from(i % 10).unwrap()), format!("name {i}").into_bytes()));
        }
        for i in 1..20 {
            graph.sites.push(Site { file: NameId(i), line: i * 10, method: NameId(i + 1), class: NameId(0) });
        }
        let named = random.below(2) == 0;
        let address = |random: &mut Random| match random.below(9) {
            0 => random.next() & !7,
            _ => 0x7f00_0000_0000 + 40 * random.below(100_000),
        };
        for i in 0..objects {
            let kind = Type([1, 2, 5, 7, 8, 12, 26][random.below(7) as usize]);
            let traced = random.below(3) == 0;
            let many = if random.below(2000) == 0 { 150_000 } else { 5 };
            let object = Object {
                address: if random.below(50) == 0 { random.next() & !7 } else { 0x7f00_0000_0000 + 40 * i },
                kind,
                class: if random.below(9) == 0 { 0 } else { 0x7e00_0000_0000 + 8 * random.below(30_000) },
                size: random.below(1000),
                slot_size: 40 << random.below(2),
                flags: Flags(random.small(1 << 18)),
                name: if named { NameId(random.small(51)) } else { NameId::NONE },
                site: if traced { SiteId(1 + random.small(19)) } else { SiteId::NONE },
                generation: if traced { random.below(100) } else { 0 },
                length: (random.below(2) == 0).then(|| random.below(1 << 40)),
                hash: (kind == Type::STRING && random.below(2) == 0).then(|| random.next() & 0xffff_ffff_ffff),
                encoding: if kind == Type::STRING { NameId(random.small(3)) } else { NameId::NONE },
            };
            let mut edges = Vec::new();
            for _ in 0..random.below(many) {
                let label = if named { NameId(random.small(51)) } else { NameId::NONE };
                let edge = Edge { target: address(&mut random), label };
                if edge.target != object.class {
                    edges.push(edge);
                }
            }
            graph.objects.push((object, edges));
        }
        for i in 0..random.below(10_000) {
            let edge = Edge { target: address(&mut random), label: NameId(random.small(51)) };
            graph.roots.push(Root { category: NameId(1), edge });
            graph.free.push(FreeSlots { address: 4096 * i, slot_size: 40, count: 1 + random.below(9) });
            graph.pages.push(Page { address: 1 << 16, slot_size: 40, slots: 1638, free: random.small(9) });
        }
        graph.stats.push((NameId(3), u64::MAX));
        graph
    }

    fn write(&self) -> Vec<u8> {
        let mut memory = OwnedMemory::new();
        let header = Header { producer: Producer::Walker, ruby: b"3.4.1", ..Header::default() };
        let mut writer = Writer::new(memory.lend(), Vec::new(), &header).unwrap();
        let mut sites = self.sites.iter();
        for (kind, text) in &self.names {
            writer.name(*kind, text).unwrap();
        }
        sites.by_ref().for_each(|site| {
            writer.site(site).unwrap();
        });
        for (object, edges) in &self.objects {
            writer.object(object).unwrap();
            edges.iter().for_each(|edge| writer.edge(*edge).unwrap());
        }
        self.roots.iter().for_each(|root| writer.root(root).unwrap());
        self.free.iter().for_each(|slots| writer.free(slots).unwrap());
        self.pages.iter().for_each(|page| writer.page(page).unwrap());
        writer.stats(&self.stats).unwrap();
        writer.finish(true, 1, 2).unwrap().1
    }

    fn read(bytes: &[u8]) -> Result<(Self, Box<Trailer>), Error> {
        let mut reader = Reader::new(bytes)?;
        let mut graph = Self::default();
        let (mut names, mut sites) = (Names::default(), Sites::default());
        let mut end = None;
        while let Some(block) = reader.next_block()? {
            match block {
                Block::Objects(batch) => {
                    if let Some((address, edges)) = batch.continued() {
                        let last = graph.objects.last_mut().unwrap();
                        assert_eq!(last.0.address, address);
                        last.1.extend_from_slice(edges);
                    }
                    for (i, object) in batch.objects().enumerate() {
                        let flags = object.flags.without(Flags::HASHED).without(Flags::SIZED);
                        graph.objects.push((Object { flags, ..object }, batch.edges_of(i).to_vec()));
                        assert_eq!(batch.class_id(i) == 0, object.class == 0);
                    }
                }
                Block::Roots(roots) => graph.roots.extend_from_slice(roots),
                Block::Free(runs) => graph.free.extend_from_slice(runs),
                Block::Pages(pages) => graph.pages.extend_from_slice(pages),
                Block::Stats(stats) => graph.stats.extend_from_slice(stats),
                Block::Names(block) => names.add(&block)?,
                Block::Sites(block) => sites.add(&block)?,
                Block::Trailer(trailer) => end = Some(trailer),
                _ => {}
            }
        }
        let id = |i: usize| u32::try_from(i + 1).unwrap();
        graph.names = (0..names.len()).map(|i| names.get(NameId(id(i)))).map(|(k, t)| (k, t.to_vec())).collect();
        graph.sites = (0..sites.len()).map(|i| sites.get(SiteId(id(i)))).collect();
        Ok((graph, end.expect("a trailer")))
    }
}

#[test]
fn what_was_written_is_read() {
    for seed in 0..8 {
        let graph = Graph::random(seed, if seed % 2 == 0 { 5000 } else { seed });
        let bytes = graph.write();
        let (read, trailer) = Graph::read(&bytes).unwrap();
        assert!(read == graph, "seed {seed}");
        assert_eq!((trailer.complete, trailer.lost, trailer.repaired), (true, 1, 2));
        assert_eq!(trailer.objects, graph.objects.len() as u64);
        assert_eq!(trailer.edges, graph.objects.iter().map(|(_, edges)| edges.len() as u64).sum::<u64>());
    }
}

#[test]
fn an_edge_to_the_class_is_left_out_unless_it_has_a_name() {
    let mut memory = OwnedMemory::new();
    let mut writer = Writer::new(memory.lend(), Vec::new(), &Header::default()).unwrap();
    let name = writer.name(NameKind::InstanceVariable, b"@klass").unwrap();
    writer.object(&Object { address: 8, class: 80, ..Object::default() }).unwrap();
    writer.edge(Edge { target: 80, label: NameId::NONE }).unwrap();
    writer.edge(Edge { target: 80, label: name }).unwrap();
    let (graph, _) = Graph::read(&writer.finish(true, 0, 0).unwrap().1).unwrap();
    assert_eq!(graph.objects[0].1, [Edge { target: 80, label: name }]);
}

#[test]
fn a_graph_cut_off_anywhere_is_read_as_far_as_it_goes() {
    let graph = Graph::random(4, 5000);
    let bytes = graph.write();
    let step = bytes.len() / 100;
    let mut before = 0;
    for len in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
        let mut objects = 0;
        let error = match Reader::new(&bytes[..len]) {
            Err(error) => error,
            Ok(mut reader) => loop {
                match reader.next_block() {
                    Ok(Some(Block::Objects(batch))) => objects += batch.objects().len(),
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("{len} of {} bytes seem complete", bytes.len()),
                    Err(error) => break error,
                }
            },
        };
        let expected = if len == 0 { "NotAGraph" } else { "Truncated" };
        assert!(format!("{error:?}").starts_with(expected), "{len} bytes: {error:?}");
        assert!(objects >= before);
        before = objects;
    }
    assert!(before > 4000);
}

#[test]
fn every_changed_byte_is_found_and_the_blocks_around_it_are_read() {
    let graph = Graph { roots: Vec::new(), free: Vec::new(), pages: Vec::new(), ..Graph::random(6, 60) };
    let bytes = graph.write();
    for at in (0..bytes.len()).step_by(3) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let Ok(mut reader) = Reader::new(&*damaged) else { continue };
        let mut errors = 0;
        loop {
            match reader.next_block() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    errors += 1;
                    if !error.is_recoverable() {
                        break;
                    }
                }
            }
        }
        assert!(errors > 0, "byte {at}");
    }
}

// Calls `change` with each block's type and content, and makes the checksums fit.
fn rewrite(graph: &[u8], mut change: impl FnMut(u16, &mut Vec<u8>)) -> Vec<u8> {
    let (mut new, mut at) = (graph[..12].to_vec(), 12);
    for ordinal in 0.. {
        let Some(head) = graph.get(at..at + 16) else { return new };
        let length = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
        let kind = u16::from_le_bytes(head[4..6].try_into().unwrap());
        let mut content = graph[at + 16..at + 16 + length].to_vec();
        change(kind, &mut content);
        let mut start: [u8; 8] = head[..8].try_into().unwrap();
        start[..4].copy_from_slice(&u32::try_from(content.len()).unwrap().to_le_bytes());
        new.extend_from_slice(&start);
        new.extend_from_slice(&block::checksum(&start, &content, ordinal).to_le_bytes());
        new.extend_from_slice(&content);
        at += 16 + length;
    }
    new
}

// Reads all that can be read. Returns the errors.
fn errors(graph: &[u8]) -> Vec<String> {
    let mut errors = Vec::new();
    let mut reader = match Reader::new(graph) {
        Ok(reader) => reader,
        Err(error) => return vec![error.to_string()],
    };
    loop {
        match reader.next_block() {
            Ok(Some(_)) => {}
            Ok(None) => return errors,
            Err(error) => {
                errors.push(error.to_string());
                if !error.is_recoverable() {
                    return errors;
                }
            }
        }
    }
}

#[test]
fn a_trailer_that_lies_about_counts_is_found() {
    let bytes = Graph::random(3, 200).write();
    assert_eq!(rewrite(&bytes, |_, _| ()), bytes);
    // The keys of docs/heap-graph.md with a number that the blocks have, too. A pair that comes later replaces an earlier one.
    for key in (2..=10u8).chain([13, 64 + 5]) {
        let lies = rewrite(&bytes, |kind, content| {
            if kind == block::kind::TRAILER {
                content.extend_from_slice(&[key, 77]);
            }
        });
        let errors = errors(&lies);
        assert!(
            errors.iter().any(|error| error.contains("trailer says") || error.contains("damaged")),
            "{key}: {errors:?}"
        );
    }
}

#[test]
fn a_block_that_counts_other_objects_than_it_has_is_found() {
    let object = Object { address: 80, kind: Type::HASH, size: 40, ..Object::default() };
    let bytes = Graph { objects: vec![(object, Vec::new())], ..Graph::default() }.write();
    // Edges, type, class, then young ones, their bytes, old ones, their bytes.
    let column = [17, 7, 0, Type::HASH.0, 0, 1, 40, 0, 0];
    for (place, lie) in [(5, 2), (5, 0), (7, 1)] {
        let lies = rewrite(&bytes, |kind, content| {
            if kind == block::kind::OBJECTS {
                let at = content.windows(column.len()).position(|bytes| bytes == column).unwrap();
                content[at + place] = lie;
            }
        });
        let options = Options { counts: true, ..Options::default() };
        let mut reader = Reader::with_options(&lies[..], options).unwrap();
        let error =
            std::iter::from_fn(|| reader.next_block().map(|block| block.map(drop)).transpose()).find_map(Result::err);
        assert!(error.unwrap().to_string().contains("it counts another number of objects"), "{place}");
    }
}

#[test]
fn blocks_whose_content_is_false_under_a_good_checksum_are_an_error_or_read() {
    let bytes = Graph::random(9, 20).write();
    let (mut tried, mut found) = (0, 0);
    for place in (0..bytes.len()).step_by(bytes.len() / 300 + 1) {
        let mut before = 0;
        let lies = rewrite(&bytes, |_, content| {
            if let Some(byte) = place.checked_sub(before).and_then(|at| content.get_mut(at)) {
                *byte ^= 0xff;
            }
            before += content.len();
        });
        tried += 1;
        found += usize::from(!errors(&lies).is_empty());
    }
    assert!(found > tried / 3, "{found} of {tried}");
}

#[test]
fn unknown_blocks_are_skipped_unless_they_are_needed() {
    let mut memory = OwnedMemory::new();
    let writer = Writer::new(memory.lend(), Vec::new(), &Header::default()).unwrap();
    let bytes = writer.finish(true, 0, 0).unwrap().1;
    // Of the trailer, the last block, only the type differs: the checksum does not matter for a long block.
    for (flags, expected) in [(0, "Truncated"), (1, "UnknownBlock")] {
        let mut longer = bytes.clone();
        let at = 12 + 16 + u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let mut unknown = ((2u32 << 20).to_le_bytes()).to_vec();
        unknown.extend_from_slice(&[99, 0, flags, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        unknown.resize(16 + (2 << 20), 7);
        longer.splice(at.., unknown);
        let mut reader = Reader::new(&*longer).unwrap();
        let first = reader.next_block().map(|block| matches!(block, Some(Block::Skipped(_))));
        let error = match first {
            Ok(true) => reader.next_block().map(|_| ()).unwrap_err(),
            Ok(false) => panic!("not skipped"),
            Err(error) => error,
        };
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
    }
}

#[test]
fn a_later_version_is_refused() {
    let mut memory = OwnedMemory::new();
    let writer = Writer::new(memory.lend(), Vec::new(), &Header::default()).unwrap();
    let mut bytes = writer.finish(true, 0, 0).unwrap().1;
    bytes[8] = 2;
    assert!(matches!(Reader::new(&*bytes), Err(Error::TooNew { found: 2, known: 1 })));
}

#[test]
fn edges_can_be_skipped() {
    let graph = Graph::random(2, 3000);
    let bytes = graph.write();
    let options = Options { edges: false, ..Options::default() };
    let mut reader = Reader::with_options(&*bytes, options).unwrap();
    let mut objects = 0;
    while let Some(block) = reader.next_block().unwrap() {
        if let Block::Objects(batch) = block {
            objects += batch.objects().len();
            assert!(batch.edges().is_empty());
        }
    }
    assert_eq!(objects, graph.objects.len());
}
