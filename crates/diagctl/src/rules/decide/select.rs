//! Selection: the machines on which a rule is in force, and which of several processes takes the capture.

use crate::rules::limit;
use crate::rules::rule::{Rule, Select};
use crate::state::samples::{Sample, Samples};
use crate::state::schedule::RuleState;
use crate::units::ms;
use diagctl_store::{Process, ProcessId};

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
) -> Option<ProcessId> {
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
    let rests = |id: &ProcessId| limit::check_process(&rule.limits, marks, || id.key(), now_ms).is_some();
    let others = others.processes.iter().filter(|(id, sample)| !id.is(&process.id) && competes(sample) && !rests(id));
    let mut candidates: Vec<(&ProcessId, &Sample)> = others.collect();
    candidates.push((&process.id, own));
    candidates.sort_unstable_by_key(|(id, _)| *id);
    let is_next = |id: &ProcessId| marks.last.as_ref().map_or(id.pid > marks.last_pid, |last| id > last);
    let chosen = match rule.select {
        Select::First => None,
        Select::Largest => candidates.iter().max_by_key(|(id, sample)| (sample.rss, std::cmp::Reverse(*id))),
        Select::RoundRobin => candidates.iter().find(|(id, _)| is_next(id)).or(candidates.first()),
    };
    chosen.map(|(id, _)| *id).filter(|id| **id != process.id).cloned()
}
