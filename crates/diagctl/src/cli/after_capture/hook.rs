//! Tells the operator's hook of each capture that waits: the command, the webhook, or both. A failure is an event, and nothing else.

use std::time::Duration;

use serde_json::json;

use crate::cli::{Context, Failure, external, show};
use crate::clock::Stopwatch;
use crate::config::{OnCapture, Webhook};
use crate::grant::IN_HOOK;
use crate::operator_command;
use crate::units::{self, ms};
use diagctl_store::events::{self, Event};
use diagctl_store::hooks::{self, Turn};
use diagctl_store::{Id, Store, meta};

/// The most attempts at a webhook, which `diagctl-remote` makes.
const ATTEMPTS: u64 = 5;

/// The time that the pauses between them take together, at most.
const PAUSES: Duration = Duration::from_secs(60);

/// Tells the hook until no capture waits.
pub fn run(cx: &Context, store: &Store) -> Result<(), Failure> {
    // A capture that is added while another process has the turn is seen by that process: it looks again after its turn.
    while let Some(turn) = Turn::take(store)? {
        // The holder of the turn is the only process that runs the hook of this store.
        operator_command::kill_bearers(IN_HOOK, &mark(cx));
        for id in hooks::waiting(store) {
            match &cx.config().on_capture {
                Some(hook) if turn.begin(id)? => tell(cx, store, hook, id),
                Some(_) => note(store, "hook_failed", "", "", id, "given up: its process was killed at each attempt"),
                None => {}
            }
            turn.end(id)?;
        }
        drop(turn);
        if hooks::waiting(store).is_empty() {
            break;
        }
    }
    operator_command::kill_remains();
    Ok(())
}

fn mark(cx: &Context) -> String {
    cx.config().dir.display().to_string()
}

fn tell(cx: &Context, store: &Store, hook: &OnCapture, id: Id) {
    let rule = meta::read(&store.report_dir(&id)).map(|meta| meta.rule).unwrap_or_default();
    let record = match show::record(store, id) {
        Ok(record) => record + "\n",
        Err(failure) => {
            return note(
                store,
                "hook_failed",
                "",
                &rule,
                id,
                &format!("the capture cannot be read: {}", failure.message),
            );
        }
    };
    if !hook.command.is_empty() {
        let environment = [
            (IN_HOOK, mark(cx)),
            ("DIAGCTL_CAPTURE", id.to_string()),
            ("DIAGCTL_DIR", cx.config().dir.display().to_string()),
        ];
        let watch = Stopwatch::start();
        let told = operator_command::tell(&hook.command, hook.timeout_ms, &environment, record.as_bytes());
        outcome(store, "command", &rule, id, &watch, told);
    }
    if let Some(webhook) = &hook.webhook {
        let watch = Stopwatch::start();
        outcome(store, "webhook", &rule, id, &watch, post(webhook, hook.timeout_ms, id, &record));
    }
}

// `diagctl-remote` has the HTTP client. The settings may hold a secret URL, so they are not on its command line.
fn post(webhook: &Webhook, timeout_ms: u64, id: Id, record: &str) -> Result<(), String> {
    let program = external::find("remote").ok_or("the program diagctl-remote is neither beside diagctl nor in PATH")?;
    let settings = json!({
        "url": webhook.url,
        "url_file": webhook.url_file,
        "headers_file": webhook.headers_file,
        "timeout_ms": timeout_ms,
        "attempts": ATTEMPTS,
        "capture": id,
    });
    let command = [program.display().to_string(), "webhook".to_owned()];
    let environment = [("DIAGCTL_WEBHOOK", settings.to_string())];
    let most_ms = timeout_ms.saturating_mul(ATTEMPTS).saturating_add(ms(PAUSES));
    operator_command::tell(&command, most_ms, &environment, record.as_bytes())
        .map_err(|how| how.split_once("diagctl: ").map_or_else(|| how.clone(), |(_, said)| said.to_owned()))
}

fn outcome(store: &Store, kind: &str, rule: &str, id: Id, watch: &Stopwatch, told: Result<(), String>) {
    match told {
        Ok(()) => {
            let took = units::duration(ms(watch.elapsed()));
            note(store, "hook", kind, rule, id, &format!("the {kind} was told, in {took}"));
        }
        Err(why) => note(store, "hook_failed", kind, rule, id, &format!("{kind}: {why}")),
    }
}

fn note(store: &Store, event: &str, kind: &str, rule: &str, id: Id, why: &str) {
    let about = Event::about(event, id, why);
    events::record(store, &Event { rule: rule.into(), cause: kind.into(), ..about });
}
