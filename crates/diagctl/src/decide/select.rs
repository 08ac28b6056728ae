//! Who captures: which machines a rule is in force on, and which of several processes takes it.

use crate::config::{Rule, Select};
use crate::sample::{Sample, Samples};
use crate::state::RuleState;
use crate::store::process::Process;
use crate::units::ms;

/// A stable share: the same machines all day, others on another day and for another rule. FNV-1a, 64 bit.
pub fn in_sample(rule: &Rule, host: &str, now_ms: u64) -> bool {
    if rule.sample >= 100.0 {
        return true;
    }
    let day = now_ms / 86_400_000;
    let key = format!("{host}\n{}\n{day}", rule.name);
    let hash = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    // The high bits of FNV mix worst; fold them in.
    #[expect(clippy::cast_precision_loss, reason = "a number below a million")]
    let position = ((hash ^ (hash >> 32)) % 1_000_000) as f64 / 10_000.0;
    position < rule.sample
}

/// The process that is to take the capture, when it is not the one that polls. Only processes that are still
/// expected to poll are considered, so one that stops cannot keep the rule waiting.
pub fn chosen_instead(
    rule: &Rule,
    process: &Process,
    own: &Sample,
    marks: &RuleState,
    others: &Samples,
    now_ms: u64,
    poll_ms: u64,
) -> Option<u32> {
    let holds_long_enough = |sample: &Sample| {
        let holding = sample.holding.get(&rule.name);
        holding.is_some_and(|holding| now_ms.saturating_sub(holding.since) >= ms(rule.hold_for))
    };
    let competes = |sample: &Sample| {
        sample.is_fresh(now_ms, poll_ms)
            && rule.matching.accepts(&sample.role, &sample.name)
            && (!rule.trigger.is_about_the_process() || holds_long_enough(sample))
    };
    let others = others.processes.iter().filter(|(pid, sample)| **pid != process.pid && competes(sample));
    let mut candidates: Vec<(u32, &Sample)> = others.map(|(pid, sample)| (*pid, sample)).collect();
    candidates.push((process.pid, own));
    candidates.sort_unstable_by_key(|(pid, _)| *pid);
    let chosen = match rule.select {
        Select::First => None,
        Select::Largest => candidates.iter().max_by_key(|(pid, sample)| (sample.rss, std::cmp::Reverse(*pid))),
        Select::RoundRobin => candidates.iter().find(|(pid, _)| *pid > marks.last_pid).or(candidates.first()),
    };
    chosen.map(|(pid, _)| *pid).filter(|pid| *pid != process.pid)
}
