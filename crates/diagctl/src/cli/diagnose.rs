//! `diagctl diagnose`: says why a process is large.

pub(super) mod subject;
pub mod text;

use serde::Serialize;

use super::heap::leak::{self, Leak};
use super::identity::Key;
use super::output::{self, Done};
use super::remote::view::{From, Target, View};
use super::remote::{Days, earlier};
use super::{Context, Failure};
use crate::diagnose::{Account, Family, FromCapture, Part, Step, Verdict, judge, steps};
use crate::exit_code::Exit;
use diagctl_store::index::Entry;
use diagctl_store::{Access, Id};
use subject::Subject;

/// Explain why a process is large: Ruby objects or native memory
///
/// Causes are live objects, free slots, native memory, fragmentation, copy-on-write lost, and the number of processes. Reads the cheap reports of a capture: smaps, gc_stat, jemalloc_stats or malloc_info, object_counts, siblings, cgroup. Without ID,
/// that is the newest capture of the largest process that polls. It names a cause only if the figures add up; otherwise it says
/// which report is missing.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  diagctl diagnose\n  diagctl diagnose --pid 4711\n  diagctl diagnose --role puma --json"
)]
pub struct Args {
    /// Capture ID, a unique prefix of one, or `latest`
    id: Option<String>,
    /// A live process, read now; the figures of Ruby and its allocator are those of its newest capture if they still fit
    #[arg(long, conflicts_with = "id", allow_negative_numbers = true)]
    pid: Option<u32>,
    /// The newest capture of the largest process with this role
    #[arg(long, conflicts_with_all = ["id", "pid"])]
    role: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    from: From,
    #[command(flatten)]
    key: Key,
}

/// A diagnosis as it is printed. Sizes are in bytes.
#[derive(Debug, Serialize)]
struct Diagnosis<'a> {
    schema: u32,
    capture: Option<&'a str>,
    created: &'a str,
    age_ms: u64,
    host: &'a str,
    pid: u32,
    role: &'a str,
    worker: &'a str,
    #[serde(skip)]
    process: String,
    rss_bytes: u64,
    parts: Vec<Portion<'a>>,
    /// The excess of the parts over the resident set.
    excess_bytes: u64,
    adds_up: bool,
    /// Resident pages that other processes map too.
    shared_bytes: u64,
    workers: Option<usize>,
    #[serde(skip)]
    family_size: usize,
    family_bytes: Option<u64>,
    limit_bytes: Option<u64>,
    verdict: &'a Verdict,
    /// The growth between the heap dumps of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    leak: Option<Leak>,
    unusable: Vec<Unusable<'a>>,
    next: &'a [Step],
}

#[derive(Debug, Serialize)]
struct Portion<'a> {
    part: Part,
    bytes: u64,
    percent: u64,
    detail: &'a str,
}

/// A report that was asked for and says nothing.
#[derive(Debug, Serialize)]
struct Unusable<'a> {
    report: &'a str,
    why: &'a str,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    args.key.unlock(cx)?;
    let brought = args.from.is_remote().then(|| of_remote(cx, args)).transpose()?;
    let id = brought.as_ref().and_then(View::first).map(|(entry, _)| entry.id.to_string()).or_else(|| args.id.clone());
    let cx = brought.as_ref().map_or(cx, View::cx);
    let subject = match (&id, args.pid) {
        (Some(id), _) => Subject::capture(cx, id)?,
        (None, Some(pid)) => Subject::live(cx, pid)?,
        (None, None) => Subject::largest(cx, args.role.as_deref())?,
    };
    let account = account_of(&subject).map_err(|failure| match (&brought, failure.hint) {
        (Some(view), Some(hint)) => Failure { hint: Some(view.suggested_in(&hint)), ..failure },
        (_, hint) => Failure { hint, ..failure },
    })?;
    let verdict = judge(&subject.evidence, &account);
    let id = subject.capture.map(|id| id.to_string());
    let from = FromCapture { capture: id.as_deref(), has_heap_dump: subject.has_heap_dump };
    let mut next = steps(&subject.evidence, &verdict, from);
    let leak = subject.capture.and_then(|id| leak_of(cx, &id));
    if let Some(leak) = &leak {
        next.insert(0, leak.step());
    }
    if let Some(view) = &brought {
        next.iter_mut().for_each(|step| step.command = view.suggested(&step.command));
    }
    let mut diagnosis = view(&subject, id.as_deref(), &account, &verdict, &next);
    diagnosis.leak = leak;
    Done::either(args.json, &diagnosis, |diagnosis| text::render(diagnosis, &subject.evidence))
}

// Without an id, that is the newest capture in the remote that can be diagnosed.
fn of_remote(cx: &Context, args: &Args) -> Result<View, Failure> {
    if args.pid.is_some() {
        return Err(Failure::new(Exit::Usage, "--pid names a process of this machine, not one of the remote")
            .hint("name a capture: `diagctl list --remote` shows them"));
    }
    if let Some(id) = &args.id {
        return earlier::view(cx, &args.from, args.from.resolve(cx, id)?);
    }
    let is_usable = |entry: &Entry| {
        let is_role = args.role.as_ref().is_none_or(|role| *role == entry.role);
        is_role && entry.reports.iter().any(|r| r.name.starts_with("smaps") && r.has_data())
    };
    let newest = args.from.captures(cx, &Days::default())?.into_iter().find(is_usable).ok_or_else(|| {
        let whose = args.from.of_host();
        Failure::new(Exit::NoMatch, format!("no capture in the remote{whose} has smaps or smaps_rollup"))
            .hint("`diagctl list --remote` shows the captures")
    })?;
    earlier::view(cx, &args.from, Target { entry: newest, report: None })
}

// The diagnosis does not depend on it.
fn leak_of(cx: &Context, id: &Id) -> Option<Leak> {
    let found = (|| {
        let store = cx.open(Access::Read)?;
        let dumps = leak::dumps_of(&store, store.capture(id)?.meta())?;
        leak::find(cx, &dumps)
    })();
    found.unwrap_or_else(|why: Failure| {
        output::note(&format!("the heap dumps of the process were not compared: {}", why.message));
        None
    })
}

/// Divides the memory of a subject.
pub(super) fn account_of(subject: &Subject) -> Result<Account, Failure> {
    Account::of(&subject.evidence).ok_or_else(|| {
        let whose = subject.name();
        let why = subject.evidence.unusable.iter().find(|(report, _)| report.starts_with("smaps"));
        let why = why.map_or_else(|| "it has neither smaps nor smaps_rollup".to_owned(), |(_, why)| why.clone());
        let request = format!(
            "diagctl request smaps gc_stat object_counts --pid {} --reason diagnose --wait",
            subject.evidence.pid
        );
        Failure::new(Exit::NoMatch, format!("{whose} cannot be diagnosed: {why}"))
            .hint(format!("`{request}` requests one that can"))
    })
}

fn view<'a>(
    subject: &'a Subject,
    id: Option<&'a str>,
    account: &'a Account,
    verdict: &'a Verdict,
    next: &'a [Step],
) -> Diagnosis<'a> {
    let portion = |line: &'a crate::diagnose::Line| Portion {
        part: line.part,
        bytes: line.bytes,
        percent: account.percent(line.bytes),
        detail: &line.detail,
    };
    let evidence = &subject.evidence;
    Diagnosis {
        schema: 1,
        capture: id,
        created: &subject.created,
        age_ms: subject.age_ms,
        host: &subject.host,
        pid: evidence.pid,
        role: &subject.role,
        worker: &subject.worker,
        process: subject.process(),
        rss_bytes: account.rss,
        parts: account.lines.iter().map(portion).collect(),
        excess_bytes: account.excess,
        adds_up: account.adds_up(),
        shared_bytes: evidence.mappings.as_ref().map_or(0, |mappings| mappings.shared),
        workers: evidence.family.as_ref().map(Family::workers),
        family_size: evidence.family.as_ref().map_or(0, |family| family.members.len()),
        family_bytes: evidence.family.as_ref().map(Family::total),
        limit_bytes: evidence.limit.map(|limit| limit.bytes),
        verdict,
        leak: None,
        unusable: evidence.unusable.iter().map(|(report, why)| Unusable { report, why }).collect(),
        next,
    }
}
