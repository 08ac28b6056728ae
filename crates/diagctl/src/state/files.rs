//! The small files that the engine works on, loaded and saved: state, samples, waiting requests.

use serde::Serialize;

use crate::clock::{Anchor, Reading};
use crate::fsio::{self, Spot};
use crate::state::samples::{FORGET_AFTER_MS, Sample, Samples};
use crate::state::schedule::{self as state, Found, State};
use diagctl_store::index::{self, Present};
use diagctl_store::requests::Request;
use diagctl_store::{Error, ProcessId, Result};
use diagctl_store::{Store, events, requests};

/// The number of firings of one rule that a lost state is rebuilt from: no limit counts more.
const MOST_FIRES: usize = 10_000;

/// The state, and whether it has to be written because it was not there. Limits must not be forgotten with a lost or
/// damaged file: they are put together again from the captures, which say when each was taken.
pub fn load_state(store: &Store) -> Result<(State, bool)> {
    match state::load(store.dir())? {
        Found::State(state) => return Ok((*state, false)),
        Found::Nothing => {}
        Found::Damaged(why) => diagctl_store::trash::quarantine(
            store,
            &store.path("state.json"),
            &format!("state.json is damaged: {why}"),
        )?,
    }
    let mut state = State::default();
    index::visit(store, &mut Present::list(store)?, |entry| {
        state.generation = state.generation.max(entry.sequence);
        let fires = &mut state.rules.entry(entry.rule).or_default().fires;
        fires.push(entry.store_ms);
        if fires.len() >= 2 * MOST_FIRES {
            keep_newest(fires);
        }
        let at = state.clock.get_or_insert_with(|| Anchor::place(None, Reading::take(String::new())).anchor());
        at.store_ms = at.store_ms.max(entry.store_ms);
    });
    state.rules.values_mut().for_each(|marks| keep_newest(&mut marks.fires));
    Ok((state, true))
}

// Puts firings in the order in which they happened.
fn keep_newest(fires: &mut Vec<u64>) {
    fires.sort_unstable();
    fires.drain(..fires.len().saturating_sub(MOST_FIRES));
}

/// The samples of all polling processes.
pub fn load_samples(store: &Store) -> Samples {
    Samples { processes: sample_files(store).map(|(_, sample)| (sample.id(), sample)).collect() }
}

/// The sample of one process, which is all that most polls need; nothing where the file is missing, or torn by a crash.
pub fn load_sample(store: &Store, process: &ProcessId) -> Option<Sample> {
    read_sample(&sample_path(store, process))
}

/// The sample that an older version left of this process, under a name with the pid only. The next poll writes it anew.
pub fn take_older_sample(store: &Store, process: &ProcessId) -> Option<Sample> {
    let spot = store.path("samples").join(format!("{}.json", process.pid));
    let sample = read_sample(&spot).filter(|sample| sample.start_ticks == process.start_ticks)?;
    // If it stays, `status` shows the process twice until the file is forgotten.
    let _ = fsio::remove_file(&spot);
    Some(Sample { pid: process.pid, ..sample })
}

fn read_sample(spot: &Spot) -> Option<Sample> {
    Sample::parse(&fsio::read_bounded(spot, 1 << 20).ok()?)
}

// Two containers that share a store may both have a process 1, and so may two machines.
fn sample_path(store: &Store, process: &ProcessId) -> Spot {
    store.path("samples").join(format!("{}-{}-{}.json", process.pid, process.pid_ns, process.boot()))
}

fn sample_files(store: &Store) -> impl Iterator<Item = (Spot, Sample)> {
    let dir = store.path("samples");
    fsio::children(&dir).filter_map(move |entry| {
        let name = entry.name.to_str()?.strip_suffix(".json")?;
        let pid: u32 = name.split('-').next()?.parse().ok()?;
        let spot = dir.join(&entry.name);
        let sample = read_sample(&spot)?;
        Some((spot, Sample { pid, ..sample }))
    })
}

/// Keeps the sample of one process. Under the state lock.
pub fn save_sample(store: &Store, sample: &Sample) -> Result<()> {
    Ok(fsio::overwrite(&sample_path(store, &sample.id()), &encode("a sample", sample)?)?)
}

/// Forgets processes that have not polled for long.
pub fn forget_old_samples(store: &Store, now_ms: u64) {
    for (spot, sample) in sample_files(store) {
        if now_ms.saturating_sub(sample.last_seen) >= FORGET_AFTER_MS {
            // It is in nobody's way if it stays.
            let _ = fsio::remove_file(&spot);
        }
    }
}

fn encode(what: &str, value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(Error::encode(what))
}

/// The requests that wait. Those for which nobody waits any more are taken out on the way.
pub fn waiting_requests(store: &Store, now_ms: u64) -> Result<Vec<Request>> {
    let mut waiting = requests::for_poll(store)?;
    for request in waiting.iter().filter(|request| request.expires <= now_ms) {
        requests::remove(store, &request.id)?;
        events::record(store, &events::Event::request_failed(&request.id, "no process took it before it expired"));
    }
    // A request that has failed too often stays in: the next holder of the lease gives it up together with its dumper's leftovers.
    waiting.retain(|request| request.expires > now_ms);
    Ok(waiting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_state_remembers_the_newest_firings_in_order() {
        let mut fires: Vec<u64> = (0..2 * MOST_FIRES as u64).rev().collect();
        keep_newest(&mut fires);
        assert_eq!((fires.len(), fires[0], fires[MOST_FIRES - 1]), (MOST_FIRES, 10_000, 19_999));
        fires.truncate(2);
        keep_newest(&mut fires);
        assert_eq!(fires, [10_000, 10_001]);
    }
}
