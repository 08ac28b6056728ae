//! What the operator declared: a TOML document, read whole, checked whole, merged with environment and flags.
//!
//! Flag beats environment beats file beats default. Every problem is reported at once, with its key path and a hint.

pub(crate) mod cache;
mod custom;
mod doubts;
mod options;
mod reader;
mod rules;
mod templates;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use custom::{COMMANDS_TIMEOUT_MS, CustomReport, ReportCommand};
pub use doubts::Place;
pub use options::ReportOptions;
pub use reader::{Problem, Problems, Section, nearest};
pub use rules::{LimitsOfRule, Mode, Rule, Select, Snapshot, in_order};

use crate::error::Failure;
use crate::exit_code::Exit;
use crate::fsio::{self, Durability, Spot};
use crate::report::{self, Producer};
use crate::units::Amount;

/// Where the configuration is looked for when nobody names a file.
pub const DEFAULT_FILE: &str = "/etc/diagctl/diagctl.toml";

/// A commented file to start from; `diagctl config init` prints it, and a test parses it.
pub const EXAMPLE: &str = include_str!("../../../../diagctl.toml");

/// Where a store keeps the last configuration that was valid.
const LAST_GOOD: &str = "config.good.toml";

/// No configuration is longer; what is, is something else.
const MAX_FILE: u64 = 1 << 20;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything.
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

/// The merged, checked configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The store.
    pub dir: PathBuf,
    /// The environment switch, or its value in the file.
    pub enabled: bool,
    /// Time between two polls of a process, where nothing asks for another.
    pub poll_interval: Duration,
    /// A group that may read the store.
    pub group: Option<String>,
    /// Use a filesystem on which `flock` may not exclude.
    pub allow_network_filesystem: bool,
    /// Checks that can refuse any capture.
    pub guards: Guards,
    /// Budgets of the whole store.
    pub limits: Limits,
    /// How much is kept, and how.
    pub retention: Retention,
    /// Reports of the operator's own.
    pub reports: BTreeMap<String, CustomReport>,
    /// How diagctl's own are made.
    pub options: ReportOptions,
    /// What is captured when.
    pub rules: Vec<Rule>,
}

/// `[guards]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guards {
    /// Free memory must be at least this many times what the last such snapshot cost.
    pub memory_headroom: f64,
    /// Free space that must remain on the store's filesystem.
    pub min_free_disk: Amount,
    /// A process larger than this is not dumped.
    pub max_rss: Option<u64>,
    /// No capture while more than this share of time is stalled for CPU.
    pub max_cpu_pressure: Option<f64>,
    /// Seconds that a dump may take.
    pub deadline: Duration,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Cost units in any 60 minutes.
    pub budget_hour: u32,
    /// Cost units in any 24 hours.
    pub budget_day: u32,
}

/// `[retention]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retention {
    /// Hard cap of the whole store, bytes.
    pub max_use: u64,
    /// Space to leave free on the filesystem.
    pub keep_free: Amount,
    /// Captures older than this go.
    pub max_age: Duration,
    /// So many of each kind of report stay.
    pub keep_last: u32,
    /// No more captures than this.
    pub max_captures: Option<u32>,
    /// How stored reports are compressed.
    pub compression: Compression,
}

/// `retention.compression`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// Readable everywhere.
    Gzip,
    /// Smaller and faster, where it can be read.
    Zstd,
}

/// What beats the file: flags and environment, each with its source.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--dir`, `DIAGCTL_DIR`.
    pub dir: Option<(PathBuf, SourceOf)>,
    /// `DIAGCTL_ENABLED`.
    pub enabled: Option<bool>,
}

/// Whether an override came by flag or by environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceOf {
    /// A flag.
    Flag,
    /// An environment variable.
    Environment,
}

/// A configuration with the story of how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The merged configuration.
    pub config: Config,
    /// The file, when one was read.
    pub file: Option<PathBuf>,
    /// Where each top-level and section value came from, by key path.
    pub sources: BTreeMap<&'static str, Source>,
    /// What is wrong with the file, when the last good configuration is used in its place.
    pub broken: Option<String>,
    /// The file as it was before it was read, when it was read for a process and is not in the store's cache.
    pub identity: Option<cache::Identity>,
    /// The store's directory, held open since something was looked for in it: what was read there must be of the store that is
    /// opened, and of no other that bore its name for a moment.
    pub held: Option<Spot>,
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
            retention: Retention {
                max_use: 1 << 30,
                keep_free: Amount::Percent(15.0),
                max_age: Duration::from_secs(14 * 86_400),
                keep_last: 1,
                max_captures: None,
                compression: Compression::Gzip,
            },
            reports: BTreeMap::new(),
            options: ReportOptions::default(),
            rules: vec![rules::routine()],
        }
    }
}

impl Config {
    /// The cost units of a report.
    pub fn cost_of(&self, name: &str) -> u32 {
        let builtin = report::builtin(name).map(|(_, kind)| kind.cost);
        builtin.or_else(|| self.reports.get(name).map(|r| r.cost)).unwrap_or(1)
    }

    /// Who makes a report; one that diagctl does not know is the application's.
    pub fn producer(&self, name: &str) -> Producer {
        match report::builtin(name) {
            Some((_, kind)) => kind.producer,
            None if self.command(name).is_some() => Producer::Native,
            None => Producer::Inline,
        }
    }

    /// The command that prints a report.
    pub fn command(&self, name: &str) -> Option<&ReportCommand> {
        self.reports.get(name).and_then(|report| report.command.as_ref())
    }

    /// Whether a name is a report here.
    pub fn knows_report(&self, name: &str) -> bool {
        report::builtin(name).is_some() || self.reports.contains_key(name)
    }

    /// The failure for a report name that nobody knows.
    pub fn unknown_report(&self, name: &str) -> Failure {
        let message = format!("unknown report {}", crate::error::quoted(name));
        Failure::new(Exit::Usage, message).hint(self.report_hint(name))
    }

    fn report_hint(&self, name: &str) -> String {
        let names = || report::KINDS.iter().map(|kind| kind.name).chain(self.reports.keys().map(String::as_str));
        nearest(name, names()).map_or_else(
            || format!("known reports: {}; declare your own as [reports.NAME]", names().collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean {near:?}?"),
        )
    }

    /// How long polls are apart, in milliseconds.
    pub fn poll_ms(&self) -> u64 {
        crate::units::ms(self.poll_interval)
    }
}

/// The reports of a capture for which nobody named any: cheap, and enough to see what kind of memory it is.
pub fn routine_reports() -> Vec<String> {
    rules::routine().reports
}

/// Reads and merges everything. `file` is the one that was named; without it the default file is read if it exists.
pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Loaded, Failure> {
    let (text, read) = read(file)?;
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let (config, sources) = parse(&text).map_err(|problems| invalid(path, &problems))?;
    Ok(merge(Loaded { config, file: read, sources, broken: None, identity: None, held: None }, overrides))
}

/// The text of the file that was named, or of the default file if it exists, with the path that was read.
pub fn read(file: Option<&Path>) -> Result<(String, Option<PathBuf>), Failure> {
    let named = file.is_some();
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    Ok(match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !named => (String::new(), None),
        Err(e) => {
            return Err(Failure::new(Exit::Config, format!("cannot read the configuration {}: {e}", path.display()))
                .hint("check --config and DIAGCTL_CONFIG; `diagctl config init` prints an example"));
        }
        Ok(meta) if !meta.is_file() || meta.len() > MAX_FILE => {
            return Err(Failure::new(
                Exit::Config,
                format!("the configuration {} is not a regular file of at most 1 MiB", path.display()),
            )
            .hint("--config or DIAGCTL_CONFIG must name a TOML file"));
        }
        Ok(_) => {
            let text = std::fs::read_to_string(path).map_err(|e| {
                Failure::new(Exit::Config, format!("cannot read the configuration {}: {e}", path.display()))
                    .hint("it must be UTF-8 text that this user can read")
            })?;
            (text, Some(path.to_path_buf()))
        }
    })
}

/// What is in force without a file.
pub fn defaults(overrides: &Overrides) -> Result<Loaded, Failure> {
    let (config, sources) = parse("").map_err(|problems| invalid(Path::new(DEFAULT_FILE), &problems))?;
    Ok(merge(Loaded { config, file: None, sources, broken: None, identity: None, held: None }, overrides))
}

/// Reads and merges everything for a command that works for a running process. It is read from the store's cache where that is
/// what the file holds. A file that has become invalid does not stop the process: the last good one, kept in the store, goes on
/// being used. Without `--dir` the store is not known, and the file decides alone.
pub fn load_for_process(file: Option<&Path>, overrides: &Overrides) -> Result<Loaded, Failure> {
    let Some((dir, _)) = &overrides.dir else { return load(file, overrides) };
    let held = std::path::absolute(dir).and_then(|dir| Spot::hold(&dir)).ok();
    let path = file.unwrap_or(Path::new(DEFAULT_FILE)).to_path_buf();
    let identity = cache::Identity::of(&path);
    let cached = identity.as_ref().zip(held.as_ref()).and_then(|(identity, held)| cache::read(held, identity));
    if let Some((config, enabled_given)) = cached {
        let enabled = if enabled_given { Source::File } else { Source::Default };
        let sources = [("enabled", enabled)].into();
        return Ok(merge(Loaded { config, file: Some(path), sources, broken: None, identity: None, held }, overrides));
    }
    match load(file, overrides) {
        Ok(loaded) => Ok(Loaded { identity, held, ..loaded }),
        Err(failure) if failure.exit == Exit::Config => last_good(file, held, overrides, failure),
        Err(failure) => Err(failure),
    }
}

fn last_good(
    file: Option<&Path>,
    held: Option<Spot>,
    overrides: &Overrides,
    failure: Failure,
) -> Result<Loaded, Failure> {
    let kept = held.as_ref().and_then(|held| fsio::read_bounded(&held.join(LAST_GOOD), MAX_FILE + 8192).ok());
    let kept = kept.map(|kept| String::from_utf8_lossy(&kept).into_owned()).unwrap_or_default();
    // Another application that shares the store has another file: its rules are none for this process.
    let text = kept.strip_prefix(&head_of_copy(file.unwrap_or(Path::new(DEFAULT_FILE))));
    let Some((config, sources)) = text.and_then(|text| parse(text).ok()) else {
        return Err(failure);
    };
    let broken = Some(format!("{}; the last good configuration stays in force", failure.message));
    Ok(merge(Loaded { config, file: file.map(Path::to_path_buf), sources, broken, identity: None, held }, overrides))
}

// The first line of a copy: which file it is of.
fn head_of_copy(file: &Path) -> String {
    format!("# last good copy of {:?}\n", file.display().to_string())
}

/// Keeps a file that was read anew: as the cache, and as the last good one should it be broken later.
pub fn keep(loaded: &Loaded, dir: &Spot) -> Result<(), Failure> {
    let (Some(file), Some(identity)) = (&loaded.file, &loaded.identity) else { return Ok(()) };
    let text = fsio::read_bounded(&Spot::outside(file), MAX_FILE)?;
    // What the file itself says, without flags and environment, which may differ from poll to poll.
    let Ok((config, sources)) = parse(&String::from_utf8_lossy(&text)) else { return Ok(()) };
    let copy = [head_of_copy(file).as_bytes(), &text].concat();
    fsio::write_atomic(&dir.join(LAST_GOOD), &copy, Durability::Volatile)?;
    cache::write(dir, identity.clone(), &config, sources["enabled"] == Source::File)
}

fn merge(mut loaded: Loaded, overrides: &Overrides) -> Loaded {
    let Loaded { config, sources, .. } = &mut loaded;
    if let Some((dir, source)) = &overrides.dir {
        // A path typed in a shell is meant from where it was typed; one in a file has no such place.
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

/// All problems of a file as one failure.
pub fn invalid(path: &Path, problems: &[Problem]) -> Failure {
    let count = match problems.len() {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    };
    let list: Vec<String> = problems.iter().map(|p| format!("  {}", p.to_string().replace('\n', "\n  "))).collect();
    Failure::new(Exit::Config, format!("{count} in the configuration {}:\n{}", path.display(), list.join("\n")))
}

/// Reads a document. Returns what it says over the defaults, and which values it gave.
pub fn parse(text: &str) -> Result<(Config, BTreeMap<&'static str, Source>), Vec<Problem>> {
    let examined = examine(text)?;
    if examined.problems.is_empty() { Ok((examined.config, examined.given)) } else { Err(examined.problems) }
}

/// A document as far as it could be understood.
pub struct Examined {
    /// What it says over the defaults, without what is wrong.
    pub config: Config,
    /// Which values it gave.
    pub given: BTreeMap<&'static str, Source>,
    /// The position in the document of each rule.
    pub positions: Vec<usize>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// Reads a document as far as it can be understood; what is no TOML cannot be at all.
pub fn examine(text: &str) -> Result<Examined, Vec<Problem>> {
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
    // Reads one key into the place of its default and notes whether the file gave it.
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
            if report::builtin(name).is_some() {
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
        // It is a part of a rule: what is missing in it is no problem.
        let is_given = |problem: &Problem| {
            let key = problem.path.strip_prefix(path.as_str()).unwrap_or_default().trim_start_matches('.');
            table.contains_key(key.split(['.', '[']).next().unwrap_or_default())
        };
        found.into_vec().into_iter().filter(is_given).for_each(|p| problems.add(p.path, p.message, p.hint));
    }
    ["defaults", "templates"].into_iter().for_each(|key| root.know(key));
    root.finish();
    // Rules that have a key in common have its problem in common.
    let mut distinct: Vec<Problem> = Vec::new();
    for problem in problems.into_vec() {
        let problem = Problem { path: templates::written_at(&problem.path, &origins), ..problem };
        if !distinct.contains(&problem) {
            distinct.push(problem);
        }
    }
    Ok(Examined { config, given, positions, problems: distinct })
}

// All that is no TOML, at once.
fn read_toml(text: &str) -> Result<toml::Table, Vec<Problem>> {
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
