//! Selection: the machines on which a rule is in force, and which of several processes takes the capture.

use crate::rules::limit;
use crate::rules::rule::{Rule, Select};
use crate::state::samples::{Sample, Samples};
use crate::state::schedule::RuleState;
use crate::units::ms;
use diagctl_store::{Process, subject};

/// Returns true if this machine is in the rule's sample. The selection is stable for a day and differs between days and between
/// rules. FNV-1a, 64 bit.
pub fn in_sample(rule: &Rule, host: &str, now_ms: u64) -> bool {
    if rule.sample >= 100.0 {
        return true;
    }
    let day = now_ms / 86_400_000;
    let key = format!("{host}\n{}\n{day}", rule.name);
    let hash = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    // The high bits of FNV mix worst, so fold them in.
    #[expect(clippy::cast_precision_loss, reason = "a number below a million")]
    let position = ((hash ^ (hash >> 32)) % 1_000_000) as f64 / 10_000.0;
    position < rule.sample
}

/// Returns the process that should take the capture instead of the polling one, if any. Only processes that are still expected
/// to poll are considered, so that a stopped one cannot keep the rule waiting.
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
        let holding = sample.holding.get(&*rule.name);
        holding.is_some_and(|holding| now_ms.saturating_sub(holding.since) >= ms(rule.hold_for))
    };
    let competes = |sample: &Sample| {
        sample.is_fresh(now_ms, poll_ms)
            && !sample.is_off()
            && rule.matching.accepts(&sample.role, &sample.name)
            && (!rule.trigger.is_about_the_process() || holds_long_enough(sample))
    };
    // A process whose turn it is not, yet.
    let rests = |pid: u32, sample: &Sample| {
        let subject = subject(pid, sample.start_ticks);
        limit::check_process(&rule.limits, marks, &subject, now_ms).is_some()
    };
    let others = others.processes.iter().filter(|(pid, sample)| **pid != process.pid && competes(sample));
    let others = others.filter(|(pid, sample)| !rests(**pid, sample));
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
