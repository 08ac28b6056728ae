//! The contents of `reports/`, which is authoritative.

use std::ffi::OsString;

use crate::Store;
use crate::error::Result;
use crate::id::Id;
use diagctl_fs as fs;

/// The captures in `reports/`, and everything else there.
#[derive(Debug, Default)]
pub struct Present {
    /// The directories with the name of a capture, in the order of their ids, each with an optional number.
    pub(super) captures: Vec<(Id, Option<usize>)>,
    /// Everything else, for example symbolic links. None of it is ours.
    pub strange: Vec<OsString>,
}

impl Present {
    /// Reads the directory.
    pub fn list(store: &Store) -> Result<Self> {
        let mut present = Self::default();
        let listing = match fs::list(&store.path("reports")) {
            Err(e) if e.is_not_found() => return Ok(present),
            other => other?,
        };
        for entry in listing {
            let entry = entry?;
            match entry.name.to_str().and_then(Id::parse).filter(|_| entry.kind.is_dir()) {
                Some(id) => present.captures.push((id, None)),
                None => present.strange.push(entry.name),
            }
        }
        present.captures.sort_unstable();
        Ok(present)
    }

    /// The number of a capture, if the capture is present.
    pub fn number(&mut self, id: Id) -> Option<&mut Option<usize>> {
        let at = self.captures.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.captures.get_mut(at).map(|(_, number)| number)
    }

    /// Removes all numbers.
    pub fn forget_numbers(&mut self) {
        self.captures.iter_mut().for_each(|(_, number)| *number = None);
    }

    /// Returns the ids of all captures in order.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = Id> + '_ {
        self.captures.iter().map(|(id, _)| *id)
    }

    /// Returns the captures without a number.
    pub fn unknown(&self) -> impl Iterator<Item = Id> + '_ {
        self.captures.iter().filter(|(_, number)| number.is_none()).map(|(id, _)| *id)
    }
}
