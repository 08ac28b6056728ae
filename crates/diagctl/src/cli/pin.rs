//! `diagctl pin` and `unpin`: protect captures from retention, up to the hard cap.
//!
//! A marker file in the capture's directory is authoritative; the index has a copy.

use super::output::Done;
use super::rm::{each, outcome};
use super::{Context, Failure};
use crate::exit_code::Exit;
use crate::fsio;
use diagctl_store::index::{self, Entry};
use diagctl_store::{Access, Id, Store, meta};

/// Protect captures from retention, up to the hard cap
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  diagctl pin latest")]
pub struct PinArgs {
    /// Capture IDs, unique prefixes, or `latest`
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// Let retention delete captures again
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  diagctl unpin latest")]
pub struct UnpinArgs {
    /// Capture IDs, unique prefixes, or `latest`
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

pub fn pin(cx: &Context, args: &PinArgs) -> Result<Done, Failure> {
    let store = cx.open(Access::Write)?;
    outcome(each(&store, &args.ids), |id| set(&store, id, true))
}

pub fn unpin(cx: &Context, args: &UnpinArgs) -> Result<Done, Failure> {
    let store = cx.open(Access::Write)?;
    outcome(each(&store, &args.ids), |id| set(&store, id, false))
}

fn set(store: &Store, id: &Id, pinned: bool) -> Result<String, Failure> {
    let dir = store.report_dir(id);
    let marker = dir.join(index::PIN_FILE);
    let meta = meta::read(&dir)?;
    let was = marker.exists();
    let gone = |e: diagctl_fs::Error| {
        if dir.exists() { e.into() } else { Failure::new(Exit::NoMatch, format!("capture {id} was just deleted")) }
    };
    if pinned && !was {
        // The marker is empty, so it can be neither half-written nor a temporary file left by a killed `pin`. Another process
        // may be pinning the same capture.
        match fsio::create_new(&marker).and_then(|file| fsio::widen_like_parent(&file, &marker)) {
            Err(e) if !marker.exists() => return Err(gone(e)),
            _ => fsio::sync_dir(&dir).map_err(gone)?,
        }
    } else if !pinned && was {
        fsio::remove_file(&marker).and_then(|()| fsio::sync_dir(&dir)).map_err(gone)?;
    }
    // Appended even if nothing changed: an earlier `pin` may have been killed between the two writes.
    index::append_pinned(store, &Entry::of(store, &meta))?;
    Ok(match (pinned, was) {
        (true, true) => format!("{id} was already pinned"),
        (true, false) => format!("pinned {id}"),
        (false, true) => format!("unpinned {id}"),
        (false, false) => format!("{id} was not pinned"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn pin_marker_and_index_agree_after_each_step() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { dir: dir.path().join("store"), ..Config::default() };
        let id = "20260101T000000000Z-aaaaaaaa".parse().unwrap();
        let store = Store::open(config.store_options(), Access::Create).unwrap();
        fsio::create_dir(&store.report_dir(&id), 0o700).unwrap();
        let meta = meta::Meta { schema: 1, id, ..meta::Meta::default() };
        std::fs::write(store.report_dir(&id).join("meta.json").path(), serde_json::to_vec(&meta).unwrap()).unwrap();
        let steps = [(true, "pinned "), (true, "was already pinned"), (false, "unpinned"), (false, "was not pinned")];
        for (pinned, expected) in steps {
            let line = set(&store, &id, pinned).unwrap();
            assert!(line.contains(expected), "{line}");
            assert_eq!(store.report_dir(&id).join(index::PIN_FILE).exists(), pinned);
            assert_eq!(index::Listing::all(&store).unwrap().entry(0).unwrap().pinned, pinned);
        }
        fsio::remove(&store.report_dir(&id)).unwrap();
        assert!(set(&store, &id, true).is_err());
    }
}
