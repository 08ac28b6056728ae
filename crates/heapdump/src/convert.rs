//! From what `ObjectSpace.dump_all` writes to a heap graph, in one pass and in bounded memory.
//!
//! Every line is looked at once: what it says is taken while it is checked. Values are dropped, except that strings leave a hash.
//! Lines that Ruby wrote damaged are repaired where their meaning is clear; others are missing in the graph, and counted.

mod input;
mod line;
mod long;
mod loose;
mod names;
mod target;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Read;

use crate::lines::{HeapLines, glance};
use crate::record::{Edge, Flags, FreeSlots, NameId, Object, Producer, Root, Type};
use crate::{Header, Trailer};
use input::Input;
use line::{Kind, Line};
use names::Names;
pub use target::Target;

/// The options of a conversion.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The key for hashes of strings. It is random, and dies with this value.
    pub hash_key: RandomState,
    /// Ruby's version, as far as it is known: a heap dump does not say.
    pub ruby: String,
}

/// The outcome of a conversion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines that are missing in the graph.
    pub lost: u64,
    /// Lines that were damaged, and repaired.
    pub repaired: u64,
    /// A message about the first damaged line and the number of all that could not be repaired.
    pub damage: Option<String>,
    /// Bytes of the heap dump.
    pub bytes: u64,
}

/// An error of a conversion.
#[derive(Debug, thiserror::Error)]
pub enum Error<E> {
    /// The heap dump could not be read.
    #[error("the heap dump cannot be read: {0}")]
    Read(#[source] std::io::Error),
    /// The target failed.
    #[error("{0}")]
    Target(E),
}

/// A heap dump in JSON whose first bytes were read.
#[derive(Debug)]
pub struct Converter<R> {
    input: Input<R>,
    shift: u8,
    pointer_size: u8,
}

impl<R: Read> Converter<R> {
    /// Reads the first bytes, which tell the size of a pointer.
    pub fn new(read: R) -> std::io::Result<Self> {
        let mut input = Input::new(read);
        input.fill()?;
        let (pointer_size, shift) = input::addresses(input.window());
        Ok(Self { input, shift, pointer_size })
    }

    /// The header of the graph that the conversion makes.
    pub fn header<'a>(&self, options: &'a Options) -> Header<'a> {
        Header {
            producer: Producer::DumpAll,
            ruby: options.ruby.as_bytes(),
            pointer_size: self.pointer_size,
            address_shift: self.shift,
            ..Header::default()
        }
    }

    /// Converts everything. Returns the target for its trailer.
    pub fn run<T: Target>(self, target: T, options: &Options) -> Result<(Summary, T), Error<T::Error>> {
        let Self { mut input, shift, pointer_size } = self;
        let names = Names::default();
        let misaligned = (1u64 << shift) - 1;
        let slot_size = 5 * u32::from(pointer_size);
        let scratch = Vec::new();
        let hash_key = options.hash_key.clone();
        let state = State { target, names, hash_key, misaligned, slot_size, scratch, shapes: (0, 0) };
        let mut run = Run { lines: HeapLines::default(), state, lost: 0, repaired: 0 };
        let mut references = Vec::new();
        loop {
            references = run.fast_lines(&mut input, references)?;
            let window = input.window();
            match input::line_end(window) {
                Some(end) => {
                    let taken = run.slow_line(window, end, input.is_at_end())?;
                    match taken {
                        Some(taken) => input.consume(taken),
                        None => input.fill().map_err(Error::Read)?,
                    }
                }
                None if input.is_at_end() => {
                    if !window.is_empty() {
                        run.lost += 1;
                        run.lines.feed(window);
                    }
                    break;
                }
                None if input.is_full() => run.long_line(&mut input)?,
                None => input.fill().map_err(Error::Read)?,
            }
        }
        run.finish(input.bytes())
    }
}

/// A conversion in progress.
struct Run<T> {
    lines: HeapLines,
    state: State<T>,
    lost: u64,
    repaired: u64,
}

/// The destination of a line.
struct State<T> {
    target: T,
    names: Names,
    hash_key: RandomState,
    /// The bits that an address must not have.
    misaligned: u64,
    /// The size of a slot if the line does not say.
    slot_size: u32,
    scratch: Vec<u8>,
    /// The number of shapes, and their bytes.
    shapes: (u64, u64),
}

impl<T: Target> Run<T> {
    // Converts good lines as long as they come.
    fn fast_lines<R: Read>(&mut self, input: &mut Input<R>, scratch: Vec<u64>) -> Result<Vec<u64>, Error<T::Error>> {
        let window = input.window();
        let mut at = 0;
        let mut line = Line::with(scratch);
        while let Some(length) = glance::good_line(&window[at..], self.lines.address_length(), &mut line) {
            self.lines.pass(1, length as u64);
            at += length;
            self.good(&line)?;
            line.clear();
        }
        let scratch = line.references;
        input.consume(at);
        Ok(scratch)
    }

    fn good(&mut self, line: &Line<'_>) -> Result<(), Error<T::Error>> {
        match self.state.write(line, None).map_err(Error::Target)? {
            true => self.repaired += u64::from(line.repaired),
            false => {
                self.lost += 1;
                self.lines.condemn("it has an address that cannot be");
            }
        }
        Ok(())
    }

    // Converts a line that the fast path did not accept, and returns its length. `None` asks for more input.
    fn slow_line(&mut self, window: &[u8], end: usize, all: bool) -> Result<Option<usize>, Error<T::Error>> {
        let mut line = Line::default();
        let data = &window[..end];
        let known = match loose::read(data, &mut line) {
            Ok(known) => known,
            // A file name with a newline goes on in the next lines.
            Err(loose::Bad::Cut { key: crate::lines::key::FILE, .. }) => match self.joined(window, end)? {
                Some(taken) => return Ok(Some(taken)),
                None if !all && window.len() - end < input::JOIN => return Ok(None),
                None => {
                    self.damaged(data);
                    return Ok(Some(end));
                }
            },
            Err(_) => {
                self.damaged(data);
                return Ok(Some(end));
            }
        };
        let newlines = memchr::memchr_iter(b'\n', data).count();
        if line.repaired && known {
            self.lines.pass(newlines as u64, end as u64);
            self.good(&line)?;
        } else if self.lines.check(data).is_ok() {
            self.good(&line)?;
        } else {
            self.lost += 1;
        }
        Ok(Some(end))
    }

    // Tries to read a line together with the lines that follow it.
    fn joined(&mut self, window: &[u8], end: usize) -> Result<Option<usize>, Error<T::Error>> {
        let mut end = end;
        for _ in 0..input::JOINED_LINES {
            let Some(more) = input::line_end(&window[end..(end + input::JOIN).min(window.len())]) else { break };
            end += more;
            let mut line = Line::default();
            if loose::read(&window[..end], &mut line) == Ok(true) && line.repaired {
                let newlines = memchr::memchr_iter(b'\n', &window[..end]).count();
                self.lines.pass(newlines as u64, end as u64);
                self.good(&line)?;
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    fn damaged(&mut self, data: &[u8]) {
        self.lost += 1;
        if self.lines.check(data).is_ok() {
            self.lines.condemn("it cannot be understood");
        }
    }

    fn finish(mut self, bytes: u64) -> Result<(Summary, T), Error<T::Error>> {
        self.state.stats().map_err(Error::Target)?;
        let damage = self.lines.finish();
        Ok((Summary { lost: self.lost, repaired: self.repaired, damage, bytes }, self.state.target))
    }
}

/// The middle of a long line.
#[derive(Clone, Copy, Debug, Default)]
struct Streamed {
    /// Its references have been written already.
    edges: bool,
    /// The hash of its value, and its length.
    value: Option<(u64, u64)>,
}

impl<T: Target> State<T> {
    // Writes a line. Returns false if it has an impossible address.
    fn write(&mut self, line: &Line<'_>, streamed: Option<Streamed>) -> Result<bool, T::Error> {
        if line.bits & self.misaligned != 0 {
            return Ok(false);
        }
        match line.kind {
            Kind::Missing => return Ok(false),
            Kind::Shape => {
                self.shapes.0 += 1;
                self.shapes.1 += line.memsize;
            }
            Kind::Root => {
                let category = self.names.text(&mut self.target, line.root)?;
                for &target in &line.references {
                    let edge = Edge { target, label: NameId::NONE };
                    self.target.root(&Root { category, edge })?;
                }
            }
            Kind::Object(Type::NONE) => {
                let slot_size = self.slot_size(line);
                self.target.free(&FreeSlots { address: line.address, slot_size, count: 1 })?;
            }
            Kind::Object(kind) => return self.object(kind, line, streamed.unwrap_or_default()),
        }
        Ok(true)
    }

    fn slot_size(&self, line: &Line<'_>) -> u32 {
        line.slot_size.map_or(self.slot_size, |size| u32::try_from(size).unwrap_or(0))
    }

    fn object(&mut self, kind: Type, line: &Line<'_>, streamed: Streamed) -> Result<bool, T::Error> {
        let internal = matches!(kind, Type::IMEMO | Type::NODE);
        let class = if internal { 0 } else { line.class };
        if class & self.misaligned != 0 {
            return Ok(false);
        }
        let mut object = Object {
            address: line.address,
            kind,
            class,
            size: line.memsize,
            slot_size: self.slot_size(line),
            flags: line.flags,
            length: line.length,
            ..Object::default()
        };
        match kind {
            Type::STRING => {
                object.encoding = self.names.encoding(&mut self.target, line.encoding)?;
                (object.length, object.hash) = self.string(line, streamed);
            }
            Type::CLASS | Type::MODULE | Type::ICLASS => {
                object.name = self.names.class(&mut self.target, line.name, &mut self.scratch)?;
            }
            _ => object.name = self.names.text(&mut self.target, line.subtype)?,
        }
        if let Some(generation) = line.generation {
            object.generation = generation;
            object.site = self.names.site(&mut self.target, line, &mut self.scratch)?;
        }
        if line.repaired {
            object.flags = object.flags.with(Flags::REPAIRED);
        }
        self.target.object(&object)?;
        if streamed.edges {
            return Ok(true);
        }
        // For some internal objects the place of the class holds a reference, which `dump_all` shows as their class up to 3.1.
        if kind == Type::IMEMO
            && line.class > 0x40
            && line.class & self.misaligned == 0
            && matches!(line.subtype, b"iseq" | b"env" | b"cref" | b"svar" | b"ment" | b"constcache")
        {
            self.target.edge(Edge { target: line.class, label: NameId::NONE })?;
        }
        if line.superclass | line.default == 0 {
            for &target in &line.references {
                self.target.edge(Edge { target, label: NameId::NONE })?;
            }
            return Ok(true);
        }
        let (mut superclass, mut default) = (line.superclass, line.default);
        for &target in &line.references {
            let place = match target {
                _ if target == superclass => Some((&mut superclass, &b"superclass"[..])),
                _ if target == default => Some((&mut default, &b"default"[..])),
                _ => None,
            };
            let label = match place {
                // The first reference is the one with the name.
                Some((address, name)) => {
                    *address = 1;
                    self.names.internal(&mut self.target, name)?
                }
                None => NameId::NONE,
            };
            self.target.edge(Edge { target, label })?;
        }
        Ok(true)
    }

    fn string(&mut self, line: &Line<'_>, streamed: Streamed) -> (Option<u64>, Option<u64>) {
        if let Some((hash, length)) = streamed.value {
            return (Some(length), Some(hash));
        }
        let Some((raw, length)) = line.value.filter(|(raw, _)| !raw.is_empty()) else { return (line.bytesize, None) };
        let mut hasher = self.hash_key.build_hasher();
        if raw.len() == length {
            hasher.write(raw);
        } else {
            loose::unescape(raw, &mut self.scratch);
            hasher.write(&self.scratch);
        }
        (line.bytesize, Some(hasher.finish()))
    }

    fn stats(&mut self) -> Result<(), T::Error> {
        if self.shapes.0 == 0 {
            return Ok(());
        }
        let count = self.names.text(&mut self.target, b"dump_all.shapes")?;
        let bytes = self.names.text(&mut self.target, b"dump_all.shapes_memsize")?;
        self.target.stats(&[(count, self.shapes.0), (bytes, self.shapes.1)])
    }
}

/// Converts a heap dump into the bytes of a graph.
pub fn to_graph<W: std::io::Write>(
    read: impl Read,
    write: W,
    options: &Options,
) -> Result<(Summary, Trailer, W), Error<std::io::Error>> {
    let converter = Converter::new(read).map_err(Error::Read)?;
    let mut memory = crate::OwnedMemory::new();
    let writer = crate::Writer::new(memory.lend(), write, &converter.header(options)).map_err(Error::Target)?;
    let (summary, writer) = converter.run(writer, options)?;
    let complete = summary.damage.is_none();
    let (trailer, write) = writer.finish(complete, summary.lost, summary.repaired).map_err(Error::Target)?;
    Ok((summary, trailer, write))
}
