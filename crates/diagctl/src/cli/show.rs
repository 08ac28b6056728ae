//! `diagctl show`: prints everything that is known about one capture.

pub(super) mod text;

use serde::Serialize;

use super::heap::leak;
use super::identity::Key;
use super::output::{self, Done};
use super::remote::hints;
use super::remote::view::{From, View, Wanted};
use super::times::Times;
use super::view;
use super::{Context, Failure};
use crate::cli::error::printable;
use crate::fsio;
use diagctl_store::index;
use diagctl_store::meta::{self, Meta};
use diagctl_store::{Access, Id, Store, reader};
use text::text;

/// Show the details of one capture
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  diagctl show latest\n  diagctl show latest --json | jq .reports\n  diagctl show --remote --host web-1 latest"
)]
pub struct Args {
    /// Capture ID, a unique prefix of one, `latest`, or `latest:REPORT`
    id: String,
    /// Show times in UTC instead of the local time zone
    #[arg(long)]
    utc: bool,
    /// Print JSON: meta.json with `pinned`, `shipped`, `dir` and `disk_bytes` added
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    from: From,
    #[command(flatten)]
    key: Key,
}

struct Shown {
    meta: Meta,
    pinned: bool,
    shipped: bool,
    dir: String,
    /// The size that counts against the cap: the blocks of all files of the capture.
    disk_bytes: u64,
}

#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    capture: view::Capture<'a>,
    pinned: bool,
    shipped: bool,
    dir: &'a str,
    disk_bytes: u64,
}

impl<'a> std::convert::From<&'a Shown> for Printed<'a> {
    fn from(shown: &'a Shown) -> Self {
        let Shown { meta, pinned, shipped, dir, disk_bytes } = shown;
        Self { capture: meta.into(), pinned: *pinned, shipped: *shipped, dir, disk_bytes: *disk_bytes }
    }
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    args.key.unlock(cx)?;
    let mut id = args.id.clone();
    let view = args.from.view(cx, vec![&mut id], Wanted::Record)?;
    let cx = view.as_ref().map_or(cx, View::cx);
    let store = cx.open(Access::Read)?;
    let (_, now) = cx.peek(&store)?;
    let target = reader::resolve(&store, &id)?;
    let dir = store.report_dir(&target.id);
    let meta = meta::read(&dir)?;
    if let Some(name) = &target.report {
        reader::report_of(&meta, name)?;
    }
    let (pinned, disk_bytes) = (dir.join(index::PIN_FILE).exists(), fsio::occupied_tree(&dir));
    let shipped = dir.join(index::SHIPPED_FILE).is_file();
    let mut shown = Shown { pinned, shipped, dir: dir.display().to_string(), disk_bytes, meta };
    if let Some((entry, url)) = view.as_ref().and_then(View::first) {
        (shown.pinned, shown.shipped, shown.disk_bytes) = (entry.pinned, true, entry.disk_bytes);
        shown.dir = url.to_owned();
    }
    let leak = if args.json { None } else { leak_of(cx, &store, &shown.meta) };
    Done::either(args.json, &Printed::from(&shown), |_| {
        let remote = view.is_some().then_some(hints::As { options: &cx.options, host: None });
        text(&shown, remote, &Times::new(args.utc), now.store_ms) + &leak.unwrap_or_default()
    })
}

/// Returns a capture of this store as `show --json` prints it.
pub fn record(store: &Store, id: Id) -> Result<String, Failure> {
    let dir = store.report_dir(&id);
    let (pinned, shipped) = (dir.join(index::PIN_FILE).exists(), dir.join(index::SHIPPED_FILE).is_file());
    let (meta, disk_bytes) = (meta::read(&dir)?, fsio::occupied_tree(&dir));
    let shown = Shown { pinned, shipped, dir: dir.display().to_string(), disk_bytes, meta };
    output::json(&Printed::from(&shown))
}

/// Heap dumps of more bytes are compared by `diagnose` only: it takes seconds.
const COMPARED: u64 = 128 << 20;

// The finding of the heap dumps of the process, as text, or why there is none where one of them cannot be read.
fn leak_of(cx: &Context, store: &Store, meta: &Meta) -> Option<String> {
    let dumps = leak::dumps_of(store, meta).ok()?;
    let reports = dumps.iter().flat_map(|meta| &meta.reports).filter(|report| report.name == *"heap_dump");
    if reports.map(|report| report.raw_bytes).sum::<u64>() > COMPARED {
        return Some(format!("\nwhat grew since the dump before: diagctl diagnose {}\n", meta.id));
    }
    let text = match leak::find(cx, &dumps) {
        Ok(leak) => leak.map(|leak| format!("{}\n{}", printable(&leak.sentence()), leak.legend()))?,
        Err(why) => format!("the heap dumps of the process were not compared: {}", printable(&why.message)),
    };
    Some(format!("\n{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use diagctl_store::ReportName;

    fn shown() -> Shown {
        let meta = Meta {
            id: "20261122T101530123Z-7f3a9c2e".parse().unwrap(),
            created: "2026-11-22T10:15:30.123Z".into(),
            host: "web-1".into(),
            pid: 4711,
            role: "puma".into(),
            worker: "worker-0".into(),
            rule: "heap-on-growth".into(),
            trigger: meta::Trigger {
                name: "memory_usage".into(),
                reason: "rss 1.62 GiB is above 1.50 GiB".into(),
                observed: [("rss".to_owned(), 1_739_461_755.into()), ("puma.backlog".to_owned(), 7.into())].into(),
            },
            cost: [("pause_ms".to_owned(), 12.5.into()), ("raw_bytes".to_owned(), 2048.into())].into(),
            reports: vec![
                meta::Report {
                    content_type: "application/x-ndjson".into(),
                    raw_bytes: 10 << 20,
                    stored_bytes: 1 << 20,
                    ..meta::Report::new(ReportName::from_text("heap_dump"))
                },
                meta::Report::failed(ReportName::from_text("jemalloc_stats"), "no jemalloc\u{1b}[2J here"),
            ],
            ..Meta::default()
        };
        Shown { meta, pinned: true, shipped: true, dir: "/var/lib/diagctl/reports/x".into(), disk_bytes: 2 << 20 }
    }

    #[test]
    fn text_has_units_and_no_terminal_escapes() {
        let text = text(&shown(), None, &Times::new(true), 250_000);
        for expected in [
            "created    2026-11-22 10:15:30 UTC, 4m 10s ago\n",
            "process    puma worker-0 pid 4711 on web-1\n",
            "rule       heap-on-growth (memory_usage)\n",
            "observed   puma.backlog 7, rss 1.62 GiB\n",
            "cost       pause 12.5ms, raw 2.00 KiB\n",
            "size       2.00 MiB on disk; 1.00 MiB stored of 10.0 MiB raw\n",
            "pinned     yes\n",
            "shipped    yes\n",
            "10.0x",
            "no jemalloc\\u{1b}[2J here",
            "fetch one with: diagctl fetch 20261122T101530123Z-7f3a9c2e:heap_dump\n",
        ] {
            assert!(text.contains(expected), "missing {expected:?} in\n{text}");
        }
        assert!(!text.contains("labels"), "{text}");
    }

    #[test]
    fn json_is_the_record_plus_four_keys() {
        let shown = shown();
        let mut expected = serde_json::to_value(&shown.meta).unwrap();
        expected["pinned"] = true.into();
        expected["shipped"] = true.into();
        expected["dir"] = "/var/lib/diagctl/reports/x".into();
        expected["disk_bytes"] = (2 << 20).into();
        assert_eq!(serde_json::to_value(Printed::from(&shown)).unwrap(), expected);
    }
}
