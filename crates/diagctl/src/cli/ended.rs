//! `diagctl ended`: the parent of a process notes how it ended, for `diagctl deaths`.

use clap::ArgGroup;

use super::deaths;
use super::output::{self, Done, who};
use super::{Context, Failure};
use crate::deaths::{is_stop, signal, without_parent};
use crate::exit_code::Exit;
use crate::history::{self, Lines, ParentNote, Recorded};
use diagctl_store::{Access, Store};

/// Record how a process ended, for `deaths`
///
/// For whatever started the process and learns its exit status: a systemd unit, a supervisor. Without a status on the command line,
/// the variables count that systemd sets for ExecStopPost=: EXIT_CODE, EXIT_STATUS and SERVICE_RESULT. A Puma master does the same
/// for its workers by itself.
#[derive(Debug, clap::Args)]
#[command(
    group = ArgGroup::new("process").args(["pid", "role"]).required(true).multiple(false),
    group = ArgGroup::new("end").args(["exit", "signal"]).multiple(false),
    after_help = "Examples:\n  diagctl ended --role sidekiq --name mailers --signal KILL\n  ExecStopPost=-/usr/bin/diagctl ended --role sidekiq"
)]
pub struct Args {
    /// The process: the last one with this pid that polled
    #[arg(long)]
    pid: Option<u32>,
    /// The process: the one with this role that is gone and of which no end is noted
    #[arg(long)]
    role: Option<String>,
    /// Its name within the role
    #[arg(long, requires = "role")]
    name: Option<String>,
    /// Its exit status
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u8))]
    exit: Option<u8>,
    /// The signal that ended it: KILL, SIGSEGV, 9
    #[arg(long, value_parser = parse_signal)]
    signal: Option<i32>,
    /// The kernel killed it because of its memory limit
    #[arg(long, requires = "signal")]
    oom_kill: bool,
}

fn parse_signal(text: &str) -> Result<i32, String> {
    signal(text).ok_or_else(|| "not a signal; use for example KILL or 9".to_owned())
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Exit(i32),
    Signal { number: i32, oom_kill: bool },
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let how = match (args.exit, args.signal) {
        (Some(status), _) => How::Exit(status.into()),
        (None, Some(number)) => How::Signal { number, oom_kill: args.oom_kill },
        (None, None) => of_systemd(|name| std::env::var(name).ok()).ok_or_else(|| {
            Failure::new(Exit::Usage, "it is not known how the process ended")
                .hint("use --exit or --signal; systemd tells ExecStopPost= only, in EXIT_CODE and EXIT_STATUS")
        })?,
    };
    let store = cx.open(Access::Write)?;
    let now_ms = cx.peek(&store)?.1.store_ms;
    let (exit, signal, oom_kill) = match how {
        How::Exit(status) => (Some(status), None, false),
        How::Signal { number, oom_kill } => (None, Some(number), oom_kill),
    };
    match process(cx, &store, now_ms, args)? {
        Some(Recorded { pid, pid_ns, start_ticks, .. }) => {
            let note = ParentNote { pid, pid_ns, start_ticks, exit, signal, oom_kill };
            history::append_note(&store, now_ms, &note)?;
            output::note(&format!("noted the end of process {pid}"));
            Ok(Done::silent())
        }
        // Nobody asks about the end of a process that never polled, as long as it was stopped.
        None if is_stop(exit, signal) => Ok(Done::silent()),
        None => Err(Failure::new(Exit::NoMatch, "no such process has polled in the last 10 minutes and is gone")
            .hint("`diagctl status` lists those that poll; `diagctl deaths` those that are gone")),
    }
}

// `exited` comes with a status, `killed` and `dumped` with the name of a signal: systemd.exec(5).
fn of_systemd(variable: impl Fn(&str) -> Option<String>) -> Option<How> {
    let status = variable("EXIT_STATUS")?;
    match variable("EXIT_CODE")?.as_str() {
        "exited" => status.parse().ok().map(How::Exit),
        "killed" | "dumped" => {
            let number = signal(&status)?;
            let oom_kill = number == KILL && variable("SERVICE_RESULT").as_deref() == Some("oom-kill");
            Some(How::Signal { number, oom_kill })
        }
        _ => None,
    }
}

const KILL: i32 = 9;

/// A process whose last poll is longer ago did not end just now, milliseconds.
const LATE_MS: u64 = 600_000;

/// Processes of one name whose last polls are this close are not told apart, milliseconds.
const CLOSE_MS: u64 = 120_000;

// The last one that is gone. Of two that went nearly together, nothing tells which is meant.
fn process(cx: &Context, store: &Store, now_ms: u64, args: &Args) -> Result<Option<Recorded>, Failure> {
    let data = history::content(store)?;
    let lines = Lines::of(&data);
    let here = cx.proc.pid_namespace();
    let mut found = without_parent(&lines, now_ms.saturating_sub(LATE_MS), deaths::is_alive(cx, store, now_ms));
    found.retain(|last| match args.pid {
        Some(pid) => pid == last.pid && (last.pid_ns == 0 || here == 0 || last.pid_ns == here),
        None => args.role.as_ref() == Some(&last.role) && args.name.as_ref().is_none_or(|name| *name == last.name),
    });
    let newest = found.first().map_or(0, |last| last.at);
    found.retain(|last| last.at.saturating_add(CLOSE_MS) >= newest);
    if args.pid.is_none() && found.len() > 1 {
        let names: Vec<String> = found.iter().map(|one| format!("{} {}", one.pid, who(&one.role, &one.name))).collect();
        let message = format!("{} processes ended at that time: {}", found.len(), names.join(", "));
        return Err(Failure::new(Exit::NoMatch, message).hint("tell them apart with --name or --pid"));
    }
    Ok(found.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_says_is_understood() {
        let killed = |number, oom_kill| Some(How::Signal { number, oom_kill });
        // (SERVICE_RESULT, EXIT_CODE, EXIT_STATUS), as in the table of systemd.exec(5)
        let table = [
            ("success", "exited", "0", Some(How::Exit(0))),
            ("exit-code", "exited", "7", Some(How::Exit(7))),
            ("signal", "killed", "KILL", killed(9, false)),
            ("oom-kill", "killed", "KILL", killed(9, true)),
            // systemd stopped it because another process of the unit was killed.
            ("oom-kill", "killed", "TERM", killed(15, false)),
            ("core-dump", "dumped", "ABRT", killed(6, false)),
            ("timeout", "killed", "34", killed(34, false)),
            ("resources", "", "", None),
            ("exit-code", "exited", "KILL", None),
        ];
        for (result, code, status, expected) in table {
            let variable = |name: &str| match name {
                "SERVICE_RESULT" => Some(result.to_owned()),
                "EXIT_CODE" => Some(code.to_owned()),
                "EXIT_STATUS" => Some(status.to_owned()),
                _ => None,
            };
            assert_eq!(of_systemd(variable), expected, "{result} {code} {status}");
        }
        assert_eq!(of_systemd(|_| None), None);
    }
}
