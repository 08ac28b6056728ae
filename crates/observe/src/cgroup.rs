//! The memory cgroup of a process and its figures: cgroup v2, and v1 where it has the same figure. For CPU limits see cpu_limit.rs.
//!
//! Source: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst. The working set is
//! `current − inactive_file`, as the kubelet computes it: the page cache that can be dropped at once does not count.
//!
//! A limit applies to everything in the group that has it, which may be more than the process's own group: figures that are
//! compared with a limit are those of the limited group. tests/kernel runs all of this against a real kernel.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::proc::{Proc, read, read_line};
use crate::{Error, Result};

/// The mount point of the cgroups, or a directory that looks like it.
#[derive(Clone, Debug)]
pub struct CgroupRoot(PathBuf);

/// One memory cgroup.
#[derive(Clone, Debug)]
pub struct MemoryCgroup(Group);

impl Default for CgroupRoot {
    fn default() -> Self {
        Self("/sys/fs/cgroup".into())
    }
}

impl CgroupRoot {
    /// A cgroup mount, or a fake one, at another path.
    pub fn at(root: &Path) -> Self {
        Self(root.into())
    }

    /// The memory cgroup of a process.
    pub fn memory_of(&self, proc: &Proc, pid: u32) -> Result<MemoryCgroup> {
        self.group_of(proc, pid, "memory").map(MemoryCgroup)
    }

    // The group of a process in the hierarchy that has this controller. In a container, the path in /proc may be the
    // host's, which is not mounted here; the root of the mount is then the container's cgroup.
    pub(crate) fn group_of(&self, proc: &Proc, pid: u32, controller: &str) -> Result<Group> {
        let text = read(&proc.pid(pid).join("cgroup"))?;
        let v1_mount = self.0.join(controller);
        for line in text.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let v2 = controllers.is_empty() && self.0.join("cgroup.controllers").exists();
            let v1 = controllers.split(',').any(|c| c == controller) && v1_mount.is_dir();
            if !v1 && !v2 {
                continue;
            }
            let mount = if v2 { self.0.clone() } else { v1_mount.clone() };
            let beneath = path.trim_start_matches('/');
            let nested = mount.join(beneath);
            // Joined with nothing, the path would end in a slash.
            let is_nested = !beneath.is_empty() && !path.contains("..") && nested.is_dir();
            if !beneath.is_empty() && !is_nested && is_whole_machine(&mount, v2) {
                continue;
            }
            let dir = if is_nested { nested } else { mount.clone() };
            return Ok(Group { dir, mount, v2 });
        }
        Err(Error::NoCgroup { pid, controller: controller.to_owned(), mount: self.0.clone() })
    }
}

// Returns true if this is the root of all groups, whose figures are those of the whole machine. Only it has the v1 file, and only
// it lacks the v2 file.
fn is_whole_machine(mount: &Path, v2: bool) -> bool {
    if v2 { !mount.join("cgroup.events").exists() } else { mount.join("release_agent").exists() }
}

#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) dir: PathBuf,
    pub(crate) mount: PathBuf,
    pub(crate) v2: bool,
}

impl Group {
    // This group and those above it, up to the root of what is mounted.
    pub(crate) fn and_above(&self) -> impl Iterator<Item = &Path> {
        self.dir.ancestors().take_while(|dir| dir.starts_with(&self.mount))
    }
}

impl MemoryCgroup {
    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Bytes in use, without the page cache that can be dropped: of the group with the lowest limit or, without a limit, of the
    /// group that the process is accounted to.
    pub fn working_set(&self) -> Result<u64> {
        match self.limited() {
            Some((_, group)) => self.working_set_of(group),
            None => self.working_set_of(self.accounted()?),
        }
    }

    /// The lowest limit of this cgroup and those above it; `None` when there is none.
    pub fn limit(&self) -> Option<u64> {
        self.limited().map(|(limit, _)| limit)
    }

    /// The group that has the lowest limit; of several, the nearest.
    pub fn limited_by(&self) -> Option<&Path> {
        self.limited().map(|(_, group)| group)
    }

    /// The bytes that this group and each above it have to stay below: the limit, or the point at which the kernel throttles
    /// (`memory.high`).
    pub fn levels(&self) -> impl Iterator<Item = (&Path, u64)> {
        let seen = self.0.and_above().filter_map(|group| {
            let high = self.0.v2.then(|| number(group, "memory.high").ok()).flatten();
            let levels = number(group, self.limit_file()).into_iter().chain(high);
            Some((group, levels.filter(is_a_limit).min()?))
        });
        seen.chain(self.inherited().map(|limit| (self.dir(), limit)))
    }

    /// Bytes that can still be used before a level has only its reserve left.
    pub fn available(&self, reserve: fn(u64) -> u64) -> Option<u64> {
        let room = |(group, level)| Some(u64::saturating_sub(level, self.working_set_of(group).ok()? + reserve(level)));
        self.levels().filter_map(room).min()
    }

    /// The sources of a group's working set: the file with the bytes in use, and the file and key of the part that can be dropped.
    pub fn working_set_files(&self, group: &Path) -> (PathBuf, PathBuf, &'static str) {
        (group.join(self.current_file()), group.join("memory.stat"), self.droppable())
    }

    /// Tells whether it belongs to the unified hierarchy.
    pub fn is_v2(&self) -> bool {
        self.0.v2
    }

    /// The innermost cgroup, from this one upwards, whose processes the kernel kills together when memory runs out.
    pub fn oom_group(&self) -> Option<PathBuf> {
        let whole = |dir: &&Path| read(&dir.join("memory.oom.group")).is_ok_and(|text| text.trim() == "1");
        self.0.and_above().find(whole).map(PathBuf::from)
    }

    /// The number of tasks and its limit, of the group where the fewest are left; `None` without a limit. On v1 this is another
    /// hierarchy, which is not read.
    pub fn pids(&self) -> Option<(u64, u64)> {
        let number = |dir: &Path, file| number(dir, file).ok();
        let of = |dir| Some((number(dir, "pids.current")?, number(dir, "pids.max")?));
        self.0.and_above().filter_map(of).min_by_key(|(current, max)| max.saturating_sub(*current))
    }

    /// Events that the kernel counted in this group and at the limits above it, by the keys of `memory.events`; on v1, the two
    /// that exist under other names.
    pub fn events(&self) -> Result<BTreeMap<String, u64>> {
        let own = self.accounted()?;
        let above = self.0.and_above().filter(|group| *group != own);
        if self.0.v2 {
            let mut events = counters(&read(&own.join("memory.events"))?);
            // A limit that is hit is counted in the group that has it. Its `memory.events` would also count hits of our
            // neighbours' own limits.
            for group in above {
                let Ok(text) = read(&group.join("memory.events.local")) else { continue };
                for (event, count) in counters(&text) {
                    *events.entry(event).or_default() += count;
                }
            }
            return Ok(events);
        }
        let control = read(&own.join("memory.oom_control"))?;
        let mut events = counters(&control);
        events.retain(|key, _| key == "oom_kill");
        let hits: u64 = above.filter_map(|group| number(group, "memory.failcnt").ok()).sum();
        events.insert("max".into(), number(own, "memory.failcnt")? + hits);
        Ok(events)
    }

    /// The files of a group about memory and CPU, as far as they can be read.
    pub fn files(group: &Path) -> Vec<(String, String)> {
        const TOLD: [&str; 6] = ["memory.", "cpu.", "pids.", "io.", "cgroup.events", "cgroup.procs"];
        let entries = walkdir::WalkDir::new(group).min_depth(1).max_depth(1).sort_by_file_name();
        entries
            .into_iter()
            .flatten()
            .filter(|entry| entry.file_type().is_file()) // and no group below
            .filter_map(|entry| {
                let name = entry.file_name().to_str()?.to_owned();
                let told = TOLD.iter().any(|prefix| name.starts_with(prefix));
                let text = told.then(|| fs::read_to_string(entry.path()).ok()).flatten()?;
                Some((name, text))
            })
            .collect()
    }

    fn limited(&self) -> Option<(u64, &Path)> {
        let limit = |group| number(group, self.limit_file()).ok().filter(is_a_limit).map(|limit| (limit, group));
        let seen = self.0.and_above().filter_map(limit).min_by_key(|(limit, _)| *limit);
        seen.or_else(|| Some((self.inherited()?, self.dir())))
    }

    // A limit of a group above the root of the mount, where a container does not see it: a pod's, for example. Only v1 tells.
    fn inherited(&self) -> Option<u64> {
        if self.0.v2 || self.0.dir != self.0.mount {
            return None;
        }
        counter(&read(&self.0.dir.join("memory.stat")).ok()?, "hierarchical_memory_limit").filter(is_a_limit)
    }

    // A group has no figures where the groups above did not give it the memory controller: its memory is then accounted to
    // the nearest above that has it. The root of all has none either.
    fn accounted(&self) -> Result<&Path> {
        self.0
            .and_above()
            .find(|group| group.join(self.current_file()).exists())
            .ok_or_else(|| Error::NotAccounted { group: self.0.dir.clone() })
    }

    fn working_set_of(&self, group: &Path) -> Result<u64> {
        let current = number(group, self.current_file())?;
        let key = self.droppable();
        let path = group.join("memory.stat");
        let inactive = counter(&read(&path)?, key).ok_or_else(|| Error::NoKey { path, key: key.to_owned() })?;
        Ok(current.saturating_sub(inactive))
    }

    fn current_file(&self) -> &'static str {
        if self.0.v2 { "memory.current" } else { "memory.usage_in_bytes" }
    }

    fn droppable(&self) -> &'static str {
        if self.0.v2 { "inactive_file" } else { "total_inactive_file" }
    }

    fn limit_file(&self) -> &'static str {
        if self.0.v2 { "memory.max" } else { "memory.limit_in_bytes" }
    }
}

pub(crate) fn number(group: &Path, file: &str) -> Result<u64> {
    let path = group.join(file);
    read_line(&path)?.parse().map_err(|_| Error::NotNumber { path })
}

// v1 writes "no limit" as the largest multiple of a page.
fn is_a_limit(bytes: &u64) -> bool {
    *bytes < 1 << 60
}

// The number in the `key number` line with this key. Other lines are not parsed.
pub(crate) fn counter(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The numbers in all `key number` lines.
pub fn counters(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree;

    // As Linux 6.1 shows a service under a limited slice, beside another service.
    #[test]
    fn v2_compares_an_ancestors_limit_with_its_whole_subtree() {
        let dir = tree(&[
            ("proc/9/cgroup", "0::/slice/app\n"),
            ("cg/cgroup.controllers", "memory"),
            ("cg/slice/memory.max", "1000\n"),
            ("cg/slice/memory.high", "950\n"),
            ("cg/slice/memory.current", "900\n"),
            ("cg/slice/memory.stat", "anon 1\ninactive_file 50\n"),
            // The neighbour hit its own limit 40 times; the slice its own 4 times.
            ("cg/slice/memory.events", "low 0\nhigh 0\nmax 44\noom 5\noom_kill 3\noom_group_kill 0\n"),
            ("cg/slice/memory.events.local", "low 0\nhigh 0\nmax 4\noom 1\noom_kill 0\noom_group_kill 0\n"),
            ("cg/slice/app/memory.max", "max\n"),
            ("cg/slice/app/memory.high", "max\n"),
            ("cg/slice/app/memory.current", "300\n"),
            ("cg/slice/app/memory.stat", "anon 1\ninactive_file 100\n"),
            ("cg/slice/app/memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\noom_group_kill 0\n"),
        ]);
        let proc = Proc::at(&dir.path().join("proc"));
        let group = CgroupRoot::at(&dir.path().join("cg")).memory_of(&proc, 9).unwrap();
        assert_eq!((group.working_set().unwrap(), group.limit(), group.available(|_| 0)), (850, Some(1000), Some(100)));
        assert_eq!(group.limited_by(), Some(dir.path().join("cg/slice").as_path()));
        let events = group.events().unwrap();
        assert_eq!((events["max"], events["oom"], events["oom_kill"]), (4, 1, 1));
    }

    #[test]
    fn v2_without_the_memory_controller_uses_an_ancestor_but_never_the_root() {
        let dir = tree(&[
            ("proc/9/cgroup", "0::/pod/inner\n"),
            ("proc/8/cgroup", "0::/\n"),
            ("cg/cgroup.controllers", "memory"),
            ("cg/pod/memory.max", "max\n"),
            ("cg/pod/memory.current", "900\n"),
            ("cg/pod/memory.stat", "inactive_file 300\n"),
            ("cg/pod/memory.events", "max 4\n"),
            ("cg/pod/inner/cpu.stat", "usage_usec 1\n"),
        ]);
        let (proc, root) = (Proc::at(&dir.path().join("proc")), CgroupRoot::at(&dir.path().join("cg")));
        let group = root.memory_of(&proc, 9).unwrap();
        assert_eq!(
            (group.working_set().unwrap(), group.available(|_| 0), group.events().unwrap()["max"]),
            (600, None, 4)
        );
        let group = root.memory_of(&proc, 8).unwrap();
        assert_eq!(group.dir().as_os_str(), dir.path().join("cg").as_os_str());
        assert!(group.working_set().unwrap_err().to_string().contains("it is the root"));
        assert!(group.events().unwrap_err().to_string().contains("it is the root"));
    }

    #[test]
    fn v1_is_read_and_its_unlimited_value_is_none() {
        let dir = tree(&[
            ("proc/9/cgroup", "12:cpu:/x\n4:memory:/docker/abc\n0::/x\n"),
            ("cg/memory/memory.usage_in_bytes", "5000"),
            ("cg/memory/memory.limit_in_bytes", "9223372036854771712"),
            ("cg/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 2000\n"),
            ("cg/memory/memory.failcnt", "9\n"),
            ("cg/memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        ]);
        let proc = Proc::at(&dir.path().join("proc"));
        let group = CgroupRoot::at(&dir.path().join("cg")).memory_of(&proc, 9).unwrap();
        assert_eq!((group.working_set().unwrap(), group.limit()), (3000, None));
        assert_eq!(group.events().unwrap(), [("max".to_owned(), 9), ("oom_kill".to_owned(), 2)].into());
    }

    // A container sees its own group as the root of the mount. The limit may be the pod's, one level up.
    #[test]
    fn v1_tells_of_a_limit_above_the_root_of_the_mount() {
        let dir = tree(&[
            ("proc/9/cgroup", "4:memory:/\n"),
            ("cg/memory/memory.usage_in_bytes", "900"),
            ("cg/memory/memory.limit_in_bytes", "9223372036854771712"),
            ("cg/memory/memory.stat", "hierarchical_memory_limit 1000\ntotal_inactive_file 200\n"),
        ]);
        let proc = Proc::at(&dir.path().join("proc"));
        let group = CgroupRoot::at(&dir.path().join("cg")).memory_of(&proc, 9).unwrap();
        assert_eq!((group.limit(), group.working_set().unwrap(), group.available(|_| 0)), (Some(1000), 700, Some(300)));
    }

    // The host's tree is mounted in a container, and the container's own group is not where /proc says.
    #[test]
    fn figures_of_the_whole_machine_are_not_those_of_a_group_that_is_not_found() {
        for (line, files) in [
            ("4:memory:/docker/abc\n", ["cg/memory/release_agent", "cg/memory/memory.usage_in_bytes"]),
            ("0::/../pod\n", ["cg/cgroup.controllers", "cg/memory.stat"]),
        ] {
            let dir = tree(&[("proc/9/cgroup", line), (files[0], "1"), (files[1], "1")]);
            let proc = Proc::at(&dir.path().join("proc"));
            let found = CgroupRoot::at(&dir.path().join("cg")).memory_of(&proc, 9);
            assert!(matches!(found, Err(Error::NoCgroup { .. })), "{found:?}");
        }
    }

    #[test]
    fn a_missing_cgroup_gives_a_reason() {
        let dir = tree(&[("proc/9/cgroup", "garbage\n")]);
        let proc = Proc::at(&dir.path().join("proc"));
        let error = CgroupRoot::at(dir.path()).memory_of(&proc, 9).unwrap_err().to_string();
        assert!(error.contains("process 9 is in no memory cgroup"), "{error}");
    }
}
