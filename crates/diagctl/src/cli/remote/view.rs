//! Views: captures of the remote, brought to this machine as a small store, on which the commands run as on any other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use diagctl_store::Id;
use diagctl_store::index::Entry;
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;
use serde_json::json;

pub use super::target::Target;
use super::{Days, captures, command, ended};
use super::{hints, hosts, target};
use crate::cli::{Context, Failure, output, times};
use crate::config::{Config, Loaded};
use crate::exit_code::Exit;

/// The size of the cache, bytes.
const CACHE: u64 = 4 << 30;

/// The options of commands that read captures.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct From {
    /// Read captures of the remote, of all machines; an ID may be HOST/ID
    #[arg(long, global = true)]
    remote: bool,
    /// With --remote: only captures of machines with this name; an asterisk stands for any text
    #[arg(long, global = true, value_name = "HOST", requires = "remote")]
    host: Option<String>,
}

/// The reports that a command needs. The record of a capture comes always.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'w> {
    /// None.
    Record,
    /// All but these.
    AllBut(&'w [&'w str]),
    /// Those named after the capture, or else these.
    NamedOr(&'w [&'w str]),
    /// Those named after the capture, and these.
    NamedAnd(&'w [&'w str]),
    /// Those named after the capture, or else all but these.
    NamedOrAllBut(&'w [&'w str]),
    /// All, as the remote has them, even if they differ from their records.
    Unchecked,
}

/// Captures of the remote on this machine. They are removed when this is dropped; the cache keeps their files for the next command.
pub struct View {
    cx: Context,
    dir: PathBuf,
    targets: Vec<Target>,
    places: Vec<String>,
    refused: Vec<Refused>,
    /// Another command removes a view that nobody has locked (crates/remote/src/cache.rs).
    _lock: Option<File>,
}

impl From {
    /// Returns true if captures are read from the remote.
    pub fn is_remote(&self) -> bool {
        self.remote
    }

    /// Returns the view with the captures that a person named, or `None` without --remote. The names become ids that the view has.
    pub fn view(&self, cx: &Context, names: Vec<&mut String>, wanted: Wanted<'_>) -> Result<Option<View>, Failure> {
        if !self.remote {
            return Ok(None);
        }
        let mut targets = Vec::new();
        for name in names {
            let target = self.resolve(cx, name)?;
            let report = target.report.as_ref().map(|report| format!(":{report}"));
            *name = format!("{}{}", target.entry.id, report.unwrap_or_default());
            targets.push(target);
        }
        View::of(cx, targets, wanted).map(Some)
    }

    /// Returns the words that name the filter for machines.
    pub fn of_host(&self) -> String {
        target::of_host(self.host.as_deref())
    }

    /// Returns the captures of the machines, newest first.
    ///
    /// # Errors
    ///
    /// If the remote cannot be read, or has captures of other machines only.
    pub fn captures(&self, cx: &Context, days: &Days) -> Result<Vec<Entry>, Failure> {
        let mut entries = captures(cx, days)?;
        let Some(host) = &self.host else { return Ok(entries) };
        if let Some(meant) = hosts::meant(host, names(&entries)) {
            return Err(target::no_machine(host, &meant));
        }
        tell_stores(host, names(&entries));
        entries.retain(|entry| hosts::is_meant(host, &entry.host));
        Ok(entries)
    }

    /// Finds the capture that a person named, to read it. Says that it may be of another store than was named.
    pub fn resolve(&self, cx: &Context, name: &str) -> Result<Target, Failure> {
        let found = self.find(cx, name)?;
        target::machines(self.host.as_deref(), name).for_each(|host| tell_stores(host, [found.entry.host.as_str()]));
        Ok(found)
    }

    /// Finds the capture that a person named, to delete it.
    ///
    /// # Errors
    ///
    /// Also if it may be of another store than was named.
    pub fn resolve_for_deletion(&self, cx: &Context, name: &str) -> Result<Target, Failure> {
        let found = self.find(cx, name)?;
        target::require_certain(&found, self.host.as_deref(), name)?;
        Ok(found)
    }

    fn find(&self, cx: &Context, name: &str) -> Result<Target, Failure> {
        let find = |days: &Days| target::resolve(&captures(cx, days)?, self.host.as_deref(), name);
        let days = target::days(name);
        if days != Days::default() || !name.contains("latest") {
            return find(&days);
        }
        // The latest is most likely one of the last days, and a large remote has many.
        let now_ms = times::wall_ms(&crate::clock::utc_now());
        let recent = Days { since: Some(times::day_before(&times::Moment::Ago(86_400_000), now_ms)), until: None };
        find(&recent).or_else(|failure| if failure.exit == Exit::NoMatch { find(&days) } else { Err(failure) })
    }
}

// Says that captures of more stores are meant than the name says.
fn tell_stores<'h>(name: &str, hosts: impl IntoIterator<Item = &'h str>) {
    hosts::of_all_stores(name, hosts).iter().for_each(|told| output::note(told));
}

fn names(entries: &[Entry]) -> impl Iterator<Item = &str> {
    entries.iter().map(|entry| entry.host.as_str())
}

#[derive(Deserialize)]
struct Brought {
    view: PathBuf,
    places: Vec<String>,
    #[serde(default)]
    refused: Vec<Refused>,
}

/// A file that was not brought although the remote has it.
#[derive(Deserialize)]
struct Refused {
    id: Id,
    file: String,
    why: String,
}

impl View {
    /// Brings captures to this machine.
    pub fn of(cx: &Context, mut targets: Vec<Target>, wanted: Wanted<'_>) -> Result<Self, Failure> {
        let mut hosts = BTreeMap::new();
        for target in &targets {
            let host = &target.entry.host;
            if hosts.insert(target.entry.id, host).is_some_and(|other| other != host) {
                let message = format!("two machines have a capture {}, which cannot be read together", target.entry.id);
                let hint = "fetch each into a directory of its own: `diagctl fetch --remote HOST/ID`";
                return Err(Failure::failed(message).hint(hint));
            }
        }
        // The same capture twice is one.
        let mut seen = BTreeSet::new();
        targets.retain(|target| seen.insert((target.entry.id, target.report.clone())));
        let asked: String = targets.iter().map(|target| ask(target, wanted) + "\n").collect();
        let mut command = command(cx)?;
        command.arg("get").arg("--cache").arg(cache()?).arg(format!("--most={CACHE}"));
        command.args(matches!(wanted, Wanted::Unchecked).then_some("--unchecked"));
        let failed = |source| Failure::io("run", Path::new("diagctl-remote"), source);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let mut stdin = child.stdin.take();
        if let Some(stdin) = &mut stdin {
            // If it has ended, its exit status says more.
            let _ = stdin.write_all(format!("{asked}\n").as_bytes());
        }
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            std::io::BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
        }
        let brought: Result<Brought, _> = serde_json::from_str(&line);
        // It ends when this process has the lock, so that the view always has an owner.
        let lock = brought.as_ref().ok().and_then(|brought| lock(&brought.view));
        drop(stdin);
        let status = child.wait().map_err(failed)?;
        if !status.success() {
            return Err(ended("the captures in the remote were not read", status));
        }
        let brought = brought.map_err(|e| failed(e.into()))?;
        let config = Config { dir: brought.view.clone(), group: None, group_may: Vec::new(), ..cx.config().clone() };
        let config = Config { allow_network_filesystem: true, ..config };
        let of_view = Context::new(Loaded::new(config), cx.debug).given(cx.options.clone());
        cx.identities().into_iter().for_each(|identities| of_view.unlock(identities.clone()));
        Ok(Self {
            cx: of_view,
            dir: brought.view,
            targets,
            places: brought.places,
            refused: brought.refused,
            _lock: lock,
        })
    }

    /// Returns the context in which commands read the view.
    pub fn cx(&self) -> &Context {
        &self.cx
    }

    /// Returns a command that this program suggests as it is for a capture of the remote. A process is that of its machine.
    pub fn suggested(&self, command: &str) -> String {
        hints::of_command(command, self.how())
    }

    /// Returns a hint with its commands as they are for a capture of the remote.
    pub fn suggested_in(&self, hint: &str) -> String {
        hints::of_hint(hint, self.how())
    }

    fn how(&self) -> hints::As<'_> {
        let host = self.targets.first().map(|target| target.entry.host.as_str());
        hints::As { options: &self.cx.options, host }
    }

    /// Returns the place of a capture in the remote.
    pub fn place(&self, id: &Id) -> Option<&str> {
        let targets = self.targets.iter().zip(&self.places);
        targets.into_iter().find(|(target, _)| target.entry.id == *id).map(|(_, place)| place.as_str())
    }

    /// Returns the reason why a file of a capture was not brought, if the remote has it.
    pub fn refusal(&self, id: &Id, file: &str) -> Option<&str> {
        self.refused
            .iter()
            .find(|refused| refused.id == *id && refused.file == file)
            .map(|refused| refused.why.as_str())
    }

    /// Returns the first capture, as its manifest describes it, and its place in the remote.
    pub fn first(&self) -> Option<(&Entry, &str)> {
        Some((&self.targets.first()?.entry, self.places.first()?))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // A leftover is removed by a later command.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

// Where the filesystem has no locks, nothing is removed for a day.
fn lock(view: &Path) -> Option<File> {
    let dir = File::open(view).ok()?;
    flock(&dir, FlockOperation::LockShared).ok()?;
    Some(dir)
}

fn ask(target: &Target, wanted: Wanted<'_>) -> String {
    let named = target.report.as_ref().map(|report| vec![report.as_str()]);
    let (reports, without): (Option<Vec<&str>>, &[&str]) = match wanted {
        Wanted::Record => (Some(Vec::new()), &[]),
        Wanted::AllBut(without) => (None, without),
        Wanted::NamedOr(usual) => (named.or_else(|| Some(usual.to_vec())), &[]),
        Wanted::NamedAnd(besides) => (named.map(|named| [&named, besides].concat()), &[]),
        Wanted::NamedOrAllBut(without) => (named, without),
        Wanted::Unchecked => (None, &[]),
    };
    let entry = &target.entry;
    json!({ "id": entry.id, "created": entry.created, "host": entry.host, "reports": reports, "without": without })
        .to_string()
}

// The directory of the cache, as the XDG base directories have it.
fn cache() -> Result<PathBuf, Failure> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    let base = base.ok_or_else(|| {
        Failure::failed("there is no place for what is fetched: neither XDG_CACHE_HOME nor HOME is an absolute path")
            .hint("set XDG_CACHE_HOME to a directory of yours")
    })?;
    Ok(base.join("diagctl/remote"))
}
