//! The deaths of the last day in one line, for `status` and `list`.

use serde::Serialize;

use super::gone;
use crate::cli::Context;
use crate::cli::output::who;
use crate::cli::times::age;
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
    let mut gone = gone(cx, store, now_ms).unwrap_or_default();
    gone.retain(|death| now_ms.saturating_sub(death.last_ms) < NEWS_MS);
    let last = gone.first().map(|death| Last {
        pid: death.pid,
        role: death.role.clone(),
        name: death.name.clone(),
        last_seen_ago_ms: now_ms.saturating_sub(death.last_ms),
        ended: death.how(),
    });
    Recent { count: gone.len(), last }
}
