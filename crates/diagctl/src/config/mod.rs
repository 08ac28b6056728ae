//! The operator's configuration: a TOML document, parsed and checked as a whole, then merged with environment and flags.
//!
//! Flags override the environment, which overrides the file, which overrides the defaults. All problems are reported at once,
//! each with its key path and a hint.

pub(crate) mod cache;
mod custom;
mod encrypt;
mod error;
mod examine;
mod for_store;
pub(crate) mod lines;
mod load;
mod on_capture;
mod options;
mod remote;
mod rules;
mod templates;
mod warnings;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::rules::guard::Guards;
pub use crate::rules::limit::{Limits, LimitsOfRule};
pub use crate::rules::rule::{self, Match, Mode, Origins, Rule, Select, in_order};
pub use custom::{COMMANDS_TIMEOUT_MS, CustomReport, ReportCommand};
pub use diagctl_store::staging::Snapshot;
pub use diagctl_store::{Compression, Retention};
pub use error::{Error, Result};
pub use examine::examine;
#[cfg(any(test, fuzzing))]
pub use examine::parse;
pub use for_store::{copy_in, load_for_store, or_of_the_workers};
pub use load::{defaults, keep, load, load_for_process, load_settled, read};
pub use on_capture::{OnCapture, Webhook};
pub use options::ReportOptions;
pub use remote::Remote;
pub use warnings::{Kind, Named, Place};

use crate::fsio::Spot;
use crate::rules::decide::{Costs, Settings};
use crate::rules::memory::Wanted;
use crate::section::{Problem, nearest};
use crate::units::Amount;
use diagctl_store::encryption::Encryption;
use diagctl_store::report_kind::{self, Producer};
use diagctl_store::{FileType, StoreOptions};

/// The path of the configuration if none is given.
pub const DEFAULT_FILE: &str = "/etc/diagctl/diagctl.toml";

/// A commented file to start from; `diagctl config init` prints it, and a test parses it.
pub const EXAMPLE: &str = include_str!("../../../../diagctl.toml");

/// The source of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The built-in default.
    Default,
    /// The configuration file.
    File,
    /// An environment variable.
    Environment(&'static str),
    /// A command-line flag.
    Flag(&'static str),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File => f.write_str("file"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A right of the group's members besides reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupRight {
    /// Request captures, and cancel their own requests.
    Request,
    /// Pin and unpin captures.
    Pin,
}

impl GroupRight {
    /// All rights.
    pub const ALL: [Self; 2] = [Self::Request, Self::Pin];

    /// The word in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Pin => "pin",
        }
    }
}

/// The merged and checked configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The store's directory.
    pub dir: PathBuf,
    /// The main switch, from the environment or the file.
    pub enabled: bool,
    /// Time between two polls of a process, unless a rule asks for another.
    pub poll_interval: Duration,
    /// A group that may read the store.
    pub group: Option<String>,
    /// The rights that its members have besides reading.
    pub group_may: Vec<GroupRight>,
    /// Allows a filesystem on which `flock` may not exclude other processes.
    pub allow_network_filesystem: bool,
    /// Checks that can refuse any capture.
    pub guards: Guards,
    /// Budgets of the whole store.
    pub limits: Limits,
    /// Retention and compression.
    pub retention: Retention,
    /// Custom reports.
    pub reports: BTreeMap<String, CustomReport>,
    /// Options of the built-in reports.
    pub options: ReportOptions,
    /// The rules.
    pub rules: Vec<Rule>,
    /// The remote that captures are shipped to.
    pub remote: Option<Box<Remote>>,
    /// To whom reports are encrypted.
    pub encrypt: Option<Box<Encryption>>,
    /// Set by `encrypt = false`, which says that reports are stored in plain on purpose.
    pub plain: bool,
    /// The hook that is told of each capture.
    pub on_capture: Option<Box<OnCapture>>,
}

/// Values from flags and the environment, which override the file, each with its source.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--dir`, `DIAGCTL_DIR`.
    pub dir: Option<(PathBuf, SourceOf)>,
    /// `DIAGCTL_ENABLED`.
    pub enabled: Option<bool>,
}

/// The source of an override.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceOf {
    /// A flag.
    Flag,
    /// An environment variable.
    Environment,
}

/// A configuration with the sources of its values.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The merged configuration.
    pub config: Config,
    /// The file, if one was read.
    pub file: Option<PathBuf>,
    /// The source of each top-level and section value, by key path.
    pub sources: BTreeMap<&'static str, Source>,
    /// Warnings about tables of the file that have no effect as they are written.
    pub idle: Vec<Problem>,
    /// The problems of the file, if the last good configuration is used instead.
    pub broken: Option<String>,
    /// The file of the processes that poll the store, if its copy stands in because this command was given no file.
    pub borrowed: Option<PathBuf>,
    /// The file's identity before it was read, if it was read for a process and is not in the store's cache.
    pub identity: Option<cache::Identity>,
    /// The store's directory, held open since it was first used. It ensures that everything comes from the store that is
    /// opened, and not from another that had its name for a moment.
    pub held: Option<Spot>,
}

impl Loaded {
    /// A configuration of which nothing else is known.
    pub fn new(config: Config) -> Self {
        let (file, broken, borrowed, identity, held) = (None, None, None, None, None);
        Self { config, file, sources: BTreeMap::new(), idle: Vec::new(), broken, borrowed, identity, held }
    }

    /// Returns everything that has no effect, or cannot work in this place.
    pub fn warnings(&self, place: &Place) -> Vec<Problem> {
        self.idle.iter().cloned().chain(self.config.warnings(&[], place)).collect()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: "/var/lib/diagctl".into(),
            enabled: false,
            poll_interval: Duration::from_secs(10),
            group: None,
            group_may: Vec::new(),
            allow_network_filesystem: false,
            guards: Guards {
                memory_headroom: 1.0,
                min_free_disk: Amount::Percent(15.0),
                max_rss: None,
                max_cpu_pressure: None,
                deadline: Duration::from_secs(600),
            },
            limits: Limits { budget_hour: 20, budget_day: 50 },
            retention: Retention::default(),
            reports: BTreeMap::new(),
            options: ReportOptions::default(),
            rules: vec![rule::routine()],
            remote: None,
            encrypt: None,
            plain: false,
            on_capture: None,
        }
    }
}

impl Costs for Config {
    fn cost_of(&self, report: &str) -> u32 {
        let builtin = report_kind::builtin(report).map(|(_, kind)| kind.cost);
        builtin.or_else(|| self.reports.get(report).map(|r| r.cost)).unwrap_or(1)
    }
}

impl Config {
    /// The options that are passed to the process that makes a report.
    pub fn report_options(&self, name: &str) -> serde_json::Map<String, serde_json::Value> {
        self.reports.get(name).map_or_else(|| self.options.of(name), CustomReport::options)
    }

    /// The settings of the store.
    pub fn store_options(&self) -> StoreOptions {
        let file_types = self.reports.iter().map(|(name, report)| {
            let (extension, content_type) = (report.extension.clone(), report.content_type.clone());
            (name.clone(), FileType { extension, content_type })
        });
        StoreOptions {
            dir: self.dir.clone(),
            group: self.group.clone(),
            orders: !self.group_may.is_empty(),
            allow_network_filesystem: self.allow_network_filesystem,
            retention: self.retention.clone(),
            file_types: file_types.collect(),
            heap_values: self.options.heap_values,
            ships: self.remote.is_some(),
            identities: None,
        }
    }

    /// Returns the settings that decisions depend on.
    pub fn settings(&self) -> Settings<'_> {
        Settings {
            rules: &self.rules,
            limits: &self.limits,
            guards: &self.guards,
            poll_ms: self.poll_ms(),
            costs: self,
        }
    }

    /// Returns the producer of a report. A report that is not built in is the application's.
    pub fn producer(&self, name: &str) -> Producer {
        match report_kind::builtin(name) {
            Some((_, kind)) => kind.producer,
            None if self.command(name).is_some() => Producer::Native,
            None => Producer::Inline,
        }
    }

    /// Returns the command that prints a report, if there is one.
    pub fn command(&self, name: &str) -> Option<&ReportCommand> {
        self.reports.get(name).and_then(|report| report.command.as_ref())
    }

    /// Returns true if a report of this name exists.
    pub fn knows_report(&self, name: &str) -> bool {
        report_kind::builtin(name).is_some() || self.reports.contains_key(name)
    }

    /// Returns the failure for an unknown report name.
    pub fn report_hint(&self, name: &str) -> String {
        let names = || report_kind::KINDS.iter().map(|kind| kind.name).chain(self.reports.keys().map(String::as_str));
        nearest(name, names()).map_or_else(
            || format!("known reports: {}; declare your own as [reports.NAME]", names().collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean {near:?}?"),
        )
    }

    /// Returns the figures that the triggers of all rules need.
    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        self.rules.iter().for_each(|rule| rule.trigger.want(&mut wanted));
        wanted.metrics.sort_unstable();
        wanted.metrics.dedup();
        wanted
    }

    /// Returns the time between polls, in milliseconds.
    pub fn poll_ms(&self) -> u64 {
        crate::units::ms(self.poll_interval)
    }
}

#[cfg(test)]
mod tests;
