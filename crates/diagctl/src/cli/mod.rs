//! The command line: one file per command, each with its `Args` and its function.

mod abort;
mod acquire;
mod after_capture;
mod apart;
mod columns;
mod compare;
mod completions;
mod config;
mod config_target;
mod deaths;
mod detached;
mod diagnose;
mod doctor;
mod ended;
mod error;
mod events;
mod external;
mod fetch;
mod finalize;
mod gc;
mod heap;
mod identity;
mod init;
mod list;
mod metrics;
mod names;
mod orders;
mod output;
mod pause;
mod pin;
mod plain_poll;
mod put;
mod remote;
mod request;
mod rm;
mod run;
mod samples;
mod ship;
mod show;
mod simulate;
mod status;
mod times;
mod verify;
mod view;
mod walker;
mod wrap;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::cli::error::Failure;
use crate::config::{Overrides, SourceOf};
use crate::context::Context;
use crate::exit_code::{self, Exit};
use output::Done;

/// Diagnostic reports from production Ruby processes, taken by the processes themselves, one at a time.
#[derive(Debug, Parser)]
#[command(name = "diagctl", version, max_term_width = 80, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Default, clap::Args)]
struct Global {
    /// Configuration file [env: DIAGCTL_CONFIG] [default: /etc/diagctl/diagctl.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    config: Option<PathBuf>,

    /// Store directory [env: DIAGCTL_DIR] [default: `dir` in the configuration, else /var/lib/diagctl]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    dir: Option<PathBuf>,
}

impl Global {
    // As a shell takes them.
    fn given(&self) -> String {
        let options = [("--config", &self.config), ("--dir", &self.dir)];
        let options = options.into_iter().filter_map(|(option, path)| Some((option, path.as_ref()?)));
        let words =
            options.map(|(option, path)| format!("{option} {}", remote::hints::shell_word(&path.to_string_lossy())));
        words.collect::<Vec<_>>().join(" ")
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Request(request::Args),
    List(list::Args),
    Show(show::Args),
    Diagnose(diagnose::Args),
    Compare(compare::Args),
    Deaths(deaths::Args),
    Ended(ended::Args),
    Fetch(fetch::Args),
    Rm(rm::Args),
    Pin(pin::PinArgs),
    Unpin(pin::UnpinArgs),
    Gc(gc::Args),
    Heap(heap::Args),
    Status(status::Args),
    Events(events::Args),
    Metrics(metrics::Args),
    Verify(verify::Args),
    Samples(samples::Args),
    Simulate(simulate::Args),
    Ship(ship::Args),
    Pause(pause::PauseArgs),
    Resume(pause::ResumeArgs),
    Config(config::Args),
    Doctor(doctor::Args),
    Init(init::Args),
    Completions(completions::Args),
    // Programs use those that follow, and help lists them last.
    Acquire(acquire::Args),
    Put(put::Args),
    Walker(walker::Args),
    Finalize(finalize::Args),
    Abort(abort::Args),
    #[command(hide = true)]
    AfterCapture(after_capture::Args),
    /// Print help for a command, or `help exit-codes`
    Help {
        /// A command, or `exit-codes`
        topic: Vec<String>,
    },
}

/// The part of the configuration that a command needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// It works for a running process, which an invalid file must not stop.
    Process,
    /// It only needs the store.
    Store,
    /// The store, and settings that no default may stand in for: the last good ones, or none.
    Settings,
    /// It captures: the file must be valid, and retention must be that of the other processes.
    Capture,
    /// It is about the configuration, or carries it out.
    Valid,
}

impl Command {
    fn needs(&self) -> Needs {
        match self {
            Self::Acquire(_)
            | Self::Put(_)
            | Self::Walker(_)
            | Self::Finalize(_)
            | Self::Abort(_)
            | Self::AfterCapture(_) => Needs::Process,
            // Without its bandwidth, `ship` could fill the line of the application.
            Self::Gc(_) | Self::Ship(_) => Needs::Settings,
            Self::Run(_) => Needs::Capture,
            Self::Simulate(_)
            | Self::Config(_)
            | Self::Doctor(_)
            | Self::Init(_)
            | Self::Completions(_)
            | Self::Help { .. } => Needs::Valid,
            _ => Needs::Store,
        }
    }
}

/// Parses the command line, runs the command and returns its exit status.
pub fn main() -> Exit {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(e) => match remote::misplaced::explain(&e).or_else(|| external::run(&e)) {
            Some(failure) => return output::fail(&failure),
            None => return output::usage(&e),
        },
    };
    dispatch(cli).unwrap_or_else(|failure| output::fail(&failure))
}

fn parse() -> Result<Cli, clap::Error> {
    match plain_poll::parse(std::env::args_os().skip(1)) {
        Some((global, args)) => Ok(Cli { global, command: Command::Acquire(args) }),
        None => Cli::try_parse(),
    }
}

/// The command line with all commands, for completions and manual pages.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    let file = cli.global.config.clone().or_else(|| from_environment("DIAGCTL_CONFIG"));
    if let Some(done) = without_context(&cli, file.as_ref()) {
        return done.map(output::finish);
    }
    let options = cli.global.given();
    let overrides = overrides(cli.global.dir)?;
    let needs = cli.command.needs();
    let loaded = match needs {
        Needs::Process => crate::config::load_for_process(file.as_deref(), &overrides)?,
        Needs::Store | Needs::Settings => {
            crate::config::load_for_store(file.as_deref(), &overrides, needs == Needs::Settings).map_err(|error| {
                let failure = Failure::from(error);
                match failure.hint {
                    None => failure.hint("correct the file, or name the store with --dir or DIAGCTL_DIR"),
                    Some(_) => failure,
                }
            })?
        }
        Needs::Capture => crate::config::or_of_the_workers(
            crate::config::load_settled(file.as_deref(), None, &overrides)?,
            &overrides,
        ),
        Needs::Valid => crate::config::load(file.as_deref(), &overrides)?,
    };
    // `status` shows them among the rest.
    if !matches!(cli.command, Command::Status(_)) && needs != Needs::Process {
        loaded.broken.iter().for_each(|broken| output::note(&remote::hints::with_options(broken, &options)));
    }
    if let Some(file) = loaded.borrowed.as_ref().filter(|_| matches!(needs, Needs::Settings | Needs::Capture)) {
        output::note(&format!(
            "this environment names no configuration; {} counts, which the workers use",
            file.display()
        ));
    }
    let debug = debug_wanted()?.then_some(output::note as fn(&str));
    let cx = Context::new(loaded, debug).given(options);
    let done = match cli.command {
        Command::Acquire(args) => acquire::run(&cx, args),
        Command::Put(args) => put::run(&cx, &args),
        Command::Walker(args) => walker::run(&cx, args),
        Command::Finalize(args) => finalize::run(&cx, &args),
        Command::Abort(args) => abort::run(&cx, &args),
        Command::AfterCapture(args) => after_capture::run(&cx, &args),
        Command::Run(args) => run::run(&cx, &args),
        Command::Request(args) => request::run(&cx, args),
        Command::List(args) => list::run(&cx, &args),
        Command::Show(args) => show::run(&cx, &args),
        Command::Diagnose(args) => diagnose::run(&cx, &args),
        Command::Compare(args) => compare::run(&cx, &args),
        Command::Deaths(args) => deaths::run(&cx, &args),
        Command::Ended(args) => ended::run(&cx, &args),
        Command::Fetch(args) => fetch::run(&cx, &args),
        Command::Rm(args) => rm::run(&cx, &args),
        Command::Pin(args) => pin::pin(&cx, &args),
        Command::Unpin(args) => pin::unpin(&cx, &args),
        Command::Gc(args) => gc::run(&cx, &args),
        Command::Heap(args) => heap::run(&cx, args),
        Command::Status(args) => status::run(&cx, &args),
        Command::Events(args) => events::run(&cx, &args),
        Command::Metrics(args) => metrics::run(&cx, &args),
        Command::Verify(args) => verify::run(&cx, &args),
        Command::Samples(args) => samples::run(&cx, &args),
        Command::Simulate(args) => simulate::run(&cx, &args),
        Command::Ship(args) => ship::run(&cx, &args),
        Command::Pause(args) => pause::pause(&cx, &args),
        Command::Resume(args) => pause::resume(&cx, &args),
        Command::Config(args) => config::run(&cx, &args),
        Command::Doctor(_) | Command::Init(_) | Command::Completions(_) | Command::Help { .. } => {
            unreachable!("answered above")
        }
    };
    let exit =
        done.map_err(|failure| pasteable(&cx, failure)).map_or_else(|failure| output::fail(&failure), output::finish);
    // The caller has its answer.
    detached::start(&cx);
    Ok(exit)
}

// Below, nobody knows that a command works on the remote, and where the remote is. Its hints are for the same place.
fn pasteable(cx: &Context, failure: Failure) -> Failure {
    let is_remote = std::env::args_os().take_while(|word| word != "--").any(|word| word == "--remote");
    let how = remote::hints::As { options: &cx.options, host: None };
    let hint = match failure.hint {
        Some(hint) if is_remote => Some(remote::hints::of_hint(&hint, how)),
        Some(hint) if failure.lacks_store => {
            let list = remote::hints::of_command("diagctl list", how);
            let place = cx.config().remote.as_ref().map_or("a bucket, without a store", |remote| remote.url.as_str());
            Some(format!("{hint}; `{list}` reads {place}"))
        }
        hint => hint,
    };
    Failure { hint, ..failure }
}

// Carries out a command that loads the configuration in its own way, or not at all.
fn without_context(cli: &Cli, file: Option<&PathBuf>) -> Option<Result<Done, Failure>> {
    let dir = || cli.global.dir.clone();
    match &cli.command {
        Command::Help { topic } => Some(help(topic)),
        Command::Completions(args) => Some(completions::run(args)),
        Command::Init(args) => Some(init::run(args, file.cloned(), dir())),
        Command::Config(args) => config::without_loading(args, file.map(PathBuf::as_path), dir()),
        Command::Doctor(args) => Some(doctor::run(args, file.map(PathBuf::as_path), dir(), &cli.global.given())),
        _ => None,
    }
}

// Reads a path from the environment. An empty variable counts as unset.
fn from_environment(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn overrides(dir: Option<PathBuf>) -> Result<Overrides, Failure> {
    let dir = dir.map(|dir| (dir, SourceOf::Flag));
    let dir = dir.or_else(|| from_environment("DIAGCTL_DIR").map(|dir| (dir, SourceOf::Environment)));
    // A value that is not UTF-8 is rejected as an unknown value.
    let enabled = std::env::var_os("DIAGCTL_ENABLED").unwrap_or_default();
    let enabled = match &*enabled.to_string_lossy() {
        "" => None,
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        other => {
            let message = format!("DIAGCTL_ENABLED has the invalid value {}", crate::cli::error::quoted(other));
            return Err(Failure::new(Exit::Config, message).hint("use 1, true, 0 or false"));
        }
    };
    Ok(Overrides { dir, enabled })
}

fn debug_wanted() -> Result<bool, Failure> {
    match std::env::var("DIAGCTL_LOG").as_deref() {
        Err(_) | Ok("" | "info") => Ok(false),
        Ok("debug") => Ok(true),
        Ok(other) => {
            let message = format!("DIAGCTL_LOG has the invalid value {}", crate::cli::error::quoted(other));
            Err(Failure::new(Exit::Config, message).hint("use info or debug"))
        }
    }
}

fn help(topic: &[String]) -> Result<Done, Failure> {
    if topic == ["exit-codes"] {
        return Ok(Done::text(exit_code::HELP.to_owned()));
    }
    let command = command();
    let found = topic.iter().try_fold(&command, |command, name| command.find_subcommand(name));
    if found.is_none() {
        let message = format!("there is no command or topic {}", crate::cli::error::quoted(&topic.join(" ")));
        let names = command.get_subcommands().filter(|known| !known.is_hide_set()).map(clap::Command::get_name);
        let near = topic.first().and_then(|name| crate::section::nearest(name, names.chain(["exit-codes"])));
        let hint = match near.filter(|_| topic.len() == 1) {
            Some(near) => format!("did you mean `diagctl help {near}`?"),
            None => "`diagctl help` lists the commands; the only topic is exit-codes".to_owned(),
        };
        return Err(Failure::new(Exit::Usage, message).hint(hint));
    }
    // The text of `COMMAND --help`, which clap hands over as an error.
    let words = ["diagctl"].into_iter().chain(topic.iter().map(String::as_str)).chain(["--help"]);
    let text = match command.try_get_matches_from(words) {
        Err(help) => help.render().to_string(),
        Ok(_) => String::new(),
    };
    Ok(Done::text(text))
}
