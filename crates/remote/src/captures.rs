//! `captures`: prints the captures in the remote, newest first, a line of JSON each. `diagctl list --remote` reads it.
//!
//! Reads the manifests only. Another node wrote them, so nothing in them is trusted: a line must be a plausible entry, and a
//! manifest has a maximum size.

use std::collections::BTreeMap;
use std::io::Write;

use diagctl_store::Id;
use diagctl_store::index::Entry;
use futures_util::{StreamExt, stream};

use crate::bucket::Bucket;
use crate::error::{Error, Result};
use crate::keys;
use crate::output::{self, Exit};
use crate::settings::Settings;

/// Number of manifests that are read at once.
const AT_ONCE: usize = 32;

/// Maximum size of a manifest, bytes. Those of diagctl are smaller.
const MAX_MANIFEST: u64 = 16 << 20;

/// Print the captures in the remote, for `diagctl list --remote`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only captures of this day (UTC, 2026-11-28) or later
    #[arg(long, value_name = "DAY")]
    since_day: Option<String>,
}

/// Runs the command.
///
/// # Errors
///
/// If the manifests cannot be listed or read.
pub async fn run(args: &Args, settings: &Settings) -> Result<Exit> {
    let bucket = Bucket::open(&settings.remote)?;
    let mut wanted = Vec::new();
    for (key, bytes) in bucket.list("manifests").await? {
        let day = key.split('/').nth(1).unwrap_or_default();
        if args.since_day.as_deref().is_some_and(|since| day < since) {
            continue;
        }
        if bytes > MAX_MANIFEST {
            output::note(&format!("skipped {key}: {bytes} bytes are too many for a manifest"));
            continue;
        }
        wanted.push(key);
    }
    let mut captures = BTreeMap::new();
    let bucket = &bucket;
    let mut read = stream::iter(wanted).map(|key| async move { bucket.read(&key).await }).buffer_unordered(AT_ONCE);
    while let Some(manifest) = read.next().await {
        // One that is gone was deleted by the lifecycle rule.
        manifest?.iter().for_each(|data| parse(data, &mut captures));
    }
    print(captures.values().rev()).map_err(Error::Runtime)?;
    Ok(Exit::Ok)
}

// Adds the captures of a manifest. A line that is damaged, or cut, is left out.
fn parse(data: &[u8], captures: &mut BTreeMap<Id, Entry>) {
    for line in data.split(|byte| *byte == b'\n') {
        let entry: Option<Entry> = serde_json::from_slice(line).ok();
        let honest = |entry: &Entry| entry.is_plausible() && keys::day(&entry.created) != keys::NO_DAY;
        if let Some(entry) = entry.filter(honest) {
            captures.insert(entry.id, entry);
        }
    }
}

fn print<'e>(entries: impl Iterator<Item = &'e Entry>) -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for entry in entries {
        serde_json::to_writer(&mut out, entry)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_manifest_adds_nothing_and_hides_nothing() {
        let line = |id: &str, more: &str| {
            format!("{{\"id\":\"{id}\",\"created\":\"2026-11-28T10:00:00Z\",\"host\":\"web-1\"{more}}}")
        };
        let good = "20261128T100000000Z-aaaaaaaa";
        let lines = [
            line("../../etc/passwd", ""),
            line("20261128T100000000Z-bbbbbbbb", &format!(",\"disk_bytes\":{}", u64::MAX)),
            "{\"id\":\"20261128T100000000Z-cccccccc\",\"created\":\"../..\"}".to_owned(),
            "[".repeat(100_000),
            line(good, ""),
            line(good, ",\"pinned\":true"),
            line("20261128T100000000Z-dddddddd", "")[..60].to_owned(),
        ];
        let mut captures = BTreeMap::new();
        parse(lines.join("\n").as_bytes(), &mut captures);
        assert_eq!(captures.keys().map(Id::as_str).collect::<Vec<_>>(), [good]);
    }
}
