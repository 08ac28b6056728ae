//! `diagctl heap top`: the objects in groups.

use diagctl_heapdump::analysis::builder::Wanted;
use diagctl_heapdump::analysis::held::Held;
use diagctl_heapdump::analysis::retained::Sums;
use diagctl_heapdump::analysis::top::{self, Groups};
use serde::Serialize;

use super::grouping::{By, Sort};
use super::input::Given;
use super::summary::Summary;
use super::{Context, Done, Failure, input, summarized};
use crate::cli::output;
use crate::units::size;

/// Show which classes, types, allocation sites or generations take the memory
///
/// RETAINED is what would be freed with one or another object of the group: its own bytes and those of all that only it holds.
/// A capture without a dump but with a heap_summary is answered from that, without RETAINED.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  diagctl heap top latest
  diagctl heap top latest --by site
  ruby -robjspace -e 'ObjectSpace.dump_all(output: $stdout)' | diagctl heap top -")]
pub struct Args {
    /// Capture, file or `-`
    pub(super) dump: String,
    /// Group the objects by this
    #[arg(long, value_enum, default_value_t = By::Class)]
    by: By,
    /// Sort by this, the largest first [default: retained; shallow in a summary]
    #[arg(long, value_enum)]
    sort: Option<Sort>,
    /// Show at most N groups
    #[arg(short = 'n', long, value_name = "N", default_value_t = 25)]
    limit: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct View {
    schema: u32,
    #[serde(flatten)]
    summary: Summary,
    groups: Vec<Group>,
    /// Groups that the limit left out.
    left_out: usize,
}

#[derive(Serialize)]
struct Group {
    name: String,
    count: u64,
    shallow: u64,
    retained: u64,
}

/// The classes that retain most.
pub fn classes(cx: &Context, dump: &str, limit: usize, json: bool) -> Result<Done, Failure> {
    run(cx, &Args { dump: dump.to_owned(), by: By::Class, sort: None, limit, json })
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let (by, heading) = match args.by {
        By::Class => (top::By::Class, "CLASS"),
        By::Type => (top::By::Type, "TYPE"),
        By::Site => (top::By::Site, "SITE"),
        By::Generation => (top::By::Generation, "GENERATION"),
    };
    let wanted = Wanted { sites: matches!(args.by, By::Site | By::Generation), ..Wanted::default() };
    let input = match input::load_any(cx, &args.dump, wanted)? {
        Given::Dump(input) => *input,
        Given::Summary(summary) => {
            let show = summarized::Show { by: args.by, sort: args.sort, limit: args.limit, json: args.json, heading };
            return summarized::top(&args.dump, &summary, &show);
        }
    };
    let graph = &input.loaded.graph;
    let held = Held::new(graph);
    let groups = Groups::new(graph, by);
    let mut sums: Vec<(u32, Sums)> = (0..).zip(groups.sums(&held)).filter(|(_, sums)| sums.count > 0).collect();
    sums.sort_unstable_by_key(|(group, sums)| {
        let first = match args.sort {
            Some(Sort::Count) => sums.count,
            Some(Sort::Shallow) => sums.shallow,
            Some(Sort::Retained) | None => sums.retained,
        };
        (std::cmp::Reverse((first, sums.shallow)), *group)
    });
    let left_out = sums.len().saturating_sub(args.limit);
    sums.truncate(args.limit);
    let groups = sums
        .into_iter()
        .map(|(group, sums)| Group {
            name: groups.name(group),
            count: sums.count,
            shallow: sums.shallow,
            retained: sums.retained,
        })
        .collect();
    let view = View { schema: 1, summary: Summary::new(&input, &held.reach), groups, left_out };
    input.done(args.json, &view, |view| text(view, heading))
}

fn text(view: &View, heading: &str) -> String {
    let rows: Vec<Vec<String>> = view
        .groups
        .iter()
        .map(|group| vec![group.count.to_string(), size(group.shallow), size(group.retained), group.name.clone()])
        .collect();
    let table = output::table(&["COUNT", "SHALLOW", "RETAINED", heading], &rows, &[0, 1, 2], &[]);
    view.summary.text() + &table + &super::left_out(view.left_out)
}
