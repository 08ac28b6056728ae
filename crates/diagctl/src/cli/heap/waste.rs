//! `diagctl heap waste`: pages, free slots and slot sizes.

use diagctl_heapdump::analysis::builder::Wanted;
use diagctl_heapdump::analysis::waste::{self, SlotSize};
use diagctl_heapdump::record::Producer;
use serde::Serialize;

use super::summary::{Summary, share};
use super::{Context, Done, Failure, input};
use crate::cli::output;
use crate::units::size;

/// Show what the pages of the heap hold: live objects, garbage and free slots
///
/// A sparse page has at most a tenth of its slots live. Ruby cannot give it back to the system while one slot of it is taken;
/// GC.compact, or a restart, frees such pages.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  diagctl heap waste latest")]
pub struct Args {
    /// Capture, file or `-`
    pub(super) dump: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct View {
    schema: u32,
    #[serde(flatten)]
    summary: Summary,
    slot_sizes: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    slot_size: u32,
    pages: u64,
    live: u64,
    garbage: u64,
    #[serde(flatten)]
    free: Free,
}

/// The part that is unknown where a dump does not have the free slots.
#[derive(Default, Serialize)]
struct Free {
    free: Option<u64>,
    free_bytes: Option<u64>,
    sparse_pages: Option<u64>,
    sparse_bytes: Option<u64>,
}

impl Row {
    fn new(size: &SlotSize, has_free: bool) -> Self {
        let known = || Free {
            free: Some(size.free),
            free_bytes: Some(size.free_bytes()),
            sparse_pages: Some(size.sparse_pages),
            sparse_bytes: Some(size.sparse_bytes()),
        };
        let free = if has_free { known() } else { Free::default() };
        Self { slot_size: size.slot, pages: size.pages, live: size.live, garbage: size.garbage, free }
    }
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let input = input::load(cx, &args.dump, Wanted { slots: true, ..Wanted::default() })?;
    let graph = &input.loaded.graph;
    let reach = graph.reach();
    // `dump_all` lists free slots with `full: true` only, and no heap is without them.
    let has_free = input.loaded.about.producer == Producer::Walker || graph.facts().free_slots > 0;
    if !has_free {
        output::note(
            "the dump has no free slots, so neither they nor sparse pages are known; `ObjectSpace.dump_all(full: true)` lists them, and \
             so does a heap dump of diagctl",
        );
    }
    let sizes = waste::slot_sizes(graph, &reach, &input.loaded.about.ruby);
    let slot_sizes = sizes.iter().map(|size| Row::new(size, has_free)).collect();
    input.done(args.json, &View { schema: 1, summary: Summary::new(&input, &reach), slot_sizes }, text)
}

fn text(view: &View) -> String {
    let known = |value: Option<String>| value.unwrap_or_else(|| "?".to_owned());
    let rows: Vec<Vec<String>> = view
        .slot_sizes
        .iter()
        .map(|Row { slot_size, pages, live, garbage, free }| {
            vec![
                slot_size.to_string(),
                pages.to_string(),
                live.to_string(),
                garbage.to_string(),
                known(free.free.map(|free| free.to_string())),
                known(free.free.map(|free| share(free, live + garbage + free))),
                known(free.free_bytes.map(size)),
                known(free.sparse_pages.map(|pages| pages.to_string())),
                known(free.sparse_bytes.map(size)),
            ]
        })
        .collect();
    let header = ["SLOT", "PAGES", "LIVE", "GARBAGE", "FREE", "FREE %", "FREE BYTES", "SPARSE", "IN SPARSE"];
    view.summary.text() + &output::table(&header, &rows, &[0, 1, 2, 3, 4, 5, 6, 7, 8], &[0, 1, 2, 4, 6, 7, 8, 3, 5])
}
