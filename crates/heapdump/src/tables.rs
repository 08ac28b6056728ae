//! The name and site tables of a graph, collected.

use std::borrow::Cow;

use crate::checksum::xxh64;
use crate::error::Error;
use crate::reader::{NamesBlock, SitesBlock};
use crate::record::{NameId, NameKind, Site, SiteId};

/// The name table.
#[derive(Debug, Default)]
pub struct Names {
    text: Vec<u8>,
    entries: Vec<(NameKind, u32)>,
}

impl Names {
    /// The maximum size of all names, bytes.
    pub const MAX_BYTES: usize = 512 << 20;

    /// Adds the entries of a block. Entries of blocks that were lost stay empty.
    pub fn add(&mut self, block: &NamesBlock<'_>) -> Result<(), Error> {
        let first = block.first().0 as usize;
        if first > self.entries.len() {
            let lost = first - self.entries.len() - 1;
            self.check(8 * lost)?;
            self.entries.resize(first - 1, (NameKind::Text, self.end()));
        }
        for (id, kind, text) in block.iter() {
            self.check(text.len())?;
            if id.0 as usize != self.entries.len() + 1 {
                continue;
            }
            self.text.extend_from_slice(text);
            self.entries.push((kind, self.end()));
        }
        Ok(())
    }

    /// Adds a name and returns its id.
    pub fn push(&mut self, kind: NameKind, text: &[u8]) -> Result<NameId, Error> {
        self.check(text.len())?;
        self.text.extend_from_slice(text);
        self.entries.push((kind, self.end()));
        Ok(NameId(u32::try_from(self.entries.len()).unwrap_or(0)))
    }

    fn end(&self) -> u32 {
        u32::try_from(self.text.len()).unwrap_or(u32::MAX)
    }

    fn check(&self, more: usize) -> Result<(), Error> {
        let limit = Self::MAX_BYTES;
        if self.text.len() + 8 * self.entries.len() + more > limit {
            return Err(Error::TooMany { what: "bytes of names", limit });
        }
        Ok(())
    }

    /// Returns a name with its kind. Unknown ids have an empty name.
    pub fn get(&self, id: NameId) -> (NameKind, &[u8]) {
        let Some(index) = (id.0 as usize).checked_sub(1) else { return (NameKind::Text, b"") };
        let Some(&(kind, end)) = self.entries.get(index) else { return (NameKind::Text, b"") };
        let start = index.checked_sub(1).and_then(|before| self.entries.get(before)).map_or(0, |(_, end)| *end);
        (kind, self.text.get(start as usize..end as usize).unwrap_or_default())
    }

    /// Returns a name as text; what is not UTF-8 is replaced.
    pub fn text(&self, id: NameId) -> Cow<'_, str> {
        String::from_utf8_lossy(self.get(id).1)
    }

    /// The number of names.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if there are no names.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Bytes of a name that are shown in lists of groups.
pub(crate) const MAX_NAME: usize = 200;

/// Shortens a name that is too long for a list. Names that begin alike stay apart, and alike in every dump.
pub fn shortened(name: Cow<'_, str>) -> String {
    if name.len() <= MAX_NAME {
        return name.into_owned();
    }
    let beginning: String = name.chars().take(MAX_NAME / 4).collect();
    format!("{beginning}…{:08x}", xxh64(name.as_bytes(), 0) >> 32)
}

/// The site table.
#[derive(Debug, Default)]
pub struct Sites {
    entries: Vec<Site>,
}

impl Sites {
    /// The maximum number of sites.
    pub const MAX: usize = 1 << 24;

    /// Adds the entries of a block. Entries of blocks that were lost stay empty.
    pub fn add(&mut self, block: &SitesBlock<'_>) -> Result<(), Error> {
        let first = block.first.0 as usize;
        if first + block.sites.len() > Self::MAX {
            return Err(Error::TooMany { what: "allocation sites", limit: Self::MAX });
        }
        if first > self.entries.len() {
            self.entries.resize(first - 1, Site::default());
            self.entries.extend_from_slice(block.sites);
        }
        Ok(())
    }

    /// Adds a site and returns its id.
    pub fn push(&mut self, site: &Site) -> Result<SiteId, Error> {
        if self.entries.len() >= Self::MAX {
            return Err(Error::TooMany { what: "allocation sites", limit: Self::MAX });
        }
        self.entries.push(*site);
        Ok(SiteId(u32::try_from(self.entries.len()).unwrap_or(0)))
    }

    /// Returns a site. Unknown ids have an empty one.
    pub fn get(&self, id: SiteId) -> Site {
        (id.0 as usize).checked_sub(1).and_then(|index| self.entries.get(index)).copied().unwrap_or_default()
    }

    /// The number of sites.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if there are no sites.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
