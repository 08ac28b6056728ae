//! The small files that the engine works on, loaded and saved: state, samples, waiting requests.

use crate::clock::{Anchor, Reading};
use crate::error::Failure;
use crate::fsio;
use crate::sample::Samples;
use crate::state::{self, Found, State};
use crate::store::requests::Request;
use crate::store::{Store, events, index, requests};

/// The state, and whether it has to be written because it was not there. Limits must not be forgotten with a lost or
/// damaged file: they are put together again from the captures, which say when each was taken.
pub fn load_state(store: &Store) -> Result<(State, bool), Failure> {
    match state::load(store.dir())? {
        Found::State(state) => return Ok((*state, false)),
        Found::Nothing => {}
        Found::Damaged(why) => store.quarantine(&store.path("state.json"), &format!("state.json is damaged: {why}"))?,
    }
    let mut state = State::default();
    for entry in index::load(store, false)?.entries {
        state.generation = state.generation.max(entry.sequence);
        state.rules.entry(entry.rule).or_default().fires.push(entry.store_ms);
        let at = state.clock.get_or_insert_with(|| Anchor::place(None, Reading::take(String::new())).anchor());
        at.store_ms = at.store_ms.max(entry.store_ms);
    }
    Ok((state, true))
}

/// What is known of the polling processes; nothing where the file is missing, or torn by a crash.
pub fn load_samples(store: &Store) -> Samples {
    let data = fsio::read_bounded(&store.path("samples.json"), 16 << 20).unwrap_or_default();
    serde_json::from_slice(&data).unwrap_or_default()
}

/// Keeps what is known of the polling processes. Under the state lock.
pub fn save_samples(store: &Store, samples: &Samples) -> Result<(), Failure> {
    let data = serde_json::to_vec(samples).map_err(|e| Failure::failed(format!("cannot encode samples.json: {e}")))?;
    fsio::overwrite(&store.path("samples.json"), &data)
}

/// The requests that wait. Those for which nobody waits any more are taken out on the way.
pub fn waiting_requests(store: &Store, now_ms: u64) -> Result<Vec<Request>, Failure> {
    let mut waiting = requests::list(store)?;
    for request in waiting.iter().filter(|request| request.expires <= now_ms) {
        requests::remove(store, &request.id)?;
        events::record(store, &events::Event::request_failed(&request.id, "nobody took it in time; it expired"));
    }
    // One that has failed too often stays in: the next holder of the lease gives it up with what its dumper left.
    waiting.retain(|request| request.expires > now_ms);
    Ok(waiting)
}
