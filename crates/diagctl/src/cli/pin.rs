//! `diagctl pin` and `unpin`: protect captures from retention, up to the hard cap.

use super::output::Done;
use super::rm::{each, outcome};
use super::{Context, Failure, orders};
use crate::config::GroupRight;
use crate::fsio;
use diagctl_store::inbox::{self, Order};
use diagctl_store::index::SHIPPED_FILE;
use diagctl_store::{Access, Id, Store, pin};

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
    each_set(cx, &args.ids, true)
}

pub fn unpin(cx: &Context, args: &UnpinArgs) -> Result<Done, Failure> {
    each_set(cx, &args.ids, false)
}

fn each_set(cx: &Context, ids: &[String], pinned: bool) -> Result<Done, Failure> {
    let store = orders::open(cx, Access::Write, GroupRight::Pin)?;
    let targets = each(&store, ids);
    if store.is_ours() {
        return outcome(targets, |id| set(&store, *id, pinned));
    }
    let when = orders::when(cx.config().poll_interval);
    outcome(targets, |id| {
        let order = Order::Pin { capture: *id, pinned };
        inbox::leave(&store, &format!("{id}-{}", fsio::random_hex()?), &order)?;
        let what = if pinned { "pin" } else { "unpin" };
        Ok(format!("asked to {what} {id}: {when}"))
    })
}

fn set(store: &Store, id: Id, pinned: bool) -> Result<String, Failure> {
    let was = pin::set(store, id, pinned)?;
    let told = match (pinned, was) {
        (true, true) => return Ok(format!("{id} was already pinned")),
        (false, false) => return Ok(format!("{id} was not pinned")),
        (true, false) => format!("pinned {id}"),
        (false, true) => format!("unpinned {id}"),
    };
    // Its manifest there says what it was when it was shipped.
    let is_shipped = store.report_dir(&id).join(SHIPPED_FILE).is_file();
    Ok(if is_shipped {
        format!("{told} here only: it was shipped before, and `gc --remote` goes by that time")
    } else {
        told
    })
}
