//! The next step: a command to paste.

use serde::Serialize;

use super::allocator::Kind;
use super::cause::Cause;
use super::evidence::Evidence;
use super::verdict::{Confidence, Verdict};

/// A step that leads on from a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The purpose.
    pub why: String,
    /// A command line.
    pub command: String,
}

/// The capture that a diagnosis is made from.
#[derive(Clone, Copy, Debug, Default)]
pub struct FromCapture<'a> {
    /// The capture's id. `None` for a live process.
    pub capture: Option<&'a str>,
    /// True if the capture has a heap dump.
    pub has_heap_dump: bool,
}

fn step(why: &str, command: impl Into<String>) -> Step {
    Step { why: why.into(), command: command.into() }
}

/// Returns the next steps, the most useful first.
pub fn steps(evidence: &Evidence, verdict: &Verdict, source: FromCapture<'_>) -> Vec<Step> {
    let pid = evidence.pid;
    let request =
        |reports: &str, reason: &str| format!("diagctl request {reports} --pid {pid} --reason '{reason}' --wait");
    let mut steps = Vec::new();
    if verdict.confidence < Confidence::High && !evidence.missing().is_empty() {
        steps.push(step(
            "take every report that this account needs",
            format!("diagctl request {} --pid {pid} --reason diagnose --wait", all(evidence)),
        ));
    }
    let rss = evidence.mappings.as_ref().map_or(0, |mappings| mappings.rss);
    let unknown = evidence.is_complete() && verdict.unknown_bytes > rss / 10;
    let glibc = evidence.allocator.is_none_or(|allocator| allocator.kind == Kind::Glibc);
    let cause_step = match verdict.cause {
        Some(Cause::RetainedObjects) => match source.capture.filter(|_| source.has_heap_dump) {
            Some(id) => step("see what keeps the objects", format!("diagctl heap retained {id}")),
            None => step("see what keeps the objects", request("heap_dump", "what keeps the objects?")),
        },
        Some(Cause::FreeSlots) => {
            step("find the minute in which it grew, and what ran then", "diagctl samples --since 24h | grep rss")
        }
        Some(Cause::Fragmentation) if glibc => {
            step("start the workers with jemalloc (or MALLOC_ARENA_MAX=2)", "export LD_PRELOAD=libjemalloc.so.2")
        }
        Some(Cause::Fragmentation) => step(
            "have jemalloc return free pages sooner",
            "export MALLOC_CONF=background_thread:true,dirty_decay_ms:1000,narenas:2",
        ),
        Some(Cause::NativeBehindObjects) => {
            step("see who keeps the objects", request("heap_dump", "what keeps the native memory?"))
        }
        Some(Cause::NativeWithoutObject) if glibc => step(
            "start the worker with a profile of its allocations, then request jemalloc_profile",
            "export LD_PRELOAD=libjemalloc.so.2 MALLOC_CONF=prof:true,lg_prof_sample:19",
        ),
        Some(Cause::NativeWithoutObject) => step(
            "see who allocates (needs MALLOC_CONF=prof:true at the start)",
            request("jemalloc_profile", "who allocates native memory?"),
        ),
        Some(Cause::Stacks) => step("see what the threads do", request("threads", "why so many stacks?")),
        Some(Cause::MappedFiles) => step("see which files", request("smaps", "which files are mapped?")),
        Some(Cause::CopyOnWriteLost) => step(
            "call Process.warmup (before Ruby 3.3: GC.start four times) in the parent before it forks, then look again",
            "diagctl diagnose",
        ),
        Some(Cause::TooManyProcesses) => {
            step("start fewer workers, or raise the limit, then look again", "diagctl status")
        }
        None if unknown => match source.capture {
            Some(id) => step("see the largest mappings without a name", format!("diagctl fetch {id}:smaps -o -")),
            None => step("see the largest mappings without a name", format!("pmap -x {pid}")),
        },
        None => step("take two captures and see which part grows", "diagctl compare A B"),
    };
    steps.push(cause_step);
    steps
}

// The reports of the account, with the allocator's that this process can make.
fn all(evidence: &Evidence) -> String {
    let allocator = evidence.allocator_report().unwrap_or("jemalloc_stats malloc_info");
    format!("smaps gc_stat {allocator} object_counts siblings cgroup system")
}
