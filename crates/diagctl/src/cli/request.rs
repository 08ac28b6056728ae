//! `request`: asks for a capture, which the next matching process that polls will take.

mod target;

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Context;
use super::finalize::exit_of;
use super::output::{self, Done};
use crate::cli::error::{Failure, printable, quoted};
use crate::clock;
use crate::exit_code::Exit;
use crate::fsio;
use crate::state::files::{load_samples, load_state};
use crate::units::{self, size};
use diagctl_store::Process;
use diagctl_store::index;
use diagctl_store::requests::{self, Request};
use diagctl_store::{Access, ReportName, Store, events, meta};

/// Request a capture
///
/// A request skips triggers, cooldowns and budgets, but not the lease or the guards. Without REPORT, the capture has the reports
/// of a matching `on_demand` rule, or else the routine reports.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Reports to capture, for example heap_dump
    #[arg(value_name = "REPORT")]
    reports: Vec<String>,
    /// Only from a process with this role
    #[arg(long)]
    role: Option<String>,
    /// Only from the worker with this name
    #[arg(long, value_name = "WORKER")]
    name: Option<String>,
    /// Only from this process
    #[arg(long, allow_negative_numbers = true)]
    pid: Option<u32>,
    /// Reason, stored with the capture
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Wait for the capture and print its ID
    #[arg(long)]
    wait: bool,
    /// Give up if no process has taken the request within this time
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = units::parse_wait, allow_hyphen_values = true)]
    expires: Duration,
    /// Print JSON: the request, or the capture with --wait
    #[arg(long)]
    json: bool,
}

pub fn run(cx: &Context, args: Args) -> Result<Done, Failure> {
    let config = cx.config();
    let mut reports = Vec::new();
    for name in &args.reports {
        match ReportName::parse(name).filter(|name| config.knows_report(name)) {
            Some(known) => reports.push(known),
            None => {
                let message = format!("unknown report {}", quoted(name));
                return Err(Failure::new(Exit::Usage, message).hint(config.report_hint(name)));
            }
        }
    }
    if args.reason.trim().is_empty() || args.reason.len() > 1024 {
        return Err(Failure::new(Exit::Usage, "--reason is empty or longer than 1024 bytes")
            .hint("say in a few words why you want the capture"));
    }
    let process = args.pid.map(|pid| target::find(cx, pid)).transpose()?;
    let by = invoking_user();
    let store = cx.open(Access::Create)?;
    let (state, now) = {
        let _guard = store.lock()?;
        let (state, _) = load_state(&store)?;
        let now = cx.now(&state);
        (state, now)
    };
    let request = Request {
        schema: 1,
        id: format!("{}-{}", clock::compact_utc(now.clock.wall_ms), fsio::random_hex()?),
        reports: crate::config::in_order(reports),
        role: args.role,
        name: args.name,
        pid: process.as_ref().map(|process| process.pid),
        process,
        reason: args.reason,
        by,
        created: now.store_ms,
        expires: now.store_ms + units::ms(args.expires),
        ..Request::default()
    };
    if let Some(pause) = state.paused.as_ref().filter(|pause| pause.holds(now.store_ms)) {
        output::note(&format!("the store is {}; the request waits", pause.reason(now.store_ms)));
    } else if !somebody_polls(&store, &request, now.store_ms, config.poll_ms()) {
        output::note("no matching process has polled this store lately; is DIAGCTL_ENABLED=1 set for the workers?");
    }
    requests::write(&store, &request)?;
    if args.wait {
        return wait(cx, &store, &request, args.json);
    }
    Done::either(args.json, &request, |request| request.id.clone())
}

fn somebody_polls(store: &Store, request: &Request, now_ms: u64, poll_ms: u64) -> bool {
    load_samples(store).processes.into_iter().any(|(id, sample)| {
        let process = Process { id, role: sample.role.clone(), name: sample.name.clone() };
        sample.is_fresh(now_ms, poll_ms) && request.is_for(&process)
    })
}

pub(super) fn invoking_user() -> String {
    let uid = rustix::process::getuid().as_raw();
    if let (0, Ok(user)) = (uid, std::env::var("SUDO_USER")) {
        return printable(&user);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid {uid}"))
}

// The request's file exists until its capture is published or the request is given up. It names the capture in progress.
fn wait(cx: &Context, store: &Store, request: &Request, json: bool) -> Result<Done, Failure> {
    let progress = if output::is_watched() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        progress.set_style(style);
    }
    progress.enable_steady_tick(Duration::from_millis(120));
    while let Some(current) = requests::read(store, &request.id) {
        progress.set_message(printable(&doing(store, &current)));
        let (_, now) = cx.peek(store)?;
        if current.expires <= now.store_ms && current.capture.is_none() {
            requests::remove(store, &request.id)?;
            let why = doing(store, &current);
            return Err(Failure::new(Exit::NotGranted, format!("no process took the request in time: {why}"))
                .hint("`diagctl status --explain` shows the verdict of each process"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    progress.finish_and_clear();
    let Some(id) = index::of_request(store, &request.id, request.created)? else {
        let why = events::read(store).into_iter().rfind(|event| event.id == request.id).map(|event| event.reason);
        return Err(Failure::failed(format!("the request failed: {}", why.unwrap_or_else(|| "it was removed".into())))
            .hint("`diagctl status --explain` shows what happened"));
    };
    let meta = meta::read(&store.report_dir(&id))?;
    for report in &meta.reports {
        if let Some(error) = &report.error {
            let what = if report.is_damaged() { "is damaged" } else { "failed" };
            output::note(&format!("report {} {what}: {error}", report.name));
        }
    }
    let bytes = meta.reports.iter().map(|report| report.stored_bytes).sum();
    let who = output::who(&meta.role, &meta.worker);
    output::note(&format!("captured {} of process {} ({who})", size(bytes), meta.pid));
    Ok(Done::either(json, &meta, |meta| meta.id.to_string())?.with_exit(exit_of(&meta)))
}

fn doing(store: &Store, request: &Request) -> String {
    if let Some(capture) = &request.capture {
        let staged: u64 = fsio::occupied_tree(&store.staging(capture));
        return format!("capture {capture} is being taken, {} so far", size(staged));
    }
    let last = load_samples(store).processes.into_values().max_by_key(|sample| sample.last_seen);
    match last {
        Some(sample) if !matches!(sample.verdict.as_str(), "" | "idle") => {
            let who = output::who(&sample.role, &sample.name);
            format!("waiting; the last verdict for {who} was {}: {}", sample.verdict, sample.reason)
        }
        _ => "waiting for a matching process to poll".into(),
    }
}
