//! Running the commands of `exec` triggers: each within its time-out, none outliving the poll.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::clock::Stopwatch;
use crate::readings::ExecAnswer;
use crate::sys;
use crate::trigger::Exec;
use crate::units::duration;

/// Runs a command and says how it answered. Never fails: what cannot be run does not hold.
pub fn run(exec: &Exec) -> ExecAnswer {
    let no = |how: String| ExecAnswer { holds: false, how };
    let Some((program, arguments)) = exec.command.split_first() else { return no("names no program".into()) };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    sys::die_with_parent(&mut command);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => return no(format!("cannot be run: {e}")),
    };
    let in_time = wait(&child, exec.timeout_ms);
    // Before it is reaped, so that its number still names its group: what it left running goes in any case.
    kill_group(&child);
    match child.wait() {
        _ if !in_time => no(format!("was killed after its time-out of {}", duration(exec.timeout_ms))),
        Ok(status) if status.success() => ExecAnswer { holds: true, how: "ended with 0".into() },
        Ok(status) => no(format!("ended with {status}")),
        Err(e) => no(format!("cannot be waited for: {e}")),
    }
}

// Whether it ended in time; it is not reaped yet.
fn wait(child: &Child, timeout_ms: u64) -> bool {
    let Some(pid) = pid_of(child) else { return false };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let started = Stopwatch::start();
    loop {
        if matches!(waitid(WaitId::Pid(pid), options), Ok(Some(_))) {
            return true;
        }
        if started.is_past(timeout_ms) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

// The command leads a group of its own, so what it started goes with it.
fn kill_group(child: &Child) {
    if let Some(pid) = pid_of(child) {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(script: &str, timeout_ms: u64) -> Exec {
        Exec { command: vec!["/bin/sh".into(), "-c".into(), script.into()], timeout_ms, every_ms: 1000 }
    }

    #[test]
    fn only_status_0_in_time_holds() {
        assert!(run(&exec("exit 0", 5000)).holds);
        let table = [
            (exec("exit 3", 5000), "exit status: 3"),
            (exec("kill -9 $$", 5000), "signal: 9"),
            (Exec { command: vec!["/nonexistent".into()], ..exec("", 5000) }, "cannot be run"),
        ];
        for (exec, how) in table {
            let answer = run(&exec);
            assert!(!answer.holds && answer.how.contains(how), "{answer:?}");
        }
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
        let answer = run(&exec(&script, 300));
        assert!(answer.how.contains("killed after its time-out of 300ms"), "{answer:?}");
        assert_ends(&pid_file);
        // One that ends in time leaves nothing either.
        let script = format!("sleep 600 & echo $! > {}", pid_file.display());
        assert!(run(&exec(&script, 5000)).holds);
        assert_ends(&pid_file);
    }

    fn assert_ends(pid_file: &std::path::Path) {
        let pid: u32 = std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
        let gone = || {
            crate::proc::Proc::default().stat(pid).is_err_and(|_| true)
                || crate::proc::Proc::default().stat(pid).is_ok_and(|s| s.state == 'Z')
        };
        let waited = Stopwatch::start();
        while !gone() && !waited.is_past(10_000) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(gone());
    }
}
