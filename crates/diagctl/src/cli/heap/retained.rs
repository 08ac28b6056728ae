//! `diagctl heap retained`: the objects that hold the most memory.

use std::borrow::Cow;

use diagctl_heapdump::analysis::builder::Wanted;
use diagctl_heapdump::analysis::held::Held;
use diagctl_heapdump::analysis::memory::type_name;
use serde::Serialize;

use super::summary::{Summary, share};
use super::{Context, Done, Failure, input, path, top};
use crate::cli::output;
use crate::units::size;

/// Show the objects that retain the most memory
///
/// An object retains what would be freed with it: itself and all that is reachable only through it. An object that is followed by one
/// with almost the same size is most often its only holder. `diagctl heap path` says what holds an object.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  diagctl heap retained latest
  diagctl heap retained latest --by class
  diagctl heap retained dump.json.gz -n 50 --json")]
pub struct Args {
    /// Capture, file or `-`
    pub(super) dump: String,
    /// Show objects or classes
    #[arg(long, value_enum, default_value_t = By::Object)]
    by: By,
    /// Show at most N of them
    #[arg(short = 'n', long, value_name = "N", default_value_t = 25)]
    limit: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum By {
    Object,
    Class,
}

#[derive(Serialize)]
struct View {
    schema: u32,
    #[serde(flatten)]
    summary: Summary,
    retained: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    address: String,
    #[serde(rename = "type")]
    kind: &'static str,
    class: String,
    /// The name of a class or module.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    objects: u32,
    shallow: u64,
    retained: u64,
    /// The immediate dominator; none if only the roots together hold the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    dominator: Option<String>,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    if args.by == By::Class {
        return top::classes(cx, &args.dump, args.limit, args.json);
    }
    let input = input::load(cx, &args.dump, Wanted::default())?;
    let graph = &input.loaded.graph;
    let held = Held::new(graph);
    let counts = held.counts();
    let rows = held.largest(args.limit).into_iter().filter_map(|object| {
        let number = held.reach.number(object)?;
        let dominator = held.dominators.above(number).next();
        Some(Row {
            address: path::address(graph, object),
            kind: type_name(graph.kind(object)),
            class: graph.class_name(graph.class(object)).into_owned(),
            name: graph.own_name(object).map(Cow::into_owned),
            objects: counts[number as usize],
            shallow: graph.size(object),
            retained: held.retained[number as usize],
            dominator: dominator.map(|number| path::address(graph, held.reach.object(number))),
        })
    });
    let view = View { schema: 1, retained: rows.collect(), summary: Summary::new(&input, &held.reach) };
    input.done(args.json, &view, text)
}

fn text(view: &View) -> String {
    let all = view.summary.reachable_bytes();
    let rows: Vec<Vec<String>> = view
        .retained
        .iter()
        .map(|row| {
            let what = row.name.as_ref().map_or_else(|| row.class.clone(), |name| format!("{name} ({})", row.class));
            vec![
                size(row.retained),
                share(row.retained, all),
                row.objects.to_string(),
                size(row.shallow),
                row.address.clone(),
                what,
            ]
        })
        .collect();
    let header = ["RETAINED", "SHARE", "OBJECTS", "SHALLOW", "ADDRESS", "CLASS"];
    view.summary.text() + &output::table(&header, &rows, &[0, 1, 2, 3], &[4, 2, 1, 3])
}
