//! Stores a heap dump as a heap graph: converts what `ObjectSpace.dump_all` writes, and passes on what is a graph already. Or
//! summarizes either.

use std::io::{self, Cursor, Read, Write};

use diagctl_heapdump::convert::{Converter, Error as ConvertError, Options};
use diagctl_heapdump::reader::{self, Block, Reader};
use diagctl_heapdump::record::Producer;
use diagctl_heapdump::summary::{self, Counted as CountedGraph, Counter, Summary};
use diagctl_heapdump::{OwnedMemory, Writer, block};

use crate::counted::Counted;

/// The number of classes that a check of a graph remembers. With more of them, the check ends, not the storing.
const MAX_CLASSES: usize = 1 << 18;

/// Facts about a heap graph that was stored.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// `walker` or `dump_all`.
    pub producer: &'static str,
    /// Size of the graph, bytes.
    pub bytes: u64,
    /// Bytes that the producer wrote.
    pub input_bytes: u64,
    /// Records of the producer that are missing.
    pub lost: u64,
    /// Records that were damaged, and repaired.
    pub repaired: u64,
    /// The damage.
    pub error: Option<String>,
    /// The objects, counted in the same pass, unless a block of the graph cannot be read.
    pub summary: Option<Summary>,
}

/// The reason why a heap dump was not stored.
#[derive(Debug)]
pub(super) enum Failure {
    /// The producer cannot be read.
    Input(io::Error),
    /// The graph cannot be written.
    Output(io::Error),
}

/// Writes the graph of a heap dump to `out`.
pub(super) fn store(data: &mut dyn Read, ruby: &str, out: &mut dyn Write) -> Result<Stored, Failure> {
    let start = begin(data).map_err(Failure::Input)?;
    let is_graph = *start == block::MAGIC;
    let data = Cursor::new(start).chain(data);
    if is_graph { pass(data, out) } else { convert(data, ruby, out) }
}

/// A heap dump that was summarized.
#[derive(Debug)]
pub(super) struct Summarized {
    /// The summary of what could be read.
    pub summary: Summary,
    /// Bytes that the producer wrote.
    pub input_bytes: u64,
    /// The damage.
    pub error: Option<String>,
}

/// Summarizes a heap dump. Fails if it cannot be read to its end.
pub(super) fn summarize(data: &mut dyn Read, ruby: &str) -> io::Result<Summarized> {
    let mut counted = Counted::new(data);
    let start = begin(&mut counted)?;
    let is_graph = *start == block::MAGIC;
    let data = Cursor::new(start).chain(&mut counted);
    let (summary, error) = if is_graph { summarize_graph(data)? } else { summarize_json(data, ruby)? };
    // The producer must be able to write everything.
    io::copy(&mut counted, &mut io::sink())?;
    Ok(Summarized { summary, input_bytes: counted.bytes, error })
}

fn summarize_graph(data: impl Read) -> io::Result<(Summary, Option<String>)> {
    match summary::of_graph(data) {
        Ok((summary, None)) => Ok((summary, None)),
        Ok((_, Some(diagctl_heapdump::Error::Io(error)))) | Err(diagctl_heapdump::Error::Io(error)) => Err(error),
        Ok((summary, Some(damage))) => Ok((summary, Some(damage.to_string()))),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
    }
}

fn summarize_json(data: impl Read, ruby: &str) -> io::Result<(Summary, Option<String>)> {
    let converted = Converter::new(data)?.run(Counter::default(), &Options::default());
    let (told, counter) = converted.map_err(|error| match error {
        ConvertError::Read(error) => error,
        ConvertError::Target(never) => match never {},
    })?;
    Ok((counter.finish(Producer::DumpAll, ruby, told.damage.is_none()), told.damage))
}

// Reads as many bytes as tell a graph from JSON.
fn begin(data: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut start = vec![0; block::MAGIC.len()];
    let mut len = 0;
    while let Some(rest) = start.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match data.read(rest) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    start.truncate(len);
    Ok(start)
}

fn convert(data: impl Read, ruby: &str, out: &mut dyn Write) -> Result<Stored, Failure> {
    let options = Options { ruby: ruby.to_owned(), ..Options::default() };
    let converter = Converter::new(data).map_err(Failure::Input)?;
    let mut memory = OwnedMemory::new();
    let mut counted = Counted::new(out);
    let writer = Writer::new(memory.lend(), &mut counted, &converter.header(&options)).map_err(Failure::Output)?;
    let target = CountedGraph { writer, counter: Counter::default() };
    let (told, target) = converter.run(target, &options).map_err(|error| match error {
        ConvertError::Read(error) => Failure::Input(error),
        ConvertError::Target(error) => Failure::Output(error),
    })?;
    let CountedGraph { writer, counter } = target;
    writer.finish(told.damage.is_none(), told.lost, told.repaired).map_err(Failure::Output)?;
    Ok(Stored {
        producer: "dump_all",
        bytes: counted.bytes,
        input_bytes: told.bytes,
        lost: told.lost,
        repaired: told.repaired,
        summary: Some(counter.finish(Producer::DumpAll, ruby, told.damage.is_none())),
        error: told.damage,
    })
}

fn pass(data: impl Read, out: &mut dyn Write) -> Result<Stored, Failure> {
    let mut tee = Tee { data, out: Counted::new(out), failure: None };
    let mut stored = Stored { producer: "walker", ..Stored::default() };
    stored.error = check(&mut tee, &mut stored).err().map(|error| error.to_string());
    // A graph that is damaged is stored in full nevertheless.
    let mut chunk = vec![0; super::CHUNK];
    while tee.failure.is_none() && !matches!(tee.read(&mut chunk), Ok(0)) {}
    stored.bytes = tee.out.bytes;
    stored.input_bytes = tee.out.bytes;
    tee.failure.map_or(Ok(stored), Err)
}

// Reads a graph to its end, and returns the first damage. Decodes what the summary needs; the checksums tell of damage elsewhere.
fn check(data: impl Read, stored: &mut Stored) -> Result<(), diagctl_heapdump::Error> {
    let options = reader::Options { max_classes: MAX_CLASSES, ..summary::OPTIONS };
    let mut reader = Reader::with_options(data, options)?;
    let (mut counter, mut complete) = (Some(Counter::default()), false);
    while let Some(block) = reader.next_block()? {
        if let Block::Trailer(trailer) = &block {
            complete = trailer.complete;
            (stored.lost, stored.repaired) = (trailer.lost, trailer.repaired);
        }
        // A graph that is too large to be counted is whole nevertheless.
        counter = counter.and_then(|mut counter| counter.block(&block).is_ok().then_some(counter));
    }
    let about = reader.about();
    stored.summary = counter.map(|counter| counter.finish(about.producer, &about.ruby, complete));
    if complete { Ok(()) } else { Err(diagctl_heapdump::Error::Incomplete) }
}

/// Writes what is read from it.
struct Tee<'o, R> {
    data: R,
    out: Counted<&'o mut dyn Write>,
    failure: Option<Failure>,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.data.read(buffer).inspect_err(|e| {
            if e.kind() != io::ErrorKind::Interrupted {
                self.failure = Some(Failure::Input(copy(e)));
            }
        })?;
        if let Err(e) = self.out.write_all(buffer.get(..n).unwrap_or_default()) {
            let told = copy(&e);
            self.failure = Some(Failure::Output(e));
            return Err(told);
        }
        Ok(n)
    }
}

fn copy(error: &io::Error) -> io::Error {
    super::copy(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = concat!(
        "{\"type\":\"ROOT\", \"root\":\"vm\", \"references\":[\"0x7fc4927c4120\"]}\n",
        "{\"address\":\"0x7fc4927c4120\", \"type\":\"STRING\", \"bytesize\":6, \"value\":\"secret\", \"memsize\":40}\n",
    );

    fn stored(data: &[u8]) -> (Stored, Vec<u8>) {
        let mut out = Vec::new();
        (store(&mut &*data, "3.4.1", &mut out).unwrap(), out)
    }

    #[test]
    fn a_dump_becomes_a_graph_and_a_graph_stays_as_it_is() {
        let (told, graph) = stored(DUMP.as_bytes());
        assert_eq!((told.producer, told.input_bytes, told.error), ("dump_all", DUMP.len() as u64, None));
        assert_eq!(told.bytes, graph.len() as u64);
        assert!(!graph.windows(6).any(|bytes| bytes == b"secret"));
        let (told, again) = stored(&graph);
        assert_eq!((told.producer, told.bytes, told.error), ("walker", graph.len() as u64, None));
        assert!(graph == again);
    }

    #[test]
    fn the_objects_are_counted_in_the_same_pass_as_a_summary_of_its_own_does() {
        let (of_dump, graph) = stored(DUMP.as_bytes());
        let (of_graph, _) = stored(&graph);
        let alone = summarize(&mut &graph[..], "").unwrap().summary;
        assert_eq!((of_dump.summary.as_ref(), of_graph.summary.as_ref()), (Some(&alone), Some(&alone)));
        assert_eq!(alone.objects.count, 1);
        let (cut, _) = stored(&graph[..graph.len() - 9]);
        assert_eq!(cut.summary, None);
    }

    #[test]
    fn damage_to_a_graph_is_told_and_all_of_it_is_stored() {
        let (_, graph) = stored(DUMP.as_bytes());
        let cut = &graph[..graph.len() - 9];
        let (told, out) = stored(cut);
        assert!(told.error.unwrap().contains("cut off"));
        assert!(out == cut);
        let mut flipped = graph.clone();
        flipped[70] ^= 1;
        let (told, out) = stored(&flipped);
        assert!(told.error.is_some());
        assert!(out == flipped);
    }

    #[test]
    fn a_dump_and_its_graph_have_the_same_summary_and_nothing_else_is_left_of_them() {
        let (_, graph) = stored(DUMP.as_bytes());
        let of_dump = summarize(&mut DUMP.as_bytes(), "3.4.1").unwrap();
        let of_graph = summarize(&mut &graph[..], "").unwrap();
        assert_eq!((of_dump.input_bytes, of_graph.input_bytes), (DUMP.len() as u64, graph.len() as u64));
        assert_eq!((of_dump.summary.producer.as_str(), of_dump.error), ("dump_all", None));
        assert_eq!(of_graph.summary, of_dump.summary);
        let cut = summarize(&mut &graph[..graph.len() - 9], "").unwrap();
        assert!(cut.error.unwrap().contains("cut off") && !cut.summary.complete);
        assert_eq!(summarize(&mut &b""[..], "").unwrap().input_bytes, 0);
    }

    #[test]
    fn damaged_lines_are_counted() {
        let (told, _) = stored(format!("{DUMP}{{\"addr\n").as_bytes());
        assert_eq!(told.lost, 1);
        assert!(told.error.unwrap().starts_with("line 3 (byte "));
    }

    #[test]
    fn a_sink_that_fails_is_an_output_failure() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::other("full"))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (_, graph) = stored(DUMP.as_bytes());
        for data in [DUMP.as_bytes(), &graph] {
            assert!(matches!(store(&mut &*data, "", &mut Full), Err(Failure::Output(e)) if e.to_string() == "full"));
        }
    }
}
