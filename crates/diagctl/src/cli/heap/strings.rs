//! `diagctl heap strings`: strings of equal content.

use diagctl_heapdump::analysis::builder::Wanted;
use diagctl_heapdump::analysis::families::Families;
use diagctl_heapdump::analysis::paths::Paths;
use diagctl_heapdump::analysis::strings::Strings;
use serde::Serialize;

use super::summary::Summary;
use super::{Context, Done, Failure, input, path};
use crate::cli::error::printable;
use crate::cli::output;
use crate::units::size;

/// Show which strings occur many times
///
/// Strings are compared by a hash and their length, since a heap graph has no content. The path is that of the first of them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  diagctl heap strings latest
  diagctl heap strings latest -n 1 --members 1000 --json")]
pub struct Args {
    /// Capture, file or `-`
    pub(super) dump: String,
    /// Show at most N groups of equal strings
    #[arg(short = 'n', long, value_name = "N", default_value_t = 25)]
    limit: usize,
    /// Name the addresses of at most N strings of each group, in JSON
    #[arg(long, value_name = "N", default_value_t = 10)]
    members: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct View {
    schema: u32,
    #[serde(flatten)]
    summary: Summary,
    strings: u64,
    bytes_of_strings: u64,
    /// Strings whose content has no hash.
    unknown: u64,
    wasted: u64,
    equal: Vec<Equal>,
    left_out: usize,
}

#[derive(Serialize)]
struct Equal {
    hash: String,
    length: u64,
    count: u64,
    bytes: u64,
    wasted: u64,
    example: String,
    examples: Vec<String>,
    path: String,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let input = input::load(cx, &args.dump, Wanted { labels: true, strings: true, ..Wanted::default() })?;
    let graph = &input.loaded.graph;
    let reach = graph.reach();
    let strings = Strings::new(graph, &reach);
    let families = Families::new(graph, &Paths::new(graph));
    let shown = strings.equal.get(..args.limit).unwrap_or(&strings.equal);
    let members = strings.members(graph, &reach, shown, args.members);
    let equal = shown.iter().zip(members).map(|(group, members)| Equal {
        hash: hash(group.hash),
        length: group.length,
        count: group.amount.objects,
        bytes: group.amount.bytes,
        wasted: group.wasted(),
        example: path::address(graph, group.example),
        examples: members.into_iter().map(|member| path::address(graph, member)).collect(),
        path: families.of(group.example).map(|family| families.spell(graph, family)).unwrap_or_default(),
    });
    let view = View {
        schema: 1,
        strings: strings.hashed.objects + strings.unknown.objects,
        bytes_of_strings: strings.hashed.bytes.saturating_add(strings.unknown.bytes),
        unknown: strings.unknown.objects,
        wasted: strings.wasted(),
        equal: equal.collect(),
        left_out: strings.equal.len().saturating_sub(args.limit),
        summary: Summary::new(&input, &reach),
    };
    input.done(args.json, &view, text)
}

/// A hash in JSON.
pub fn hash(hash: u64) -> String {
    format!("{hash:016x}")
}

fn text(view: &View) -> String {
    let mut text = view.summary.text();
    text.push_str(&format!(
        "{} {}, {}; equal ones waste {}\n",
        view.strings,
        if view.strings == 1 { "string" } else { "strings" },
        size(view.bytes_of_strings),
        size(view.wasted)
    ));
    match view.unknown {
        0 => {}
        1 => text.push_str("1 of them cannot be compared: it has no hash in this dump\n"),
        many => text.push_str(&format!("{many} of them cannot be compared: they have no hash in this dump\n")),
    }
    let row = |group: &Equal| {
        let cells = [
            group.count.to_string(),
            size(group.wasted),
            size(group.length),
            group.example.clone(),
            group.path.clone(),
        ];
        cells.iter().map(|cell| printable(cell)).collect::<Vec<_>>()
    };
    let rows: Vec<Vec<String>> = view.equal.iter().map(row).collect();
    let header = ["COUNT", "WASTED", "LENGTH", "FIRST", "PATH"];
    text + "\n" + &output::table(&header, &rows, &[0, 1, 2], &[0, 1, 2, 3]) + &super::left_out(view.left_out)
}
