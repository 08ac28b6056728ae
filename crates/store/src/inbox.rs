//! Orders of the group's members, who may not write anywhere else in the store. The directory `inbox/` exists while the operator
//! allows orders: it is writable for the group and sticky, so that members can delete only their own files. The next poll of any
//! process takes the orders out. Their senders are known by the owners of the files.

use std::io::Read;
use std::os::unix::fs::MetadataExt;

use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::requests::Request;
use crate::{Id, Store};
use diagctl_fs::{self as fs, Spot};
use diagctl_observe::clock;

/// The directory's name.
pub const INBOX: &str = "inbox";

/// The mode of the directory: set-group-ID and sticky, writable for the group.
pub(crate) const MODE: u32 = 0o3770;

/// The number of files that one poll takes out.
const AT_ONCE: usize = 1024;

/// Maximum size of an order, bytes.
const MAX_FILE: u64 = 16 << 10;

/// The time after which an order that is still being written counts as abandoned, seconds.
const WRITTEN_WITHIN: i64 = 60;

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// File a request.
    Request(Box<Request>),
    /// Cancel one of the sender's own requests.
    Cancel {
        /// The request.
        request: String,
    },
    /// Pin or unpin a capture.
    Pin {
        /// The capture.
        capture: Id,
        /// False to unpin it.
        pinned: bool,
    },
}

/// An order that was taken out, or a file that is not a valid order.
#[derive(Debug)]
pub struct Taken {
    /// The name of the order.
    pub name: String,
    /// The uid of the sender.
    pub uid: u32,
    /// The order, or the reason why the file is none.
    pub order: std::result::Result<Order, String>,
}

/// Leaves an order for the next poll. Its name is that of the request, or any other unique one.
pub fn leave(store: &Store, name: &str, order: &Order) -> Result<()> {
    let data = serde_json::to_vec(order).map_err(Error::encode("the order"))?;
    let inbox = store.path(INBOX);
    let temp = inbox.join(format!(".tmp-{}", fs::random_hex()?));
    let write = || {
        let mut file = fs::create_new(&temp)?;
        // The store's owner need not be in the file's group. Nobody else can enter the store.
        let mode = Mode::from_raw_mode(0o644);
        rustix::fs::fchmod(&file, mode).map_err(|e| fs::Error::io("set the mode of", temp.path(), e))?;
        std::io::Write::write_all(&mut file, &data).map_err(|e| fs::Error::io("write", temp.path(), e))?;
        fs::rename(&temp, &spot(store, name))
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&temp);
    }
    Ok(written?)
}

/// Returns true while the order waits.
pub fn waits(store: &Store, name: &str) -> bool {
    spot(store, name).exists()
}

/// Takes an order back. Only its sender and the store's owner can.
pub fn withdraw(store: &Store, name: &str) -> Result<()> {
    Ok(fs::remove_file(&spot(store, name))?)
}

/// Lists the requests that wait to be taken out, as far as they can be read.
pub fn requests(store: &Store) -> Vec<Request> {
    let orders = names(store).filter_map(|name| match read(&store.path(INBOX).join(name)).ok()?.1 {
        Ok(Order::Request(request)) => Some(*request),
        _ => None,
    });
    let mut requests: Vec<Request> = orders.collect();
    requests.sort_by(|a, b| a.id.cmp(&b.id));
    requests
}

/// Returns true if there is anything in the directory.
pub fn has_some(store: &Store) -> bool {
    fs::children(&store.path(INBOX)).next().is_some()
}

/// Takes orders out, and deletes every other file. Each is acted on before it vanishes, so that its sender sees it all the time. The
/// caller holds the state lock, so that no other poll takes the same ones.
pub fn take(store: &Store, mut act: impl FnMut(Taken)) -> Result<()> {
    let inbox = store.path(INBOX);
    let mut names: Vec<String> = names(store).collect();
    names.sort_unstable();
    for name in names {
        let spot = inbox.join(&name);
        if name.starts_with(".tmp-") && is_recent(&spot) {
            continue;
        }
        let (uid, order) = match read(&spot) {
            Ok(read) => read,
            Err(e) => (spot.stat().map_or(0, |stat| stat.st_uid), Err(e.to_string())),
        };
        act(Taken { name: name.trim_end_matches(".json").to_owned(), uid, order });
        fs::remove_file(&spot)?;
    }
    // Files in a member's own directory cannot be deleted. They keep no order waiting.
    for entry in fs::children(&inbox).filter(|entry| !entry.kind.is_file()).take(AT_ONCE) {
        let _ = fs::remove(&inbox.join(&entry.name));
    }
    Ok(())
}

fn spot(store: &Store, name: &str) -> Spot {
    store.path(INBOX).join(format!("{name}.json"))
}

fn names(store: &Store) -> impl Iterator<Item = String> + use<> {
    let files = fs::children(&store.path(INBOX)).filter(|entry| entry.kind.is_file());
    files.filter_map(|entry| entry.name.into_string().ok()).take(AT_ONCE)
}

fn is_recent(spot: &Spot) -> bool {
    let now = clock::Reading::take(String::new()).wall_ms / 1000;
    spot.stat().is_ok_and(|stat| now.saturating_sub(stat.st_mtime) < WRITTEN_WITHIN)
}

// Returns the sender, and the order or the reason why the file is none.
fn read(spot: &Spot) -> Result<(u32, std::result::Result<Order, String>)> {
    let file = fs::open_existing(spot, false)?;
    let uid = file.metadata().map_err(|e| fs::Error::io("examine", spot.path(), e))?.uid();
    let mut data = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut data).map_err(|e| fs::Error::io("read", spot.path(), e))?;
    if data.len() as u64 > MAX_FILE {
        return Ok((uid, Err(format!("it is larger than {}", crate::units::size(MAX_FILE)))));
    }
    Ok((uid, serde_json::from_slice(&data).map_err(|e| format!("it is not an order: {e}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, StoreOptions};

    fn store(dir: &std::path::Path) -> Store {
        let store = Store::open(StoreOptions::new(dir.join("store")), Access::Create).unwrap();
        fs::create_dir(&store.path(INBOX), MODE).unwrap();
        store
    }

    #[test]
    fn orders_are_taken_out_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let capture = "20260101T000000000Z-aaaaaaaa".parse().unwrap();
        let request = Request { id: "r".into(), reason: "why".into(), ..Request::default() };
        let orders = [
            ("a", Order::Pin { capture, pinned: true }),
            ("b", Order::Request(Box::new(request.clone()))),
            ("c", Order::Cancel { request: "r".into() }),
        ];
        for (name, order) in orders.iter().rev() {
            leave(&store, name, order).unwrap();
            assert!(waits(&store, name));
        }
        assert_eq!(requests(&store), [request]);
        let mut taken = Vec::new();
        take(&store, |order| taken.push(order)).unwrap();
        let us = rustix::process::geteuid().as_raw();
        assert!(taken.iter().all(|taken| taken.uid == us));
        let found: Vec<_> = taken.into_iter().map(|taken| (taken.name, taken.order.unwrap())).collect();
        assert_eq!(found, orders.map(|(name, order)| (name.to_owned(), order)));
        assert!(!has_some(&store));
    }

    #[test]
    fn whatever_else_lies_in_the_inbox_is_deleted_and_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let at = |name: &str| store.path(INBOX).join(name).path().to_owned();
        std::fs::write(dir.path().join("secret"), r#"{"order":"cancel","request":"r"}"#).unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), at("link.json")).unwrap();
        std::fs::hard_link(dir.path().join("secret"), at("hard.json")).unwrap();
        std::fs::write(at("text.json"), "x").unwrap();
        std::fs::write(at("large.json"), vec![b' '; 20 << 10]).unwrap();
        std::fs::write(at(".tmp-0123abcd"), "half").unwrap();
        std::fs::create_dir(at("dir")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let mut taken = Vec::new();
        take(&store, |order| taken.push(order)).unwrap();
        let found: Vec<_> = taken.iter().map(|taken| (taken.name.as_str(), taken.order.is_err())).collect();
        assert_eq!(found, [("hard", true), ("large", true), ("text", true)]);
        let left: Vec<_> = fs::children(&store.path(INBOX)).map(|entry| entry.name).collect();
        assert_eq!(left, [".tmp-0123abcd"], "it may still be written");
        assert!(dir.path().join("secret").exists());
    }
}
