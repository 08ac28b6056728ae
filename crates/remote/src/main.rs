//! `diagctl-remote`: takes captures to object storage, and lists what is there.
//!
//! Owns everything that needs the network: the bucket, uploads, credentials, retries. It uses the store as any command does, and
//! nothing uses it; `diagctl ship` and `diagctl list --remote` execute it and hand it the checked configuration. It must not know rules, TOML or Ruby.

mod bucket;
mod captures;
mod credentials;
mod directory;
mod error;
mod journal;
mod keys;
mod manifest;
mod output;
mod settings;
mod ship;
mod throttle;
mod upload;

use clap::{Parser, Subcommand};
use error::Error;

/// Takes captures to object storage, and lists what is there. `diagctl` runs this program.
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
}

fn main() -> std::process::ExitCode {
    match run(&Cli::parse().command) {
        Ok(exit) => exit.into(),
        Err(error) => output::fail(&error).into(),
    }
}

fn run(command: &Command) -> Result<output::Exit, Error> {
    let settings = settings::Settings::from_environment()?;
    // Fails only if there is a provider already, which is then as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    runtime.block_on(async {
        match command {
            Command::Ship(args) => ship::run(args, &settings).await,
            Command::Captures(args) => captures::run(args, &settings).await,
        }
    })
}
