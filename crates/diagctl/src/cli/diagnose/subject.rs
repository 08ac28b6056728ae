//! The process to be diagnosed, and the evidence about it: from a capture, or from `/proc` now.

use std::io::Read;

use super::super::error::printable;
use super::super::names;
use super::super::output::{self, who};
use super::super::{Context, Failure};
use crate::diagnose::{Content, Evidence, Growth};
use crate::exit_code::Exit;
use crate::history;
use crate::reports;
use crate::state::files::load_samples;
use crate::units::size;
use diagctl_observe::{Presence, ProcessId};
use diagctl_store::index::{Entry, Listing};
use diagctl_store::meta::Meta;
use diagctl_store::{Access, Id, Store, reader};

/// A report longer than this is not one of those that are read here, bytes. The `smaps` of 60,000 mappings has 50 MiB.
const MAX_REPORT: u64 = 128 << 20;

/// Reports that are read from `/proc` for a live process.
const NATIVE: [&str; 4] = ["smaps", "siblings", "cgroup", "system"];

/// A process at one moment.
pub struct Subject {
    /// The capture, or `None` for a live process.
    pub capture: Option<Id>,
    /// Time of the capture, UTC.
    pub created: String,
    /// The age of the figures, milliseconds.
    pub age_ms: u64,
    /// The machine.
    pub host: String,
    /// True if that is not this one.
    pub is_elsewhere: bool,
    /// The role.
    pub role: String,
    /// The name within the role.
    pub worker: String,
    /// The process's start, in clock ticks since boot.
    pub start_time: u64,
    /// True if the capture has a heap dump.
    pub has_heap_dump: bool,
    /// The figures.
    pub evidence: Evidence,
}

impl Subject {
    /// Reads the capture that a person named.
    pub fn capture(cx: &Context, id: &str) -> Result<Self, Failure> {
        let store = cx.open(Access::Read)?;
        let target = reader::resolve(&store, id)?;
        Self::of(cx, &store, &target.id)
    }

    /// Reads the newest capture of the largest polling process, or, if no polling process has one, the newest capture.
    pub fn largest(cx: &Context, role: Option<&str>) -> Result<Self, Failure> {
        let store = cx.open(Access::Read)?;
        let is_role = |other: &str| role.is_none_or(|role| role == other);
        let mut polling: Vec<(u64, ProcessId, String)> = load_samples(&store)
            .processes
            .into_iter()
            .filter(|(id, sample)| is_role(&sample.role) && cx.proc.presence(id) != Presence::Gone)
            .map(|(id, sample)| (sample.rss, id, who(&sample.role, &sample.name)))
            .collect();
        polling.sort_unstable_by(|a, b| b.cmp(a));
        let listing = Listing::all(&store)?;
        let usable = |entry: &Entry| entry.reports.iter().any(|r| r.name.starts_with("smaps") && r.has_data());
        let mut entries: Vec<Entry> = listing.newest_first().filter_map(|number| listing.entry(number)).collect();
        entries.retain(usable);
        let meant = role.and_then(|role| names::similar(role, entries.iter().map(|entry| &*entry.role)));
        entries.retain(|entry| is_role(&entry.role));
        for (rss, id, _) in &polling {
            let own = entries.iter().filter(|entry| entry.pid == id.pid);
            let is_it = |entry: &&Entry| store.capture(&entry.id).is_ok_and(|c| c.meta().process().is(id));
            if let Some(entry) = own.take(3).find(is_it) {
                tell_larger(&polling[0], *rss);
                return Self::of(cx, &store, &entry.id);
            }
        }
        match entries.first() {
            Some(entry) => Self::of(cx, &store, &entry.id),
            None => {
                let message = match role {
                    Some(role) => format!("no capture of role {role:?} has smaps or smaps_rollup"),
                    None => "no capture has smaps or smaps_rollup".to_owned(),
                };
                let hint = "`diagctl request smaps gc_stat object_counts --reason diagnose --wait` takes one; `diagctl \
                            diagnose --pid PID` reads a live process";
                Err(Failure::new(Exit::NoMatch, message).hint(meant.as_deref().unwrap_or(hint)))
            }
        }
    }

    fn of(cx: &Context, store: &Store, id: &Id) -> Result<Self, Failure> {
        let (_, now) = cx.peek(store)?;
        let capture = store.capture(id)?;
        let meta = capture.meta();
        require_identity(cx, &capture)?;
        let mut evidence = Evidence::read(meta.pid, ruby(meta), |name| captured(&capture, name));
        evidence.growth = growth(store, meta.pid, meta.start_time, meta.store_ms)?;
        Ok(Self {
            capture: Some(meta.id),
            created: meta.created.clone(),
            age_ms: now.store_ms.saturating_sub(meta.store_ms),
            is_elsewhere: !meta.host.is_empty() && meta.host != cx.proc.hostname(),
            host: meta.host.clone(),
            role: meta.role.clone(),
            worker: meta.worker.clone(),
            start_time: meta.start_time,
            has_heap_dump: meta.reports.iter().any(|r| r.name == "heap_dump" && r.file.is_some()),
            evidence,
        })
    }

    /// Reads a live process. What Ruby and its allocator say is taken from its newest capture, unless its size has changed since.
    pub fn live(cx: &Context, pid: u32) -> Result<Self, Failure> {
        let stat = cx.proc.stat(pid).map_err(|why| {
            Failure::new(Exit::NoMatch, format!("--pid {pid}: {why}"))
                .hint("`diagctl status` lists the polling processes")
        })?;
        // Before the store is opened: that can take its owner's identity, which need not be allowed to read the process.
        let source = reports::Source { proc: &cx.proc, cgroups: &cx.cgroups, pid };
        let native = NATIVE.map(|name| (name, reports::open(name, source).and_then(|report| read(report, name))));
        let store = cx.open(Access::Read).ok();
        // In a container it can have polled under another pid.
        let samples = store.as_ref().map(|store| load_samples(store).processes).unwrap_or_default();
        let sample = samples.into_iter().find(|(id, _)| cx.proc.presence(id) == Presence::Here(pid));
        let own_pid = sample.as_ref().map_or(pid, |(id, _)| id.pid);
        let sample = sample.map(|(_, sample)| sample);
        let last = store.as_ref().and_then(|store| newest_of(cx, store, own_pid, stat.start_ticks));
        let rss = cx.proc.rss(pid).unwrap_or(0);
        let last = last.filter(|last| {
            last.evidence.mappings.as_ref().is_some_and(|mappings| mappings.rss.abs_diff(rss) <= rss / 10)
        });
        let mut evidence = Evidence::read(pid, "", |name| {
            native.iter().find(|(native, _)| *native == name).map(|(_, content)| content.clone())
        });
        let mut subject = Self {
            capture: None,
            created: crate::clock::utc_now(),
            age_ms: 0,
            host: cx.proc.hostname(),
            is_elsewhere: false,
            role: sample.as_ref().map(|sample| sample.role.clone()).unwrap_or_default(),
            worker: sample.map(|sample| sample.name).unwrap_or_default(),
            start_time: stat.start_ticks,
            has_heap_dump: false,
            evidence: Evidence::default(),
        };
        if let Some(store) = &store {
            evidence.growth = growth(store, own_pid, stat.start_ticks, u64::MAX)?;
        }
        if let Some(last) = last {
            evidence.slots = last.evidence.slots;
            evidence.allocator = last.evidence.allocator;
            evidence.objects = last.evidence.objects;
            subject.age_ms = last.age_ms;
            subject.capture = last.capture;
            subject.has_heap_dump = last.has_heap_dump;
        }
        subject.evidence = evidence;
        Ok(subject)
    }

    /// Returns the process as it is shown: its pid, its role and name, and its machine if that is another one.
    pub fn process(&self) -> String {
        let place = if self.is_elsewhere { format!(" on {}", self.host) } else { String::new() };
        let process = format!("process {} {}", self.evidence.pid, who(&self.role, &self.worker));
        printable(&format!("{}{place}", process.trim_end()))
    }

    /// Returns the name for messages.
    pub fn name(&self) -> String {
        match self.capture {
            Some(id) => format!("capture {id}"),
            None => format!("process {} {}", self.evidence.pid, who(&self.role, &self.worker)).trim_end().to_owned(),
        }
    }
}

// The largest process may have no capture, and then it is not the one that is diagnosed.
fn tell_larger((rss, id, who): &(u64, ProcessId, String), diagnosed: u64) {
    if *rss / 11 > diagnosed / 10 {
        output::note(&format!(
            "process {} {} is larger, {}, and has no capture with smaps: see `diagctl diagnose --pid {}`",
            id.pid,
            printable(who),
            size(*rss),
            id.pid
        ));
    }
}

fn newest_of(cx: &Context, store: &Store, pid: u32, start_ticks: u64) -> Option<Subject> {
    let listing = Listing::all(store).ok()?;
    let mut own = listing.newest_first().filter_map(|number| listing.entry(number)).filter(|entry| entry.pid == pid);
    let subject = Subject::of(cx, store, &own.next()?.id).ok()?;
    (subject.start_time == start_ticks).then_some(subject)
}

fn growth(store: &Store, pid: u32, start_ticks: u64, until_ms: u64) -> Result<Option<Growth>, Failure> {
    Ok(Growth::of(&history::read(store)?, pid, start_ticks, until_ms))
}

// Without the mappings there is no diagnosis. If they are encrypted, the first failure is the one to show.
fn require_identity(cx: &Context, capture: &diagctl_store::Capture) -> Result<(), Failure> {
    let mappings = || capture.meta().reports.iter().filter(|r| r.name.starts_with("smaps") && r.file.is_some());
    let opened = mappings().filter(|r| r.encryption.is_some()).map(|r| capture.reader(&r.name).map(drop));
    let is_readable = |failure: &diagctl_store::Error| {
        !failure.is_locked() || cx.identities().is_none() && mappings().any(|r| r.encryption.is_none())
    };
    match opened.filter_map(Result::err).find(|failure| !is_readable(failure)) {
        Some(failure) => Err(failure.into()),
        None => Ok(()),
    }
}

fn ruby(meta: &Meta) -> &str {
    meta.versions.get("ruby").map_or("", String::as_str)
}

fn captured(capture: &diagctl_store::Capture, name: &str) -> Content {
    let entry = capture.meta().reports.iter().find(|report| report.name == name)?;
    if let (None, Some(error)) = (&entry.file, &entry.error) {
        return Some(Err(error.clone()));
    }
    Some(capture.reader(name).map_err(|e| e.to_string()).and_then(|report| read(report, name)))
}

fn read(report: impl Read, name: &str) -> Result<Vec<u8>, String> {
    let mut data = Vec::new();
    report.take(MAX_REPORT).read_to_end(&mut data).map_err(|e| format!("cannot read {name}: {e}"))?;
    Ok(data)
}
