//! The program `diagctl-remote`, which alone has an HTTP client and TLS. It gets the checked configuration in its environment.

pub mod earlier;
pub mod hints;
pub mod hosts;
pub mod misplaced;
mod target;
pub mod view;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Context, Failure, external};
use crate::config::Remote;
use crate::exit_code::Exit;
use crate::units::ms;
use diagctl_store::index::Entry;

/// Returns the program, to be started with the name of one of its commands.
pub fn command(cx: &Context) -> Result<Command, Failure> {
    let remote = cx.config().remote.as_ref().ok_or_else(|| none(cx))?;
    let Some(program) = external::find("remote") else {
        let failure = Failure::failed("the program diagctl-remote is neither beside diagctl nor in PATH");
        return Err(failure.hint(
            "the gems, packages and archives of diagctl have both; put the one of the same release beside diagctl",
        ));
    };
    let mut command = Command::new(program);
    command.env("DIAGCTL_REMOTE", settings(cx, Some(remote)).to_string());
    Ok(command)
}

/// The failure if there is no remote. What is wrong with the file was said before.
pub fn none(cx: &Context) -> Failure {
    if cx.loaded.broken.is_some() {
        return Failure::new(Exit::Config, "there is no remote until the configuration is corrected")
            .hint("`diagctl config check` says what to write");
    }
    let failure = Failure::new(Exit::Config, "the configuration names no remote");
    let Some(file) = cx.loaded.borrowed.as_ref().or(cx.loaded.file.as_ref()) else {
        return failure.hint(how_to_name_one());
    };
    // A table must not be there twice.
    let has_table = |text: String| text.lines().any(|line| line.trim_start().starts_with("[remote]"));
    if std::fs::read_to_string(file).is_ok_and(has_table) {
        let file = file.display();
        return failure.hint(format!(
            "write url = \"s3://BUCKET/PREFIX\" below [remote] in {file}; docs/fleet.md has an example"
        ));
    }
    let file = hints::shell_word(&file.to_string_lossy());
    failure.hint(format!("add the table with `{WRITE} >> {file}`; docs/fleet.md has an example"))
}

/// Writes the table of a remote.
const WRITE: &str = r#"printf '\n[remote]\nurl = "s3://BUCKET/PREFIX"\n'"#;

/// The next step where no configuration file is in use.
pub fn how_to_name_one() -> String {
    format!(
        "write the table [remote] into a file with `{WRITE} >> diagctl.toml`, and name it with --config or DIAGCTL_CONFIG; docs/fleet.md has \
         an example"
    )
}

/// Returns what the program has to know: the store, the remote, and how to ask this program again.
pub fn settings(cx: &Context, remote: Option<&Remote>) -> Value {
    let config = cx.config();
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // The file that a new release puts in the place of this one is as good.
    let this = std::env::current_exe().unwrap_or_default();
    let file = cx.loaded.borrowed.as_ref().or(cx.loaded.file.as_ref());
    json!({
        "dir": config.dir,
        "group": config.group,
        "orders": !config.group_may.is_empty(),
        "allow_network_filesystem": config.allow_network_filesystem,
        "options": cx.options,
        "diagctl": file.map(|file| json!({ "program": this, "config": absolute(file) })),
        "remote": remote.map(|remote| json!({
            "url": remote.url,
            "endpoint": remote.endpoint,
            "region": remote.region,
            "credential_command": remote.credential_command,
            "max_bandwidth": remote.max_bandwidth,
            "flush_ms": ms(remote.flush),
            "requests": remote.requests.as_ref().map(|requests| json!({
                "allow_reports": requests.allow_reports,
                "allow_requesters": requests.allow_requesters,
                "max_per_hour": requests.max_per_hour,
                "poll_ms": ms(requests.poll),
            })),
        })),
    })
}

/// The days, in UTC, whose captures are wanted. `None` is without end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Days {
    /// The first.
    pub since: Option<String>,
    /// The last.
    pub until: Option<String>,
}

/// Returns the captures in the remote, newest first. Their time on the store's time line becomes that of the wall clock, because
/// each store has a line of its own.
pub fn captures(cx: &Context, days: &Days) -> Result<Vec<Entry>, Failure> {
    let mut command = command(cx)?;
    command.arg("captures");
    command.args(days.since.as_ref().map(|day| format!("--since-day={day}")));
    command.args(days.until.as_ref().map(|day| format!("--until-day={day}")));
    let mut entries: Vec<Entry> = lines_of(command, "the captures in the remote cannot be listed")?;
    for entry in &mut entries {
        entry.store_ms = super::times::wall_ms(&entry.created);
    }
    Ok(entries)
}

/// Runs the program and returns what it prints, a value a line.
///
/// # Errors
///
/// If it fails.
pub fn lines_of<T: DeserializeOwned>(mut command: Command, otherwise: &str) -> Result<Vec<T>, Failure> {
    let failed = |source| Failure::io("run", Path::new("diagctl-remote"), source);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut values = Vec::new();
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
        values.push(serde_json::from_str(&line.map_err(failed)?).map_err(|e| failed(e.into()))?);
    }
    let status = child.wait().map_err(failed)?;
    if status.success() { Ok(values) } else { Err(ended(otherwise, status)) }
}

// The failure of the program, which has said why unless somebody has killed it.
fn ended(what: &str, status: ExitStatus) -> Failure {
    if let Some(signal) = status.signal() {
        return Failure::failed(format!("{what}: diagctl-remote was killed by signal {signal}"));
    }
    Failure::said(match status.code() {
        Some(code) if code == Exit::NoMatch as i32 => Exit::NoMatch,
        Some(code) if code == Exit::Config as i32 => Exit::Config,
        Some(code) if code == Exit::NewerStore as i32 => Exit::NewerStore,
        _ => Exit::Failed,
    })
}

/// Deletes captures in the remote.
pub fn delete(cx: &Context, targets: &[view::Target], by: &str) -> Result<(), Failure> {
    let failed = |source| Failure::io("run", Path::new("diagctl-remote"), source);
    let mut command = command(cx)?;
    let mut child = command.arg("rm").arg(format!("--by={by}")).stdin(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        for view::Target { entry, .. } in targets {
            let line = json!({ "id": entry.id, "created": entry.created, "host": entry.host });
            // If it has ended, its exit status says more.
            let _ = writeln!(stdin, "{line}");
        }
    }
    let status = child.wait().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(ended("not all captures were deleted", status)) }
}
