//! Checks of the store's contents: format, small files, damaged captures, the clock that limits are counted by, and the lease.

use std::path::Path;

use rustix::fs::FileType;

use super::check::Check;
use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::status::lease::Report as Lease;
use crate::clock::Now;
use crate::config::Config;
use crate::exit_code::Exit;
use crate::fsio::{self, Spot};
use crate::proc::Proc;
use crate::state::files::load_samples;
use crate::state::samples::Samples;
use crate::state::schedule::{self as state, Found, State};
use crate::units::{duration, size};
use diagctl_store::{self, Access, Store, index, meta};

/// Unix milliseconds of 2020-01-01. A wall clock before that is wrong.
const NO_EARLIER_MS: i64 = 1_577_836_800_000;

/// A difference between the store's time line and the wall clock that only a change of the clock explains, in milliseconds.
const FAR_MS: u64 = 86_400_000;

/// The time after which an entry in `trash/` counts as stuck, in milliseconds. Entries are normally deleted at once.
const TRASH_IS_EMPTIED_MS: i64 = 600_000;

/// The findings, and the data that other checks need.
pub struct Contents {
    /// The findings.
    pub checks: Vec<Check>,
    /// The state; an empty one if there is none.
    pub state: State,
    /// The processes that poll.
    pub samples: Samples,
    /// The record of the newest capture.
    pub newest: Option<meta::Meta>,
    /// The lease.
    pub lease: Option<Lease>,
    /// The current time, on the store's time line.
    pub now: Now,
}

/// Examines the contents without changing anything. If this is root, the thread takes the identity of the store's owner.
pub fn examine(cx: &Context) -> Contents {
    let mut found = Contents {
        checks: Vec::new(),
        state: State::default(),
        samples: Samples::default(),
        newest: None,
        lease: None,
        now: cx.now(&State::default()),
    };
    match cx.open(Access::Read) {
        Ok(store) => {
            found.checks.push(Check::ok("store.format", "this diagctl supports the format of the store"));
            read(cx, &store, &mut found);
        }
        Err(failure) => found.checks.push(closed(&cx.config().dir, failure.into())),
    }
    found.checks.push(clock(&found.now));
    found
}

fn closed(dir: &Path, failure: Failure) -> Check {
    let id = "store.format";
    if failure.exit == Exit::Failed && std::fs::symlink_metadata(dir.join("FORMAT")).is_err() {
        return match Spot::hold(dir)
            .map_err(|e| Failure::io("open", dir, e))
            .and_then(|dir| Ok(diagctl_store::foreign_entry(&dir)?))
        {
            Ok(Some(name)) => Check::fail(
                id,
                format!("{} is neither empty nor a diagctl store: it contains {name}", dir.display()),
                "set dir or DIAGCTL_DIR to a directory of its own",
            ),
            Ok(None) => Check::ok(id, "the directory is empty; the first worker that polls creates the store in it"),
            Err(_) => Check::skip(id, "there is no store that this user can access"),
        };
    }
    Check::fail(id, failure.message, failure.hint.unwrap_or_else(|| "fix it, or use a new store elsewhere".into()))
}

fn read(cx: &Context, store: &Store, found: &mut Contents) {
    let loaded = state::load(store.dir());
    let loaded = loaded.map_err(Failure::from);
    found.checks.push(state_file(&loaded));
    if let Ok(Found::State(state)) = loaded {
        found.now = cx.now(&state);
        found.state = *state;
    }
    found.checks.push(pause(&found.state, found.now.store_ms));
    found.samples = load_samples(store);
    match index::summary(store) {
        Ok(summary) => {
            let newest = summary.latest.as_ref().map(|entry| store.report_dir(&entry.id));
            found.newest = newest.and_then(|dir| meta::read(&dir).ok());
            found.checks.push(captures(&summary));
        }
        Err(e) => {
            found.checks.push(Check::fail("store.captures", e.to_string(), "make reports/ a directory of the owner"))
        }
    }
    found.checks.push(quarantine(store, cx.config()));
    found.checks.push(trash(store, &found.now));
    found.checks.push(small_files(store));
    found.lease = settled_lease(&cx.proc, store, &found.now);
}

// Reads the lease, and again after a pause if it seems leaked: between two steps of `acquire` and of `finalize`, the lock and
// its record disagree for an instant.
fn settled_lease(proc: &Proc, store: &Store, now: &Now) -> Option<Lease> {
    let lease = Lease::read(proc, store.dir(), now).ok()?;
    if !lease.leaked {
        return Some(lease);
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    Lease::read(proc, store.dir(), now).ok()
}

fn state_file(loaded: &Result<Found, Failure>) -> Check {
    let id = "store.state";
    match loaded {
        Ok(Found::State(_)) => Check::ok(id, "state.json is intact"),
        Ok(Found::Nothing) => Check::ok(id, "there is no state.json yet; the first poll writes it"),
        Ok(Found::Damaged(why)) => Check::warn(
            id,
            format!("state.json is damaged ({why}): due times and budgets are lost"),
            "the next poll moves it to quarantine/ and counts the existing captures; find out what damaged it",
        ),
        Err(e) => Check::fail(id, e.message.clone(), e.hint.clone().unwrap_or_else(|| "move it away".into())),
    }
}

fn pause(state: &State, now_ms: u64) -> Check {
    match state.paused.as_ref().filter(|pause| pause.holds(now_ms)) {
        Some(pause) => {
            Check::warn("pause", pause.reason(now_ms), "`diagctl resume` ends it").seen("by", pause.by.clone())
        }
        None => Check::ok("pause", "not paused"),
    }
}

fn captures(summary: &index::Summary) -> Check {
    let id = "store.captures";
    let damaged: Vec<String> = summary.damaged.iter().map(|(id, why)| format!("{id}: {why}")).collect();
    let check = match damaged.as_slice() {
        [] => Check::ok(id, format!("{}, all with a readable meta.json", crate::cli::gc::count(summary.captures))),
        [first, ..] => Check::warn(
            id,
            format!("captures with a damaged meta.json: {}; the first is {first}", damaged.len()),
            "`diagctl verify --all` checks their data too; `diagctl rm ID` deletes a capture",
        ),
    };
    check.seen("captures", summary.captures).seen("damaged", damaged)
}

fn quarantine(store: &Store, config: &Config) -> Check {
    let id = "store.quarantine";
    let names: Vec<String> =
        fsio::children(&store.path("quarantine")).map(|entry| entry.name.to_string_lossy().into_owned()).collect();
    let bytes = fsio::occupied_tree(&store.path("quarantine"));
    let check = match names.len() {
        0 => Check::ok(id, "quarantine/ is empty"),
        n => Check::warn(
            id,
            format!(
                "quarantine/ has {} ({}): damaged files, or files of a dumper that lost the lease",
                entries(n),
                size(bytes)
            ),
            format!(
                "see `diagctl status --explain`, inspect the files, then delete them; beyond {} the oldest are deleted automatically",
                size(config.retention.max_use / 10)
            ),
        ),
    };
    check.seen("entries", names).seen("bytes", bytes)
}

fn entries(n: usize) -> String {
    if n == 1 { "1 entry".into() } else { format!("{n} entries") }
}

// Entries stay in `trash/` only while they are being deleted, or, after a kill, until the next capture.
fn trash(store: &Store, now: &Now) -> Check {
    let id = "store.trash";
    let trash = store.path("trash");
    let old: Vec<Spot> = fsio::children(&trash)
        .map(|entry| trash.join(entry.name))
        .filter(|thrown| {
            let moved_ms = thrown.stat().map(|stat| stat.st_ctime.saturating_mul(1000));
            moved_ms.is_ok_and(|moved_ms| now.clock.wall_ms.saturating_sub(moved_ms) > TRASH_IS_EMPTIED_MS)
        })
        .collect();
    let bytes = old.iter().map(fsio::occupied_tree).sum::<u64>();
    let names: Vec<String> = old.iter().map(|thrown| thrown.display().to_string()).collect();
    let count = entries(names.len());
    let check = match names.as_slice() {
        [] => Check::ok(id, "trash/ has no entries that could not be deleted"),
        [first, ..] => Check::warn(
            id,
            format!("trash/ has {} ({}) that could not be deleted, for example {first}", count, size(bytes)),
            "try `diagctl gc`; if they remain, check who owns them (a command of `diagctl run` may have left them) and delete them",
        ),
    };
    check.seen("entries", names).seen("bytes", bytes)
}

// Checks the files that every poll opens: type, owner and mode.
fn small_files(store: &Store) -> Check {
    let id = "store.files";
    let odd: Vec<String> = [
        "FORMAT",
        "lease.lock",
        "lease.json",
        "state.lock",
        "state.json",
        "index.jsonl",
        "catalog.bin",
        "events.jsonl",
    ]
    .into_iter()
    .filter_map(|name| {
        let stat = store.path(name).stat().ok()?;
        let owner = stat.st_uid;
        let why = if !FileType::from_raw_mode(stat.st_mode).is_file() {
            "is not a regular file".to_owned()
        } else if owner != store.owner() {
            format!("is owned by uid {owner}, the store by uid {}", store.owner())
        } else {
            return None;
        };
        Some(format!("{name} {why}"))
    })
    .collect();
    match odd.as_slice() {
        [] => Check::ok(id, "all files are regular and belong to the store's owner"),
        _ => {
            Check::fail(id, odd.join("; "), "find out who put it there; move it away, or chown it to the store's owner")
                .seen("files", odd.clone())
        }
    }
}

fn clock(now: &Now) -> Check {
    let id = "clock";
    let wall = u64::try_from(now.clock.wall_ms).unwrap_or(0);
    let apart = wall.abs_diff(now.store_ms);
    let check = if let Some(back) = now.stepped_back_ms {
        Check::warn(
            id,
            format!("the wall clock was set back by {} since the last poll: one poll is refused", duration(back)),
            "keep the machine's clock synchronized (chrony, systemd-timesyncd); limits follow CLOCK_BOOTTIME",
        )
    } else if now.clock.wall_ms < NO_EARLIER_MS {
        Check::warn(
            id,
            "the wall clock is before 2020: ids and times of captures will be wrong",
            "set the machine's clock; limits follow CLOCK_BOOTTIME",
        )
    } else if apart > FAR_MS {
        Check::warn(
            id,
            format!("the wall clock was set: it is {} away from the store's own time line", duration(apart)),
            "no action is needed; ages and limits follow that time line, ids show the wall clock",
        )
    } else {
        Check::ok(id, "the wall clock agrees with the store's time line")
    };
    check.seen("wall_ms", now.clock.wall_ms).seen("store_ms", now.store_ms).seen("stepped_back_ms", now.stepped_back_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::check::{Status, complaints};
    use crate::clock::Reading;

    fn now(wall_ms: i64, store_ms: u64, stepped_back_ms: Option<u64>) -> Now {
        Now { store_ms, clock: Reading { wall_ms, boot_ms: 5, boot_id: "b".into() }, stepped_back_ms }
    }

    #[test]
    fn clock_problems_are_reported() {
        let wall: i64 = 1_800_000_000_000;
        let store = wall.unsigned_abs();
        let table = [
            (now(wall, store, None), Status::Ok, "agrees"),
            (now(wall, store, Some(60_000)), Status::Warn, "set back by 1m"),
            (now(0, 0, None), Status::Warn, "before 2020"),
            (now(wall, store + 2 * FAR_MS, None), Status::Warn, "2d away"),
        ];
        for (now, status, said) in table {
            let check = clock(&now);
            assert_eq!(check.status, status, "{}", check.message);
            assert!(check.message.contains(said), "{said}: {}", check.message);
        }
    }

    #[test]
    fn an_unusable_state_fails_and_a_damaged_state_warns() {
        let table = [
            (Ok(Found::Nothing), Status::Ok),
            (Ok(Found::State(Box::default())), Status::Ok),
            (Ok(Found::Damaged("eof".into())), Status::Warn),
            (Err(Failure::failed("state.json is not a regular file")), Status::Fail),
        ];
        for (loaded, status) in table {
            assert_eq!(state_file(&loaded).status, status, "{loaded:?}");
        }
    }

    #[test]
    fn a_pause_is_reported_until_it_ends() {
        let paused =
            |until| State { paused: Some(state::Pause { since: 0, until, by: "sre".into() }), ..State::default() };
        assert_eq!(pause(&paused(None), 9).status, Status::Warn);
        assert_eq!(pause(&paused(Some(10)), 9).status, Status::Warn);
        assert_eq!(pause(&paused(Some(9)), 9).status, Status::Ok);
    }

    #[test]
    fn only_old_trash_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { dir: dir.path().join("store"), ..Config::default() };
        let store = Store::open(config.store_options(), Access::Create).unwrap();
        let wall_ms = Reading::take(String::new()).wall_ms;
        let later = now(wall_ms + TRASH_IS_EMPTIED_MS + 5000, 0, None);
        assert_eq!(trash(&store, &later).status, Status::Ok);
        fsio::create_dir(&store.path("trash/0badcafe"), 0o700).unwrap();
        assert_eq!(trash(&store, &now(wall_ms, 0, None)).status, Status::Ok);
        let check = trash(&store, &later);
        assert_eq!(check.status, Status::Warn);
        assert!(check.message.contains("1 entry (4.00 KiB)") && check.message.contains("0badcafe"), "{check:?}");
    }

    #[test]
    fn damaged_captures_are_listed() {
        let summary = index::Summary { damaged: vec![(Default::default(), "eof".into())], ..index::Summary::default() };
        assert_eq!(complaints(&[captures(&summary)]), [("store.captures", Status::Warn)]);
        assert_eq!(complaints(&[captures(&index::Summary::default())]), []);
    }
}
