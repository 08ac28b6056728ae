//! A graph that is counted while it is written.

use super::Counter;
use crate::convert::Target;
use crate::record::{Edge, FreeSlots, NameId, NameKind, Object, Root, Site, SiteId};
use crate::writer::{Sink, Writer};

/// Writes a graph and counts its objects in one pass.
#[derive(Debug)]
pub struct Counted<'m, S> {
    /// The graph.
    pub writer: Writer<'m, S>,
    /// The counts.
    pub counter: Counter,
}

impl<S: Sink> Target for Counted<'_, S> {
    type Error = S::Error;

    // Both number names and sites from 1 on. The counter's tables are the smaller ones: beyond their end a name is empty.
    fn name(&mut self, kind: NameKind, text: &[u8]) -> Result<NameId, S::Error> {
        let id = self.writer.name(kind, text)?;
        let Ok(_) = self.counter.name(kind, text);
        Ok(id)
    }

    fn site(&mut self, site: &Site) -> Result<SiteId, S::Error> {
        let id = self.writer.site(site)?;
        let Ok(_) = self.counter.site(site);
        Ok(id)
    }

    #[inline]
    fn object(&mut self, object: &Object) -> Result<(), S::Error> {
        self.counter.count(object);
        self.writer.object(object)
    }

    fn edges_ahead(&mut self, address: u64) -> Result<(), S::Error> {
        self.writer.edges_ahead(address)
    }

    #[inline]
    fn edge(&mut self, edge: Edge) -> Result<(), S::Error> {
        self.writer.edge(edge)
    }

    fn root(&mut self, root: &Root) -> Result<(), S::Error> {
        self.writer.root(root)
    }

    fn free(&mut self, slots: &FreeSlots) -> Result<(), S::Error> {
        let Ok(()) = self.counter.free(slots);
        self.writer.free(slots)
    }

    fn stats(&mut self, stats: &[(NameId, u64)]) -> Result<(), S::Error> {
        self.writer.stats(stats)
    }
}
