//! `diagctl pin` and `unpin`: protect captures from retention, up to the hard cap.

use super::output::Done;
use super::rm::{each, outcome};
use super::{Context, Failure, orders};
use crate::config::GroupRight;
use crate::fsio;
use diagctl_store::inbox::{self, Order};
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
    Ok(match (pinned, was) {
        (true, true) => format!("{id} was already pinned"),
        (true, false) => format!("pinned {id}"),
        (false, true) => format!("unpinned {id}"),
        (false, false) => format!("{id} was not pinned"),
    })
}
