//! Starts what follows a capture in processes of their own, which nothing waits for: the worker that captured goes on, or ends.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Context;
use super::after_capture::Work;
use crate::{grant, sys};
use diagctl_store::events::{self, Event};
use diagctl_store::{Access, hooks};

/// Starts the hook and the shipment, if this process has published a capture and the configuration asks for them.
pub fn start(cx: &Context) {
    if !cx.has_published() {
        return;
    }
    let config = cx.config();
    let ships = config.remote.as_ref().is_some_and(|remote| remote.after_capture);
    if config.on_capture.is_some() && !grant::is_in_hook() {
        start_work(cx, Work::Hook);
    }
    if ships {
        start_work(cx, Work::Ship);
    }
}

fn start_work(cx: &Context, work: Work) {
    // The program that runs now, also if a new release has replaced its file.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("diagctl").args(["after-capture", work.name()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // The filesystem of the worker's directory may be unmounted meanwhile. Paths in the environment may be relative to it.
    command.current_dir("/").env_remove("LD_PRELOAD");
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    command.env("DIAGCTL_DIR", absolute(&cx.config().dir));
    if let Some(file) = cx.loaded.borrowed.as_ref().or(cx.loaded.file.as_ref()) {
        command.env("DIAGCTL_CONFIG", absolute(file));
    }
    sys::pass_no_descriptors();
    sys::in_a_session_of_its_own(&mut command);
    let Err(error) = command.spawn() else { return };
    // The capture is published, and the next one starts the work again.
    if let Ok(store) = cx.open(Access::Write) {
        let id = hooks::waiting(&store).pop().map(|id| id.to_string()).unwrap_or_default();
        events::record(&store, &Event::about(work.failure(), id, &format!("cannot start it: {error}")));
    }
}
