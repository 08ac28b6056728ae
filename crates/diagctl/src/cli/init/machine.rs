//! The facts about this machine that a configuration depends on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cgroup::{CgroupRoot, MemoryCgroup};
use crate::fsio::Spot;
use crate::proc::{Proc, read};

/// The facts. One that cannot be known is `None`.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The machine's memory, bytes.
    pub memory: Option<u64>,
    /// Free and total bytes of the filesystem that has the store, or will have it.
    pub disk: Option<(u64, u64)>,
    /// The memory limit of this process's cgroup, for use while none of the others runs.
    pub own_limit: Option<u64>,
    /// The Puma and Sidekiq processes that serve; the master of a cluster does not.
    pub processes: Vec<Process>,
}

/// A process that serves.
#[derive(Clone, Debug)]
pub struct Process {
    pub role: Role,
    pub rss: u64,
    pub uid: Option<u32>,
    /// Set if it has loaded jemalloc; `None` if its mappings cannot be read.
    pub jemalloc: Option<bool>,
    /// The memory limit, and the cgroup that has it.
    pub limit: Option<(u64, PathBuf)>,
}

/// The roles that the plugins give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Puma,
    Sidekiq,
}

impl Role {
    /// As in `match = { role = "puma" }`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Puma => "puma",
            Self::Sidekiq => "sidekiq",
        }
    }

    // Puma and Sidekiq set their titles: "puma: cluster worker 0: 41 [app]", "puma 5.6.5 (tcp://…) [app]", "sidekiq 7.3.2 app [0 of 5
    // busy]".
    fn of(title: &str) -> Option<Self> {
        let begins = |name: &str| title.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', ':']));
        [Self::Puma, Self::Sidekiq].into_iter().find(|role| begins(role.name()))
    }
}

impl Machine {
    /// Looks at everything. `store` need not exist.
    pub fn look(proc: &Proc, cgroups: &CgroupRoot, store: &Path) -> Self {
        let limit = |pid| {
            let group = cgroups.memory_of(proc, pid).ok()?;
            Some((group.limit()?, group.limited_by().unwrap_or(group.dir()).to_owned()))
        };
        let existing = store.ancestors().find(|dir| dir.is_dir());
        let disk = existing.and_then(|dir| Spot::hold(dir).ok()).and_then(|dir| diagctl_store::space_of(&dir).ok());
        Self {
            memory: proc.meminfo().ok().and_then(|info| info.get("MemTotal").copied()),
            disk,
            own_limit: cgroups.memory_of(proc, std::process::id()).ok().as_ref().and_then(MemoryCgroup::limit),
            processes: serving(proc)
                .into_iter()
                .map(|(pid, role)| Process {
                    role,
                    rss: proc.rss(pid).unwrap_or(0),
                    uid: proc.effective_uid(pid),
                    jemalloc: read(&proc.pid(pid).join("maps")).ok().map(|maps| maps.contains("jemalloc")),
                    limit: limit(pid),
                })
                .collect(),
        }
    }

    /// The roles that run, or both if none does.
    pub fn roles(&self) -> Vec<Role> {
        let mut roles: Vec<Role> = self.processes.iter().map(|process| process.role).collect();
        roles.sort_unstable();
        roles.dedup();
        if roles.is_empty() { vec![Role::Puma, Role::Sidekiq] } else { roles }
    }

    /// The lowest memory limit, and how many processes share it at most. Without processes, the limit here, for one.
    pub fn limit(&self) -> Option<(u64, usize)> {
        let mut sharing: BTreeMap<&Path, usize> = BTreeMap::new();
        let limits = self.processes.iter().filter_map(|process| process.limit.as_ref());
        for (_, group) in limits.clone() {
            *sharing.entry(group).or_default() += 1;
        }
        let most = sharing.into_values().max().unwrap_or(1);
        let lowest = limits.map(|(limit, _)| *limit).min();
        lowest.or(self.own_limit.filter(|_| self.processes.is_empty())).map(|limit| (limit, most))
    }

    /// The largest process.
    pub fn largest(&self) -> Option<&Process> {
        self.processes.iter().max_by_key(|process| process.rss)
    }

    /// Tells whether jemalloc is in use; `None` if no process could be looked at.
    pub fn jemalloc(&self) -> Option<bool> {
        let known: Vec<bool> = self.processes.iter().filter_map(|process| process.jemalloc).collect();
        if known.is_empty() { None } else { Some(known.contains(&true)) }
    }
}

// A master of a cluster is the parent of a worker. It serves nothing, and has no poll thread.
fn serving(proc: &Proc) -> Vec<(u32, Role)> {
    let mut found = Vec::new();
    let mut masters = Vec::new();
    for pid in proc.pids() {
        let title = read(&proc.pid(pid).join("cmdline")).unwrap_or_default().replace('\0', " ");
        let Some(role) = Role::of(&title) else { continue };
        found.push((pid, role));
        if title.starts_with("puma: cluster worker") {
            masters.extend(proc.stat(pid).map(|stat| stat.ppid));
        }
    }
    found.retain(|(pid, _)| !masters.contains(pid));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_found_by_their_titles_and_masters_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        for (pid, parent, title) in [
            (10, 1, "puma 5.6.5 (tcp://0.0.0.0:3000) [app]\0\0"),
            (11, 10, "puma: cluster worker 0: 10 [app]"),
            (12, 10, "puma: cluster worker 1: 10 [app]"),
            (20, 1, "puma 8.0.2 (tcp://0.0.0.0:3001) [single]"),
            (30, 1, "sidekiq 7.3.2 app [0 of 5 busy]"),
            (40, 1, "vim\0puma.rb\0"),
            (41, 1, "pumactl\0status\0"),
        ] {
            let dir = root.path().join(format!("{pid}"));
            std::fs::create_dir(&dir).unwrap();
            std::fs::write(dir.join("cmdline"), title).unwrap();
            let rest = "0 ".repeat(20);
            std::fs::write(dir.join("stat"), format!("{pid} (ruby) S {parent} {rest}")).unwrap();
        }
        let mut found = serving(&Proc::at(root.path()));
        found.sort_unstable();
        assert_eq!(found, [(11, Role::Puma), (12, Role::Puma), (20, Role::Puma), (30, Role::Sidekiq)]);
    }

    #[test]
    fn the_lowest_limit_counts_and_the_processes_of_one_cgroup_share_it() {
        let process = |limit: u64, group: &str| Process {
            role: Role::Puma,
            rss: 1,
            uid: None,
            jemalloc: None,
            limit: Some((limit, group.into())),
        };
        let machine = Machine {
            own_limit: Some(5),
            processes: vec![process(9, "/a"), process(9, "/a"), process(7, "/b")],
            ..Machine::default()
        };
        assert_eq!(machine.limit(), Some((7, 2)));
        assert_eq!(Machine { processes: Vec::new(), ..machine }.limit(), Some((5, 1)));
        assert_eq!(Machine::default().limit(), None);
    }
}
