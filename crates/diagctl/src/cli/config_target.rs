//! The machine that a configuration is for, so that its warnings can be found.

use crate::config::{Config, Place};
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
        encryption: store.and_then(encryption_record::read),
        gauges: store.filter(|_| looks_at_gauges(config)).map(gauges).unwrap_or_default(),
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
