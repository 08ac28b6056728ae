//! A place in which commands can run without the machine showing through, and the transcript of what they said.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use regex_lite::{Captures, Regex};
use serde_json::Value;

/// The program under test.
pub const BIN: &str = env!("CARGO_BIN_EXE_diagctl");

/// A terminal of the usual width.
const COLUMNS: usize = 80;

/// An ordinary user, for tests that root runs.
const NOBODY: u32 = 65_534;

/// A directory of its own, with a configuration and a store, and what was said in it so far.
pub struct Environment {
    root: tempfile::TempDir,
    transcript: String,
    redactions: Vec<Redaction>,
    columns: usize,
}

/// The text that a transcript shows in place of one that differs between runs.
struct Redaction {
    pattern: Regex,
    replacement: String,
    /// Takes as much room as what it replaces, so that the columns of a table stay where they are.
    in_columns: bool,
}

impl Environment {
    /// An empty directory. The configuration is there and sets nothing; the store is not.
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        // For `as_ordinary_user`.
        set_mode(root.path(), 0o755);
        let mut environment = Self { root, transcript: String::new(), redactions: Vec::new(), columns: COLUMNS };
        environment.configure("");
        environment.redact(&regex_lite::escape(&environment.root().display().to_string()), "");
        environment.redact(&format!(r"\bby {}\b", regex_lite::escape(&user())), "by USER");
        environment
    }

    /// Its directory, in which the commands run. Transcripts show it as `/`.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Something in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Its store.
    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Runs the commands from here on in a wider terminal. For a table whose width depends on the time that has passed, and with it
    /// the columns that fit.
    pub fn widen(&mut self) {
        self.columns = COLUMNS + 40;
    }

    /// Puts a file into it.
    pub fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        set_mode(&path, 0o644);
    }

    /// Replaces the configuration.
    pub fn configure(&self, toml: &str) {
        self.write("diagctl.toml", toml);
    }

    /// Replaces in the transcript what differs between two runs, or between two machines. Applied in the order given.
    pub fn redact(&mut self, pattern: &str, replacement: &str) {
        let (pattern, replacement) = (Regex::new(pattern).unwrap(), replacement.to_owned());
        self.redactions.push(Redaction { pattern, replacement, in_columns: false });
    }

    /// Hides sizes on disk, which depend on the filesystem, and keeps the columns of a table where they are.
    pub fn redact_sizes(&mut self) {
        let pattern = Regex::new(r"\b\d+(\.\d+)? ([KMGTP]i)?B\b").unwrap();
        self.redactions.push(Redaction { pattern, replacement: "SIZE".into(), in_columns: true });
    }

    /// A command in this environment, with nothing of the caller's.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.root())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.root())
            .env("LANG", "C")
            .env("TZ", "UTC")
            .env("COLUMNS", self.columns.to_string())
            .env("DIAGCTL_CONFIG", self.path("diagctl.toml"))
            .env("DIAGCTL_DIR", self.store())
            .stdin(Stdio::null());
        command
    }

    /// Runs diagctl and adds what it said to the transcript. Arguments are separated by blanks; `'…'` is one argument.
    pub fn run(&mut self, line: &str) -> Output {
        let mut command = self.command(BIN);
        command.args(words(line));
        self.note(&format!("diagctl {line}"), &mut command)
    }

    /// Runs a line of shell in which `diagctl` is the program under test.
    pub fn shell(&mut self, line: &str) -> Output {
        let mut command = self.command("/bin/sh");
        command.arg("-c").arg(format!("diagctl() {{ {BIN} \"$@\"; }}; {line}"));
        self.note(line, &mut command)
    }

    /// Runs diagctl as a user that is not root. False, and nothing in the transcript, where that user cannot run the program.
    pub fn as_ordinary_user(&mut self, line: &str) -> bool {
        let mut command = self.command(BIN);
        command.args(words(line));
        if rustix::process::geteuid().is_root() {
            let probe = Command::new(BIN).arg("--version").uid(NOBODY).gid(NOBODY).output();
            if !probe.is_ok_and(|output| output.status.success()) {
                eprintln!("skipped: uid {NOBODY} cannot run {BIN}");
                return false;
            }
            command.uid(NOBODY).gid(NOBODY);
        }
        self.note(&format!("diagctl {line}"), &mut command);
        true
    }

    /// Runs diagctl and shows of its result what `part` makes of it.
    pub fn run_part(&mut self, line: &str, part: impl Fn(&str) -> String) {
        let mut command = self.command(BIN);
        command.args(words(line));
        let output = command.output().unwrap();
        self.add(&format!("diagctl {line}"), &part(&text(&output.stdout)), &output);
    }

    /// Runs a table: like [`Environment::run`], and no line of it may be wider than a terminal.
    pub fn run_table(&mut self, line: &str) {
        let output = self.run(line);
        assert_fits(&text(&output.stdout), line);
    }

    /// Does the same for tables whose last columns, named in `texts`, are text of any length, such as a reason.
    pub fn run_text_table(&mut self, line: &str, texts: &[&str]) {
        let output = text(&self.run(line).stdout);
        assert_fits(&output, line);
        assert!(texts.iter().all(|text| output.contains(&format!("{text}\n"))), "{line}: no column {texts:?}");
    }

    /// Runs a command that prints JSON on one line, and shows it as people read it.
    pub fn run_json(&mut self, line: &str) {
        let mut command = self.command(BIN);
        command.args(words(line));
        let output = command.output().unwrap();
        let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{line}: {e}: {output:?}"));
        self.add(&format!("diagctl {line}"), &serde_json::to_string_pretty(&value).unwrap(), &output);
    }

    /// Adds a remark about what was done between two commands.
    pub fn comment(&mut self, text: &str) {
        writeln!(self.transcript, "# {text}").unwrap();
    }

    fn note(&mut self, shown: &str, command: &mut Command) -> Output {
        let output = command.output().unwrap();
        let stdout = text(&output.stdout);
        self.add(shown, &stdout, &output);
        output
    }

    fn add(&mut self, shown: &str, stdout: &str, output: &Output) {
        writeln!(self.transcript, "$ {shown}").unwrap();
        for line in stdout.lines().map(str::trim_end) {
            writeln!(self.transcript, "{line}").unwrap();
        }
        for line in text(&output.stderr).lines().map(str::trim_end) {
            writeln!(self.transcript, "[stderr] {line}").unwrap();
        }
        match output.status.code() {
            Some(0) => {}
            Some(code) => writeln!(self.transcript, "[exit status {code}]").unwrap(),
            None => writeln!(self.transcript, "[{}]", output.status).unwrap(),
        }
        self.transcript.push('\n');
    }

    /// Compares the transcript with the snapshot of this name.
    pub fn snapshot(&self, name: &str) {
        let mut shown = self.transcript.clone();
        for redaction in &self.redactions {
            let replace = |found: &Captures<'_>| redaction.of(found, &shown);
            shown = redaction.pattern.replace_all(&shown, replace).into_owned();
        }
        shown = without_new_ids(&shown);
        compare(name, shown.trim_end());
    }
}

/// Compares a text with the snapshot of this name.
pub fn compare(name: &str, text: &str) {
    let (dir, name) =
        name.rsplit_once('/').map_or(("snapshots".to_owned(), name), |(dir, name)| (format!("snapshots/{dir}"), name));
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path(dir);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// Asserts that no line is wider than a terminal.
pub fn assert_fits(text: &str, what: &str) {
    for line in text.lines() {
        let width = line.trim_end().chars().count();
        assert!(width <= COLUMNS, "{what}: a line of {width} columns:\n{line}");
    }
}

/// The mode of a file or directory, whatever the umask is.
pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

impl Redaction {
    fn of(&self, found: &Captures<'_>, all: &str) -> String {
        let whole = found.get(0).unwrap();
        let mut replaced = String::new();
        found.expand(&self.replacement, &mut replaced);
        if self.in_columns && all[..whole.start()].ends_with("  ") {
            return format!("{replaced:>width$}", width = whole.as_str().len());
        }
        replaced
    }
}

// Ids that diagctl made while the test ran, numbered in the order in which they are seen.
fn without_new_ids(text: &str) -> String {
    let pattern = Regex::new(r"\b\d{8}T\d{9}Z-[0-9a-f]{8}\b").unwrap();
    let mut seen: Vec<String> = Vec::new();
    let replace = |found: &Captures<'_>| {
        let id = found.get(0).unwrap().as_str().to_owned();
        if super::fixture::IDS.contains(&id.as_str()) {
            return id;
        }
        let at = seen.iter().position(|earlier| *earlier == id).unwrap_or_else(|| {
            seen.push(id);
            seen.len() - 1
        });
        format!("20260101T000000000Z-0000000{}", at + 1)
    };
    pattern.replace_all(text, replace).into_owned()
}

fn words(line: &str) -> Vec<String> {
    let quoted = line.split('\'').enumerate();
    quoted
        .flat_map(|(i, part)| match i % 2 {
            1 => vec![part.to_owned()],
            _ => part.split_whitespace().map(str::to_owned).collect(),
        })
        .collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

// The name that diagctl gives to whoever runs it.
fn user() -> String {
    let uid = rustix::process::getuid().as_raw();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse() == Ok(uid)).then(|| fields[0].to_owned())
    });
    name.unwrap_or_else(|| format!("uid {uid}"))
}
