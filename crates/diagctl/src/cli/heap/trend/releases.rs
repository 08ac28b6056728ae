//! How the processes of other releases grew, by the label `release` of their captures.

use diagctl_heapdump::summary::trend::{self, FEWEST, Series};
use diagctl_store::Store;
use diagctl_store::index::Entry;
use serde::Serialize;

use super::By;
use super::figures::{LEAST_SPAN_MS, signed};
use super::groups_of;
use super::points::{of_one_process, read};

use crate::units::duration;

/// The most of them.
const MOST: usize = 5;

/// One process of another release.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Release {
    pub release: String,
    pub pid: u32,
    pub summaries: usize,
    pub over_ms: u64,
    /// Growth of all objects, bytes an hour.
    pub all_per_hour: i64,
    /// That of the group that leaks now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<(String, i64)>,
}

impl Release {
    /// Says it in one line.
    pub fn sentence(&self) -> String {
        let group = self.group.as_ref();
        let group = group.map_or_else(String::new, |(name, slope)| format!(", {name} {}/h", signed((*slope).into())));
        let (release, pid, over) = (&self.release, self.pid, duration(self.over_ms));
        format!("{release} (pid {pid}, over {over}): all {}/h{group}", signed(self.all_per_hour.into()))
    }
}

/// Finds them among the captures of other processes with the same role and name, the newest first.
pub(super) fn of(
    store: &Store,
    newest: &Entry,
    own: Option<&str>,
    mut others: Vec<Entry>,
    by: By,
    leaks: Option<&Series>,
) -> Vec<Release> {
    others.retain(|entry| entry.role == newest.role && entry.worker == newest.worker);
    let mut found: Vec<Release> = Vec::new();
    while !others.is_empty() && found.len() < MOST {
        let before = others.len();
        let (process, rest) = of_one_process(store, others);
        let stuck = rest.len() == before;
        others = rest;
        if process.len() >= FEWEST {
            found.extend(one(store, &process, by, leaks).filter(|release| Some(release.release.as_str()) != own));
            found.dedup_by(|a, b| a.release == b.release);
        } else if stuck {
            break;
        }
    }
    found
}

fn one(store: &Store, process: &[Entry], by: By, leaks: Option<&Series>) -> Option<Release> {
    let (taken, points) = read(store, process).ok()?;
    let (first, last) = (taken.first()?, taken.last()?);
    let over_ms = last.store_ms.saturating_sub(first.store_ms);
    if points.len() < FEWEST || over_ms < LEAST_SPAN_MS {
        return None;
    }
    let trend = trend::of(&points, groups_of(by));
    let slope_of = |name: &str| trend.groups.iter().find(|group| group.name == name).map_or(0, |group| group.per_hour);
    Some(Release {
        release: last.release.clone()?,
        pid: process.last()?.pid,
        summaries: points.len(),
        over_ms,
        all_per_hour: trend.all.per_hour,
        group: leaks.map(|leak| (leak.name.clone(), slope_of(&leak.name))),
    })
}
