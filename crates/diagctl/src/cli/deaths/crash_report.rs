//! Ruby's own crash report of a process: a file where `RUBY_CRASH_REPORT` says (Ruby 3.3 and later).
//!
//! The variable of a process that is gone is not recorded. Those that live in its place have the same.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::cli::Context;
use crate::deaths::Death;
use crate::state::files::load_samples;
use diagctl_observe::Presence;
use diagctl_store::Store;

/// A report is written at most this long after the last recorded poll, milliseconds.
const AFTERWARDS_MS: u64 = 600_000;

/// Returns what the processes that poll, and this one, have as `RUBY_CRASH_REPORT`.
pub fn templates(cx: &Context, store: &Store) -> BTreeSet<String> {
    let samples = load_samples(store);
    let here = samples.processes.keys().filter_map(|id| match cx.proc.presence(id) {
        Presence::Here(pid) => std::fs::read(cx.proc.pid(pid).join("environ")).ok(),
        _ => None,
    });
    let own = std::env::var("RUBY_CRASH_REPORT").ok();
    here.filter_map(|environ| of_environ(&environ)).chain(own).filter(|path| path.starts_with('/')).collect()
}

fn of_environ(environ: &[u8]) -> Option<String> {
    let mut variables = environ.split(|byte| *byte == 0);
    let value = variables.find_map(|variable| variable.strip_prefix(b"RUBY_CRASH_REPORT="))?;
    String::from_utf8(value.to_vec()).ok()
}

/// Finds the report of a process.
pub fn find(templates: &BTreeSet<String>, death: &Death) -> Option<PathBuf> {
    let is_of = |path: &PathBuf| {
        let written = std::fs::metadata(path).map_or(0, |meta| meta.mtime());
        let written_ms = u64::try_from(written).unwrap_or(0).saturating_mul(1000);
        // Files have whole seconds here.
        written_ms + 1000 >= death.last_ms && written_ms <= death.last_ms + AFTERWARDS_MS
    };
    templates.iter().flat_map(|template| files(template, death.pid)).find(is_of)
}

// The files that Ruby may have made of a template. What it replaces is in the manual page ruby(1).
fn files(template: &str, pid: u32) -> Vec<PathBuf> {
    let (directory, name) = template.rsplit_once('/').unwrap_or(("", template));
    if directory.contains('%') {
        return Vec::new();
    }
    let pattern = pattern(name, pid);
    let directory = if directory.is_empty() { "/" } else { directory };
    let names = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| fits(&pattern, name)));
    names.map(|entry| entry.path()).collect()
}

// The parts of a name between the specifiers whose value is not known.
fn pattern(name: &str, pid: u32) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        let text =
            if c == '%' { chars.next().map_or(Some("%".to_owned()), |c| replaced(c, pid)) } else { Some(c.into()) };
        match (text, parts.last_mut()) {
            (Some(text), Some(last)) => last.push_str(&text),
            _ => parts.push(String::new()),
        }
    }
    parts
}

fn replaced(specifier: char, pid: u32) -> Option<String> {
    match specifier {
        '%' => Some("%".into()),
        'p' => Some(pid.to_string()),
        _ => None,
    }
}

fn fits(pattern: &[String], name: &str) -> bool {
    let [first, rest @ ..] = pattern else { return false };
    let Some(mut left) = name.strip_prefix(first.as_str()) else { return false };
    let Some((last, middle)) = rest.split_last() else { return left.is_empty() };
    for part in middle {
        let Some((_, after)) = left.split_once(part.as_str()) else { return false };
        left = after;
    }
    left.ends_with(last.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_what_ruby_makes_of_the_template() {
        let table = [
            ("crash-%p.log", "crash-42.log", true),
            ("crash-%p.log", "crash-421.log", false),
            ("%e-%t-%p.txt", "ruby-1732270530-42.txt", true),
            ("%e-%t-%p.txt", "ruby-1732270530-43.txt", false),
            ("100%%-%p", "100%-42", true),
            ("crash.log", "crash.log", true),
            ("crash.log", "crash.log.1", false),
            ("%", "%", true),
        ];
        for (template, name, expected) in table {
            assert_eq!(fits(&pattern(template, 42), name), expected, "{template} {name}");
        }
    }

    #[test]
    fn the_variable_is_read_from_an_environment() {
        let environ = b"PATH=/bin\0RUBY_CRASH_REPORT=/var/log/ruby-%p\0X=1\0";
        assert_eq!(of_environ(environ).as_deref(), Some("/var/log/ruby-%p"));
        assert_eq!(of_environ(b"XRUBY_CRASH_REPORT=/a\0"), None);
    }
}
