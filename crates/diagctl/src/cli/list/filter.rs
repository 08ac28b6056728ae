//! The filters and the order of `diagctl list`.

use std::collections::BTreeSet;

use clap::ValueEnum;

use super::{Args, Key};
use crate::cli::names;
use crate::cli::remote::hosts;
use crate::cli::times::Times;
use diagctl_fs::printable;
use diagctl_store::index::Entry;

/// The order of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    Age,
    Size,
    Pid,
    Role,
    Name,
    Rule,
}

impl Sort {
    pub(super) fn key(self, entry: &Entry) -> Key {
        let text = |text: &str| (std::cmp::Reverse(0), 0, text.to_owned());
        match self {
            Self::Age => text(""),
            Self::Size => (std::cmp::Reverse(entry.disk_bytes), 0, String::new()),
            Self::Pid => (std::cmp::Reverse(0), entry.pid, String::new()),
            Self::Role => text(&entry.role),
            Self::Name => text(&entry.worker),
            Self::Rule => text(&entry.rule),
        }
    }

    /// Returns the word for the captures that come first.
    pub(super) fn first(self) -> &'static str {
        match self {
            Self::Age => "newest",
            Self::Size => "largest",
            _ => "first",
        }
    }
}

impl Args {
    pub(super) fn accepts_all(&self) -> bool {
        let names = [&self.role, &self.host, &self.name, &self.rule, &self.report];
        let moments = [&self.since, &self.until];
        names.iter().all(|name| name.is_none())
            && moments.iter().all(|moment| moment.is_none())
            && self.pid.is_none()
            && !self.pinned
    }

    /// Returns the names that were probably meant by filters that no capture passes.
    pub(super) fn meant(&self, entries: impl Iterator<Item = Entry>) -> Vec<String> {
        let [mut hosts, mut roles, mut names, mut rules, mut reports] = [const { BTreeSet::new() }; 5];
        for entry in entries {
            hosts.insert(entry.host);
            roles.insert(entry.role);
            names.insert(entry.worker);
            rules.insert(entry.rule);
            reports.extend(entry.reports.into_iter().map(|report| report.name.to_string()));
        }
        let of_host = self.host.as_deref().and_then(|name| {
            let meant = hosts::meant(name, hosts.iter().map(String::as_str))?;
            Some(format!("--host {}: {meant}", printable(name)))
        });
        let by_name = names::meant_by([
            ("--role", self.role.as_deref(), &roles),
            ("--name", self.name.as_deref(), &names),
            ("--rule", self.rule.as_deref(), &rules),
            ("--report", self.report.as_deref(), &reports),
        ]);
        of_host.into_iter().chain(by_name).collect()
    }

    pub(super) fn accepts(&self, entry: &Entry, now_ms: u64, times: &Times) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        let age_ms = now_ms.saturating_sub(entry.store_ms);
        is(&self.role, &entry.role)
            && self.host.as_ref().is_none_or(|name| hosts::is_meant(name, &entry.host))
            && is(&self.name, &entry.worker)
            && is(&self.rule, &entry.rule)
            && self.pid.is_none_or(|pid| pid == entry.pid)
            && (entry.pinned || !self.pinned)
            && self.report.as_ref().is_none_or(|wanted| entry.reports.iter().any(|r| r.name == **wanted))
            && self.since.as_ref().is_none_or(|since| !times.is_before(&entry.created, age_ms, since))
            && self.until.as_ref().is_none_or(|until| !times.is_after(&entry.created, age_ms, until))
    }
}
