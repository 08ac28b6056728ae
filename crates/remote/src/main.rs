//! `diagctl-remote`: takes captures to object storage, lists what is there, and brings it back.
//!
//! Owns everything that needs the network: the bucket, uploads, credentials, retries. It uses the store as any command does, and
//! nothing uses it; `diagctl ship` and the commands with `--remote` execute it and hand it the checked configuration. It must not know rules, TOML
//! or Ruby.

mod at_rest;
mod bounded;
mod bucket;
mod cache;
mod captures;
mod check;
mod cloud;
mod counting;
mod credentials;
mod deletion;
mod directory;
mod error;
mod foreign;
mod gc;
mod get;
mod inbox;
mod integrity;
mod journal;
mod keys;
mod manifest;
mod merged;
mod no_node;
mod nodes;
mod output;
mod place;
mod probe;
mod reason;
mod reload;
mod request;
mod requests;
mod sender;
mod settings;
mod ship;
mod stop;
mod sys;
mod throttle;
mod ticket;
mod turn;
mod upload;
mod webhook;

use clap::{Parser, Subcommand};
use error::Error;

/// Takes captures to object storage, lists what is there, and brings it back. `diagctl` runs this program.
#[derive(Debug, Parser)]
#[command(name = "diagctl-remote", version, max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ship(ship::Args),
    Captures(captures::Args),
    Get(get::Args),
    Rm(gc::RmArgs),
    Gc(gc::GcArgs),
    Request(request::Args),
    /// Print the requests in the remote, for `diagctl request --list --remote`
    Requests,
    Cancel(requests::CancelArgs),
    Webhook(webhook::Args),
    /// Try what the credentials may do, for `diagctl doctor --remote`
    Check,
}

fn main() -> std::process::ExitCode {
    sys::return_large_buffers();
    match run(&Cli::parse().command) {
        Ok(exit) => exit.into(),
        Err(error) => output::fail(&error).into(),
    }
}

fn run(command: &Command) -> Result<output::Exit, Error> {
    // Fails only if there is a provider already, which is then as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    runtime.block_on(async {
        let settings = settings::Settings::from_environment;
        match command {
            Command::Ship(args) => ship::run(args, &settings()?).await,
            Command::Captures(args) => captures::run(args, &settings()?).await,
            Command::Get(args) => get::run(args, &settings()?).await,
            Command::Rm(args) => gc::rm(args, &settings()?).await,
            Command::Gc(args) => gc::gc(args, &settings()?).await,
            Command::Request(args) => request::run(args, &settings()?).await,
            Command::Requests => requests::list(&settings()?).await,
            Command::Cancel(args) => requests::cancel(args, &settings()?).await,
            Command::Check => check::run(&settings()?).await,
            Command::Webhook(_) => webhook::run().await,
        }
    })
}
