//! The graph that a walk writes.

use core::convert::Infallible;

use diagctl_heapdump::record::{Edge, FreeSlots, NameId, NameKind, Object, Page, Root, Site, SiteId, Trailer};
use diagctl_heapdump::writer::{Sink, Writer};

use crate::output::Output;
use crate::receiver::Receiver;

/// `GC.stat` has about forty numbers.
const MOST_STATS: usize = 128;

/// The pipe as the writer sees it. A failed write shows in [`Output::error`].
#[derive(Debug)]
pub struct Pipe<'a>(pub &'a Output<'a>);

impl Sink for Pipe<'_> {
    type Error = Infallible;

    fn write(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0.write(bytes);
        Ok(())
    }
}

/// Passes all that it receives to the writer of a graph.
#[derive(Debug)]
pub struct Graph<'a> {
    writer: Writer<'a, Pipe<'a>>,
    output: &'a Output<'a>,
}

impl<'a> Graph<'a> {
    /// A graph of which the header is written.
    pub fn new(writer: Writer<'a, Pipe<'a>>, output: &'a Output<'a>) -> Self {
        Self { writer, output }
    }

    /// Adds numbers about the process. More than there is room for are left out.
    pub fn stats<'t>(&mut self, stats: impl Iterator<Item = (&'t [u8], u64)>) {
        let mut named = [(NameId::NONE, 0); MOST_STATS];
        let mut count = 0;
        for (place, (name, value)) in named.iter_mut().zip(stats) {
            *place = (self.name(NameKind::Text, name), value);
            count += 1;
        }
        let Ok(()) = self.writer.stats(&named[..count]);
    }

    /// Writes the trailer.
    pub fn finish(self) -> Trailer {
        let complete = self.output.error().is_none();
        let Ok((totals, _)) = self.writer.finish(complete, 0, 0);
        totals
    }
}

impl Receiver for Graph<'_> {
    fn name(&mut self, kind: NameKind, text: &[u8]) -> NameId {
        let Ok(id) = self.writer.name(kind, text);
        id
    }

    fn site(&mut self, site: &Site) -> SiteId {
        let Ok(id) = self.writer.site(site);
        id
    }

    #[inline]
    fn object(&mut self, object: &Object) {
        let Ok(()) = self.writer.object(object);
    }

    #[inline]
    fn edge(&mut self, edge: Edge) {
        let Ok(()) = self.writer.edge(edge);
    }

    fn root(&mut self, root: &Root) {
        let Ok(()) = self.writer.root(root);
    }

    #[inline]
    fn free(&mut self, slots: &FreeSlots) {
        let Ok(()) = self.writer.free(slots);
    }

    fn page(&mut self, page: &Page) {
        let Ok(()) = self.writer.page(page);
    }

    fn stopped(&self) -> bool {
        self.output.error().is_some()
    }
}
