//! `/proc`. Tests read a fake tree through another root path.
//!
//! Sources: proc(5), Documentation/filesystems/proc.rst.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::{Error, Result, sys};

/// The flag of a process that ends, from linux/sched.h.
const PF_EXITING: u64 = 4;

/// A mounted procfs, or a directory that looks like one.
#[derive(Clone, Debug)]
pub struct Proc {
    root: PathBuf,
}

/// Some fields of `/proc/PID/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Name of the executable, at most 15 bytes.
    pub comm: String,
    /// `R`, `S`, `D`, `T`, `Z`, …
    pub state: char,
    /// Pid of the parent.
    pub ppid: u32,
    /// The process group.
    pub pgrp: u32,
    /// True from the moment at which the kernel begins to end the process, before it closes any descriptor.
    pub is_ending: bool,
    /// Start, in clock ticks since boot. Together with the pid it identifies a process for as long as this boot lasts.
    pub start_ticks: u64,
}

impl Default for Proc {
    fn default() -> Self {
        Self { root: "/proc".into() }
    }
}

impl Proc {
    /// A procfs, or a fake one, at another path.
    pub fn at(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// A path beneath the root.
    pub fn path(&self, rest: &str) -> PathBuf {
        self.root.join(rest)
    }

    /// The directory of a process.
    pub fn pid(&self, pid: u32) -> PathBuf {
        self.root.join(pid.to_string())
    }

    /// Reads a text file beneath the root; the error names the path.
    pub fn read(&self, rest: &str) -> Result<String> {
        read(&self.path(rest))
    }

    /// The id of this boot of this machine; empty if it cannot be read.
    pub fn boot_id(&self) -> String {
        read_line(&self.path("sys/kernel/random/boot_id")).unwrap_or_default()
    }

    /// This machine's name; empty if it cannot be read.
    pub fn hostname(&self) -> String {
        self.read("sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
    }

    /// Reads `/proc/PID/stat`.
    pub fn stat(&self, pid: u32) -> Result<Stat> {
        let path = self.pid(pid).join("stat");
        parse_stat(&read(&path)?).ok_or(Error::Format { path, format: "proc(5)" })
    }

    /// Addresses that tell one program image from another: start of the stack, of the heap and of the arguments. A fork has those of
    /// its parent; executing a program draws them anew. `None` if this user may not see them.
    pub fn image(&self, pid: u32) -> Result<Option<[u64; 3]>> {
        let path = self.pid(pid).join("stat");
        parse_image(&read(&path)?).ok_or(Error::Format { path, format: "proc(5)" })
    }

    /// Tells whether the process with this start time still runs: it is neither gone nor a zombie, and its pid was not reused.
    pub fn is_alive(&self, pid: u32, start_ticks: u64) -> bool {
        self.stat(pid).is_ok_and(|stat| stat.start_ticks == start_ticks && !matches!(stat.state, 'Z' | 'X'))
    }

    /// The real user of a process. From `status`, which every user may read of every process.
    pub fn uid(&self, pid: u32) -> Option<u32> {
        self.user(pid, 0)
    }

    /// The effective user of a process.
    pub fn effective_uid(&self, pid: u32) -> Option<u32> {
        self.user(pid, 1)
    }

    fn user(&self, pid: u32, column: usize) -> Option<u32> {
        let status = read(&self.pid(pid).join("status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(column)?.parse().ok()
    }

    /// The program that a process runs, as device and inode; `None` if it may not be looked at.
    pub fn program(&self, pid: u32) -> Option<(u64, u64)> {
        fs::metadata(self.pid(pid).join("exe")).ok().map(|meta| (meta.dev(), meta.ino()))
    }

    /// The resident set, in bytes. From `statm`, which costs the kernel a tenth of `status`.
    pub fn rss(&self, pid: u32) -> Result<u64> {
        let path = self.pid(pid).join("statm");
        let pages = read(&path)?.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
        pages.map(|pages| pages.saturating_mul(sys::page_size())).ok_or(Error::Format { path, format: "proc(5)" })
    }

    /// A `Key: value kB` line of `/proc/PID/status` or `smaps_rollup`, in bytes.
    pub fn figure(&self, pid: u32, file: &str, key: &str) -> Result<u64> {
        let path = self.pid(pid).join(file);
        figure(&read(&path)?, key).ok_or_else(|| Error::NoKey { path, key: key.to_owned() })
    }

    /// `/proc/meminfo`, in bytes.
    pub fn meminfo(&self) -> Result<BTreeMap<String, u64>> {
        self.read("meminfo").map(|text| figures(&text))
    }

    /// `MemTotal` and `MemAvailable`, in bytes.
    pub fn host_memory(&self) -> (Result<u64>, Result<u64>) {
        let text = self.read("meminfo").unwrap_or_default();
        let of = |key: &str| {
            figure(&text, key).ok_or_else(|| Error::NoKey { path: self.path("meminfo"), key: key.to_owned() })
        };
        (of("MemTotal"), of("MemAvailable"))
    }

    /// The pid of every visible process.
    pub fn pids(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir(&self.root) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }
}

/// Reads a small text file; the error names the path. Bytes that are not UTF-8 are replaced.
pub fn read(path: &Path) -> Result<String> {
    // Files in /proc have no length, so `fs::read` would start with small reads and grow.
    let mut bytes = Vec::with_capacity(4096);
    fs::File::open(path)
        .and_then(|file| file.take(u64::MAX).read_to_end(&mut bytes))
        .map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// Reads a file of one short line: the kernel returns such a line whole, so that one call is enough.
pub(crate) fn read_line(path: &Path) -> Result<String> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut line = [0; 64];
    let length = fs::File::open(path).and_then(|mut file| file.read(&mut line)).map_err(failed)?;
    let line = line.get(..length).unwrap_or_default();
    Ok(String::from_utf8_lossy(line.trim_ascii()).into_owned())
}

/// The number in the `Key: number kB` line with this key, in bytes. Other lines are not parsed: a poll needs one of some fifty.
pub fn figure(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kilobytes: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes.saturating_mul(1024))
}

/// The numbers in all `Key: number kB` lines, in bytes.
pub fn figures(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, rest) = line.split_once(':')?;
            let number: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some((key.trim().to_owned(), number.saturating_mul(1024)))
        })
        .collect()
}

/// Parses the line of `/proc/PID/stat`. The command name is in parentheses and may itself contain spaces and parentheses, so fields
/// are counted from the last one.
pub fn parse_stat(text: &str) -> Option<Stat> {
    let open = text.find('(')?;
    let close = text.rfind(')')?;
    let mut fields = text.get(close + 1..)?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let ppid = fields.next()?.parse().ok()?;
    let pgrp = fields.next()?.parse().ok()?;
    // flags is field 9 and starttime field 22; state was field 3, ppid field 4 and pgrp field 5.
    let flags: u64 = fields.nth(9 - 6)?.parse().ok()?;
    let start_ticks = fields.nth(22 - 10)?.parse().ok()?;
    let is_ending = flags & PF_EXITING != 0;
    Some(Stat { comm: text.get(open + 1..close)?.to_owned(), state, ppid, pgrp, is_ending, start_ticks })
}

// startstack, start_brk and arg_start are fields 28, 47 and 48. The kernel prints 0 to those who may not see them.
fn parse_image(text: &str) -> Option<Option<[u64; 3]>> {
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    let of = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let image = [of(28)?, of(47)?, of(48)?];
    Some(Some(image).filter(|image| image.iter().all(|address| *address > 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_its_addresses() {
        let fields: Vec<String> = (4..=52).map(|number| (number * 100).to_string()).collect();
        let text = format!("42 (a) b) S {}", fields.join(" "));
        assert_eq!(parse_image(&text), Some(Some([2800, 4700, 4800])));
        // Another user's process, and a kernel before 3.5.
        assert_eq!(parse_image(&text.replace(" 2800 ", " 0 ")), Some(None));
        assert_eq!(parse_image("42 (a) S 1 2 3"), None);
        let proc = Proc::default();
        assert!(proc.image(std::process::id()).unwrap().is_some());
    }

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) b (c) S 7 1 1 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 1 0 123456 1000 200 18446744073709551615";
        let stat = parse_stat(text).unwrap();
        assert_eq!(
            stat,
            Stat { comm: "a) b (c".into(), state: 'S', ppid: 7, pgrp: 1, is_ending: false, start_ticks: 123_456 }
        );
        assert_eq!(parse_stat("42 (x"), None);
    }

    #[test]
    fn this_process_is_read_from_the_real_proc() {
        let proc = Proc::default();
        let stat = proc.stat(std::process::id()).unwrap();
        assert!(proc.is_alive(std::process::id(), stat.start_ticks));
        assert!(!proc.is_alive(std::process::id(), stat.start_ticks + 1));
        assert!(proc.rss(std::process::id()).unwrap() > 100_000);
    }
}
