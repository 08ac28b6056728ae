//! Reads a heap graph block by block, in bounded memory.

mod batch;
mod lists;
mod numbers;

use std::io::Read;

use crate::block::{self, kind};
use crate::checksum::xxh64;
use crate::error::Error;
use crate::record::{FreeSlots, NameId, Page, Producer, Root, Trailer};
use crate::trailer;
pub use batch::{Batch, Count};
use batch::{ClassTable, Context};
pub use lists::{NamesBlock, SitesBlock};
use numbers::{Numbers, Why};

/// The facts at the beginning of a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The producer of the graph.
    pub producer: Producer,
    /// Ruby's version, or empty if unknown.
    pub ruby: String,
    /// The platform, or empty if unknown.
    pub platform: String,
    /// Bytes of a pointer.
    pub pointer_size: u8,
    /// Binary logarithm of the unit of addresses.
    pub address_shift: u8,
    /// Bytes of a string's hash.
    pub hash_bytes: u8,
}

/// One block.
#[derive(Debug)]
pub enum Block<'r> {
    /// Entries of the name table.
    Names(NamesBlock<'r>),
    /// Entries of the class table were added to [`Reader::classes`].
    Classes,
    /// Entries of the site table.
    Sites(SitesBlock<'r>),
    /// Objects.
    Objects(&'r Batch),
    /// Edges from roots.
    Roots(&'r [Root]),
    /// Free slots.
    Free(&'r [FreeSlots]),
    /// Pages of the heap.
    Pages(&'r [Page]),
    /// Numbers about the process.
    Stats(&'r [(NameId, u64)]),
    /// The totals. Nothing follows.
    Trailer(Box<Trailer>),
    /// A block that this version does not know.
    Skipped(u16),
}

/// The columns that a reader decodes beside addresses, types, classes, sizes and names, and its limits.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decode edges. Without, every object seems to have none.
    pub edges: bool,
    /// Decode the names of edges.
    pub labels: bool,
    /// Decode the sizes of slots.
    pub slots: bool,
    /// Decode flags.
    pub flags: bool,
    /// Decode lengths, hashes and encodings.
    pub strings: bool,
    /// Decode allocation sites and generations.
    pub sites: bool,
    /// Of a block that has counts, decode only these (see [`Batch::counts`]).
    pub counts: bool,
    /// The maximum number of classes.
    pub max_classes: usize,
}

impl Default for Options {
    fn default() -> Self {
        let max_classes = 1 << 22;
        Self {
            edges: true,
            labels: true,
            slots: true,
            flags: true,
            strings: true,
            sites: true,
            counts: false,
            max_classes,
        }
    }
}

/// Reads one graph.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    options: Options,
    about: About,
    payload: Vec<u8>,
    batch: Batch,
    lists: lists::Lists,
    classes: ClassTable,
    found: Trailer,
    chain: u64,
    damaged: bool,
    /// A trailer that contradicts the blocks. The next call returns it.
    held_trailer: Option<Trailer>,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn new(input: R) -> Result<Self, Error> {
        Self::with_options(input, Options::default())
    }

    /// Reads the header, and later what the options say.
    pub fn with_options(mut input: R, options: Options) -> Result<Self, Error> {
        let mut start = [0; block::MAGIC.len() + 4];
        let read = fill(&mut input, &mut start)?;
        if !start.starts_with(&block::MAGIC) {
            let magic = start.get(..read.min(block::MAGIC.len())).unwrap_or_default();
            return if read > 0 && block::MAGIC.starts_with(magic) && read < start.len() {
                Err(Error::Truncated { bytes: read as u64 })
            } else {
                Err(Error::NotAGraph)
            };
        }
        if read < start.len() {
            return Err(Error::Truncated { bytes: read as u64 });
        }
        let version = start.last_chunk::<4>().map_or(0, |version| u32::from_le_bytes(*version));
        if version > block::VERSION {
            return Err(Error::TooNew { found: version, known: block::VERSION });
        }
        let mut reader = Self {
            input,
            options,
            about: About { pointer_size: 8, address_shift: 3, hash_bytes: 6, ..About::default() },
            payload: Vec::new(),
            batch: Batch::default(),
            lists: lists::Lists::default(),
            classes: ClassTable { limit: options.max_classes, ..ClassTable::default() },
            found: Trailer { bytes: start.len() as u64, ..Trailer::default() },
            chain: 0,
            damaged: false,
            held_trailer: None,
            ended: false,
        };
        let kind = reader.block()?;
        let bad = |why| Error::BadHead { ordinal: 0, why };
        if kind != Some(kind::HEADER) {
            return Err(bad("the header is missing"));
        }
        reader.about = header(&reader.payload).map_err(bad)?;
        Ok(reader)
    }

    /// The facts at the beginning.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The addresses of the classes read so far: that with id 1 comes first. 0 stands for an entry that was lost.
    pub fn classes(&self) -> &[u64] {
        &self.classes.addresses
    }

    /// The totals of the blocks read so far.
    pub fn found(&self) -> &Trailer {
        &self.found
    }

    /// Returns the next block, or `None` after the trailer. After an error for which [`Error::is_recoverable`] is true, the next call
    /// goes on behind the damage.
    pub fn next_block(&mut self) -> Result<Option<Block<'_>>, Error> {
        if let Some(trailer) = self.held_trailer.take() {
            return Ok(Some(Block::Trailer(Box::new(trailer))));
        }
        if self.ended {
            return if fill(&mut self.input, &mut [0])? == 0 { Ok(None) } else { Err(Error::TrailingBytes) };
        }
        let (bytes, blocks, chain) = (self.found.bytes, self.found.blocks, self.chain);
        let Some(kind) = self.block().inspect_err(|_| self.damaged = true)? else {
            return Ok(Some(Block::Skipped(0)));
        };
        if kind == kind::TRAILER {
            return self.trailer(bytes, blocks, chain).map(|trailer| Some(Block::Trailer(Box::new(trailer))));
        }
        let ordinal = blocks;
        let shift = self.about.address_shift;
        let decoded = match kind {
            kind::OBJECTS => {
                let hash_bytes = usize::from(self.about.hash_bytes);
                let classes = &mut self.classes;
                self.batch.decode(&self.payload, &mut Context { shift, hash_bytes, wanted: self.options, classes })
            }
            kind::CLASSES => self.lists.classes(&self.payload, shift, &mut self.classes.addresses, self.classes.limit),
            // An entry takes two bytes at least, or four.
            kind::NAMES => self.lists.names(&self.payload, self.found.bytes / 2),
            kind::SITES => self.lists.sites(&self.payload, self.found.bytes / 4),
            kind::ROOTS => self.lists.roots(&self.payload, shift),
            kind::FREE => self.lists.free(&self.payload, shift),
            kind::PAGES => self.lists.pages(&self.payload, shift),
            kind::STATS => self.lists.stats(&self.payload),
            _ => return Ok(Some(Block::Skipped(kind))),
        };
        if let Err(why) = decoded {
            self.damaged = true;
            return Err(Error::Malformed { ordinal, why });
        }
        Ok(Some(self.decoded(kind)))
    }

    // Counts and returns what was decoded.
    fn decoded(&mut self, kind: u16) -> Block<'_> {
        let found = &mut self.found;
        match kind {
            kind::OBJECTS => {
                for (kind, count, size) in self.batch.sums() {
                    found.size = found.size.wrapping_add(size);
                    found.objects += count;
                    if let Some(of_type) = found.by_type.get_mut(usize::from(kind.0)) {
                        *of_type += count;
                    }
                }
                found.edges += self.batch.edge_total();
                if self.options.edges && self.options.labels {
                    let named = self.batch.edges().iter().filter(|edge| edge.label != NameId::NONE);
                    found.named_edges += named.count() as u64;
                }
                Block::Objects(&self.batch)
            }
            kind::NAMES => {
                found.names += self.lists.name_count;
                Block::Names(self.lists.names_block(&self.payload))
            }
            kind::SITES => Block::Sites(self.lists.sites_block()),
            kind::ROOTS => {
                found.roots += self.lists.roots.len() as u64;
                Block::Roots(&self.lists.roots)
            }
            kind::FREE => {
                let slots = self.lists.free.iter().fold(0u64, |sum, run| sum.saturating_add(run.count));
                found.free_slots = found.free_slots.saturating_add(slots);
                Block::Free(&self.lists.free)
            }
            kind::PAGES => Block::Pages(&self.lists.pages),
            kind::STATS => Block::Stats(&self.lists.stats),
            _ => Block::Classes,
        }
    }

    // Reads a block into `payload` and returns its type, or `None` for a long one that was skipped.
    fn block(&mut self) -> Result<Option<u16>, Error> {
        let ordinal = self.found.blocks;
        let mut head = [0; block::HEAD];
        let read = fill(&mut self.input, &mut head)?;
        if read < head.len() {
            return Err(Error::Truncated { bytes: self.found.bytes + read as u64 });
        }
        let [l0, l1, l2, l3, k0, k1, flags, _, sum @ ..] = head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let kind = u16::from_le_bytes([k0, k1]);
        let sum = u64::from_le_bytes(sum);
        let known = (kind::HEADER..=kind::STATS).contains(&kind) || kind == kind::TRAILER;
        if !known && flags & 1 == 1 {
            return Err(Error::UnknownBlock { kind });
        }
        let length = u64::from(length);
        if length > block::MAX_PAYLOAD as u64 && known {
            return Err(Error::BadHead { ordinal, why: "it is too long" });
        }
        self.payload.clear();
        let mut content = (&mut self.input).take(length);
        let read = if known || length <= block::MAX_PAYLOAD as u64 {
            content.read_to_end(&mut self.payload)? as u64
        } else {
            std::io::copy(&mut content, &mut std::io::sink())?
        };
        self.found.bytes += block::HEAD as u64 + read;
        if read < length {
            return Err(Error::Truncated { bytes: self.found.bytes });
        }
        self.found.blocks += 1;
        self.chain = xxh64(&sum.to_le_bytes(), self.chain);
        if length > block::MAX_PAYLOAD as u64 {
            return Ok(None);
        }
        if block::checksum(&head, &self.payload, ordinal) != sum {
            return Err(Error::Checksum { ordinal });
        }
        Ok(Some(kind))
    }

    fn trailer(&mut self, bytes: u64, blocks: u64, chain: u64) -> Result<Trailer, Error> {
        let mut said = Trailer::default();
        let mut said_chain = 0;
        let mut pairs = Numbers::new(&self.payload);
        while !pairs.is_empty() {
            let malformed = |why| Error::Malformed { ordinal: blocks, why };
            let (key, value) = (pairs.next().map_err(malformed)?, pairs.next().map_err(malformed)?);
            trailer::apply(&mut said, &mut said_chain, key, value);
        }
        self.ended = true;
        let found = Trailer { bytes, blocks, ..self.found };
        let contradiction = totals(&said, &found, self.options)
            .or((said_chain != chain).then_some(("checksums", said_chain, chain)))
            .filter(|_| !self.damaged);
        match contradiction {
            None => Ok(said),
            Some((what, said_number, found)) => {
                self.held_trailer = Some(said);
                Err(Error::Totals { what, said: said_number, found })
            }
        }
    }
}

fn totals(said: &Trailer, found: &Trailer, options: Options) -> Option<(&'static str, u64, u64)> {
    let labels = options.edges && options.labels;
    let pairs = [
        ("blocks", said.blocks, found.blocks),
        ("bytes", said.bytes, found.bytes),
        ("objects", said.objects, found.objects),
        ("edges", said.edges, found.edges),
        ("named edges", said.named_edges, if labels { found.named_edges } else { said.named_edges }),
        ("roots", said.roots, found.roots),
        ("bytes of objects", said.size, found.size),
        ("free slots", said.free_slots, found.free_slots),
        ("names", said.names, found.names),
    ];
    let types = said.by_type.iter().zip(found.by_type).map(|(said, found)| ("objects of a type", *said, found));
    pairs.into_iter().chain(types).find(|(_, said, found)| said != found)
}

fn header(payload: &[u8]) -> Result<About, Why> {
    let mut about = About { pointer_size: 8, address_shift: 3, hash_bytes: 6, ..About::default() };
    let mut rest = Numbers::new(payload);
    while !rest.is_empty() {
        let key = rest.next()?;
        let len = rest.next()?;
        let value = rest.slice(len)?;
        let text = || String::from_utf8_lossy(value.get(..256).unwrap_or(value)).into_owned();
        let byte = value.first().copied().unwrap_or(0);
        match key {
            block::header::PRODUCER => {
                about.producer = match byte {
                    1 => Producer::Walker,
                    2 => Producer::DumpAll,
                    _ => Producer::Unknown,
                }
            }
            block::header::RUBY => about.ruby = text(),
            block::header::PLATFORM => about.platform = text(),
            block::header::POINTER_SIZE => about.pointer_size = byte,
            block::header::ADDRESS_SHIFT => about.address_shift = byte,
            block::header::HASH_BYTES => about.hash_bytes = byte,
            _ => {}
        }
    }
    if about.address_shift > 6 {
        return Err("the unit of addresses is too large");
    }
    if !(4..=8).contains(&about.hash_bytes) {
        return Err("hashes have fewer than 4 or more than 8 bytes");
    }
    Ok(about)
}

// Reads until the buffer is full or the input ends.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
