//! The work of a process at its last poll: jobs by class and requests by route, as its gauges tell.

use std::collections::BTreeMap;

use serde::Serialize;

/// Gauges that say which jobs run, by class.
const JOBS: &str = "sidekiq.running.";
/// Gauges that say which requests and other work run, by route or by a name in the code.
const REQUESTS: &str = "request.running.";
/// The gauge of Puma's threads that work.
const BUSY: &str = "puma.busy_threads";

/// The work in progress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Running {
    /// Requests that Puma worked on. `None` if nobody recorded them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_threads: Option<u64>,
    /// The number of jobs, by class.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub jobs: BTreeMap<String, u64>,
    /// The number of requests, by route: those whose framework, or the application itself, named one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, u64>,
}

impl Running {
    /// Reads the gauges of a poll.
    pub fn of(gauges: &BTreeMap<String, f64>) -> Self {
        let named = |prefix: &str| {
            let found = gauges.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
            found.map(|(name, count)| (name[prefix.len()..].to_owned(), whole(*count))).collect()
        };
        let busy_threads = gauges.get(BUSY).copied().map(whole);
        Self { busy_threads, jobs: named(JOBS), requests: named(REQUESTS) }
    }

    /// Lists it for people: classes, routes, and the number of requests without a route.
    pub fn list(&self) -> Vec<String> {
        let named = self.jobs.iter().chain(&self.requests);
        let mut all: Vec<String> =
            named.map(|(name, count)| if *count > 1 { format!("{count} {name}") } else { name.clone() }).collect();
        let routed: u64 = self.requests.values().fold(0, |sum, count| sum.saturating_add(*count));
        match self.busy_threads.unwrap_or(0).saturating_sub(routed) {
            0 => {}
            1 => all.push(if routed > 0 { "1 other request" } else { "1 request" }.to_owned()),
            more => all.push(format!("{more}{} requests", if routed > 0 { " other" } else { "" })),
        }
        all
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of jobs or threads")]
fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_routes_and_the_other_requests_are_listed() {
        type Row = (&'static [(&'static str, f64)], &'static [&'static str]);
        let table: [Row; 5] = [
            (&[], &[]),
            (&[("puma.busy_threads", 1.0), ("puma.backlog", 4.0)], &["1 request"]),
            (&[("puma.busy_threads", 4.0)], &["4 requests"]),
            (
                &[("puma.busy_threads", 4.0), ("request.running.PostsController#index", 2.0)],
                &["2 PostsController#index", "2 other requests"],
            ),
            (
                &[("sidekiq.running.Bloat", 2.0), ("sidekiq.busy", 3.0), ("request.running.GET:/posts/:id", 1.0)],
                &["2 Bloat", "GET:/posts/:id"],
            ),
        ];
        for (gauges, expected) in table {
            let gauges = gauges.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            assert_eq!(Running::of(&gauges).list(), expected, "{gauges:?}");
        }
    }
}
