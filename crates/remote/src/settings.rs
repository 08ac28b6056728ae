//! The settings that `diagctl` hands over: it alone reads the configuration file. They hold no secret.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use diagctl_store::StoreOptions;
use serde::Deserialize;
use tokio::process::Command;

use crate::error::{Error, Result};
use crate::output;

/// The environment variable with the settings as JSON.
const VARIABLE: &str = "DIAGCTL_REMOTE";

/// The time that `diagctl` may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The store and the remote.
#[derive(Clone, Debug, Deserialize)]
pub struct Settings {
    dir: PathBuf,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    orders: bool,
    #[serde(default)]
    allow_network_filesystem: bool,
    /// `diagctl`, to be asked again.
    #[serde(default)]
    pub diagctl: Option<Diagctl>,
    /// The global options with which `diagctl` was called.
    #[serde(default)]
    options: String,
    /// The remote.
    pub remote: Remote,
}

/// The program that has started this one.
#[derive(Clone, Debug, Deserialize)]
pub struct Diagctl {
    /// Its file.
    pub program: PathBuf,
    /// The configuration file.
    pub config: PathBuf,
}

/// The table `[remote]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Remote {
    /// `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` or `file:///DIRECTORY`.
    pub url: String,
    /// The URL of the server, if it is not that of Amazon or Google.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The region of the bucket.
    #[serde(default)]
    pub region: Option<String>,
    /// The command that prints credentials, and its arguments.
    #[serde(default)]
    pub credential_command: Vec<String>,
    /// Bytes a second.
    #[serde(default)]
    pub max_bandwidth: Option<u64>,
    /// Time for the captures that wait when the shipper is told to stop, milliseconds.
    #[serde(default = "Remote::flush_ms")]
    pub flush_ms: u64,
    /// Requests through the remote, if they are obeyed.
    #[serde(default)]
    pub requests: Option<Requests>,
}

/// The table `[remote.requests]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Requests {
    /// The reports that may be asked for.
    pub allow_reports: Vec<String>,
    /// The people who may ask, with globs.
    pub allow_requesters: Vec<String>,
    /// The most that are obeyed within an hour.
    pub max_per_hour: usize,
    /// The time between two looks, milliseconds.
    pub poll_ms: u64,
}

impl Remote {
    // Kubernetes kills after 30 seconds.
    fn flush_ms() -> u64 {
        25_000
    }

    /// Returns the time for the captures that wait when the shipper is told to stop.
    pub fn flush(&self) -> Duration {
        Duration::from_millis(self.flush_ms)
    }
}

impl Settings {
    /// Reads the settings that `diagctl` has put into the environment.
    pub fn from_environment() -> Result<Self> {
        let text = std::env::var(VARIABLE).map_err(|_| Error::NoSettings)?;
        let settings: Self = serde_json::from_str(&text).map_err(|e| Error::Settings(e.to_string()))?;
        output::suggest_with(&settings.options);
        Ok(settings)
    }

    /// Asks `diagctl` about this store and returns what it prints, or what it says instead.
    pub async fn ask(&self, arguments: &[&str]) -> std::result::Result<String, String> {
        let Some(Diagctl { program, config }) = &self.diagctl else {
            return Err("this diagctl-remote was not started by diagctl".into());
        };
        let mut command = Command::new(program);
        command.arg("--config").arg(config).arg("--dir").arg(&self.dir).args(arguments);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = match tokio::time::timeout(PATIENCE, output).await {
            Err(_) => return Err(format!("{} does not answer", program.display())),
            Ok(output) => output.map_err(|e| format!("{}: {e}", program.display()))?,
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(in_one_line(&String::from_utf8_lossy(&output.stderr)))
    }

    /// Returns the remote as it is in the configuration by now, if there is one, or the reason why the configuration cannot be used.
    pub async fn reread(&self) -> std::result::Result<Option<Remote>, String> {
        #[derive(Deserialize)]
        struct Now {
            remote: Option<Remote>,
        }
        let text = self.ask(&["ship", "--settings"]).await?;
        let now: Now = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        Ok(now.remote)
    }

    /// Returns false on the machine of a person, who only reads.
    pub fn has_store(&self) -> bool {
        self.dir.symlink_metadata().is_ok()
    }

    /// Returns the settings of the store.
    pub fn store(&self) -> StoreOptions {
        StoreOptions {
            group: self.group.clone(),
            orders: self.orders,
            allow_network_filesystem: self.allow_network_filesystem,
            ships: true,
            ..StoreOptions::new(&self.dir)
        }
    }
}

// Returns what `diagctl` said on stderr as one line of a log.
fn in_one_line(said: &str) -> String {
    let lines: Vec<&str> = said.trim_start_matches("diagctl: ").lines().map(str::trim).collect();
    lines.join("; ").replace(":; ", ": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_several_lines_becomes_one() {
        let said =
            "diagctl: 1 problem in the configuration c.toml:\n  line 1: key with no value\n      hint: quote strings\n";
        let expected = "1 problem in the configuration c.toml: line 1: key with no value; hint: quote strings";
        assert_eq!(in_one_line(said), expected);
    }
}
