//! The names and allocation sites that were written, so that each is written once.

use std::collections::HashMap;

use super::line::Line;
use super::loose;
use super::target::Target;
use crate::class_name;
use crate::record::{NameId, NameKind, Site, SiteId};

/// The maximum size of all remembered names, bytes. Then all are forgotten, and written again where they occur again.
const MAX_BYTES: usize = 2 << 20;

/// The maximum number of remembered names, and of sites.
const MAX: usize = 1 << 15;

#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<Box<[u8]>, NameId>,
    bytes: usize,
    sites: HashMap<Site, SiteId>,
    internal: [NameId; 2],
    last_encoding: (Box<[u8]>, NameId),
    last_file: (Box<[u8]>, NameId),
}

impl Names {
    /// Returns the id of a text as it is.
    pub fn text<T: Target>(&mut self, target: &mut T, text: &[u8]) -> Result<NameId, T::Error> {
        if text.is_empty() {
            return Ok(NameId::NONE);
        }
        if let Some(id) = self.known.get(text) {
            return Ok(*id);
        }
        let id = target.name(NameKind::Text, text)?;
        if self.known.len() >= MAX || self.bytes >= MAX_BYTES {
            self.known.clear();
            self.bytes = 0;
        }
        // A name is cut by the writer anyway.
        if text.len() <= crate::block::MAX_NAME {
            self.known.insert(text.into(), id);
            self.bytes += text.len();
        }
        Ok(id)
    }

    // Returns the id of a text that may have escapes.
    fn escaped<T: Target>(&mut self, target: &mut T, raw: &[u8], scratch: &mut Vec<u8>) -> Result<NameId, T::Error> {
        if !raw.contains(&b'\\') {
            return self.text(target, raw);
        }
        loose::unescape(raw, scratch);
        self.text(target, scratch)
    }

    /// Returns the id of an encoding. Mostly it is the same as before.
    #[inline]
    pub fn encoding<T: Target>(&mut self, target: &mut T, text: &[u8]) -> Result<NameId, T::Error> {
        if *self.last_encoding.0 != *text {
            self.last_encoding = (text.into(), self.text(target, text)?);
        }
        Ok(self.last_encoding.1)
    }

    /// Adds the name of a class, if it comes from code. Few classes share one, so it is not remembered.
    pub fn class<T: Target>(&mut self, target: &mut T, raw: &[u8], scratch: &mut Vec<u8>) -> Result<NameId, T::Error> {
        if raw.is_empty() {
            return Ok(NameId::NONE);
        }
        loose::unescape(raw, scratch);
        if !class_name::is_from_code(scratch) {
            return Ok(NameId::NONE);
        }
        target.name(NameKind::Text, scratch)
    }

    /// Returns the id of an edge that Ruby makes.
    pub fn internal<T: Target>(&mut self, target: &mut T, name: &[u8]) -> Result<NameId, T::Error> {
        let place = &mut self.internal[usize::from(name == b"default")];
        if *place == NameId::NONE {
            *place = target.name(NameKind::Internal, name)?;
        }
        Ok(*place)
    }

    /// Returns the id of a line's allocation site.
    pub fn site<T: Target>(
        &mut self,
        target: &mut T,
        line: &Line<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<SiteId, T::Error> {
        if *self.last_file.0 != *line.file {
            self.last_file = (line.file.into(), self.text(target, line.file)?);
        }
        let file = self.last_file.1;
        let method = self.escaped(target, line.method, scratch)?;
        let site = Site { file, line: u32::try_from(line.line).unwrap_or(0), method, class: NameId::NONE };
        if let Some(id) = self.sites.get(&site) {
            return Ok(*id);
        }
        let id = target.site(&site)?;
        if self.sites.len() >= MAX {
            self.sites.clear();
        }
        self.sites.insert(site, id);
        Ok(id)
    }
}
