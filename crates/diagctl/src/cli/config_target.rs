//! The place where a configuration is to work, for finding doubts about it.

use crate::config::{Config, Place};
use crate::history;
use crate::proc::Proc;
use crate::rules::trigger::Trigger;
use diagctl_store::{self, Access, Store};

/// Describes this machine, and the records of the store if there is one.
pub fn here(proc: &Proc, config: &Config, store: Option<&Store>) -> Place {
    let total = proc.meminfo().ok().and_then(|info| info.get("MemTotal").copied());
    Place {
        host: total,
        memory: total,
        disk: store.and_then(|store| store.space().ok()).map(|(_, total)| total),
        no_such_group: config.group.as_ref().is_some_and(|group| diagctl_store::group_id(group).is_err()),
        gauges: store.filter(|_| looks_at_gauges(config)).map(gauges).unwrap_or_default(),
    }
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
