//! `diagctl heap diff`: what has grown between two dumps, and what came and stayed among three.

use std::cmp::Ordering;

use diagctl_heapdump::analysis::builder::Wanted;
use diagctl_heapdump::analysis::diff::{self, Change, Inhabitants, Landmarks, Sums};
use diagctl_heapdump::analysis::families::Families;
use diagctl_heapdump::analysis::held::Amount;
use diagctl_heapdump::analysis::memory::Graph;
use diagctl_heapdump::analysis::paths::Paths;
use diagctl_store::{Id, ProcessId};
use serde::Serialize;

use super::input::Input;
use super::{Context, Done, Failure, input};
use crate::cli::error::printable;
use crate::cli::output;
use crate::exit_code::Exit;
use crate::units::size;

/// Compare dumps of one process
///
/// With two dumps, shows which classes and which paths have grown. With three, shows what is new in the second and still there in
/// the third, which garbage and caches that are being filled are not: those objects by class, and by the path that keeps them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  diagctl heap diff 20261128T0200 20261128T0300
  diagctl heap diff before.heap after.heap later.heap -n 5")]
pub struct Args {
    /// First dump: capture, file or `-`
    pub(super) a: String,
    /// Second dump, later
    pub(super) b: String,
    /// Third dump, later still
    pub(super) c: Option<String>,
    /// Show at most N classes and N paths
    #[arg(short = 'n', long, value_name = "N", default_value_t = 15)]
    limit: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct View {
    schema: u32,
    dumps: Vec<String>,
    /// The reachable objects of each dump.
    objects: Vec<u64>,
    bytes: Vec<u64>,
    /// False if the dumps are of different processes, or one was compacted between them.
    one_process: bool,
    #[serde(skip)]
    captures: Vec<Option<Id>>,
    #[serde(skip)]
    processes: Vec<(Option<ProcessId>, Landmarks)>,
    /// The number of collections before each dump.
    #[serde(skip)]
    collections: Vec<Option<u64>>,
    classes: Vec<Row>,
    paths: Vec<Row>,
    classes_left_out: usize,
    paths_left_out: usize,
    #[serde(skip)]
    exit: Exit,
}

/// For two dumps, objects and bytes more than before; for three, those that came and stayed.
#[derive(Serialize)]
struct Row {
    name: String,
    objects: i64,
    bytes: i64,
}

/// One dump, of which only the sums remain.
#[derive(Default)]
struct Dump {
    classes: Sums,
    paths: Sums,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let names = [Some(&args.a), Some(&args.b), args.c.as_ref()];
    if names.into_iter().flatten().filter(|name| *name == "-").count() > 1 {
        let message = "stdin can be read only once, and `-` is named more than once";
        return Err(Failure::new(Exit::Usage, message).hint("write the other dumps into files"));
    }
    let mut view = View {
        schema: 1,
        dumps: names.into_iter().flatten().cloned().collect(),
        objects: Vec::new(),
        bytes: Vec::new(),
        one_process: true,
        captures: Vec::new(),
        processes: Vec::new(),
        collections: Vec::new(),
        classes: Vec::new(),
        paths: Vec::new(),
        classes_left_out: 0,
        paths_left_out: 0,
        exit: Exit::Ok,
    };
    match &args.c {
        None => {
            let before = dump(cx, &args.a, None, None, &mut view)?;
            dump(cx, &args.b, None, Some((&before, args.limit)), &mut view)?;
        }
        Some(c) => {
            let (a, b) = (inhabitants(cx, &args.a, &mut view)?, inhabitants(cx, &args.b, &mut view)?);
            let new = b.without(&a);
            drop((a, b));
            dump(cx, c, Some(&new), Some((&Dump::default(), args.limit)), &mut view)?;
        }
    }
    view.compare_processes();
    view.tell_same();
    view.tell_reversed();
    Ok(Done::either(args.json, &view, text)?.with_exit(view.exit))
}

impl View {
    // Notes the process of a dump that was read.
    fn process(&mut self, input: &Input) {
        if !input.loaded.complete {
            self.exit = Exit::Partial;
        }
        self.captures.push(input.process.capture);
        let of_dump = || input.loaded.stats.iter().find(|(name, _)| name == "count").map(|(_, count)| *count);
        self.collections.push(input.process.gc.get("count").copied().or_else(of_dump));
        self.processes.push((input.process.id.clone(), Landmarks::new(&input.loaded.graph)));
    }

    // Nothing grows from a dump to itself.
    fn tell_same(&self) {
        let is_same = |a: usize, b: usize| match (self.captures[a], self.captures[b]) {
            (Some(one), Some(other)) => one == other,
            (None, None) => same_file(&self.dumps[a], &self.dumps[b]),
            _ => false,
        };
        let pairs = (0..self.dumps.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
        for (a, b) in pairs.filter(|(a, b)| is_same(*a, *b)) {
            let name = |at: usize| printable(&self.dumps[at]);
            output::note(&match self.captures[a] {
                Some(id) => format!(
                    "{} and {} are the same capture, {id}; `diagctl list --report heap_dump` shows others",
                    name(a),
                    name(b)
                ),
                None => format!("{} and {} are the same file", name(a), name(b)),
            });
        }
    }

    // What grew seems to shrink if the later dump is named first.
    fn tell_reversed(&self) {
        for later in 1..self.dumps.len() {
            let earlier = later - 1;
            if self.order(earlier, later) != Some(Ordering::Greater) {
                continue;
            }
            let name = |at: usize| printable(&self.dumps[at]);
            output::note(&format!(
                "{} was taken after {}: name the dumps in the order of time, the oldest first",
                name(earlier),
                name(later)
            ));
        }
    }

    // The order in time of two dumps, if it is known. A clock can be set, and collections are counted only up.
    fn order(&self, one: usize, other: usize) -> Option<Ordering> {
        let by_collections = match (self.collections[one], self.collections[other]) {
            (Some(a), Some(b)) if self.one_process && a != b => Some(a.cmp(&b)),
            _ => None,
        };
        by_collections.or_else(|| Some(self.captures[one]?.cmp(&self.captures[other]?)))
    }

    fn compare_processes(&mut self) {
        let of = self.processes.first();
        let other = self.processes.iter().position(|(id, classes)| match of {
            // Workers that were forked from one process have their classes at the same addresses.
            Some((Some(first), _)) if id.is_some() => id.as_ref() != Some(first),
            Some((_, first)) => first.differ(classes),
            None => false,
        });
        let Some(other) = other else { return };
        self.one_process = false;
        let name = |at: usize| printable(self.dumps.get(at).map_or("", String::as_str)).to_string();
        output::note(&format!(
            "{} and {} are not of one process, or its heap was compacted between them: classes and paths can be compared, objects \
             cannot",
            name(0),
            name(other)
        ));
    }
}

fn same_file(one: &str, other: &str) -> bool {
    let canonical = |name: &str| std::fs::canonicalize(name).ok();
    canonical(one).is_some_and(|path| Some(path) == canonical(other))
}

fn inhabitants(cx: &Context, name: &str, view: &mut View) -> Result<Inhabitants, Failure> {
    let input = input::load(cx, name, Wanted { sites: true, ..Wanted::default() })?;
    view.process(&input);
    let graph = &input.loaded.graph;
    let reach = graph.reach();
    let mut all = Amount::default();
    reach.numbers().for_each(|number| all.add(graph.size(reach.object(number))));
    view.objects.push(all.objects);
    view.bytes.push(all.bytes);
    Ok(Inhabitants::new(graph, &reach))
}

// Sums the reachable objects, or those of them that were there before. Of the last dump, shows what has grown since another: the names
// are only in the graph.
fn dump(
    cx: &Context,
    name: &str,
    only: Option<&Inhabitants>,
    since: Option<(&Dump, usize)>,
    view: &mut View,
) -> Result<Dump, Failure> {
    let input = input::load(cx, name, Wanted { labels: true, sites: only.is_some(), ..Wanted::default() })?;
    view.process(&input);
    let graph: &Graph = &input.loaded.graph;
    let paths = Paths::new(graph);
    let mut all = Amount::default();
    paths.order().iter().for_each(|object| all.add(graph.size(*object)));
    view.objects.push(all.objects);
    view.bytes.push(all.bytes);
    let families = Families::new(graph, &paths);
    let those = || paths.order().iter().copied().filter(|object| only.is_none_or(|only| only.has(graph, *object)));
    let class = |object| Some(graph.class(object));
    let class_name = |class| graph.class_name(class).into_owned();
    let family = |object| families.of(object);
    let spell = |family| families.spell(graph, family);
    let dump = Dump {
        classes: diff::sums(graph, those(), graph.classes().len(), class, class_name),
        paths: diff::sums(graph, those(), families.count(), family, spell),
    };
    if let Some((before, limit)) = since {
        (view.classes, view.classes_left_out) = rows(diff::changes(&before.classes, &dump.classes), limit, class_name);
        (view.paths, view.paths_left_out) = rows(diff::changes(&before.paths, &dump.paths), limit, spell);
    }
    Ok(dump)
}

fn rows(mut changes: Vec<Change>, limit: usize, name: impl Fn(u32) -> String) -> (Vec<Row>, usize) {
    // Leaves out everything that shrank.
    changes.retain(|change| change.bytes() > 0 || change.objects() > 0);
    let left_out = changes.len().saturating_sub(limit);
    let growth = |change: &Change| (change.bytes(), change.objects());
    let largest = diff::largest(changes, limit, growth, |change| name(change.group));
    let row = |(name, change): (String, Change)| Row { objects: change.objects(), bytes: change.bytes(), name };
    (largest.into_iter().map(row).collect(), left_out)
}

fn text(view: &View) -> String {
    let dumps = view
        .dumps
        .iter()
        .zip(view.objects.iter().zip(&view.bytes))
        .map(|(name, (objects, bytes))| vec![objects.to_string(), size(*bytes), name.clone()]);
    let dumps: Vec<Vec<String>> = dumps.collect();
    let mut text = output::table(&["REACHABLE", "BYTES", "DUMP"], &dumps, &[0, 1], &[]) + "\n\n";
    if view.classes.is_empty() && view.paths.is_empty() && view.classes_left_out + view.paths_left_out == 0 {
        text.push_str(match view.dumps.len() {
            2 => "Nothing has grown from the first dump to the second.",
            _ => "Nothing that is new in the second dump is still there in the third.",
        });
        return text;
    }
    text.push_str(match view.dumps.len() {
        2 => "Grown from the first dump to the second:\n\n",
        _ => "New in the second dump and still there in the third:\n\n",
    });
    for (heading, rows, left_out) in
        [("CLASS", &view.classes, view.classes_left_out), ("PATH", &view.paths, view.paths_left_out)]
    {
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| vec![format!("{:+}", row.objects), signed(row.bytes), row.name.clone()]).collect();
        text.push_str(&output::table(&["OBJECTS", "BYTES", heading], &rows, &[0, 1], &[]));
        text.push_str(&super::left_out(left_out));
        text.push_str("\n\n");
    }
    text.truncate(text.trim_end().len());
    text
}

fn signed(bytes: i64) -> String {
    format!("{}{}", if bytes < 0 { "-" } else { "+" }, size(bytes.unsigned_abs()))
}
