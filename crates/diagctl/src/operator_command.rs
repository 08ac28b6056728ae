//! Runs the operator's commands: those of `exec` triggers, side by side, those that print a report, and the hook. Each has a timeout,
//! and nothing that a command started outlives it.
//!
//! A command leads a process group, but its descendants can leave the group with setsid(2), and their parents can end. This
//! process therefore adopts every orphan among its descendants (PR_SET_CHILD_SUBREAPER, see prctl(2)). It finds the descendants
//! of a command by their ancestors, or by a mark in the environment that the command was given.

mod told;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, waitid};

pub use told::tell;

use crate::clock::Stopwatch;
use crate::fsio;
use crate::proc::{Proc, Stat};
use crate::rules::readings::ExecAnswer;
use crate::rules::trigger::Exec;
use crate::sys;
use crate::units::duration;
use diagctl_fs::{printable, without_secrets};

/// The environment variable that carries a command's mark to everything that the command starts.
const MARK: &str = "DIAGCTL_EXEC";

/// The time limit for killing processes that fork as fast as they are killed, in milliseconds.
const KILL_PATIENCE_MS: u64 = 500;

/// The interval between checks for the end of a command that prints nothing.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// The maximum number of characters of a command's stderr that an error quotes.
const QUOTED: usize = 300;

/// The maximum number of bytes of a command's stderr that are read. What is quoted is cut from them afterwards: a secret that was cut
/// off is not recognized.
const READ_BYTES: usize = 8 << 10;

/// A command that was started.
struct Running {
    child: Child,
    mark: String,
    since: Stopwatch,
    timeout_ms: u64,
}

/// Runs commands side by side and returns each one's answer by its key. Takes as long as the slowest command. Never fails: a
/// command that cannot be run does not hold.
pub fn run(execs: Vec<(String, &Exec)>) -> BTreeMap<String, ExecAnswer> {
    let mut answers = BTreeMap::new();
    let mut running = Vec::new();
    for (key, exec) in execs {
        match Running::start(&exec.command, exec.timeout_ms, |_| {}) {
            Ok(started) => running.push((key, started)),
            Err(how) => _ = answers.insert(key, ExecAnswer { holds: false, ran: false, how, past: false }),
        }
    }
    while !running.is_empty() {
        let (over, on): (Vec<_>, Vec<_>) = running.into_iter().partition(|(_, command)| command.is_over());
        for (key, mut command) in over {
            let ended = command.end();
            let (holds, how) = (ended.is_ok(), ended.err().unwrap_or_else(|| "ended with 0".into()));
            answers.insert(key, ExecAnswer { holds, ran: true, how, past: false });
        }
        running = on;
        if !running.is_empty() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    answers
}

/// Kills every descendant of this process. To be called when all commands have ended, in a process that starts nothing else.
pub fn kill_remains() {
    kill_all(&|process, all| descends(process, std::process::id(), all));
}

// The output of a command, on one line and without secrets, for the end of an error.
fn quote(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let said = without_secrets(&said.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned();
    let said = printable(&said.chars().take(QUOTED).collect::<String>());
    if said.is_empty() { said } else { format!(": {said}") }
}

// Returns true if a read would not block, and false if nothing arrived within [`LOOK`].
fn has_news(reader: impl AsFd) -> io::Result<bool> {
    match poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&LOOK)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Kills every other process with this variable in its environment: what the command of a killed process has left.
pub fn kill_bearers(name: &str, value: &str) {
    let mark = format!("{name}={value}");
    kill_all(&|process, _| process.0 != std::process::id() && bears(process.0, &mark));
}

/// The stdout of a command. The last read fails if the command printed nothing or did not exit with 0 within its timeout.
pub struct Output {
    running: Running,
    program: String,
    stdout: ChildStdout,
    errors: File,
    printed: bool,
    ended: bool,
}

impl Output {
    /// Starts a command that prints a report, with these variables added to its environment.
    pub fn of(command: &[String], timeout_ms: u64, environment: &[(&str, String)]) -> Result<Self, String> {
        let program = command.first().map(|name| printable(name)).unwrap_or_default();
        let errors = memfd_create("stderr", MemfdFlags::CLOEXEC).map(File::from).map_err(|e| e.to_string())?;
        let stderr = errors.try_clone().map_err(|e| e.to_string())?;
        let mut running = Running::start(command, timeout_ms, |command| {
            command.stdout(Stdio::piped()).stderr(stderr).envs(environment.iter().map(|(name, value)| (name, value)));
        })
        .map_err(|how| format!("{program} {how}"))?;
        let stdout = running.child.stdout.take().ok_or("it has no stdout")?;
        Ok(Self { running, program, stdout, errors, printed: false, ended: false })
    }

    fn end(&mut self) -> io::Result<usize> {
        self.ended = true;
        let failed = match self.running.end() {
            Ok(()) if self.printed => return Ok(0),
            Ok(()) => "printed nothing".to_owned(),
            Err(how) => how,
        };
        let mut said = [0; READ_BYTES];
        let length = self.errors.read_at(&mut said, 0).unwrap_or(0);
        Err(io::Error::other(format!("{} {failed}{}", self.program, quote(&said[..length]))))
    }
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !self.running.since.is_past(self.running.timeout_ms) {
            if has_news(&self.stdout)? {
                match self.stdout.read(buffer)? {
                    // The command has closed its stdout and is about to end.
                    0 if !self.running.has_ended() => std::thread::sleep(Duration::from_millis(2)),
                    0 => break,
                    n => {
                        self.printed = true;
                        return Ok(n);
                    }
                }
            } else if self.running.has_ended() {
                // The command has ended, but a process that it left behind holds its stdout open.
                break;
            }
        }
        if self.ended { Ok(0) } else { self.end() }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.running.end();
        }
    }
}

impl Running {
    fn start(command: &[String], timeout_ms: u64, prepare: impl FnOnce(&mut Command)) -> Result<Self, String> {
        // If this fails, orphans go to init, and a search by ancestors alone finds fewer of them. Nothing else changes.
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        let (program, arguments) = command.split_first().ok_or("names no program")?;
        let mark = fsio::random_hex().map_err(|e| e.to_string())?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        prepare(&mut command);
        command.env(MARK, &mark);
        sys::die_with_parent(&mut command);
        let child = command.spawn().map_err(|e| format!("cannot be run: {e}"))?;
        Ok(Self { child, mark, since: Stopwatch::start(), timeout_ms })
    }

    fn is_over(&self) -> bool {
        self.has_ended() || self.since.is_past(self.timeout_ms)
    }

    // The child is not reaped yet, so its number still names it and its group.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        pid_of(self.child.id()).is_some_and(|pid| matches!(waitid(WaitId::Pid(pid), options), Ok(Some(_))))
    }

    // Kills everything that the command left running, and reaps it. The error says how it ended, unless it exited with 0 in
    // time.
    fn end(&mut self) -> Result<(), String> {
        let in_time = self.has_ended();
        if let Some(pid) = pid_of(self.child.id()) {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        let mark = format!("{MARK}={}", self.mark);
        kill_all(&|process, all| {
            descends(process, self.child.id(), all)
                || (descends(process, std::process::id(), all) && bears(process.0, &mark))
        });
        match self.child.wait() {
            _ if !in_time => Err(format!("was killed after its time-out of {}", duration(self.timeout_ms))),
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("ended with {status}")),
            Err(e) => Err(format!("cannot be waited for: {e}")),
        }
    }
}

fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

type Processes = BTreeMap<u32, Stat>;

fn alive() -> Processes {
    let proc = Proc::default();
    let all = proc.pids().into_iter().filter_map(|pid| Some((pid, proc.stat(pid).ok()?)));
    all.filter(|(_, stat)| !matches!(stat.state, 'Z' | 'X')).collect()
}

// Returns true if the process has `ancestor` among its ancestors.
fn descends((_, stat): (u32, &Stat), ancestor: u32, all: &Processes) -> bool {
    let mut parent = stat.ppid;
    // The limit ends the search if a snapshot of processes that come and go contains a cycle.
    for _ in 0..1000 {
        if parent == ancestor {
            return true;
        }
        match all.get(&parent) {
            Some(stat) => parent = stat.ppid,
            None => return false,
        }
    }
    false
}

fn bears(pid: u32, mark: &str) -> bool {
    let environment = std::fs::read(Proc::default().pid(pid).join("environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

// Repeats until none is left: a process may fork just before it is killed, and its children show up only in the next round.
fn kill_all(is_meant: &dyn Fn((u32, &Stat), &Processes) -> bool) {
    let started = Stopwatch::start();
    while !started.is_past(KILL_PATIENCE_MS) {
        let all = alive();
        let meant: Vec<_> = all.iter().filter(|(pid, stat)| is_meant((**pid, stat), &all)).collect();
        if meant.is_empty() {
            return;
        }
        for (pid, stat) in meant {
            kill(*pid, stat);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

// Kills through a descriptor of the process. If its number was reused since the process was observed, the start times differ. A
// process that this user may not kill (it became root) is left alone.
fn kill(pid: u32, meant: &Stat) {
    let Some(descriptor) = pid_of(pid).and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok())
    else {
        return;
    };
    if Proc::default().is_alive(pid, meant.start_ticks) {
        let _ = rustix::process::pidfd_send_signal(descriptor, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(script: &str, timeout_ms: u64) -> Exec {
        Exec { command: vec!["/bin/sh".into(), "-c".into(), script.into()], timeout_ms, every_ms: 1000 }
    }

    fn answer(exec: &Exec) -> ExecAnswer {
        run(vec![("k".into(), exec)]).remove("k").unwrap()
    }

    #[test]
    fn only_exit_status_0_in_time_counts_as_true() {
        assert!(answer(&exec("exit 0", 5000)).holds);
        let table = [
            (exec("exit 3", 5000), "exit status: 3"),
            (exec("kill -9 $$", 5000), "signal: 9"),
            (Exec { command: vec!["/nonexistent".into()], ..exec("", 5000) }, "cannot be run"),
            (exec("sleep 600", 50), "killed after its time-out of 50ms"),
        ];
        for (exec, how) in table {
            let answer = answer(&exec);
            assert!(!answer.holds && answer.how.contains(how), "{answer:?}");
        }
    }

    // Each command waits for the other, so both can end only if they run at the same time.
    #[test]
    fn commands_run_in_parallel_and_keep_their_answers_apart() {
        let dir = tempfile::tempdir().unwrap();
        let meet = |mine: &str, other: &str| {
            exec(&format!("cd {}; : > {mine}; until [ -e {other} ]; do sleep 0.01; done", dir.path().display()), 10_000)
        };
        let (a, b, never) = (meet("a", "b"), meet("b", "a"), meet("c", "d"));
        let never = Exec { timeout_ms: 100, ..never };
        let answers = run(vec![("a".into(), &a), ("never".into(), &never), ("b".into(), &b)]);
        let holds: Vec<_> = answers.iter().map(|(key, answer)| (key.as_str(), answer.holds)).collect();
        assert_eq!(holds, [("a", true), ("b", true), ("never", false)]);
    }

    fn output(script: &str, timeout_ms: u64) -> Result<String, String> {
        let command = exec(script, timeout_ms).command;
        let mut text = String::new();
        let mut output = Output::of(&command, timeout_ms, &[("ASKED", "yes".into())])?;
        output.read_to_string(&mut text).map(|_| text).map_err(|e| e.to_string())
    }

    #[test]
    fn command_output_is_read_to_its_end() {
        assert_eq!(output("printf \"one $ASKED\\n\"; sleep 0.1; printf two", 10_000).unwrap(), "one yes\ntwo");
        assert_eq!(output("head -c 3000000 /dev/zero", 10_000).unwrap().len(), 3_000_000);
        // The report ends with the command, even if another process still has its stdout.
        assert_eq!(output("echo it; sleep 600 &", 10_000).unwrap(), "it\n");
        assert_eq!(output("echo it; exec >&-; sleep 0.1", 10_000).unwrap(), "it\n");
    }

    #[test]
    fn a_failing_hanging_or_silent_command_is_an_error_with_its_output() {
        for (script, timeout_ms, how) in [
            (
                "echo half; printf 'no\\n such table\\n' >&2; exit 3",
                5000,
                "/bin/sh ended with exit status: 3: no such table",
            ),
            ("echo half; kill -9 $$", 5000, "/bin/sh ended with signal: 9 (SIGKILL)"),
            ("echo half; sleep 600", 100, "/bin/sh was killed after its time-out of 100ms"),
            ("exec >&-; sleep 600", 100, "/bin/sh was killed after its time-out of 100ms"),
            ("yes", 100, "/bin/sh was killed after its time-out of 100ms"),
            ("printf 'a\\033[31mb' >&2", 5000, "/bin/sh printed nothing: a\\u{1b}[31mb"),
            ("echo postgres://ann:s3cret@db/x >&2", 5000, "/bin/sh printed nothing: postgres://(hidden)@db/x"),
        ] {
            assert_eq!(output(script, timeout_ms).unwrap_err(), how, "{script}");
        }
        let missing = Output::of(&["/nonexistent".into()], 1000, &[]).err().unwrap();
        assert!(missing.starts_with("/nonexistent cannot be run: No such file"), "{missing}");
    }

    #[test]
    fn what_bears_a_variable_is_killed_wherever_it_is() {
        let value = fsio::random_hex().unwrap();
        let mut left = Command::new("/bin/sleep").arg("600").env("DIAGCTL_TEST", &value).spawn().unwrap();
        let mut other = Command::new("/bin/sleep").arg("600").env("DIAGCTL_TEST", "x").spawn().unwrap();
        // The kernel lets a parent go on before the environment of the new program is in place.
        let environment = format!("/proc/{}/environ", left.id());
        while !std::fs::read_to_string(&environment).unwrap().contains(&value) {
            std::thread::yield_now();
        }
        kill_bearers("DIAGCTL_TEST", &value);
        assert_eq!(left.wait().unwrap().to_string(), "signal: 9 (SIGKILL)");
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().and_then(|()| other.wait()).unwrap();
    }

    // A child in the group, one in a session of its own, and one whose parents have ended.
    #[test]
    fn descendants_of_a_command_are_killed_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        let escape = format!(
            "sleep 601 & echo $! > {at}/group; setsid sh -c 'echo $$ > {at}/session; exec sleep 602' & \
             (setsid sh -c 'echo $$ > {at}/orphan; exec sleep 603' &); \
             until [ -s {at}/session ] && [ -s {at}/orphan ]; do sleep 0.01; done"
        );
        for (script, how) in [(format!("{escape}; sleep 604"), "killed after"), (escape, "ended with 0")] {
            let answer = answer(&exec(&script, if how == "ended with 0" { 10_000 } else { 2000 }));
            assert!(answer.how.contains(how), "{answer:?}");
            for name in ["group", "session", "orphan"] {
                let pid: u32 = std::fs::read_to_string(dir.path().join(name)).unwrap().trim().parse().unwrap();
                assert!(!alive().contains_key(&pid), "{name} lives after {how}");
                std::fs::remove_file(dir.path().join(name)).unwrap();
            }
        }
    }
}
