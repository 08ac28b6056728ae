//! The note that a process is switched off, for `status`, `doctor` and people who wait for a request.

use crate::context::Context;
use crate::rules::decide::Verdict;
use crate::state::files::{forget_old_samples, load_sample, save_sample, take_older_sample};
use crate::state::samples::Sample;
use diagctl_store::events::{self, Event};
use diagctl_store::{Process, Result, Store};

/// Records a poll of a process that is switched off. Nothing is decided, so nothing holds and no event waits.
pub fn note_off(cx: &Context, store: &Store, process: &Process, reason: &str, retry_ms: u64) -> Result<()> {
    let _guard = store.lock()?;
    let (_, now) = cx.peek(store)?;
    let last = load_sample(store, &process.id).or_else(|| take_older_sample(store, &process.id));
    let rss = cx.proc.rss(process.id.pid).unwrap_or(0);
    let sample = Sample {
        next_poll: now.store_ms.saturating_add(retry_ms),
        verdict: Verdict::Disabled.name().to_owned(),
        reason: reason.to_owned(),
        switched_off: true,
        refusals: Default::default(),
        refused_requests: Default::default(),
        named: Default::default(),
        holding: Default::default(),
        ..Sample::at_poll(last.as_ref(), process, rss, now.store_ms)
    };
    save_sample(store, &sample)?;
    if last.is_none() {
        forget_old_samples(store, now.store_ms);
    }
    if last.is_none_or(|last| last.verdict != sample.verdict || last.reason != sample.reason) {
        let about = Event::about("verdict", "", reason);
        events::record(store, &Event { verdict: sample.verdict, pid: process.id.pid, ..about });
    }
    Ok(())
}
