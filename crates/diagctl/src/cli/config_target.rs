//! The machine that a configuration is for, so that its warnings can be found.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::{Config, Kind, Named, Place};
use crate::history;
use crate::proc::Proc;
use crate::rules::trigger::Trigger;
use crate::units::size;
use diagctl_store::{self, Access, Store, encryption_record};

/// Describes this machine, and the records of the store if there is one.
pub fn here(proc: &Proc, config: &Config, store: Option<&Store>) -> Place {
    let total = proc.meminfo().ok().and_then(|info| info.get("MemTotal").copied());
    Place {
        host: total,
        memory: total,
        disk: store.and_then(|store| store.space().ok()).map(|(_, total)| total),
        no_such_group: config.group.as_ref().is_some_and(|group| diagctl_store::group_id(group).is_err()),
        missing: missing(config),
        encryption: store.and_then(encryption_record::read),
        gauges: store.filter(|_| looks_at_gauges(config)).map(gauges).unwrap_or_default(),
    }
}

// A name without a slash is looked up in PATH, and where programs usually are: the workers may have another one.
fn missing(config: &Config) -> BTreeMap<String, &'static str> {
    let lacks = |named: &Named| {
        let path = Path::new(&named.path);
        let is_there = |path: &Path| !std::fs::metadata(path).is_err_and(|e| e.kind() == ErrorKind::NotFound);
        match named.kind {
            Kind::Program if !named.path.contains('/') => {
                let all = std::env::var_os("PATH").unwrap_or_default();
                let usual = ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from);
                let mut dirs = std::env::split_paths(&all).chain(usual);
                (!dirs.any(|dir| is_executable(&dir.join(path)))).then_some("is not in PATH")
            }
            _ if !is_there(path) => Some("does not exist"),
            Kind::Program => (!is_executable(path)).then_some("is not a program that can be run"),
            Kind::Directory => path.is_file().then_some("is not a directory"),
            Kind::File => None,
        }
    };
    config.names().into_iter().filter_map(|named| lacks(&named).map(|why| (named.path, why))).collect()
}

// A file in a directory that is closed to this user counts as executable.
fn is_executable(path: &Path) -> bool {
    match std::fs::metadata(path) {
        Ok(meta) => meta.is_file() && meta.permissions().mode() & 0o111 != 0,
        Err(e) => e.kind() == ErrorKind::PermissionDenied,
    }
}

/// Notes that percentages are of the host's memory, if a rule has one and none of the processes has a memory limit.
pub fn shares_of_host(config: &Config, limits: &[Option<u64>], host: Option<u64>) -> Option<String> {
    let rules = config.rules_with_shares();
    if rules.is_empty() || limits.is_empty() || limits.iter().any(Option::is_some) {
        return None;
    }
    let of = if rules.len() == 1 { "rule" } else { "rules" };
    let host = host.map_or_else(String::new, |bytes| format!(" ({})", size(bytes)));
    Some(format!("shares in {of} {} are of the host's memory{host}: no memory limit applies here", rules.join(", ")))
}

/// Does the same for a command that keeps its own identity: the thread that opens the store takes its owner's identity and then
/// ends. A store that cannot be read is ignored.
pub fn by_its_owner(proc: &Proc, config: &Config) -> Place {
    let look = || {
        let there = config.dir.join("FORMAT").exists();
        let store = there.then(|| Store::open(config.store_options(), Access::Read).ok()).flatten();
        here(proc, config, store.as_ref())
    };
    super::apart::run(look).unwrap_or_default()
}

fn looks_at_gauges(config: &Config) -> bool {
    let mut looks = false;
    for rule in &config.rules {
        rule.trigger.visit(&mut |trigger| looks |= matches!(trigger, Trigger::Gauge(_)));
    }
    looks
}

fn gauges(store: &Store) -> std::collections::BTreeSet<String> {
    let recorded = history::read(store).unwrap_or_default();
    recorded.into_iter().flat_map(|sample| sample.gauges.into_keys()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_files_and_directories_are_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("plain"), "").unwrap();
        let table = [
            (format!("[on_capture]\ncommand = [{:?}]", path("gone")), Some("does not exist")),
            (format!("[on_capture]\ncommand = [{:?}]", path("plain")), Some("is not a program that can be run")),
            ("[on_capture]\ncommand = [\"/bin/sh\"]".into(), None),
            ("[reports.x]\ncommand = [\"sh\"]".into(), None),
            ("[reports.x]\ncommand = [\"no-such-program\"]".into(), Some("is not in PATH")),
            (format!("[on_capture]\nwebhook_file = {:?}", path("plain")), None),
            (format!("[on_capture]\nwebhook_file = {:?}", path("gone")), Some("does not exist")),
            (format!("[remote]\nurl = \"file://{}\"", path("plain")), Some("is not a directory")),
            (format!("[remote]\nurl = \"file://{}\"", path("")), None),
        ];
        for (text, expected) in table {
            let (config, _) = crate::config::parse(&text).unwrap();
            assert_eq!(missing(&config).into_values().next(), expected, "{text}");
        }
    }

    #[test]
    fn shares_without_a_limit_are_said_to_be_of_the_host() {
        let rule = |trigger: &str| format!("[[rules]]\nname = \"r\"\nreports = [\"smaps\"]\ntrigger.{trigger}\n");
        let share = rule("any = [ { memory_usage = { above = \"80%\" } } ]");
        let table: [(&str, &[Option<u64>], bool); 8] = [
            (&share, &[None], true),
            (&share, &[None, None], true),
            (&share, &[None, Some(1 << 30)], false),
            (&share, &[], false),
            (&rule("memory_usage = { of = \"cgroup\", above = \"80%\" }"), &[None], true),
            (&rule("memory_usage = { of = \"host\", above = \"80%\" }"), &[None], false),
            (&rule("memory_usage = { above = \"1GiB\" }"), &[None], false),
            (&rule("memory_projection = { margin = \"10%\" }"), &[None], true),
        ];
        for (text, limits, expected) in table {
            let (config, _) = crate::config::parse(text).unwrap();
            let said = shares_of_host(&config, limits, Some(64 << 30));
            assert_eq!(said.is_some(), expected, "{text} {limits:?}");
            assert!(said.is_none_or(|said| said.contains("rule r are of the host's memory (64.0 GiB)")));
        }
    }
}
