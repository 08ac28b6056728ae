//! `diagctl heap waste`: pages, free slots and slot sizes.

use diagctl_heapdump::analysis::builder::Wanted;
use diagctl_heapdump::analysis::waste::{self, SlotSize};
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
    free: u64,
    free_bytes: u64,
    sparse_pages: u64,
    sparse_bytes: u64,
}

impl From<SlotSize> for Row {
    fn from(size: SlotSize) -> Self {
        Self {
            slot_size: size.slot,
            pages: size.pages,
            live: size.live,
            garbage: size.garbage,
            free: size.free,
            free_bytes: size.free_bytes(),
            sparse_pages: size.sparse_pages,
            sparse_bytes: size.sparse_bytes(),
        }
    }
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let input = input::load(cx, &args.dump, Wanted { slots: true, ..Wanted::default() })?;
    let graph = &input.loaded.graph;
    let reach = graph.reach();
    let slot_sizes = waste::slot_sizes(graph, &reach, &input.loaded.about.ruby).into_iter().map(Row::from).collect();
    input.done(args.json, &View { schema: 1, summary: Summary::new(&input, &reach), slot_sizes }, text)
}

fn text(view: &View) -> String {
    let rows: Vec<Vec<String>> = view
        .slot_sizes
        .iter()
        .map(|row| {
            vec![
                row.slot_size.to_string(),
                row.pages.to_string(),
                row.live.to_string(),
                row.garbage.to_string(),
                row.free.to_string(),
                share(row.free, row.live + row.garbage + row.free),
                size(row.free_bytes),
                row.sparse_pages.to_string(),
                size(row.sparse_bytes),
            ]
        })
        .collect();
    let header = ["SLOT", "PAGES", "LIVE", "GARBAGE", "FREE", "FREE %", "FREE BYTES", "SPARSE", "IN SPARSE"];
    view.summary.text() + &output::table(&header, &rows, &[0, 1, 2, 3, 4, 5, 6, 7, 8], &[0, 1, 2, 4, 6, 7, 8, 3, 5])
}
