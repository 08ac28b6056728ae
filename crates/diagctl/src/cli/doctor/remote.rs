//! The checks of the remote, which `diagctl-remote` makes.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde::Deserialize;

use super::check::Check;
use crate::cli::{Context, Failure, remote};

#[derive(Deserialize)]
struct Finding {
    check: String,
    status: String,
    message: String,
    #[serde(default)]
    hint: Option<String>,
}

/// Tries what the credentials may do. Writes one small object to the remote.
pub(super) fn examine(cx: &Context, is_broken: bool) -> Vec<Check> {
    if cx.config().remote.is_none() {
        return vec![match is_broken {
            true => Check::skip("remote.write", "the configuration has problems, see config.file"),
            false => {
                let Failure { message, hint, .. } = remote::none(cx);
                Check::fail("remote.write", message, hint.unwrap_or_default())
            }
        }];
    }
    let mut command = match remote::command(cx) {
        Ok(command) => command,
        Err(failure) => {
            let hint = failure.hint.unwrap_or_default();
            return vec![Check::fail("remote.write", failure.message, hint)];
        }
    };
    let child = command.arg("check").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let failed =
        |why: String| Check::fail("remote.write", format!("diagctl-remote failed: {why}"), "report this as a bug");
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return vec![failed(error.to_string())],
    };
    let lines = child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok);
    let mut checks: Vec<Check> = lines.filter_map(|line| check(&serde_json::from_str(&line).ok()?)).collect();
    let output = child.wait_with_output();
    if checks.is_empty() {
        let why = output
            .map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stderr).into_owned());
        checks.push(failed(why.trim().trim_start_matches("diagctl: ").to_owned()));
    }
    checks
}

fn check(finding: &Finding) -> Option<Check> {
    const IDS: [&str; 9] = [
        "remote.disk",
        "remote.write",
        "remote.requests",
        "remote.read",
        "remote.list",
        "remote.clock",
        "remote.encryption",
        "remote.delete",
        "remote.uploads",
    ];
    let id = IDS.into_iter().find(|id| id.strip_prefix("remote.") == Some(&finding.check))?;
    let hint = finding.hint.clone().unwrap_or_default();
    Some(match finding.status.as_str() {
        "ok" => Check::ok(id, &finding.message),
        "skip" => Check::skip(id, &finding.message),
        "warn" => Check::warn(id, &finding.message, hint),
        _ => Check::fail(id, &finding.message, hint),
    })
}
