//! The captures of a listing, from the store or from the remote.

use super::{Args, FEW, Sort};
use crate::cli::{Context, Failure, output, remote, times};
use diagctl_store::index::{Entry, Listing};
use diagctl_store::{Id, Store};

/// The captures, each with a number.
pub(super) enum Captures<'a> {
    /// Those of the store, read one by one.
    Store(Listing<'a>),
    /// Those in the remote, newest first.
    Remote(Vec<Entry>),
}

impl<'a> Captures<'a> {
    /// Lists the store: only the newest if no more can be wanted.
    pub(super) fn of_store(store: &'a Store, args: &Args) -> Result<Self, Failure> {
        let few = args.limit.filter(|limit| *limit <= FEW && args.accepts_all() && args.sort == Sort::Age);
        let listing = match few.and_then(|limit| Listing::newest(store, limit)) {
            Some(listing) => listing,
            None => {
                let mut listing = Listing::all(store)?;
                listing.check_newest(FEW);
                listing
            }
        };
        for (id, reason) in &listing.damaged {
            output::note(&format!("skipped capture {id}: {reason}"));
        }
        Ok(Self::Store(listing))
    }

    /// Lists the remote, from the day of `--since` on. `now_ms` is the wall clock.
    pub(super) fn of_remote(cx: &Context, args: &Args, now_ms: u64) -> Result<Self, Failure> {
        let since = args.since.as_ref().map(|since| times::day_before(since, now_ms));
        Ok(Self::Remote(remote::captures(cx, &remote::Days { since, until: None })?))
    }

    pub(super) fn newest_first(&self) -> Vec<usize> {
        match self {
            Self::Store(listing) => listing.newest_first().collect(),
            Self::Remote(entries) => (0..entries.len()).collect(),
        }
    }

    pub(super) fn entry(&self, number: usize) -> Option<Entry> {
        match self {
            Self::Store(listing) => listing.entry(number),
            Self::Remote(entries) => entries.get(number).cloned(),
        }
    }

    pub(super) fn total(&self) -> usize {
        match self {
            Self::Store(listing) => listing.total,
            Self::Remote(entries) => entries.len(),
        }
    }

    pub(super) fn damaged(&self) -> &[(Id, String)] {
        match self {
            Self::Store(listing) => &listing.damaged,
            Self::Remote(_) => &[],
        }
    }
}
