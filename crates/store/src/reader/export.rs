//! Heap dumps in other forms than they are stored in.

use std::io::{self, BufRead, BufReader, Read, Write};

use diagctl_heapdump::json::{self, ExportError};
use diagctl_heapdump::{Error as GraphError, block};
use flate2::write::GzEncoder;

use crate::counted::Counted;

use super::{CHUNK, Interrupted, Representation, Stored};

/// The level of gzip for exports.
const GZIP_LEVEL: u32 = 2;

/// The result of an export.
#[derive(Debug)]
pub struct Exported {
    /// Bytes written.
    pub bytes: u64,
    /// The damage to the report, if it has any.
    pub damage: Option<String>,
}

impl Stored {
    /// Returns true if the report is a heap dump.
    pub fn is_heap_dump(&self) -> bool {
        self.report.name == *"heap_dump"
    }

    /// Returns the file name of [`Stored::export_json`].
    pub fn json_file_name(&self, form: Representation) -> &'static str {
        match form {
            Representation::Content => "heap_dump.json",
            Representation::Stored => "heap_dump.json.gz",
        }
    }

    /// Writes a heap dump as JSON without values, in the shape of `ObjectSpace.dump_all`: uncompressed, or with gzip.
    pub fn export_json(
        &mut self,
        form: Representation,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Exported, Interrupted> {
        let source = self.source(Representation::Content)?;
        let mut source = BufReader::with_capacity(CHUNK, Progress { source, bytes: 0, progress });
        let start = source.fill_buf().map_err(|e| self.unreadable(&e))?;
        let is_graph = start.starts_with(&block::MAGIC);
        let mut out = Counted::new(out);
        let result = match form {
            Representation::Content => export(&mut source, is_graph, &mut out),
            Representation::Stored => {
                let mut encoder = GzEncoder::new(&mut out, flate2::Compression::new(GZIP_LEVEL));
                export(&mut source, is_graph, &mut encoder)
                    .and_then(|told| encoder.finish().map(|_| told).map_err(ExportError::Output))
            }
        };
        let exported = result.map(|damage| Exported { bytes: out.bytes, damage });
        exported.map_err(|error| match error {
            ExportError::Output(error) => Interrupted::Output(error),
            ExportError::Graph(GraphError::Io(error)) => self.unreadable(&error),
            error => Interrupted::Source(self.damaged(&error.to_string())),
        })
    }

    fn unreadable(&self, error: &io::Error) -> Interrupted {
        Interrupted::Source(self.damaged(&format!("it cannot be decompressed: {error}")))
    }
}

fn export(source: &mut (dyn BufRead + '_), is_graph: bool, out: &mut dyn Write) -> Result<Option<String>, ExportError> {
    let told = if is_graph { json::export(source, out) } else { json::strip(source, out) };
    told.map(|told| told.damage)
}

/// Reports how much was read.
struct Progress<'a, R> {
    source: R,
    bytes: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Progress<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buffer)?;
        self.bytes += n as u64;
        (self.progress)(self.bytes);
        Ok(n)
    }
}
