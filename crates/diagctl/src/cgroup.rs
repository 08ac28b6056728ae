//! Which memory cgroup a process is in, and its figures: cgroup v2, and v1 where it has them.
//!
//! Source: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst. The working set is
//! `current − inactive_file`, as the kubelet computes it: the page cache that can be dropped at once does not count.

use std::collections::BTreeMap;
use std::fs;
#[cfg(test)]
use std::path::Path;
use std::path::PathBuf;

use crate::proc::{Proc, read};

/// Where cgroups are mounted, or a directory that looks like it.
#[derive(Clone, Debug)]
pub struct CgroupRoot(PathBuf);

/// One memory cgroup.
#[derive(Clone, Debug)]
pub struct MemoryCgroup {
    /// Its directory.
    pub dir: PathBuf,
    mount: PathBuf,
    v2: bool,
}

impl Default for CgroupRoot {
    fn default() -> Self {
        Self("/sys/fs/cgroup".into())
    }
}

impl CgroupRoot {
    /// A cgroup mount elsewhere.
    #[cfg(test)]
    pub fn at(root: &Path) -> Self {
        Self(root.into())
    }

    /// The memory cgroup of a process. In a container the path that /proc tells may be the host's, which is not
    /// mounted here; the mount's own root is then the container's cgroup.
    pub fn memory_of(&self, proc: &Proc, pid: u32) -> Result<MemoryCgroup, String> {
        let text = read(&proc.pid(pid).join("cgroup"))?;
        let v1_mount = self.0.join("memory");
        for line in text.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let v2 = controllers.is_empty() && self.0.join("cgroup.controllers").exists();
            let v1 = controllers.split(',').any(|c| c == "memory") && v1_mount.is_dir();
            if !v1 && !v2 {
                continue;
            }
            let mount = if v2 { self.0.clone() } else { v1_mount.clone() };
            let nested = mount.join(path.trim_start_matches('/'));
            let dir = if nested.is_dir() && !path.contains("..") { nested } else { mount.clone() };
            return Ok(MemoryCgroup { dir, mount, v2 });
        }
        Err(format!("process {pid} is in no memory cgroup that is mounted at {}", self.0.display()))
    }
}

impl MemoryCgroup {
    /// Bytes in use, without the page cache that can be dropped.
    pub fn working_set(&self) -> Result<u64, String> {
        let current = self.number(if self.v2 { "memory.current" } else { "memory.usage_in_bytes" })?;
        let key = if self.v2 { "inactive_file" } else { "total_inactive_file" };
        let stat = read(&self.dir.join("memory.stat"))?;
        let inactive = stat
            .lines()
            .find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok())
            .ok_or_else(|| format!("{}/memory.stat has no {key}", self.dir.display()))?;
        Ok(current.saturating_sub(inactive))
    }

    /// The lowest limit of this cgroup and those above it; `None` when there is none.
    pub fn limit(&self) -> Option<u64> {
        let file = if self.v2 { "memory.max" } else { "memory.limit_in_bytes" };
        self.up()
            .filter_map(|dir| read(&dir.join(file)).ok()?.trim().parse::<u64>().ok())
            // v1 writes "no limit" as the largest multiple of a page.
            .filter(|limit| *limit < 1 << 60)
            .min()
    }

    /// Whether it is of the unified hierarchy.
    pub fn is_v2(&self) -> bool {
        self.v2
    }

    /// The innermost cgroup, from this one upwards, that the kernel ends as a whole when its memory runs out.
    pub fn oom_group(&self) -> Option<PathBuf> {
        let whole = |dir: &&std::path::Path| read(&dir.join("memory.oom.group")).is_ok_and(|text| text.trim() == "1");
        self.up().find(whole).map(PathBuf::from)
    }

    /// Tasks, and how many there may be, where fewest are left; `None` when there is no such limit. On v1 this is another
    /// hierarchy, which is not looked at.
    pub fn pids(&self) -> Option<(u64, u64)> {
        let number = |dir: &std::path::Path, file: &str| read(&dir.join(file)).ok()?.trim().parse::<u64>().ok();
        let of = |dir| Some((number(dir, "pids.current")?, number(dir, "pids.max")?));
        self.up().filter_map(of).min_by_key(|(current, max)| max.saturating_sub(*current))
    }

    // This directory and those above it, as far as they are mounted.
    fn up(&self) -> impl Iterator<Item = &std::path::Path> {
        self.dir.ancestors().take_while(|dir| dir.starts_with(&self.mount))
    }

    /// What the kernel counted: the keys of `memory.events`, and on v1 the two that it has under other names.
    pub fn events(&self) -> Result<BTreeMap<String, u64>, String> {
        if self.v2 {
            let text = read(&self.dir.join("memory.events"))?;
            return Ok(counters(&text));
        }
        let control = read(&self.dir.join("memory.oom_control"))?;
        let mut events = counters(&control);
        events.retain(|key, _| key == "oom_kill");
        events.insert("max".into(), self.number("memory.failcnt")?);
        Ok(events)
    }

    /// The files of this cgroup that tell about memory and CPU, as far as they can be read.
    pub fn files(&self) -> Vec<(String, String)> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let mut files: Vec<_> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let told = ["memory.", "cpu.", "pids.", "io.", "cgroup.events", "cgroup.procs"];
                if !told.iter().any(|prefix| name.starts_with(prefix)) {
                    return None;
                }
                let text = fs::read_to_string(entry.path()).ok()?;
                Some((name, text))
            })
            .collect();
        files.sort();
        files
    }

    fn number(&self, file: &str) -> Result<u64, String> {
        let path = self.dir.join(file);
        read(&path)?.trim().parse().map_err(|_| format!("{} is not a number", path.display()))
    }
}

/// The `key number` lines of a file.
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

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn v2_takes_the_lowest_limit_on_the_way_up() {
        let dir = tree(&[
            ("proc/9/cgroup", "0::/pod/app\n"),
            ("cg/cgroup.controllers", "memory"),
            ("cg/pod/memory.max", "1000\n"),
            ("cg/pod/app/memory.max", "max\n"),
            ("cg/pod/app/memory.current", "900\n"),
            ("cg/pod/app/memory.stat", "anon 1\ninactive_file 300\n"),
            ("cg/pod/app/memory.events", "low 0\nmax 4\noom_kill 1\n"),
        ]);
        let proc = Proc::at(&dir.path().join("proc"));
        let group = CgroupRoot::at(&dir.path().join("cg")).memory_of(&proc, 9).unwrap();
        assert_eq!((group.working_set(), group.limit()), (Ok(600), Some(1000)));
        assert_eq!((group.events().unwrap()["max"], group.events().unwrap()["oom_kill"]), (4, 1));
    }

    #[test]
    fn v1_is_read_and_its_no_limit_is_none() {
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
        assert_eq!((group.working_set(), group.limit()), (Ok(3000), None));
        assert_eq!(group.events().unwrap(), [("max".to_owned(), 9), ("oom_kill".to_owned(), 2)].into());
    }

    #[test]
    fn no_cgroup_is_a_reason_not_a_panic() {
        let dir = tree(&[("proc/9/cgroup", "garbage\n")]);
        let proc = Proc::at(&dir.path().join("proc"));
        let error = CgroupRoot::at(dir.path()).memory_of(&proc, 9).unwrap_err();
        assert!(error.contains("process 9 is in no memory cgroup"), "{error}");
    }
}
