//! Checks of the processes that poll the store, and of the versions and programs involved.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::check::Check;
use super::machine::Subject;
use crate::cli::error::printable;
use crate::cli::output;
use crate::cli::status::lease::Report;
use crate::clock::Now;
use crate::config::Config;
use crate::proc::{Proc, read};
use crate::state::samples::{Sample, Samples};
use diagctl_observe::Presence;
use diagctl_store::meta;

/// The facts about a process that this user may see.
#[derive(Clone, Debug)]
struct Seen {
    subject: Subject,
    /// The owner of its files in /proc. If the process is not dumpable, that is root.
    proc_uid: Option<u32>,
    /// The reason why the figures cannot be read from here.
    unreadable: Option<String>,
    /// Set if the process has loaded jemalloc; `None` if its mappings cannot be read.
    jemalloc: Option<bool>,
    /// Set if it polls as expected, or dumps.
    fresh: bool,
    /// The switch that forbade captures at its last poll.
    off: Option<String>,
}

/// The store's data about its processes.
pub struct Known<'a> {
    /// The last polls.
    pub samples: &'a Samples,
    /// The lease.
    pub lease: Option<&'a Report>,
    /// Set if the store is paused, which is another finding.
    pub paused: bool,
    /// The time.
    pub now: &'a Now,
}

/// Returns the store's processes that are visible from here.
pub fn subjects(proc: &Proc, samples: &Samples) -> Vec<Subject> {
    visible(proc, samples).map(|(pid, sample)| subject(proc, pid, sample)).collect()
}

// Processes of other containers have no figures here: their pids name other processes, or none.
fn visible<'a>(proc: &'a Proc, samples: &'a Samples) -> impl Iterator<Item = (u32, &'a Sample)> {
    samples.processes.iter().filter_map(|(id, sample)| match proc.presence(id) {
        Presence::Here(pid) => Some((pid, sample)),
        Presence::Gone | Presence::Elsewhere => None,
    })
}

fn subject(proc: &Proc, pid: u32, sample: &Sample) -> Subject {
    Subject {
        pid,
        name: printable(&format!("{} (pid {pid})", output::who(&sample.role, &sample.name))),
        role: sample.role.clone(),
        rss: proc.rss(pid).unwrap_or(sample.rss),
        uid: proc.effective_uid(pid),
    }
}

/// Returns this process, for use while no process polls.
pub fn ourselves(proc: &Proc) -> Subject {
    let pid = std::process::id();
    Subject { pid, name: "this process".into(), role: String::new(), rss: 0, uid: proc.effective_uid(pid) }
}

/// Runs every check of the polling processes.
pub fn examine(proc: &Proc, config: &Config, known: &Known<'_>, owner: Option<u32>) -> Vec<Check> {
    let now_ms = known.now.store_ms;
    let seen: Vec<Seen> = visible(proc, known.samples)
        .map(|(pid, sample)| {
            let dir = proc.pid(pid);
            let maps = read(&dir.join("maps"));
            let dumps = known.lease.is_some_and(|lease| lease.is_held_by(&sample.id()));
            Seen {
                proc_uid: fs::metadata(dir.join("smaps")).ok().map(|meta| meta.uid()),
                unreadable: maps.as_ref().err().map(ToString::to_string),
                jemalloc: maps.ok().map(|maps| maps.contains("jemalloc")),
                fresh: sample.is_fresh(now_ms, config.poll_ms()) || dumps,
                off: (sample.is_off() && !known.paused).then(|| sample.reason.clone()),
                subject: subject(proc, pid, sample),
            }
        })
        .collect();
    let hidden = proc.read("self/mounts").map(|mounts| hidepid(&mounts)).unwrap_or_default();
    vec![polling(&seen), users(&seen, owner), access(&seen), hiding(&hidden), jemalloc(&seen, config)]
}

fn names(seen: &[&Seen]) -> String {
    seen.iter().map(|s| s.subject.name.clone()).collect::<Vec<_>>().join(", ")
}

fn polling(seen: &[Seen]) -> Check {
    let id = "processes.polling";
    let silent: Vec<&Seen> = seen.iter().filter(|s| !s.fresh).collect();
    let off: Vec<&Seen> = seen.iter().filter(|s| s.fresh && s.off.is_some()).collect();
    let check = if seen.is_empty() {
        Check::warn(
            id,
            "no running process has polled this store in the last hour",
            "check that the plugin is loaded, that the workers have DIAGCTL_ENABLED=1 and the same DIAGCTL_DIR, and what their \
             log says after [diagctl]",
        )
    } else if !silent.is_empty() {
        Check::warn(
            id,
            format!("{} is running but does not poll as expected", names(&silent)),
            "look for [diagctl] in its log; a process that is stopped or short of CPU does not poll either",
        )
    } else if let Some(reason) = off.first().and_then(|first| first.off.as_deref()) {
        let message =
            format!("{} of {} polling but off: {} is {reason}", off.len(), count(seen.len()), off[0].subject.name);
        Check::warn(id, message, "turn on that switch; a change is noticed within one poll interval")
    } else {
        Check::ok(id, format!("{} polling", count(seen.len())))
    };
    check.seen("alive", seen.len()).seen("silent", silent.len()).seen("off", off.len())
}

fn count(n: usize) -> String {
    if n == 1 { "1 process is".into() } else { format!("{n} processes are") }
}

fn users(seen: &[Seen], owner: Option<u32>) -> Check {
    let id = "processes.user";
    let Some(owner) = owner else { return Check::skip(id, "there is no store yet") };
    let other = |s: &&Seen| s.subject.uid.is_some_and(|uid| uid != owner);
    let others: Vec<&Seen> = seen.iter().filter(other).collect();
    match others.iter().find(|s| s.subject.uid != Some(0)).or(others.first()) {
        None if seen.is_empty() => Check::skip(id, "no process polls"),
        None => Check::ok(id, format!("all polling processes run as uid {owner}, the owner of the store")),
        Some(Seen { subject: Subject { uid: Some(0), .. }, .. }) => Check::warn(
            id,
            format!("{} runs as root, but the store belongs to uid {owner}", names(&others)),
            "diagctl switches to that user and then may not read root's processes; let root own the store",
        ),
        Some(_) => Check::fail(
            id,
            format!("{} does not run as uid {owner}, the owner of the store: its polls are refused", names(&others)),
            "give the processes of each user a store of their own",
        ),
    }
}

// Reading requires the same user and a dumpable process. Yama's ptrace_scope restricts only attaching and does not matter here.
fn access(seen: &[Seen]) -> Check {
    let id = "processes.access";
    let closed: Vec<&Seen> = seen
        .iter()
        .filter(|s| s.proc_uid.is_some() && s.subject.uid.is_some() && s.proc_uid != s.subject.uid)
        .collect();
    if !closed.is_empty() {
        return Check::warn(
            id,
            format!("{} is not dumpable: smaps, fds and PSS cannot be read, not even by itself", names(&closed)),
            "setuid programs, file capabilities and PR_SET_DUMPABLE cause this; such reports fail with an error",
        );
    }
    match seen.iter().find_map(|s| s.unreadable.as_ref()) {
        Some(why) => Check::skip(id, why),
        None if seen.is_empty() => Check::skip(id, "no process polls"),
        None => Check::ok(id, "smaps and maps of all polling processes are readable"),
    }
}

fn hidepid(mounts: &str) -> String {
    let mut options = mounts.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.nth(1) == Some("/proc")).then(|| words.nth(1))?
    });
    let hidden = |option: &&str| option.starts_with("hidepid=") && !matches!(*option, "hidepid=0" | "hidepid=off");
    // With several mounts, the last one is visible.
    options.next_back().and_then(|options| options.split(',').find(hidden)).unwrap_or_default().to_owned()
}

fn hiding(option: &str) -> Check {
    let id = "proc.hidepid";
    if option.is_empty() {
        return Check::ok(id, "/proc shows every process");
    }
    Check::warn(
        id,
        format!("/proc is mounted with {option}: processes of other users are hidden"),
        "reports of a process itself are complete; `siblings`, and the lease holder in `status`, may be missing",
    )
}

fn jemalloc(seen: &[Seen], config: &Config) -> Check {
    let id = "processes.jemalloc";
    let looked_at: Vec<&Seen> = seen.iter().filter(|s| s.jemalloc.is_some()).collect();
    if looked_at.is_empty() {
        return Check::skip(id, "this user can read the mappings of no polling process");
    }
    let without: Vec<&Seen> = looked_at.into_iter().filter(|s| s.jemalloc == Some(false)).collect();
    let wanted = config.rules.iter().find(|rule| rule.reports.iter().any(|name| name.starts_with("jemalloc_")));
    match (without.is_empty(), wanted) {
        (true, _) => Check::ok(id, "jemalloc is loaded"),
        (false, None) => Check::ok(id, "jemalloc is not loaded everywhere, but no rule needs it"),
        (false, Some(rule)) => Check::warn(
            id,
            format!(
                "rule {} captures jemalloc statistics, but jemalloc is not loaded as a library in {}: the report fails",
                rule.name,
                names(&without)
            ),
            "set LD_PRELOAD=libjemalloc.so.2, or use malloc_info; a jemalloc linked into Ruby is not detected",
        ),
    }
}

/// Checks that the gems of the newest capture belong to this program.
pub fn versions(newest: Option<&meta::Meta>) -> Check {
    let id = "versions";
    let ours = env!("CARGO_PKG_VERSION");
    let Some(versions) = newest.map(|meta| &meta.versions) else { return Check::skip(id, "there is no capture yet") };
    let differing: Vec<String> = ["diagctl", "diagctl_gem"]
        .into_iter()
        .filter_map(|name| Some((name, versions.get(name)?)))
        .filter(|(_, version)| series(version) != series(ours))
        .map(|(name, version)| {
            format!("{} {}", if name == "diagctl" { "the program" } else { "the gem" }, printable(version))
        })
        .collect();
    let check = match differing.as_slice() {
        [] => Check::ok(id, format!("the newest capture was made by this version of diagctl, {ours}")),
        _ => Check::warn(
            id,
            format!("the newest capture was made by {}; this is diagctl {ours}", differing.join(" and ")),
            "deploy the program and the gems in one version; check that DIAGCTL_BIN or PATH of the workers leads to this program",
        ),
    };
    check.seen("diagctl", ours).seen("newest", serde_json::json!(versions))
}

// The part of a version that can change the protocol: the first number, and before 1.0 the second.
fn series(version: &str) -> Vec<&str> {
    let parts: Vec<&str> = version.split('.').collect();
    let length = if parts.first() == Some(&"0") { 2 } else { 1 };
    parts.into_iter().take(length).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cli::doctor::check::Status;

    fn seen(uid: u32) -> Seen {
        let subject =
            Subject { pid: 7, name: "puma worker-0 (pid 7)".into(), role: "puma".into(), rss: 1, uid: Some(uid) };
        Seen { subject, proc_uid: Some(uid), unreadable: None, jemalloc: Some(true), fresh: true, off: None }
    }

    #[test]
    fn silent_and_foreign_processes_are_named() {
        assert_eq!(polling(&[seen(5)]).status, Status::Ok);
        assert_eq!(polling(&[]).status, Status::Warn);
        let silent = polling(&[Seen { fresh: false, ..seen(5) }]);
        assert!(silent.status == Status::Warn && silent.message.contains("pid 7"), "{}", silent.message);
        let off = polling(&[seen(5), Seen { off: Some("switched off by a test".into()), ..seen(5) }]);
        assert!(off.status == Status::Warn && off.message.contains("switched off by a test"), "{}", off.message);
        let table =
            [(5, Some(5), Status::Ok), (6, Some(5), Status::Fail), (0, Some(5), Status::Warn), (5, None, Status::Skip)];
        for (uid, owner, status) in table {
            assert_eq!(users(&[seen(uid)], owner).status, status, "{uid} {owner:?}");
        }
        assert_eq!(users(&[seen(0), seen(6)], Some(5)).status, Status::Fail, "the worse of two");
    }

    #[test]
    fn an_undumpable_process_differs_from_another_users_process() {
        let table = [
            (seen(5), Status::Ok),
            (Seen { proc_uid: Some(0), ..seen(5) }, Status::Warn),
            (Seen { unreadable: Some("denied".into()), ..seen(5) }, Status::Skip),
        ];
        for (process, status) in table {
            assert_eq!(access(&[process]).status, status);
        }
    }

    #[test]
    fn hidepid_is_read_from_the_topmost_proc_mount() {
        let table = [
            ("proc /proc proc rw,relatime 0 0\n", ""),
            ("proc /proc proc rw,hidepid=invisible 0 0\n", "hidepid=invisible"),
            ("proc /proc proc rw,hidepid=2 0 0\nproc /proc proc rw,hidepid=0 0 0\n", ""),
            ("proc /mnt/proc proc rw,hidepid=2 0 0\n", ""),
        ];
        for (mounts, expected) in table {
            assert_eq!(hidepid(mounts), expected, "{mounts}");
            assert_eq!(hiding(expected).status == Status::Ok, expected.is_empty());
        }
    }

    #[test]
    fn jemalloc_matters_only_if_a_rule_needs_it() {
        let config = Config::default(); // whose routine rule asks for jemalloc_stats
        let without = || Seen { jemalloc: Some(false), ..seen(5) };
        assert_eq!(jemalloc(&[seen(5)], &config).status, Status::Ok);
        assert_eq!(jemalloc(&[seen(5), without()], &config).status, Status::Warn);
        assert_eq!(jemalloc(&[without()], &Config { rules: Vec::new(), ..config.clone() }).status, Status::Ok);
        assert_eq!(jemalloc(&[Seen { jemalloc: None, ..seen(5) }], &config).status, Status::Skip);
    }

    #[test]
    fn mismatched_gem_versions_are_reported() {
        let ours = env!("CARGO_PKG_VERSION").to_owned();
        let made_by = |name: &str, version: &str| meta::Meta {
            versions: [(name.to_owned(), version.to_owned())].into(),
            ..meta::Meta::default()
        };
        let table = [
            (None, Status::Skip),
            (Some(made_by("diagctl", &ours)), Status::Ok),
            (Some(made_by("diagctl_gem", "99.0.0")), Status::Warn),
            (Some(made_by("ruby", "99.0.0")), Status::Ok),
        ];
        for (meta, status) in table {
            assert_eq!(versions(meta.as_ref()).status, status, "{meta:?}");
        }
        assert_eq!([series("0.1.7"), series("1.2.3")], [vec!["0", "1"], vec!["1"]]);
    }

    #[test]
    fn findings_about_processes_in_words() {
        let config = Config::default();
        let without = || Seen { jemalloc: Some(false), ..seen(5) };
        let made_by_another = meta::Meta {
            versions: [("diagctl", "99.0.0"), ("diagctl_gem", "98.0.0")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            ..meta::Meta::default()
        };
        let missing = Path::new("/usr/bin/diagctl-that-is-not-there");
        let mut versions = versions(Some(&made_by_another));
        versions.message = versions.message.replace(env!("CARGO_PKG_VERSION"), "VERSION");
        let checks = [
            polling(&[seen(5)]),
            polling(&[]),
            polling(&[Seen { fresh: false, ..seen(5) }]),
            polling(&[Seen { off: Some("switched off: enabled = false (file)".into()), ..seen(5) }]),
            users(&[seen(5)], Some(5)),
            users(&[seen(6)], Some(5)),
            users(&[seen(0)], Some(5)),
            users(&[seen(5)], None),
            access(&[seen(5)]),
            access(&[Seen { proc_uid: Some(0), ..seen(5) }]),
            access(&[Seen { unreadable: Some("permission denied".into()), ..seen(5) }]),
            access(&[]),
            hiding(""),
            hiding("hidepid=2"),
            jemalloc(&[seen(5)], &config),
            jemalloc(&[without()], &config),
            jemalloc(&[without()], &Config { rules: Vec::new(), ..config.clone() }),
            jemalloc(&[Seen { jemalloc: None, ..seen(5) }], &config),
            versions,
            super::super::binary::binary(None, "", Path::new("/usr/bin/diagctl")),
            super::super::binary::binary(Some(missing.into()), "", Path::new("/usr/bin/diagctl")),
            super::super::binary::binary(Some("/bin/sh".into()), "", Path::new("/usr/bin/diagctl")),
        ];
        crate::cli::doctor::check::assert_words("processes", &checks);
    }
}
