//! The deaths of the last day in one line, for `status` and `list`.

use serde::Serialize;

use super::gone;
use crate::cli::Context;
use crate::cli::output::who;
use crate::cli::times::age;
use crate::history::{self, Lines};
use diagctl_store::Store;

/// How long a death is news, milliseconds.
const NEWS_MS: u64 = 86_400_000;

/// The processes that are gone without a goodbye, of the last day.
#[derive(Debug, Default, Serialize)]
pub struct Recent {
    /// How many.
    pub count: usize,
    /// The last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
}

/// The last process that is gone.
#[derive(Debug, Serialize)]
pub struct Last {
    pid: u32,
    role: String,
    name: String,
    last_seen_ago_ms: u64,
    ended: String,
}

impl Recent {
    /// Returns the line, if there is anything to tell.
    pub fn line(&self) -> Option<String> {
        let last = self.last.as_ref()?;
        let gone = if self.count == 1 { "1 process died".to_owned() } else { format!("{} processes died", self.count) };
        let (who, ago) = (who(&last.role, &last.name), age(0, last.last_seen_ago_ms));
        Some(format!("{gone} in the last 24h; the last was {who} ({}), {ago} ago: {}", last.pid, last.ended))
    }
}

/// Finds them. A history that cannot be read has none: it is not what `status` and `list` are asked for.
pub fn recent(cx: &Context, store: &Store, now_ms: u64) -> Recent {
    let data = history::content(store).unwrap_or_default();
    let lines = Lines::of(&data);
    let gone = gone(cx, store, &lines, now_ms);
    let count = gone.since(now_ms.saturating_sub(NEWS_MS));
    let last = gone.last(0).filter(|_| count > 0).map(|(place, head, ended)| {
        let (role, name) = lines.recorded(place).map(|poll| (poll.role, poll.name)).unwrap_or_default();
        let last_seen_ago_ms = now_ms.saturating_sub(head.at);
        Last { pid: head.process.pid, role, name, last_seen_ago_ms, ended }
    });
    Recent { count, last }
}
