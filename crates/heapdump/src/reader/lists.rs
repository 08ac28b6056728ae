//! The blocks that are lists.

use super::numbers::{Numbers, Why};
use crate::block;
use crate::record::{Edge, FreeSlots, NameId, NameKind, Page, Root, Site, SiteId};

/// Entries of the name table.
#[derive(Clone, Copy, Debug)]
pub struct NamesBlock<'r> {
    first: u32,
    bytes: &'r [u8],
}

impl<'r> NamesBlock<'r> {
    /// The id of the first entry.
    pub fn first(&self) -> NameId {
        NameId(self.first)
    }

    /// The entries. Names may be any bytes, also such that are not UTF-8.
    pub fn iter(&self) -> impl Iterator<Item = (NameId, NameKind, &'r [u8])> + use<'r> {
        let mut rest = Numbers::new(self.bytes);
        (self.first..).map_while(move |id| {
            let (kind, text) = name(&mut rest).ok()?;
            Some((NameId(id), kind, text))
        })
    }
}

/// Entries of the site table.
#[derive(Clone, Copy, Debug)]
pub struct SitesBlock<'r> {
    /// The id of the first entry.
    pub first: SiteId,
    /// The entries.
    pub sites: &'r [Site],
}

/// Decoded lists. They are kept for their memory.
#[derive(Debug, Default)]
pub(super) struct Lists {
    first_name: u32,
    names_at: usize,
    pub name_count: u64,
    first_site: u32,
    sites: Vec<Site>,
    pub roots: Vec<Root>,
    pub free: Vec<FreeSlots>,
    pub pages: Vec<Page>,
    pub stats: Vec<(NameId, u64)>,
}

fn name<'a>(rest: &mut Numbers<'a>) -> Result<(NameKind, &'a [u8]), Why> {
    let kind = NameKind::from(rest.byte()?);
    let len = rest.next()?;
    if len > block::MAX_NAME as u64 {
        return Err("a name is too long");
    }
    Ok((kind, rest.slice(len)?))
}

impl Lists {
    /// `most` is the highest id that the bytes read so far have room for. A false one would make a table of its size.
    pub fn names(&mut self, payload: &[u8], most: u64) -> Result<(), Why> {
        let mut rest = Numbers::new(payload);
        self.first_name = rest.small()?;
        self.names_at = payload.len() - rest.len();
        self.name_count = 0;
        while !rest.is_empty() {
            name(&mut rest)?;
            self.name_count += 1;
        }
        let last = u64::from(self.first_name) + self.name_count;
        if self.first_name == 0 || last > most.min(u64::from(u32::MAX)) {
            Err("a name has an impossible id")
        } else {
            Ok(())
        }
    }

    pub fn names_block<'r>(&self, payload: &'r [u8]) -> NamesBlock<'r> {
        NamesBlock { first: self.first_name, bytes: payload.get(self.names_at..).unwrap_or_default() }
    }

    pub fn classes(&mut self, payload: &[u8], shift: u8, all: &mut Vec<u64>, limit: usize) -> Result<(), Why> {
        let mut rest = Numbers::new(payload);
        let first = usize::try_from(rest.small()?).unwrap_or(usize::MAX);
        if first == 0 || first <= all.len() || first > limit {
            return Err("a class has an impossible id");
        }
        // Entries of a block that was lost.
        all.resize(first - 1, 0);
        let mut units = 0u64;
        while !rest.is_empty() {
            units = units.wrapping_add_signed(rest.signed()?);
            if all.len() >= limit {
                return Err("it has too many classes");
            }
            all.push(units << shift);
        }
        Ok(())
    }

    /// `most` is as for names.
    pub fn sites(&mut self, payload: &[u8], most: u64) -> Result<(), Why> {
        let mut rest = Numbers::new(payload);
        self.first_site = rest.small()?;
        self.sites.clear();
        while !rest.is_empty() {
            let (file, line) = (NameId(rest.small()?), rest.small()?);
            self.sites.push(Site { file, line, method: NameId(rest.small()?), class: NameId(rest.small()?) });
        }
        let last = u64::from(self.first_site) + self.sites.len() as u64;
        if self.first_site == 0 || last > most.min(u64::from(u32::MAX)) {
            Err("a site has an impossible id")
        } else {
            Ok(())
        }
    }

    pub fn sites_block(&self) -> SitesBlock<'_> {
        SitesBlock { first: SiteId(self.first_site), sites: &self.sites }
    }

    pub fn roots(&mut self, payload: &[u8], shift: u8) -> Result<(), Why> {
        let mut rest = Numbers::new(payload);
        self.roots.clear();
        let mut units = 0u64;
        while !rest.is_empty() {
            let (category, label) = (NameId(rest.small()?), NameId(rest.small()?));
            units = units.wrapping_add_signed(rest.signed()?);
            self.roots.push(Root { category, edge: Edge { target: units << shift, label } });
        }
        Ok(())
    }

    pub fn free(&mut self, payload: &[u8], shift: u8) -> Result<(), Why> {
        let mut rest = Numbers::new(payload);
        self.free.clear();
        let mut units = 0u64;
        while !rest.is_empty() {
            units = units.wrapping_add_signed(rest.signed()?);
            self.free.push(FreeSlots { address: units << shift, slot_size: rest.small()?, count: rest.next()? });
        }
        Ok(())
    }

    pub fn pages(&mut self, payload: &[u8], shift: u8) -> Result<(), Why> {
        let mut rest = Numbers::new(payload);
        self.pages.clear();
        let mut units = 0u64;
        while !rest.is_empty() {
            units = units.wrapping_add_signed(rest.signed()?);
            let (slot_size, slots) = (rest.small()?, rest.small()?);
            self.pages.push(Page { address: units << shift, slot_size, slots, free: rest.small()? });
        }
        Ok(())
    }

    pub fn stats(&mut self, payload: &[u8]) -> Result<(), Why> {
        let mut rest = Numbers::new(payload);
        self.stats.clear();
        while !rest.is_empty() {
            self.stats.push((NameId(rest.small()?), rest.next()?));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_no_larger_than_the_bytes_before_it_allow() {
        // The id 2^28, then one empty name, or one site.
        let (name, site) = ([0x80, 0x80, 0x80, 0x80, 1, 0, 0], [0x80, 0x80, 0x80, 0x80, 1, 0, 0, 0, 0]);
        let mut lists = Lists::default();
        assert!(lists.names(&name, 1 << 20).is_err() && lists.sites(&site, 1 << 20).is_err());
        assert!(lists.names(&name, 1 << 29).is_ok() && lists.sites(&site, 1 << 29).is_ok());
    }
}
