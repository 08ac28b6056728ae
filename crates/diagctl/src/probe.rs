//! Running the commands of `exec` triggers: all at once, each within its time-out, and nothing that one started outlives it.
//!
//! A command leads a process group, but whatever it started may leave that with setsid(2), and its parents may end. So this
//! process adopts every orphan among its descendants (PR_SET_CHILD_SUBREAPER, see prctl(2)), and looks for what belongs to
//! a command by its ancestors, or by a mark in the environment that it was given.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, waitid};

use crate::clock::Stopwatch;
use crate::fsio;
use crate::proc::{Proc, Stat};
use crate::readings::ExecAnswer;
use crate::sys;
use crate::trigger::Exec;
use crate::units::duration;

/// What bears a command's mark, in the environment of everything that it starts.
const MARK: &str = "DIAGCTL_EXEC";

/// For so long it is tried to kill what forks as fast as it is killed. Milliseconds.
const KILL_PATIENCE_MS: u64 = 500;

/// A command that was started.
struct Running {
    key: String,
    child: Child,
    mark: String,
    since: Stopwatch,
    timeout_ms: u64,
}

/// Runs commands side by side and says how each answered, by its key. Takes as long as the longest of them. Never fails:
/// what cannot be run does not hold.
pub fn run(execs: Vec<(String, &Exec)>) -> BTreeMap<String, ExecAnswer> {
    // Without it orphans go to init; what is found by ancestors alone is then less, and nothing else is worse.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let mut answers = BTreeMap::new();
    let mut running = Vec::new();
    for (key, exec) in execs {
        match start(key.clone(), exec) {
            Ok(started) => running.push(started),
            Err(how) => _ = answers.insert(key, ExecAnswer { holds: false, ran: false, how, past: false }),
        }
    }
    while !running.is_empty() {
        let (over, on): (Vec<_>, Vec<_>) = running.into_iter().partition(Running::is_over);
        for command in over {
            let (key, answer) = command.end();
            answers.insert(key, answer);
        }
        running = on;
        if !running.is_empty() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    answers
}

/// Kills everything that descends from this process. For when all commands have ended, in a process that starts nothing else.
pub fn kill_remains() {
    kill_all(&|process, all| descends(process, std::process::id(), all));
}

fn start(key: String, exec: &Exec) -> Result<Running, String> {
    let (program, arguments) = exec.command.split_first().ok_or("names no program")?;
    let mark = fsio::random_hex().map_err(|e| e.message)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.env(MARK, &mark);
    sys::die_with_parent(&mut command);
    let child = command.spawn().map_err(|e| format!("cannot be run: {e}"))?;
    Ok(Running { key, child, mark, since: Stopwatch::start(), timeout_ms: exec.timeout_ms })
}

impl Running {
    fn is_over(&self) -> bool {
        self.has_ended() || self.since.is_past(self.timeout_ms)
    }

    // It is not reaped yet, so that its number still names it and its group.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        pid_of(self.child.id()).is_some_and(|pid| matches!(waitid(WaitId::Pid(pid), options), Ok(Some(_))))
    }

    // What it left running goes in any case.
    fn end(mut self) -> (String, ExecAnswer) {
        let in_time = self.has_ended();
        if let Some(pid) = pid_of(self.child.id()) {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        let mark = format!("{MARK}={}", self.mark);
        kill_all(&|process, all| {
            descends(process, self.child.id(), all)
                || (descends(process, std::process::id(), all) && bears(process.0, &mark))
        });
        let (holds, how) = match self.child.wait() {
            _ if !in_time => (false, format!("was killed after its time-out of {}", duration(self.timeout_ms))),
            Ok(status) if status.success() => (true, "ended with 0".into()),
            Ok(status) => (false, format!("ended with {status}")),
            Err(e) => (false, format!("cannot be waited for: {e}")),
        };
        (self.key, ExecAnswer { holds, ran: true, how, past: false })
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

// Whether a process has another among its ancestors.
fn descends((_, stat): (u32, &Stat), ancestor: u32, all: &Processes) -> bool {
    let mut parent = stat.ppid;
    // A snapshot of processes that come and go could hold a circle.
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

// Until none is left: one that is killed may just have forked, and its children are then seen at the next look.
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

// Through a descriptor of the process: should its number have been given to another since it was looked at, the other has
// started at another moment. One that may not be killed (it became root) is left.
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
    fn only_status_0_in_time_holds() {
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

    // Each waits for the other, which never comes about when one is run after the other.
    #[test]
    fn commands_run_side_by_side_and_each_has_its_own_answer() {
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

    // A child in the group, one in a session of its own, and one whose parents have ended.
    #[test]
    fn whatever_a_command_started_ends_with_it() {
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
