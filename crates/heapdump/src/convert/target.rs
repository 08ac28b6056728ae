//! The destination of a conversion.

use crate::record::{Edge, FreeSlots, NameId, NameKind, Object, Root, Site, SiteId};
use crate::writer::{Sink, Writer};

/// Takes the parts of a graph in the order in which [`Writer`] takes them.
pub trait Target {
    /// The reason why something could not be taken.
    type Error;

    /// Adds a name and returns its id.
    fn name(&mut self, kind: NameKind, text: &[u8]) -> Result<NameId, Self::Error>;
    /// Adds an allocation site and returns its id.
    fn site(&mut self, site: &Site) -> Result<SiteId, Self::Error>;
    /// Begins an object.
    fn object(&mut self, object: &Object) -> Result<(), Self::Error>;
    /// Begins edges of an object that follows.
    fn edges_ahead(&mut self, address: u64) -> Result<(), Self::Error>;
    /// Adds an edge of the object that was begun last.
    fn edge(&mut self, edge: Edge) -> Result<(), Self::Error>;
    /// Adds an edge of a root.
    fn root(&mut self, root: &Root) -> Result<(), Self::Error>;
    /// Adds free slots.
    fn free(&mut self, slots: &FreeSlots) -> Result<(), Self::Error>;
    /// Adds numbers about the process.
    fn stats(&mut self, stats: &[(NameId, u64)]) -> Result<(), Self::Error>;
}

impl<S: Sink> Target for Writer<'_, S> {
    type Error = S::Error;

    fn name(&mut self, kind: NameKind, text: &[u8]) -> Result<NameId, S::Error> {
        self.name(kind, text)
    }

    fn site(&mut self, site: &Site) -> Result<SiteId, S::Error> {
        self.site(site)
    }

    #[inline]
    fn object(&mut self, object: &Object) -> Result<(), S::Error> {
        self.object(object)
    }

    fn edges_ahead(&mut self, address: u64) -> Result<(), S::Error> {
        self.edges_ahead(address)
    }

    #[inline]
    fn edge(&mut self, edge: Edge) -> Result<(), S::Error> {
        self.edge(edge)
    }

    fn root(&mut self, root: &Root) -> Result<(), S::Error> {
        self.root(root)
    }

    fn free(&mut self, slots: &FreeSlots) -> Result<(), S::Error> {
        self.free(slots)
    }

    fn stats(&mut self, stats: &[(NameId, u64)]) -> Result<(), S::Error> {
        self.stats(stats)
    }
}
