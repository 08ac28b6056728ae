//! `diagctl pause` and `resume`: switch captures of one store off and on at run time.

use std::time::Duration;

use super::Context;
use super::output::{self, Done};
use super::request::invoking_user;
use crate::cli::error::Failure;
use crate::clock::Now;
use crate::state::files::load_state;
use crate::state::schedule::{self as state, Found, Pause, State};
use crate::units;
use diagctl_store::events::{self, Event};
use diagctl_store::{Access, Store};

/// Pause captures
///
/// A dump in progress continues. Requests wait.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  diagctl pause --for 2h")]
pub struct PauseArgs {
    /// Resume automatically after this time: 90m, 2h, 14d
    #[arg(long = "for", value_name = "DURATION", value_parser = units::parse_wait, allow_hyphen_values = true)]
    time: Option<Duration>,
}

/// Resume captures
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  diagctl resume")]
pub struct ResumeArgs {}

pub fn pause(cx: &Context, args: &PauseArgs) -> Result<Done, Failure> {
    let by = invoking_user();
    // `Create`, so that a store can be paused before the first worker polls.
    let store = cx.open(Access::CreateForWorkers)?;
    change(cx, &store, |state, now| {
        let pause = Pause {
            since: now.store_ms,
            until: args.time.map(|time| now.store_ms.saturating_add(units::ms(time))),
            by: by.clone(),
        };
        let reason = pause.reason(now.store_ms);
        state.paused = Some(pause);
        (Event::about("paused", "", &reason), reason)
    })
}

pub fn resume(cx: &Context, _: &ResumeArgs) -> Result<Done, Failure> {
    let by = invoking_user();
    let store = cx.open(Access::Write)?;
    change(cx, &store, |state, now| {
        let line = match state.paused.take().filter(|pause| pause.holds(now.store_ms)) {
            Some(pause) => {
                let lasted = super::times::age(pause.since, now.store_ms);
                format!("resumed by {by}; paused by {} {lasted} ago", crate::cli::error::printable(&pause.by))
            }
            None => "not paused".into(),
        };
        (Event::about("resumed", "", &line), line)
    })
}

// Changes the state. A damaged state is quarantined first.
fn change(
    cx: &Context,
    store: &Store,
    apply: impl FnOnce(&mut State, &Now) -> (Event, String),
) -> Result<Done, Failure> {
    let _guard = store.lock()?;
    if let Found::Damaged(why) = state::load(store.dir())? {
        output::note(&format!("state.json is damaged ({why}); it was moved to quarantine/, and a new one begins"));
    }
    let (mut state, _) = load_state(store)?;
    let now = cx.now(&state);
    let (event, line) = apply(&mut state, &now);
    state.clock.get_or_insert_with(|| now.anchor());
    state::save(store.dir(), &state)?;
    events::record(store, &event);
    Ok(Done::text(format!("{}: {line}", store.dir().display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Loaded};

    fn context() -> (tempfile::TempDir, Context) {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { dir: dir.path().join("store"), ..Config::default() };
        Store::open(config.store_options(), Access::Create).unwrap();
        (dir, Context::new(Loaded::new(config), None))
    }

    fn paused(cx: &Context) -> Option<Pause> {
        match state::load(&crate::fsio::Spot::outside(&cx.config().dir)).unwrap() {
            Found::State(state) => state.paused,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pause_is_stored_with_its_end_until_resumed() {
        let (_dir, cx) = context();
        let done = pause(&cx, &PauseArgs { time: Some(Duration::from_secs(60)) }).unwrap();
        assert!(format!("{done:?}").contains("for another 1m"), "{done:?}");
        let kept = paused(&cx).unwrap();
        assert_eq!(kept.until, Some(kept.since + 60_000));
        pause(&cx, &PauseArgs { time: None }).unwrap();
        assert_eq!(paused(&cx).unwrap().until, None);
        resume(&cx, &ResumeArgs {}).unwrap();
        assert_eq!(paused(&cx), None);
        assert!(format!("{:?}", resume(&cx, &ResumeArgs {}).unwrap()).contains("not paused"));
    }

    #[test]
    fn a_damaged_state_is_moved_away_and_the_pause_holds() {
        let (_dir, cx) = context();
        std::fs::write(cx.config().dir.join("state.json"), "{torn").unwrap();
        pause(&cx, &PauseArgs { time: None }).unwrap();
        assert!(paused(&cx).is_some());
        assert_eq!(std::fs::read_dir(cx.config().dir.join("quarantine")).unwrap().count(), 1);
    }
}
