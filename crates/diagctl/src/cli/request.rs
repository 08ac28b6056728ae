//! `request`: asks for a capture, which the next matching process that polls will take.

mod queue;
mod remote;
mod target;
mod wait;
mod why;

use std::time::Duration;

use super::output::{self, Done};
use super::{Context, orders};
use crate::cli::error::{Failure, printable, quoted};
use crate::clock;
use crate::config::GroupRight;
use crate::exit_code::Exit;
use crate::fsio;
use crate::state::files::load_state;
use crate::sys::Endings;
use crate::units;
use crate::users::user_name;
use diagctl_fs::without_secrets;
use diagctl_store::inbox::{self, Order};
use diagctl_store::requests::{self, Request};
use diagctl_store::{Access, ProcessId, ReportName, Store};
use queue::{cancel, list, withdraw};
use why::View;

const EXAMPLES: &str = "\
Examples:
  diagctl request heap_dump --reason 'memory grows' --wait
  diagctl request threads --name worker-0 --reason 'it hangs'
  diagctl request gc_stat --remote --host 'web-*' --sample 3 --reason 'slow since noon' --wait
  diagctl request --list
  diagctl request --cancel 20261122T101530Z
  diagctl request --list --remote";

/// Request a capture, or list and cancel requests
///
/// A request skips triggers, cooldowns and budgets, but not the lease or the guards. Without REPORT, the capture has the reports
/// of a matching `on_demand` rule, or else the routine reports. The `min_interval` of a matching `on_demand` rule that has all of
/// the reports applies: the request waits until that much time has passed since the rule's last capture.
///
/// A request waits until a process serves it, it expires, or it is cancelled. With --wait, Ctrl-C cancels it.
///
/// With --remote, every machine that allows the reports is asked, unless --host or --sample says otherwise, and its budgets count, too. With --wait, Ctrl-C then
/// ends the waiting only: the request goes on, and stderr says how to cancel it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Reports to capture, for example heap_dump
    #[arg(value_name = "REPORT")]
    reports: Vec<String>,
    /// Only from a process with this role
    #[arg(long)]
    role: Option<String>,
    /// Only from the process with this name
    #[arg(long, alias = "worker")]
    name: Option<String>,
    /// Only from this process
    #[arg(long, allow_negative_numbers = true)]
    pid: Option<u32>,
    /// Reason, stored with the capture
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["list", "cancel"])]
    reason: Option<String>,
    /// Wait for the capture and print its ID; tells what the request waits for
    #[arg(long)]
    wait: bool,
    /// Give up if no process has taken the request within this time
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = units::parse_wait, allow_hyphen_values = true)]
    expires: Duration,
    /// List the requests that wait, with what each waits for
    #[arg(long, conflicts_with_all = ["reports", "role", "name", "pid", "reason", "wait", "expires", "cancel"])]
    list: bool,
    /// Cancel the request with this ID, or the beginning of it
    #[arg(long, value_name = "ID", conflicts_with_all = ["reports", "role", "name", "pid", "reason", "wait", "expires"])]
    cancel: Option<String>,
    /// Print JSON: the request, or the capture with --wait
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: remote::RemoteArgs,
}

pub fn run(cx: &Context, args: Args) -> Result<Done, Failure> {
    if args.list {
        return if args.remote.remote { remote::list(cx, args.json) } else { list(cx, args.json) };
    }
    if let Some(id) = &args.cancel {
        return if args.remote.remote { remote::cancel(cx, id) } else { cancel(cx, id, args.json) };
    }
    if args.remote.remote {
        return remote::run(cx, &args);
    }
    // Before there are other threads: a wait is ended by these signals in order.
    let endings = args.wait.then(Endings::hold_back);
    let json = args.json;
    check(cx, &args)?;
    let process = args.pid.map(|pid| target::find(cx, pid)).transpose()?;
    let by = invoking_user();
    let store = orders::open(cx, Access::CreateForWorkers, GroupRight::Request)?;
    let (request, told) = file(cx, &store, args, by, process)?;
    match endings {
        Some(endings) => wait::wait(cx, &store, &request, told, json, endings),
        None => Done::either(json, &request, |request| request.id.clone()),
    }
}

fn check(cx: &Context, args: &Args) -> Result<(), Failure> {
    let config = cx.config();
    for name in &args.reports {
        if ReportName::parse(name).filter(|name| config.knows_report(name)).is_none() {
            let message = format!("unknown report {}", quoted(name));
            return Err(Failure::new(Exit::Usage, message).hint(config.report_hint(name)));
        }
    }
    check_reason(args.reason.as_deref().unwrap_or_default())
}

/// Refuses a reason that cannot be kept: it stays readable, travels to the remote, and is shown to everybody.
pub(super) fn check_reason(reason: &str) -> Result<(), Failure> {
    let hint = "say in a few words why you want the capture";
    if reason.trim().is_empty() || reason.len() > 1024 {
        return Err(Failure::new(Exit::Usage, "--reason is empty or longer than 1024 bytes").hint(hint));
    }
    if *without_secrets(reason) != *reason {
        return Err(Failure::new(Exit::Usage, "--reason holds a secret key or the credentials of a URL")
            .hint("leave the secret out: the reason is stored and shown as it is; if others may have seen it, replace the secret"));
    }
    Ok(())
}

// Writes the request, and notes what will keep it waiting. Returns the kind of reason that was told, too.
fn file(
    cx: &Context,
    store: &Store,
    args: Args,
    by: String,
    process: Option<ProcessId>,
) -> Result<(Request, Option<String>), Failure> {
    let now = if store.is_ours() {
        let _guard = store.lock()?;
        cx.now(&load_state(store)?.0)
    } else {
        cx.peek(store)?.1
    };
    let request = Request {
        schema: 1,
        id: format!("{}-{}", clock::compact_utc(now.clock.wall_ms), fsio::random_hex()?),
        reports: crate::config::in_order(args.reports.iter().filter_map(|name| ReportName::parse(name)).collect()),
        role: args.role,
        name: args.name,
        pid: process.as_ref().map(|process| process.pid),
        process,
        reason: args.reason.unwrap_or_default(),
        by,
        created: now.store_ms,
        expires: now.store_ms + units::ms(args.expires),
        ..Request::default()
    };
    if store.is_ours() {
        requests::write(store, &request)?;
    } else {
        inbox::leave(store, &request.id, &Order::Request(Box::new(request.clone())))?;
    }
    let why = View::take(cx, store, &now)?.of(&request);
    if !why.needs_a_person {
        return Ok((request, None));
    }
    output::note(&format!("the request waits: {}; {}", why.text, why.hint));
    Ok((request, Some(why.kind)))
}

// Ask before a store is opened: root then becomes its owner.
pub(super) fn invoking_user() -> String {
    let uid = rustix::process::getuid().as_raw();
    if let (0, Ok(user)) = (uid, std::env::var("SUDO_USER")) {
        return printable(&user);
    }
    user_name(uid)
}
