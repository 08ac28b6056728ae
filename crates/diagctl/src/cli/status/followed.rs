//! The follow-ups of a capture: its shipment, and the hook.

use serde::Serialize;

use crate::cli::times::age;
use crate::cli::{Context, Failure};
use crate::units::size;
use diagctl_store::events::{self, Event};
use diagctl_store::index::{self, Entry, Present, SHIPPED_FILE};
use diagctl_store::{Store, hooks, shipping};

/// Captures on their way to the remote. Times are UTC, RFC 3339.
#[derive(Debug, Default, Serialize)]
pub struct Shipped {
    pub url: String,
    /// Each capture starts a shipment.
    pub after_capture: bool,
    /// A shipper runs, and goes on to ship new captures.
    pub watched: bool,
    pub waiting: u64,
    pub waiting_bytes: u64,
    /// The time of the oldest capture that waits.
    pub waiting_since: Option<String>,
    pub waiting_age_ms: Option<u64>,
    pub last_success: Option<String>,
    pub last_failure: Option<String>,
    /// The reason for the last failure.
    pub failure: Option<String>,
    /// Nothing was shipped since the last failure.
    pub failing: bool,
    pub failures: u64,
    pub dropped_captures: u64,
    pub dropped_bytes: u64,
}

/// The hook of `[on_capture]`.
#[derive(Debug, Default, Serialize)]
pub struct Hook {
    pub waiting: usize,
    pub last_success: Option<String>,
    pub last_failure: Option<String>,
    /// The reason for the last failure.
    pub failure: Option<String>,
}

/// Returns the state of shipping, if there is a remote.
pub fn shipped(cx: &Context, store: &Store, now_ms: u64) -> Result<Option<Shipped>, Failure> {
    let Some(remote) = &cx.config().remote else { return Ok(None) };
    let mut waiting = Waiting::default();
    // The number of damaged captures is told elsewhere.
    index::visit(store, &mut Present::list(store)?, |entry| waiting.add(store, &entry));
    let (last, dropped) = (shipping::outcome(store), shipping::dropped(store));
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(Some(Shipped {
        url: remote.url.clone(),
        after_capture: remote.after_capture,
        watched: shipping::is_watched(store),
        waiting: waiting.captures,
        waiting_bytes: waiting.bytes,
        waiting_age_ms: waiting.oldest.as_ref().map(|(at, _)| now_ms.saturating_sub(*at)),
        waiting_since: waiting.oldest.map(|(_, created)| created),
        last_success: given(last.shipped_at),
        last_failure: given(last.failed_at),
        failure: given(last.failure),
        failing: last.failing,
        failures: last.failures,
        dropped_captures: dropped.captures,
        dropped_bytes: dropped.bytes,
    }))
}

/// The captures that the remote has not confirmed.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Their number.
    pub captures: u64,
    /// Their disk usage.
    pub bytes: u64,
    /// The oldest: its time on the store's time line, and by the clock.
    pub oldest: Option<(u64, String)>,
}

impl Waiting {
    /// Counts a capture.
    pub fn add(&mut self, store: &Store, entry: &Entry) {
        // The line of the index may be older than the marker.
        if entry.shipped || store.report_dir(&entry.id).join(SHIPPED_FILE).is_file() {
            return;
        }
        self.captures += 1;
        self.bytes = self.bytes.saturating_add(entry.disk_bytes);
        if self.oldest.as_ref().is_none_or(|(at, _)| entry.store_ms < *at) {
            self.oldest = Some((entry.store_ms, entry.created.clone()));
        }
    }
}

/// Returns the state of the hook, if there is one.
pub fn hook(cx: &Context, store: &Store) -> Option<Hook> {
    cx.config().on_capture.as_ref()?;
    let events = events::read(store);
    let last = |name: &str| events.iter().rev().find(|event| event.event == name);
    let failed = last("hook_failed");
    let at = |event: &Event| event.at.clone();
    Some(Hook {
        waiting: hooks::waiting(store).len(),
        last_success: last("hook").map(at),
        last_failure: failed.map(at),
        failure: failed.map(|event| event.reason.clone()),
    })
}

impl Shipped {
    /// Says it in one line.
    pub fn line(&self, show: impl Fn(&str) -> String) -> String {
        let mut parts = vec![match (self.waiting, self.waiting_age_ms) {
            (0, _) => "nothing waits".to_owned(),
            (n, age_ms) => {
                let plural = if n == 1 { "capture waits" } else { "captures wait" };
                let since = age_ms.map(|ms| format!(", the oldest for {}", age(0, ms))).unwrap_or_default();
                format!("{n} {plural} ({}){since}", size(self.waiting_bytes))
            }
        }];
        parts.push(
            self.last_success
                .as_ref()
                .map_or_else(|| "never shipped".into(), |at| format!("last success {}", show(at))),
        );
        if let (Some(at), Some(why)) = (&self.last_failure, &self.failure) {
            let still = if self.failing { "failing since" } else { "last failure" };
            parts.push(format!("{still} {}: {why}", show(at)));
        }
        if self.dropped_captures > 0 {
            parts.push(format!("{} deleted unshipped", self.dropped_captures));
        }
        parts.join("; ")
    }
}

impl Hook {
    /// Says it in one line.
    pub fn line(&self, show: impl Fn(&str) -> String) -> String {
        let mut parts = Vec::new();
        if self.waiting > 0 {
            parts.push(format!("{} wait", self.waiting));
        }
        parts.push(
            self.last_success.as_ref().map_or_else(|| "never told".into(), |at| format!("last told {}", show(at))),
        );
        if let (Some(at), Some(why)) = (&self.last_failure, &self.failure) {
            parts.push(format!("last failure {}: {why}", show(at)));
        }
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_waits_and_how_it_went() {
        let show = |at: &str| at.to_owned();
        let mut shipped = Shipped::default();
        assert_eq!(shipped.line(show), "nothing waits; never shipped");
        shipped.last_success = Some("10:00".into());
        (shipped.waiting, shipped.waiting_bytes, shipped.waiting_age_ms) = (2, 1 << 20, Some(90_000));
        (shipped.last_failure, shipped.failure) = (Some("11:00".into()), Some("no bucket".into()));
        (shipped.failing, shipped.dropped_captures) = (true, 3);
        assert_eq!(
            shipped.line(show),
            "2 captures wait (1.00 MiB), the oldest for 1m 30s; last success 10:00; failing since 11:00: no bucket; 3 deleted unshipped"
        );
        let hook =
            Hook { waiting: 1, last_failure: Some("11:00".into()), failure: Some("x".into()), ..Hook::default() };
        assert_eq!(hook.line(show), "1 wait; never told; last failure 11:00: x");
    }
}
