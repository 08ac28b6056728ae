//! From a heap graph to JSON in the shape of `ObjectSpace.dump_all`, for the tools that read it. It has no values, because the graph
//! has none.

use std::fmt::Write as _;
use std::io::{BufRead, Read, Write};

use crate::convert::{self, Converter, Options, Target};
use crate::error::Error;
use crate::reader::{Batch, Block, Reader};
use crate::record::{Edge, Flags, FreeSlots, NameId, NameKind, Object, Root, Site, SiteId, Type};
use crate::spacing;
use crate::tables::{Names, Sites};

/// Bytes that are collected before they are written.
const CHUNK: usize = 64 << 10;

/// The reason why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The graph cannot be read.
    #[error(transparent)]
    Graph(#[from] Error),
    /// The JSON cannot be written.
    #[error("{0}")]
    Output(#[source] std::io::Error),
    /// No line of the input is an object.
    #[error("it has no line that ObjectSpace.dump_all writes for an object")]
    NoObjects,
}

/// The outcome of an export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Lines with an object.
    pub objects: u64,
    /// The damage to the graph, if it has any. What could be read of it was exported.
    pub damage: Option<String>,
}

/// Writes one line for each root category and object. Free slots are left out.
pub fn export(input: impl Read, out: impl Write) -> Result<Exported, ExportError> {
    let mut reader = Reader::new(input)?;
    let mut export = Export::new(out);
    let mut damage = None;
    loop {
        match reader.next_block() {
            Ok(None) => break,
            Ok(Some(block)) => export.block(&block)?,
            Err(Error::Io(error)) => return Err(Error::Io(error).into()),
            Err(error) => {
                let last = !error.is_recoverable();
                damage.get_or_insert(error.to_string());
                if last {
                    break;
                }
            }
        }
    }
    Ok(Exported { objects: export.finish()?, damage })
}

/// Does the same for what `ObjectSpace.dump_all` wrote, with any white space, and leaves its values out.
pub fn strip(input: impl BufRead, out: impl Write) -> Result<Exported, ExportError> {
    let input = spacing::of_ruby(input).map_err(Error::Io)?;
    let converter = Converter::new(input).map_err(Error::Io)?;
    let (summary, export) = converter.run(Export::new(out), &Options::default()).map_err(|error| match error {
        convert::Error::Read(error) => Error::Io(error).into(),
        convert::Error::Target(error) => error,
    })?;
    match export.finish()? {
        0 => Err(ExportError::NoObjects),
        objects => Ok(Exported { objects, damage: summary.damage }),
    }
}

#[derive(Debug, Default)]
struct Tables {
    names: Names,
    sites: Sites,
}

/// The line that is not ended yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Nothing,
    /// The edges of this object may go on in the next block. The number counts those so far.
    Object(u64, u64),
    /// The edges of this object were written, and its record follows.
    Ahead(u64, u64),
    /// Roots of this category.
    Roots(NameId),
}

struct Export<W> {
    out: W,
    text: String,
    open: Open,
    objects: u64,
    is_class: bool,
    /// The address of the superclass of the open line's class, or 0.
    superclass: u64,
    tables: Tables,
}

impl<W: Write> Export<W> {
    fn new(out: W) -> Self {
        let (text, tables) = (String::new(), Tables::default());
        Self { out, text, open: Open::Nothing, objects: 0, is_class: false, superclass: 0, tables }
    }

    // Ends the last line. Returns the number of objects.
    fn finish(mut self) -> Result<u64, ExportError> {
        self.close();
        self.flush()?;
        Ok(self.objects)
    }

    fn block(&mut self, block: &Block<'_>) -> Result<(), ExportError> {
        match block {
            Block::Names(names) => self.tables.names.add(names)?,
            Block::Sites(sites) => self.tables.sites.add(sites)?,
            Block::Roots(roots) => {
                for root in *roots {
                    self.root(root)?;
                }
            }
            Block::Objects(batch) => self.batch(batch)?,
            _ => {}
        }
        Ok(())
    }

    fn root(&mut self, root: &Root) -> Result<(), ExportError> {
        if self.open == Open::Roots(root.category) {
            self.text.push_str(", ");
        } else {
            self.close();
            self.text.push_str("{\"type\":\"ROOT\", \"root\":");
            quote(&mut self.text, self.tables.names.get(root.category).1);
            self.text.push_str(", \"references\":[");
            self.open = Open::Roots(root.category);
        }
        address(&mut self.text, root.edge.target);
        self.flush_if_full()
    }

    fn batch(&mut self, batch: &Batch) -> Result<(), ExportError> {
        if let Some((source, edges)) = batch.continued() {
            if !matches!(self.open, Open::Object(open, _) | Open::Ahead(open, _) if open == source) {
                self.ahead(source);
            }
            edges.iter().try_for_each(|edge| self.reference(*edge))?;
        }
        for (i, object) in batch.objects().enumerate() {
            // Edges that were written ahead are the only ones.
            self.begin(&object)?;
            batch.edges_of(i).iter().try_for_each(|edge| self.reference(*edge))?;
        }
        Ok(())
    }

    // Begins a line with the edges of an object whose record follows.
    fn ahead(&mut self, source: u64) {
        self.close();
        self.text.push_str("{\"address\":");
        address(&mut self.text, source);
        self.open = Open::Ahead(source, 0);
    }

    // Begins the line of an object, or goes on with that of its edges.
    fn begin(&mut self, object: &Object) -> Result<(), ExportError> {
        match self.open {
            Open::Ahead(open, count) if open == object.address => {
                self.text.push_str(if count > 0 { "], \"type\":" } else { ", \"type\":" });
                self.open = Open::Object(object.address, u64::MAX);
            }
            _ => {
                self.ahead(object.address);
                self.text.push_str(", \"type\":");
                self.open = Open::Object(object.address, 0);
            }
        }
        self.fields(object);
        self.is_class = matches!(object.kind, Type::CLASS | Type::MODULE | Type::ICLASS);
        self.objects += 1;
        self.flush_if_full()
    }

    // Appends a reference to the open line.
    fn reference(&mut self, edge: Edge) -> Result<(), ExportError> {
        let (Open::Object(_, count) | Open::Ahead(_, count)) = &mut self.open else { return Ok(()) };
        if *count == u64::MAX {
            return Ok(());
        }
        self.text.push_str(if *count == 0 { ", \"references\":[" } else { ", " });
        *count += 1;
        address(&mut self.text, edge.target);
        if edge.label != NameId::NONE && self.tables.names.get(edge.label) == (NameKind::Internal, b"superclass") {
            self.superclass = edge.target;
        }
        self.flush_if_full()
    }

    // Appends the type, and everything but the references.
    fn fields(&mut self, object: &Object) {
        let text = &mut self.text;
        let _ = write!(text, "\"{}\"", object.kind.name().unwrap_or("UNKNOWN"));
        if object.slot_size > 0 {
            let _ = write!(text, ", \"slot_size\":{}", object.slot_size);
        }
        if object.class > 0 {
            text.push_str(", \"class\":");
            address(text, object.class);
        }
        for (flag, key) in [
            (Flags::FROZEN, "frozen"),
            (Flags::EMBEDDED, "embedded"),
            (Flags::FSTRING, "fstring"),
            (Flags::CHILLED, "chilled"),
            (Flags::SHARED, "shared"),
            (Flags::BROKEN, "broken"),
            (Flags::TOO_COMPLEX_SHAPE, "too_complex_shape"),
        ] {
            if object.flags.has(flag) {
                let _ = write!(text, ", \"{key}\":true");
            }
        }
        self.own_fields(object);
        let text = &mut self.text;
        let site = self.tables.sites.get(object.site);
        for (key, name) in [("file", site.file), ("method", site.method)] {
            if name != NameId::NONE {
                let _ = write!(text, ", \"{key}\":");
                quote(text, self.tables.names.get(name).1);
            }
        }
        if object.site.0 > 0 {
            let _ = write!(text, ", \"line\":{}, \"generation\":{}", site.line, object.generation);
        }
        if object.size > 0 {
            let _ = write!(text, ", \"memsize\":{}", object.size);
        }
        let mut before = ", \"flags\":{";
        for (_, key) in Flags::GC.iter().filter(|(flag, _)| object.flags.has(*flag)) {
            let _ = write!(text, "{before}\"{key}\":true");
            before = ", ";
        }
        if before == ", " {
            text.push('}');
        }
    }

    // Appends what only objects of this type have.
    fn own_fields(&mut self, object: &Object) {
        let text = &mut self.text;
        let names = &self.tables.names;
        let length = match object.kind {
            Type::STRING => Some("bytesize"),
            Type::ARRAY => Some("length"),
            Type::HASH => Some("size"),
            _ => None,
        };
        if let (Some(key), Some(length)) = (length, object.length) {
            let _ = write!(text, ", \"{key}\":{length}");
        }
        let name = match object.kind {
            Type::STRING => Some(("encoding", object.encoding)),
            Type::CLASS | Type::MODULE | Type::ICLASS => Some(("name", object.name)),
            Type::DATA => Some(("struct", object.name)),
            Type::IMEMO => Some(("imemo_type", object.name)),
            Type::NODE => Some(("node_type", object.name)),
            _ => None,
        };
        if let Some((key, name)) = name.filter(|(_, name)| *name != NameId::NONE) {
            let _ = write!(text, ", \"{key}\":");
            quote(text, names.get(name).1);
        }
        if object.flags.has(Flags::SINGLETON) {
            text.push_str(", \"singleton\":true");
        }
    }

    // Ends the open line.
    fn close(&mut self) {
        let (list, ahead) = match self.open {
            Open::Nothing => return,
            Open::Object(_, 0 | u64::MAX) => (false, false),
            Open::Object(..) | Open::Roots(_) => (true, false),
            Open::Ahead(_, count) => (count > 0, true),
        };
        self.text.push_str(if list { "]" } else { "" });
        if ahead {
            // The record was lost.
            self.text.push_str(", \"type\":\"NONE\"");
        } else if self.superclass > 0 && self.is_class {
            self.text.push_str(", \"superclass\":");
            address(&mut self.text, self.superclass);
        }
        self.text.push_str("}\n");
        (self.open, self.superclass, self.is_class) = (Open::Nothing, 0, false);
    }

    fn flush_if_full(&mut self) -> Result<(), ExportError> {
        if self.text.len() > CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), ExportError> {
        self.out.write_all(self.text.as_bytes()).map_err(ExportError::Output)?;
        self.text.clear();
        Ok(())
    }
}

impl<W: Write> Target for Export<W> {
    type Error = ExportError;

    fn name(&mut self, kind: NameKind, text: &[u8]) -> Result<NameId, ExportError> {
        Ok(self.tables.names.push(kind, text)?)
    }

    fn site(&mut self, site: &Site) -> Result<SiteId, ExportError> {
        Ok(self.tables.sites.push(site)?)
    }

    fn object(&mut self, object: &Object) -> Result<(), ExportError> {
        self.begin(object)
    }

    fn edges_ahead(&mut self, address: u64) -> Result<(), ExportError> {
        self.ahead(address);
        Ok(())
    }

    fn edge(&mut self, edge: Edge) -> Result<(), ExportError> {
        self.reference(edge)
    }

    fn root(&mut self, root: &Root) -> Result<(), ExportError> {
        Self::root(self, root)
    }

    fn free(&mut self, _: &FreeSlots) -> Result<(), ExportError> {
        Ok(())
    }

    fn stats(&mut self, _: &[(NameId, u64)]) -> Result<(), ExportError> {
        Ok(())
    }
}

fn address(text: &mut String, address: u64) {
    let _ = write!(text, "\"{address:#x}\"");
}

/// Appends a name as a JSON string. What is not UTF-8 is replaced.
fn quote(text: &mut String, name: &[u8]) {
    text.push('"');
    for character in String::from_utf8_lossy(name).chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' => {
                let _ = write!(text, "\\u{:04x}", u32::from(character));
            }
            _ => text.push(character),
        }
    }
    text.push('"');
}
