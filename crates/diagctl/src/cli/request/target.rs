//! The process that a person means by a pid.

use diagctl_store::{Access, ProcessId};

use super::super::Context;
use crate::cli::error::Failure;
use crate::exit_code::Exit;
use crate::state::files::load_samples;

/// Finds the process with a pid: the one that is visible here under it. If that one does not poll, the pid may be from `status`,
/// which shows the processes of other containers under the pids that they have there.
pub fn find(cx: &Context, pid: u32) -> Result<ProcessId, Failure> {
    let visible = cx.proc.process_id(pid);
    let samples = cx.open(Access::Read).map(|store| load_samples(&store)).unwrap_or_default();
    let known: Vec<ProcessId> = samples.processes.into_keys().collect();
    choose(visible, &known, pid, cx.proc.pid_namespace())
}

fn choose(
    visible: diagctl_observe::Result<ProcessId>,
    known: &[ProcessId],
    pid: u32,
    here: u64,
) -> Result<ProcessId, Failure> {
    if let Ok(id) = &visible
        && known.iter().any(|process| process.is(id))
    {
        return Ok(id.clone());
    }
    let elsewhere: Vec<&ProcessId> =
        known.iter().filter(|process| process.pid == pid && process.pid_ns != 0 && process.pid_ns != here).collect();
    match elsewhere.as_slice() {
        [one] => Ok((*one).clone()),
        [] => visible.map_err(|why| {
            Failure::new(Exit::NoMatch, format!("--pid {pid}: {why}"))
                .hint("`diagctl status` lists the polling processes")
        }),
        several => Err(Failure::new(
            Exit::NoMatch,
            format!("--pid {pid} is the pid of {} processes in different containers", several.len()),
        )
        .hint("run the command in the container that you mean, or select the process with --role and --name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(pid: u32, pid_ns: u64) -> ProcessId {
        ProcessId { pid, pid_ns, start_ticks: u64::from(pid) * 10 + pid_ns, boot_id: "b".into() }
    }

    #[test]
    fn a_pid_means_the_visible_process_or_the_only_one_elsewhere() {
        const HERE: u64 = 1;
        let none = || Err(diagctl_observe::Error::NotNumber { path: "/proc/9/stat".into() });
        // The process visible under pid 9, the polling processes, and the process that is meant.
        let table: [(diagctl_observe::Result<ProcessId>, Vec<ProcessId>, Option<ProcessId>); 7] = [
            (Ok(id(9, HERE)), vec![id(9, HERE), id(9, 2)], Some(id(9, HERE))),
            (Ok(id(9, HERE)), vec![id(9, 2)], Some(id(9, 2))),
            (Ok(id(9, HERE)), vec![id(8, HERE), id(8, 2)], Some(id(9, HERE))),
            (Ok(id(9, HERE)), vec![id(9, 2), id(9, 3)], None),
            // A container's process that is process 9 of its host is process 1 in its container.
            (Ok(id(1, 2)), vec![id(1, 2), id(1, 3)], Some(id(1, 2))),
            (none(), vec![id(9, 2)], Some(id(9, 2))),
            (none(), vec![id(8, 2)], None),
        ];
        for (visible, known, meant) in table {
            let said = format!("{visible:?} {known:?}");
            assert_eq!(choose(visible, &known, 9, HERE).ok(), meant, "{said}");
        }
    }
}
