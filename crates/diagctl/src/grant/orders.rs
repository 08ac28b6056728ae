//! Carries out the orders that members of the store's group left in its inbox, as far as `group_may` allows.

use std::collections::BTreeMap;

use crate::config::{Config, GroupRight};
use crate::context::Context;
use crate::state::files::load_state;
use crate::units::ms;
use crate::users::user_name;
use diagctl_store::events::{self, Event};
use diagctl_store::inbox::{self, Order, Taken};
use diagctl_store::requests::{self, Request};
use diagctl_store::{Result, Store, pin};

/// The longest time for which a member's request waits.
const LONGEST_WAIT_MS: u64 = 86_400_000;

/// The number of requests that may wait before members can add no more.
const MOST_WAITING: usize = 64;

/// The number of orders of one sender that a poll carries out.
const MOST_OF_ONE: usize = 16;

/// Takes the orders out and carries them out. The first refusal of each sender leaves an event with the reason and the number of
/// the others, so that no flood of orders pushes out other events.
pub fn obey(cx: &Context, store: &Store) -> Result<()> {
    let config = cx.config();
    if config.group_may.is_empty() || !inbox::has_some(store) {
        return Ok(());
    }
    let guard = store.lock()?;
    let now_ms = cx.now(&load_state(store)?.0).store_ms;
    let mut senders: BTreeMap<u32, Sender> = BTreeMap::new();
    // To pin takes the lock itself.
    let mut pins = Vec::new();
    inbox::take(store, |Taken { name, uid, order }| {
        let sender = senders.entry(uid).or_insert_with(|| Sender { name: user_name(uid), ..Sender::default() });
        sender.orders += 1;
        let result = match order {
            _ if sender.orders > MOST_OF_ONE => Err(format!("more than {MOST_OF_ONE} orders at once")),
            Ok(Order::Pin { .. }) => {
                pins.push((name.clone(), uid, order));
                Ok(())
            }
            order => order.and_then(|order| carry_out(config, store, order, &name, &sender.name, now_ms)),
        };
        sender.note(&name, result);
    })?;
    drop(guard);
    for (name, uid, order) in pins {
        let Some(sender) = senders.get_mut(&uid) else { continue };
        let result = order.and_then(|order| carry_out(config, store, order, &name, &sender.name, now_ms));
        sender.note(&name, result);
    }
    senders.values().for_each(|sender| sender.record(store));
    Ok(())
}

/// A sender of orders that one poll took out.
#[derive(Default)]
struct Sender {
    name: String,
    orders: usize,
    refused: usize,
    /// The name of the first order that was refused, and the reason.
    first: Option<(String, String)>,
}

impl Sender {
    fn note(&mut self, order: &str, result: std::result::Result<(), String>) {
        if let Err(why) = result {
            self.refused += 1;
            self.first.get_or_insert_with(|| (order.to_owned(), why));
        }
    }

    fn record(&self, store: &Store) {
        let Some((order, why)) = &self.first else { return };
        let more = self.refused - 1;
        let more = if more == 0 { String::new() } else { format!(" (and {more} more orders, refused too)") };
        events::record(store, &Event::about("order_refused", order, &format!("from {}: {why}{more}", self.name)));
    }
}

fn carry_out(
    config: &Config,
    store: &Store,
    order: Order,
    name: &str,
    by: &str,
    now_ms: u64,
) -> std::result::Result<(), String> {
    let needed = if matches!(order, Order::Pin { .. }) { GroupRight::Pin } else { GroupRight::Request };
    if !config.group_may.contains(&needed) {
        return Err(format!("group_may does not contain {:?}", needed.name()));
    }
    match order {
        Order::Request(asked) => {
            let request = request(config, *asked, name, by, now_ms)?;
            if requests::list(store).map_err(|e| e.to_string())?.len() >= MOST_WAITING {
                return Err(format!("{MOST_WAITING} requests wait already"));
            }
            requests::write(store, &request)
        }
        Order::Cancel { request } => match requests::read(store, &request) {
            None => return Err(format!("there is no request {}", diagctl_fs::quoted(&request))),
            Some(found) if found.by != by => return Err(format!("request {} is from {}", found.id, found.by)),
            Some(found) => requests::remove(store, &found.id).map(|()| {
                let what = format!("cancelled by {by}");
                events::record(store, &Event::about("request_cancelled", &found.id, &what));
            }),
        },
        Order::Pin { capture, pinned } => pin::set(store, capture, pinned).map(|was| {
            if was != pinned {
                let event = if pinned { "pinned" } else { "unpinned" };
                events::record(store, &Event::about(event, capture, &format!("by {by}")));
            }
        }),
    }
    .map_err(|e| e.to_string())
}

// Takes nothing over that the sender has no say in.
fn request(config: &Config, asked: Request, name: &str, by: &str, now_ms: u64) -> std::result::Result<Request, String> {
    let is_name = |text: &str| text.len() <= 128 && !text.chars().any(char::is_control);
    let is_id = |text: &str| text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if asked.id != name || !is_id(name) {
        return Err("its ID is not the name of its file".into());
    }
    if let Some(unknown) = asked.reports.iter().find(|report| !config.knows_report(report)) {
        return Err(format!("unknown report {}", diagctl_fs::quoted(unknown)));
    }
    if asked.reason.trim().is_empty() || asked.reason.len() > 1024 {
        return Err("its reason is empty or longer than 1024 bytes".into());
    }
    if ![&asked.role, &asked.name].into_iter().flatten().all(|text| is_name(text)) {
        return Err("its role or name is longer than 128 bytes, or has control characters".into());
    }
    let waits = asked.expires.saturating_sub(asked.created).min(LONGEST_WAIT_MS).max(ms(config.poll_interval));
    Ok(Request {
        schema: 1,
        by: by.to_owned(),
        created: now_ms,
        expires: now_ms + waits,
        attempts: 0,
        capture: None,
        ..asked
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use diagctl_store::{Access, ReportName};

    fn asked() -> Request {
        Request { id: "20260101T000000Z-a".into(), reason: "why".into(), expires: 1000, ..Request::default() }
    }

    #[test]
    fn a_request_is_taken_over_without_what_its_sender_has_no_say_in() {
        let config = Config::default();
        let forged = Request { by: "root".into(), attempts: 7, created: 5, expires: u64::MAX, ..asked() };
        let request = request(&config, forged, "20260101T000000Z-a", "ann", 10).unwrap();
        let expected = Request { schema: 1, by: "ann".into(), created: 10, expires: 10 + LONGEST_WAIT_MS, ..asked() };
        assert_eq!(request, expected);
    }

    #[test]
    fn an_order_is_refused_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let may = |group_may: &[GroupRight]| Config {
            dir: dir.path().join("store"),
            group_may: group_may.to_vec(),
            ..Config::default()
        };
        let all = may(&[GroupRight::Request, GroupRight::Pin]);
        let store = Store::open(all.store_options(), Access::Create).unwrap();
        let ask = |request: Request| Order::Request(Box::new(request));
        let theirs = Request { id: "theirs".into(), by: "bob".into(), ..asked() };
        requests::write(&store, &theirs).unwrap();
        let capture = "20260101T000000000Z-aaaaaaaa".parse().unwrap();
        let unknown = ReportName::from_text("nonsense");
        let table = [
            (may(&[GroupRight::Pin]), ask(asked()), "group_may does not contain \"request\""),
            (may(&[GroupRight::Request]), Order::Pin { capture, pinned: true }, "group_may does not contain \"pin\""),
            (all.clone(), Order::Cancel { request: "theirs".into() }, "request theirs is from bob"),
            (all.clone(), Order::Cancel { request: "x/../y".into() }, "there is no request \"x/../y\""),
            (all.clone(), ask(Request { id: "other".into(), ..asked() }), "its ID is not the name of its file"),
            (all.clone(), ask(Request { reason: " ".into(), ..asked() }), "its reason is empty"),
            (all.clone(), ask(Request { reports: vec![unknown], ..asked() }), "unknown report \"nonsense\""),
            (all.clone(), ask(Request { role: Some("\x1b".into()), ..asked() }), "control characters"),
            (all.clone(), Order::Pin { capture, pinned: true }, "meta.json"),
        ];
        for (config, order, expected) in table {
            let why = carry_out(&config, &store, order, "20260101T000000Z-a", "ann", 10).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
        assert_eq!(requests::list(&store).unwrap(), [theirs]);
    }
}
