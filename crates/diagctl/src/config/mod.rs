//! The operator's configuration: a TOML document, parsed and checked as a whole, then merged with environment and flags.
//!
//! Flags override the environment, which overrides the file, which overrides the defaults. All problems are reported at once,
//! each with its key path and a hint.

pub(crate) mod cache;
mod custom;
mod error;
mod for_store;
mod options;
mod rules;
mod templates;
mod warnings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::rules::guard::Guards;
pub use crate::rules::limit::{Limits, LimitsOfRule};
pub use crate::rules::rule::{self, Match, Mode, Origins, Rule, Select, in_order};
pub use custom::{COMMANDS_TIMEOUT_MS, CustomReport, ReportCommand};
pub use diagctl_store::staging::Snapshot;
pub use diagctl_store::{Compression, Retention};
pub use error::{Error, Result};
pub use for_store::{copy_in, load_for_store};
pub use options::ReportOptions;
pub use warnings::Place;

use crate::fsio::{self, Durability, Spot};
use crate::rules::decide::{Costs, Settings};
use crate::rules::memory::Wanted;
use crate::section::{Problem, Problems, Section, nearest};
use crate::units::Amount;
use diagctl_store::report_kind::{self, Producer};
use diagctl_store::{FileType, StoreOptions};

/// The path of the configuration if none is given.
pub const DEFAULT_FILE: &str = "/etc/diagctl/diagctl.toml";

/// A commented file to start from; `diagctl config init` prints it, and a test parses it.
pub const EXAMPLE: &str = include_str!("../../../../diagctl.toml");

/// The store's copy of the last valid configuration.
const LAST_GOOD: &str = "config.good.toml";

/// The maximum size of a configuration file, in bytes. A longer file is not a configuration.
const MAX_FILE: u64 = 1 << 20;

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
        Self { config, file, sources: BTreeMap::new(), broken, borrowed, identity, held }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: "/var/lib/diagctl".into(),
            enabled: false,
            poll_interval: Duration::from_secs(10),
            group: None,
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
            allow_network_filesystem: self.allow_network_filesystem,
            retention: self.retention.clone(),
            file_types: file_types.collect(),
            heap_values: self.options.heap_values,
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

/// Reads and merges the configuration. `file` is the path that was given; without it the default file is read if it exists.
pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Loaded> {
    let (text, read) = read(file)?;
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let (config, sources) = parse(&text).map_err(|problems| Error::Invalid { path: path.to_owned(), problems })?;
    Ok(merge(Loaded { file: read, sources, ..Loaded::new(config) }, overrides))
}

/// Returns the text of the given file, or of the default file if it exists, with the path that was read.
pub fn read(file: Option<&Path>) -> Result<(String, Option<PathBuf>)> {
    let named = file.is_some();
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    Ok(match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !named => (String::new(), None),
        Err(source) => return Err(Error::Missing { path: path.to_owned(), source }),
        Ok(meta) if !meta.is_file() || meta.len() > MAX_FILE => {
            return Err(Error::NotAFile { path: path.to_owned() });
        }
        Ok(_) => {
            let text =
                std::fs::read_to_string(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })?;
            (text, Some(path.to_path_buf()))
        }
    })
}

/// Returns the configuration that is in force without a file.
pub fn defaults(overrides: &Overrides) -> Result<Loaded> {
    let (config, sources) = parse("").map_err(|problems| Error::Invalid { path: DEFAULT_FILE.into(), problems })?;
    Ok(merge(Loaded { sources, ..Loaded::new(config) }, overrides))
}

/// Reads and merges the configuration for a command that works for a running process. Uses the store's cache while it matches
/// the file. An invalid file does not stop the process: the last good configuration, kept in the store, stays in force. Without
/// `--dir` the store is unknown, and only the file counts.
pub fn load_for_process(file: Option<&Path>, overrides: &Overrides) -> Result<Loaded> {
    let Some((dir, _)) = &overrides.dir else { return load(file, overrides) };
    let held = std::path::absolute(dir).and_then(|dir| Spot::hold(&dir)).ok();
    let path = file.unwrap_or(Path::new(DEFAULT_FILE)).to_path_buf();
    let identity = cache::Identity::of(&path);
    let cached = identity.as_ref().zip(held.as_ref()).and_then(|(identity, held)| cache::read(held, identity));
    if let Some((config, enabled_given)) = cached {
        let enabled = if enabled_given { Source::File } else { Source::Default };
        let sources = [("enabled", enabled)].into();
        return Ok(merge(Loaded { file: Some(path), sources, held, ..Loaded::new(config) }, overrides));
    }
    match load(file, overrides) {
        Ok(loaded) => Ok(Loaded { identity, held, ..loaded }),
        Err(error) => last_good(file, held, overrides, error),
    }
}

fn last_good(file: Option<&Path>, held: Option<Spot>, overrides: &Overrides, error: Error) -> Result<Loaded> {
    let kept = held.as_ref().and_then(|held| fsio::read_bounded(&held.join(LAST_GOOD), MAX_FILE + 8192).ok());
    let kept = kept.map(|kept| String::from_utf8_lossy(&kept).into_owned()).unwrap_or_default();
    // Another application may share the store with a file of its own, whose rules do not apply to this process.
    let text = kept.strip_prefix(&head_of_copy(file.unwrap_or(Path::new(DEFAULT_FILE))));
    let Some((config, sources)) = text.and_then(|text| parse(text).ok()) else {
        return Err(error);
    };
    let broken = Some(format!("{error}; the last good configuration stays in force"));
    Ok(merge(Loaded { file: file.map(Path::to_path_buf), sources, broken, held, ..Loaded::new(config) }, overrides))
}

// Returns the first line of a copy, which names the original file.
fn head_of_copy(file: &Path) -> String {
    format!("# last good copy of {:?}\n", file.display().to_string())
}

/// Saves a newly read file: in the cache, and as the last good copy.
pub fn keep(loaded: &Loaded, dir: &Spot) -> Result<()> {
    let (Some(file), Some(identity)) = (&loaded.file, &loaded.identity) else { return Ok(()) };
    let text = fsio::read_bounded(&Spot::outside(file), MAX_FILE)?;
    // Caches only the file's values: flags and environment may differ from poll to poll.
    let Ok((config, sources)) = parse(&String::from_utf8_lossy(&text)) else { return Ok(()) };
    let copy = [head_of_copy(file).as_bytes(), &text].concat();
    fsio::write_atomic(&dir.join(LAST_GOOD), &copy, Durability::Volatile)?;
    cache::write(dir, identity.clone(), &config, sources["enabled"] == Source::File)
}

fn merge(mut loaded: Loaded, overrides: &Overrides) -> Loaded {
    let Loaded { config, sources, .. } = &mut loaded;
    if let Some((dir, source)) = &overrides.dir {
        // A path from a shell is relative to the shell's directory; a path in a file must be absolute.
        config.dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        let source = match source {
            SourceOf::Flag => Source::Flag("--dir"),
            SourceOf::Environment => Source::Environment("DIAGCTL_DIR"),
        };
        sources.insert("dir", source);
    }
    if let Some(enabled) = overrides.enabled {
        config.enabled = enabled;
        sources.insert("enabled", Source::Environment("DIAGCTL_ENABLED"));
    }
    loaded
}

/// Parses a document. Returns its values over the defaults, and the source of each.
pub fn parse(text: &str) -> std::result::Result<(Config, BTreeMap<&'static str, Source>), Vec<Problem>> {
    let examined = examine(text)?;
    if examined.problems.is_empty() { Ok((examined.config, examined.given)) } else { Err(examined.problems) }
}

/// A document, parsed as far as possible.
pub struct Examined {
    /// The document's valid values over the defaults.
    pub config: Config,
    /// The source of each value.
    pub given: BTreeMap<&'static str, Source>,
    /// The position of each rule in the document.
    pub positions: Vec<usize>,
    /// The problems.
    pub problems: Vec<Problem>,
}

/// Parses a document as far as possible. Fails only if it is not TOML.
pub fn examine(text: &str) -> std::result::Result<Examined, Vec<Problem>> {
    let mut table = read_toml(text)?;
    let problems = Problems::default();
    let (origins, unused) = templates::expand(&mut table, &problems);
    let root = Section::root(&table, &problems);
    let mut config = Config::default();
    let mut given = BTreeMap::new();

    let mut note = |section: &str, section_has: bool, key: &'static str| {
        let bare = key.strip_prefix(section).map_or(key, |rest| rest.trim_start_matches('.'));
        debug_assert!(!bare.is_empty());
        given.insert(key, if section_has { Source::File } else { Source::Default });
    };
    // Reads one key over its default, and records if the file gave it.
    macro_rules! read {
        ($section:expr, $prefix:literal, $key:literal, $method:ident, $place:expr) => {{
            let section: Option<&Section<'_>> = $section;
            if let Some(value) = section.and_then(|s| s.$method($key)) {
                $place = value.into();
            }
            note($prefix, section.is_some_and(|s| s.has($key)), concat!($prefix, $key));
        }};
    }

    let top = Some(&root);
    read!(top, "", "dir", text, config.dir);
    if !config.dir.is_absolute() {
        let message = format!("{:?} is not an absolute path", config.dir.display().to_string());
        root.problem("dir", message, "use an absolute path, so that every process finds the same store");
    }
    read!(top, "", "enabled", boolean, config.enabled);
    read!(top, "", "poll_interval", duration, config.poll_interval);
    read!(top, "", "group", text, config.group);
    if config.group.as_deref().is_some_and(str::is_empty) {
        root.wrong_value("group", "not the name of a group", "use a group from /etc/group, or remove the key");
    }
    read!(top, "", "allow_network_filesystem", boolean, config.allow_network_filesystem);
    if config.poll_interval < Duration::from_millis(50) || config.poll_interval > Duration::from_secs(3600) {
        root.wrong_value("poll_interval", "must be between 50ms and 1h", "10s is usual");
        config.poll_interval = Duration::from_secs(10);
    }

    let guards = root.section("guards");
    let section = guards.as_ref();
    read!(section, "guards.", "memory_headroom", factor, config.guards.memory_headroom);
    read!(section, "guards.", "min_free_disk", amount, config.guards.min_free_disk);
    read!(section, "guards.", "max_rss", size, config.guards.max_rss);
    read!(section, "guards.", "max_cpu_pressure", percent, config.guards.max_cpu_pressure);
    read!(section, "guards.", "deadline", duration, config.guards.deadline);
    if let Some(guards) = section {
        guards.finish();
        if config.guards.deadline < Duration::from_secs(1) || config.guards.deadline > Duration::from_secs(86_400) {
            guards.wrong_value(
                "deadline",
                "must be between 1s and 1d",
                "a dump of a gigabyte takes seconds; 10m is usual",
            );
        }
    }

    let limits = root.section("limits");
    let section = limits.as_ref();
    read!(section, "limits.", "budget_hour", count, config.limits.budget_hour);
    read!(section, "limits.", "budget_day", count, config.limits.budget_day);
    limits.iter().for_each(Section::finish);

    let retention = root.section("retention");
    let section = retention.as_ref();
    read!(section, "retention.", "max_use", size, config.retention.max_use);
    read!(section, "retention.", "keep_free", amount, config.retention.keep_free);
    read!(section, "retention.", "max_age", duration, config.retention.max_age);
    read!(section, "retention.", "keep_last", count, config.retention.keep_last);
    read!(section, "retention.", "max_captures", count, config.retention.max_captures);
    let compression =
        section.and_then(|s| s.choice("compression", &[("gzip", Compression::Gzip), ("zstd", Compression::Zstd)]));
    config.retention.compression = compression.unwrap_or(config.retention.compression);
    note("retention.", section.is_some_and(|s| s.has("compression")), "retention.compression");
    if let Some(retention) = section {
        retention.finish();
        if config.retention.max_use < 256 << 10 {
            retention.problem(
                "max_use",
                format!("{} is too small for any report", crate::units::size(config.retention.max_use)),
                "a heap dump takes tens of megabytes compressed; 1GiB is usual",
            );
        }
        if config.retention.max_age.is_zero() {
            retention.wrong_value("max_age", "would keep nothing", "14d is usual; for no limit, write 100y");
        }
        if config.retention.max_captures == Some(0) {
            retention.problem("max_captures", "0 would keep nothing", "remove the key for no limit");
        }
    }

    if let Some(reports) = root.section("reports") {
        for (name, section) in reports.named_sections() {
            if report_kind::builtin(name).is_some() {
                config.options.read(name, &section);
            } else if let Some(report) = custom::parse(name, &section) {
                config.reports.insert(name.to_owned(), report);
            }
        }
    }

    let rules = root.sections("rules");
    note("", root.has("rules"), "rules");
    let mut positions = vec![0];
    if let Some(sections) = rules {
        (positions, config.rules) = rules::parse_all(&sections, &origins, &config).into_iter().unzip();
    }
    for (path, table) in &unused {
        let found = Problems::default();
        rules::parse_unused(&Section::apart(path, table, &found), &config);
        // A template is only part of a rule, so missing keys are no problem.
        let is_given = |problem: &Problem| {
            let key = problem.path.strip_prefix(path.as_str()).unwrap_or_default().trim_start_matches('.');
            table.contains_key(key.split(['.', '[']).next().unwrap_or_default())
        };
        found.into_vec().into_iter().filter(is_given).for_each(|p| problems.add(p.path, p.message, p.hint));
    }
    ["defaults", "templates"].into_iter().for_each(|key| root.know(key));
    root.finish();
    // A problem in a shared key would otherwise be reported once for each rule.
    let mut distinct: Vec<Problem> = Vec::new();
    for problem in problems.into_vec() {
        let problem = Problem { path: templates::written_at(&problem.path, &origins), ..problem };
        if !distinct.contains(&problem) {
            distinct.push(problem);
        }
    }
    Ok(Examined { config, given, positions, problems: distinct })
}

// Parses TOML and returns all syntax errors at once.
fn read_toml(text: &str) -> std::result::Result<toml::Table, Vec<Problem>> {
    text.parse().map_err(|first: toml::de::Error| {
        let (_, mut errors) = toml::de::DeTable::parse_recoverable(text);
        if errors.is_empty() {
            errors.push(first);
        }
        let problem = |e: toml::de::Error| {
            let line = e.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let hint =
                "this is not valid TOML: quote strings and values with units, and define each [table] and key once";
            Problem { path: format!("line {line}"), message: e.message().trim().to_owned(), hint: Some(hint.into()) }
        };
        errors.into_iter().map(problem).collect()
    })
}

#[cfg(test)]
mod tests;
