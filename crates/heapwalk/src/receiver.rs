//! The receiver of a walk: the writer of a graph, or the proof.

use diagctl_heapdump::record::{Edge, FreeSlots, NameId, NameKind, Object, Page, Root, Site, SiteId};

/// Takes the objects and edges of a heap. An object is followed by its edges.
pub trait Receiver {
    /// Takes a new name.
    fn name(&mut self, kind: NameKind, text: &[u8]) -> NameId;
    /// Takes a new allocation site.
    fn site(&mut self, site: &Site) -> SiteId;
    /// Takes an object.
    fn object(&mut self, object: &Object);
    /// Takes an edge of the last object.
    fn edge(&mut self, edge: Edge);
    /// Takes a root.
    fn root(&mut self, root: &Root);
    /// Takes free slots.
    fn free(&mut self, slots: &FreeSlots);
    /// Takes a page, after its objects.
    fn page(&mut self, page: &Page);
    /// Returns true when there is no use in going on.
    fn stopped(&self) -> bool;
}
