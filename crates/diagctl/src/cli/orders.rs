//! Commands of the group's members, who leave orders for the next poll where the owner would act at once.

use std::time::Duration;

use super::Context;
use crate::cli::error::Failure;
use crate::config::GroupRight;
use crate::units;
use diagctl_store::{Access, Error, Store, inbox};

/// Opens the store to change it, or, as a member of its group with this right, to leave an order.
pub fn open(cx: &Context, access: Access, right: GroupRight) -> Result<Store, Failure> {
    let config = cx.config();
    match cx.open(access) {
        Err(refusal @ Error::Owned { .. }) => {
            let Some(store) = cx.open(Access::Read).ok().filter(|_| config.group.is_some()) else {
                return Err(refusal.into());
            };
            if config.group_may.contains(&right) {
                return require_inbox(store);
            }
            let group = config.group.as_deref().unwrap_or_default();
            let hint = format!("where members of {group} shall do this, set group_may = [{:?}]", right.name());
            Err(Failure::from(refusal).hint(hint))
        }
        other => Ok(other?),
    }
}

fn require_inbox(store: Store) -> Result<Store, Failure> {
    if store.path(inbox::INBOX).exists() {
        return Ok(store);
    }
    let message = format!("{} takes no orders: no process has polled since group_may was set", store.dir().display());
    Err(Failure::failed(message).hint("`diagctl status` lists the polling processes"))
}

/// Tells when an order is carried out.
pub fn when(interval: Duration) -> String {
    format!(
        "the next poll of a process carries it out, within {} if any process polls",
        units::duration(units::ms(interval))
    )
}
