//! Subcommands that are programs of their own: `diagctl-NAME` beside this program or in PATH is `diagctl NAME`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::Failure;
use crate::exit_code::Exit;

/// Becomes the program that stands for an unknown subcommand. Returns `None` if there is none, and a failure if it cannot start.
pub fn run(error: &clap::Error) -> Option<Failure> {
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let program = find(name)?;
    let (globals, arguments) = split(env::args_os().skip(1), name);
    let mut command = Command::new(&program);
    command.args(arguments).envs(globals);
    Some(become_program(command))
}

/// Returns the program that carries out a subcommand.
pub fn find(name: &str) -> Option<PathBuf> {
    let is_plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let beside = env::current_exe().ok().and_then(|program| Some(program.parent()?.to_owned()));
    let path = env::var_os("PATH").unwrap_or_default();
    // A relative entry would run what lies in the current directory.
    let dirs = beside.into_iter().chain(env::split_paths(&path)).filter(|dir| is_plain && dir.is_absolute());
    dirs.map(|dir| dir.join(format!("diagctl-{name}"))).find(|program| is_executable(program))
}

/// Replaces this process. Returns only if that fails.
pub fn become_program(mut command: Command) -> Failure {
    let error = command.exec();
    let program = PathBuf::from(command.get_program());
    Failure { exit: Exit::Failed, ..Failure::io("start", &program, error) }
}

fn is_executable(program: &Path) -> bool {
    std::fs::metadata(program).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

// Returns the global options before the subcommand, as the environment variables that mean the same, and the arguments after it.
fn split(arguments: impl Iterator<Item = OsString>, name: &str) -> (Vec<(&'static str, OsString)>, Vec<OsString>) {
    const OPTIONS: [(&str, &str); 2] = [("--config", "DIAGCTL_CONFIG"), ("--dir", "DIAGCTL_DIR")];
    let mut globals = Vec::new();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next().filter(|argument| argument != OsStr::new(name)) {
        let text = argument.to_string_lossy();
        let (option, value) =
            text.split_once('=').map_or((&*text, None), |(option, value)| (option, Some(value.into())));
        if let Some((_, variable)) = OPTIONS.into_iter().find(|(known, _)| *known == option) {
            globals.extend(value.or_else(|| arguments.next()).map(|value| (variable, value)));
        }
    }
    (globals, arguments.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn global_options_become_variables_and_the_rest_is_passed_on() {
        let words = |text: &str| text.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        let table = [
            ("x", "", ""),
            ("x --dir y", "", "--dir y"),
            ("--dir /a --config=/b x x -v", "DIAGCTL_DIR=/a DIAGCTL_CONFIG=/b", "x -v"),
            ("--config x x", "DIAGCTL_CONFIG=x", ""),
        ];
        for (line, globals, rest) in table {
            let (found, arguments) = split(words(line).into_iter(), "x");
            let found: Vec<_> = found.iter().map(|(name, value)| format!("{name}={}", value.display())).collect();
            assert_eq!((found.join(" "), arguments), (globals.to_owned(), words(rest)), "{line}");
        }
    }

    #[test]
    fn a_name_with_a_slash_finds_nothing() {
        for name in ["../bin/sh", "", "a b", "no-such-program"] {
            assert_eq!(find(name), None);
        }
    }
}
