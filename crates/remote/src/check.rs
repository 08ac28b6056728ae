//! `check`: tries what the credentials may do, for `diagctl doctor --remote`. Prints a line of JSON for each finding.
//!
//! Writes one small object, always the same one of a machine, because credentials that may only write cannot delete it.

use std::io::ErrorKind;
use std::time::Duration;

use diagctl_fs::random_hex;
use diagctl_observe::clock;
use diagctl_observe::proc::Proc;
use diagctl_store::{Access, Store, shipping};
use serde::Serialize;

use crate::at_rest;
use crate::bucket::Bucket;
use crate::captures;
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::keys;
use crate::manifest;
use crate::output::{self, Exit};
use crate::probe;
use crate::reason;
use crate::settings::Settings;

/// A difference of more than this between two clocks is a finding, milliseconds. S3 refuses requests after 15 minutes.
const SKEW_MS: u64 = 120_000;

/// The beginning of a probe.
const PROBE: &str = "{\"doctor\":\"";

/// The number of times that the probe is written and read back if another doctor may have disturbed it.
const TRIES: u32 = 5;

/// A finding.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    status: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

fn say(check: &'static str, status: &'static str, message: String, hint: Option<&str>) -> Result<()> {
    let finding = Finding { check, status, message, hint: hint.map(str::to_owned) };
    // A struct of strings can always be encoded.
    output::say_raw(&serde_json::to_string(&finding).unwrap_or_default()).map_err(Error::Runtime)
}

/// Runs the command.
///
/// # Errors
///
/// If nothing can be printed.
pub async fn run(settings: &Settings) -> Result<Exit> {
    let bucket = match Bucket::open(&settings.remote) {
        Err(error) => {
            say("write", "fail", error.to_string(), error.hint().as_deref())?;
            return Ok(Exit::Ok);
        }
        Ok(bucket) => bucket,
    };
    let url = &settings.remote.url;
    let ships = settings.has_store();
    if let Bucket::Directory(dir) = &bucket
        && ships
        && !of_directory(dir, settings)?
    {
        return Ok(Exit::Ok);
    }
    if let Some(dir) = bucket.unused_directory().filter(|_| !ships) {
        let message = format!("nothing was ever sent to {}", dir.display());
        say("disk", "warn", message, Some("if it is a share, mount it here"))?;
    }
    let key = probe::key("doctor");
    let back = match write_and_read(&bucket, &key).await {
        Tried::Read(back) => back,
        Tried::NotWritten(error) => return not_written(&bucket, url, ships, error).await,
    };
    say("write", "ok", format!("an object was written to {url}, and its checksum confirmed"), None)?;
    match back {
        Ok(Back::Same) => say("read", "ok", "it was read back with the same bytes".into(), None)?,
        Ok(Back::Doctors) => {
            let message = "another doctor has written the same object, again and again";
            let hint = "run it once more when no other one runs on a machine of this name";
            say("read", "warn", message.into(), Some(hint))?;
        }
        Ok(back) => {
            let what = if back == Back::Other { "other bytes were read back" } else { "it is not there" };
            let hint = "the remote does not keep what it has confirmed: do not ship there";
            say("read", "fail", format!("{what} after it was written"), Some(hint))?;
        }
        Err(error) if error.is_denied() && !ships => {
            let message = "the credentials may not read, so no command with --remote works here";
            say("read", "fail", message.into(), error.hint().as_deref())?;
        }
        Err(error) if error.is_denied() => {
            let message = "the credentials may not read: a node needs no more, a person does";
            say("read", "ok", message.into(), None)?;
        }
        Err(error) => say("read", "warn", error.to_string(), error.hint().as_deref().or(Some("try again")))?,
    }
    match bucket.list_under("probes").await {
        Ok(objects) => {
            say("list", "ok", "the remote can be listed".into(), None)?;
            let written = objects.iter().find(|object| object.key == key).map(|object| object.written_ms);
            written.map_or(Ok(()), clock_skew)?;
        }
        Err(error) if error.is_denied() && !ships => {
            let message = "the credentials may not list, so no command with --remote works here";
            say("list", "fail", message.into(), error.hint().as_deref())?;
        }
        Err(error) if error.is_denied() => {
            say(
                "list",
                "ok",
                "the credentials may not list: a node that obeys no requests needs no more".into(),
                None,
            )?;
        }
        Err(error) => say("list", "warn", error.to_string(), error.hint().as_deref().or(Some("try again")))?,
    }
    encryption(&bucket, url).await?;
    match bucket.delete(vec![key]).await {
        Ok(()) => {
            say("delete", "ok", "the credentials may delete: only `diagctl gc --remote` needs that".into(), None)?
        }
        Err(error) if error.is_denied() => {
            say("delete", "ok", "the credentials may not delete, as it should be on a node".into(), None)?
        }
        Err(error) => say("delete", "warn", error.to_string(), error.hint().as_deref().or(Some("try again")))?,
    }
    // Azure drops them by itself, and a directory has none.
    if url.starts_with("s3://") || url.starts_with("gs://") {
        let message = "an upload in parts whose node was lost stays, and is paid for, unless a lifecycle rule of the bucket \
            has AbortIncompleteMultipartUpload (docs/fleet.md, Rights)";
        say("uploads", "skip", message.into(), None)?;
    }
    Ok(Exit::Ok)
}

/// What came of writing the probe.
enum Tried {
    NotWritten(Error),
    Read(Result<Back>),
}

/// What was read back.
#[derive(PartialEq, Eq)]
enum Back {
    Same,
    /// What another doctor has written.
    Doctors,
    Other,
    Nothing,
}

// Writes the probe and reads it back. The doctor of another machine with this name, or another one of this machine, may have written or
// deleted it meanwhile, and removed its empty directory. Then it is tried again.
async fn write_and_read(bucket: &Bucket, key: &str) -> Tried {
    let mut tries = 0;
    loop {
        tries += 1;
        let (tried, is_disturbed) = try_once(bucket, key).await;
        if !is_disturbed || tries == TRIES {
            return tried;
        }
        tokio::time::sleep(Duration::from_millis(100 + diagctl_fs::random_u64().unwrap_or(0) % 400)).await;
    }
}

// Returns true with it if another doctor may be the reason.
async fn try_once(bucket: &Bucket, key: &str) -> (Tried, bool) {
    let content = match random_hex() {
        Ok(random) => format!("{PROBE}{random}\"}}\n"),
        Err(error) => return (Tried::NotWritten(error.into()), false),
    };
    if let Err(error) = bucket.put(key, content.clone().into()).await {
        let is_disturbed = match &error {
            Error::Directory { action: "create" | "write" | "sync", source, .. } => {
                source.kind() == ErrorKind::NotFound
            }
            // Two writes of one object at once.
            Error::Remote { source, .. } => reason::status_of(source) == Some(409),
            _ => false,
        };
        return (Tried::NotWritten(error), is_disturbed);
    }
    let (back, is_disturbed) = match bucket.read(key, 4096).await {
        Err(error) => (Err(error), false),
        Ok(None) => (Ok(Back::Nothing), true),
        Ok(Some(data)) if data == content.as_bytes() => (Ok(Back::Same), false),
        Ok(Some(data)) if data.starts_with(PROBE.as_bytes()) => (Ok(Back::Doctors), true),
        Ok(Some(_)) => (Ok(Back::Other), false),
    };
    (Tried::Read(back), is_disturbed)
}

async fn not_written(bucket: &Bucket, url: &str, ships: bool, error: Error) -> Result<Exit> {
    if !ships && error.is_denied() {
        let message =
            "you may not write there: a reader needs no more, but a machine with workers or a person who requests does";
        say("write", "ok", message.into(), None)?;
        reading(bucket).await?;
        encryption(bucket, url).await?;
        return Ok(Exit::Ok);
    }
    if matches!(error, Error::Directory { action: "create", .. }) && error.is_denied() {
        // Where captures go was examined before.
        let message = format!("captures can be shipped, but doctor cannot write its probe: {error}");
        say("write", "warn", message, error.hint().as_deref())?;
        return Ok(Exit::Ok);
    }
    say("write", "fail", format!("nothing can be shipped: {error}"), error.hint().as_deref())?;
    Ok(Exit::Ok)
}

// Says if the captures of today can be listed.
async fn reading(bucket: &Bucket) -> Result<()> {
    let today = clock::utc_now();
    match captures::read(bucket, Some(keys::day(&today)), None).await {
        Ok(listing) => {
            let message = format!("captures can be listed; {} of today", listing.newest_first().count());
            let (unreadable, damaged) = listing.left_out();
            let of = |count, what| match count {
                0 => None,
                1 => Some(format!("1 manifest {what}")),
                _ => Some(format!("{count} manifests {what}")),
            };
            let left_out = [of(unreadable, "cannot be read"), of(damaged, "with damaged lines")];
            let left_out = left_out.into_iter().flatten().collect::<Vec<_>>().join(" and ");
            if left_out.is_empty() {
                return say("read", "ok", message, None);
            }
            let hint = "`diagctl list --remote` names them, and says what to do";
            say("read", "warn", format!("{message}, and others may be missing: {left_out}"), Some(hint))
        }
        Err(error) => say(
            "read",
            "fail",
            format!("captures cannot be listed: {error}"),
            error.hint().as_deref().or(Some("try again")),
        ),
    }
}

// Examines the directory that is the remote. Returns false if captures cannot be shipped to it.
fn of_directory(dir: &Directory, settings: &Settings) -> Result<bool> {
    // Root becomes the owner of the store, as it does to ship. A person may have no store.
    let store = Store::open(settings.store(), Access::Read).ok();
    let shown = dir.path().display();
    let were_sent = |store: &Store| manifest::were_sent(&shipping::place(store), &settings.remote.url);
    if let Err(error) = dir.require_share(store.as_ref().is_some_and(were_sent)) {
        // The words of `ship`.
        say("write", "fail", format!("nothing can be shipped: {error}"), error.hint().as_deref())?;
        return Ok(false);
    }
    match store.and_then(|store| dir.shares_a_disk_with(store.dir().path())) {
        Some(true) => {
            let message = format!(
                "{shown} is on the filesystem of the store: what is shipped there is lost with that disk, and retention.max_use does \
                 not count it"
            );
            let hint =
                "is the share mounted? If this is a directory of this machine on purpose, nothing has to be done";
            say("disk", "warn", message, Some(hint))?;
        }
        Some(false) => say("disk", "ok", format!("{shown} is on another filesystem than the store"), None)?,
        None => {}
    }
    let (now, host) = (clock::utc_now(), Proc::default().hostname());
    let node = keys::node(&host, "random");
    let shipped = [keys::capture(&now, &host, "id/file"), keys::manifest(keys::day(&now), &host, "random")];
    let answered = [format!("nodes/{node}.json"), keys::answer("id", &node)];
    let obeys = settings.remote.requests.as_ref().is_some_and(|requests| !requests.allow_reports.is_empty());
    let is_closed = !may_write("write", "captures cannot be shipped", dir, &shipped)?;
    if obeys && !is_closed {
        may_write("requests", "no request can be obeyed", dir, &answered)?;
    }
    Ok(!is_closed)
}

// Says if this user may not write to one of the keys, and what follows from that.
fn may_write(check: &'static str, otherwise: &str, dir: &Directory, keys: &[String]) -> Result<bool> {
    let Some((closed, owner)) = keys.iter().find_map(|key| dir.closed(key)) else { return Ok(true) };
    let uid = rustix::process::geteuid().as_raw();
    let closed = closed.display();
    let message = format!("{otherwise}: {closed} belongs to uid {owner}, and uid {uid} may not write there");
    let hint = "give each user a directory of its own in remote.url, or mount the share so that all of them are one user there \
        (NFS: all_squash, SMB: uid=)";
    say(check, "fail", message, Some(hint))?;
    Ok(false)
}

async fn encryption(bucket: &Bucket, url: &str) -> Result<()> {
    let found = at_rest::find(bucket, url).await;
    let hint = "add [encrypt] recipients to the configuration of the nodes (docs/encryption.md), or turn on the default encryption of \
        the bucket";
    match found {
        at_rest::Found { is_open: true, text, .. } => say("encryption", "warn", text, Some(hint)),
        at_rest::Found { is_unknown: true, text, .. } => say("encryption", "skip", text, None),
        at_rest::Found { text, .. } => say("encryption", "ok", text, None),
    }
}

fn clock_skew(written_ms: u64) -> Result<()> {
    let skew = probe::local_ms().abs_diff(written_ms);
    let shown = diagctl_store::units::duration(skew / 1000 * 1000);
    if skew <= SKEW_MS {
        return say(
            "clock",
            "ok",
            format!("the clocks of the remote and of this machine differ by {shown} at most"),
            None,
        );
    }
    let hint = "set the clock of this machine (chrony, systemd-timesyncd): S3 refuses requests that are 15 minutes off";
    say("clock", "warn", format!("the clocks of the remote and of this machine differ by {shown}"), Some(hint))
}
