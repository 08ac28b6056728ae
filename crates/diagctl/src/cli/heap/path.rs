//! `diagctl heap path`: what keeps an object, or the objects of a class, alive.

use std::borrow::Cow;

use diagctl_heapdump::analysis::address::ObjectIndex;
use diagctl_heapdump::analysis::builder::Wanted;
use diagctl_heapdump::analysis::diff::{self, Sum};
use diagctl_heapdump::analysis::families::Families;
use diagctl_heapdump::analysis::memory::Graph;
use diagctl_heapdump::analysis::paths::{self, Label, Paths};
use diagctl_heapdump::record::{NameKind, Type};
use serde::Serialize;

use super::{Context, Done, Failure, input};
use crate::cli::error::{printable, quoted};
use crate::cli::output;
use crate::exit_code::Exit;
use crate::section::nearest;
use crate::units::size;

/// Show the shortest path from a root to an object, or to the objects of a class
///
/// A step is named as in code: App::CACHE is a constant, Session#@user an instance variable, Hash[user] the value under the key :user,
/// Array[] an element. Objects whose paths read alike are one line. What only values on the machine stack hold is found last, since a
/// value there may hold an object by chance.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "diagctl heap path [OPTIONS] <DUMP> <OBJECT|CLASS>",
    after_help = "Examples:
  diagctl heap path latest Session
  diagctl heap path latest 0x7f71a5726848"
)]
pub struct Args {
    /// Capture, file or `-`
    pub(super) dump: String,
    /// Address of an object, or name of a class
    #[arg(value_name = "OBJECT|CLASS")]
    target: Option<String>,
    /// Show at most N paths
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    limit: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// An address without `0x` has at least so many digits.
const SHORTEST_ADDRESS: usize = 6;
/// Longer names of classes are not compared with a misspelt one.
const LONGEST_NAME: usize = 200;

#[derive(Serialize)]
struct View {
    schema: u32,
    dump: String,
    target: String,
    /// The steps to the object, if an address was given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<Step>,
    paths: Vec<Path>,
    left_out: usize,
    /// Objects of the class that no root holds.
    unreachable: u64,
}

/// One object on a path.
#[derive(Serialize)]
pub struct Step {
    address: String,
    class: String,
    /// The name of a class or module.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The name of the reference to it, or the kind of the root.
    via: String,
}

#[derive(Serialize)]
struct Path {
    path: String,
    objects: u64,
    bytes: u64,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let Some(target) = &args.target else {
        return Err(Failure::new(Exit::Usage, "the object or class to find is missing").hint(format!(
            "name a class (`diagctl heap top {0}` lists them) or an address (`diagctl heap retained {0}`)",
            printable(&args.dump)
        )));
    };
    let input = input::load(cx, &args.dump, Wanted { labels: true, ..Wanted::default() })?;
    let graph = &input.loaded.graph;
    let paths = Paths::new(graph);
    let mut view = View {
        schema: 1,
        dump: args.dump.clone(),
        target: target.clone(),
        steps: Vec::new(),
        paths: Vec::new(),
        left_out: 0,
        unreachable: 0,
    };
    if let Some(object) = find(graph, target)? {
        if !paths.reaches(object) {
            let message = format!("no root holds the object at {}: it is garbage that was not freed yet", target);
            return Err(Failure::new(Exit::NoMatch, message));
        }
        view.steps = steps(graph, &paths, object);
        view.paths.push(Path { path: paths::spell(graph, &paths, object), objects: 1, bytes: graph.size(object) });
    } else {
        class(graph, &paths, target, args.limit, &mut view)?;
    }
    input.done(args.json, &view, text)
}

/// Finds the object at an address, which may lack its `0x`. Returns none for a name.
pub fn find(graph: &Graph, target: &str) -> Result<Option<ObjectIndex>, Failure> {
    let prefixed = target.strip_prefix("0x").or_else(|| target.strip_prefix("0X"));
    let hex = match prefixed {
        Some(hex) => hex,
        None if target.len() >= SHORTEST_ADDRESS && target.bytes().all(|byte| byte.is_ascii_hexdigit()) => target,
        None => return Ok(None),
    };
    // `Facade` may be a class, and no class begins with a digit.
    let may_be_class = prefixed.is_none() && target.starts_with(|first: char| first.is_ascii_uppercase());
    if may_be_class && (0..graph.classes().len() as u32).any(|class| graph.class_name(class) == target) {
        return Ok(None);
    }
    let address = u64::from_str_radix(hex, 16);
    let address = address.map_err(|_| Failure::new(Exit::Usage, format!("{} is not an address", quoted(target))))?;
    match graph.find(address) {
        Some(object) => Ok(Some(object)),
        None if may_be_class => Ok(None),
        None => Err(Failure::new(Exit::NoMatch, format!("the dump has no object at {address:#x}"))
            .hint("addresses are valid for one process; `diagctl heap retained` shows those of large objects")),
    }
}

/// The address of an object.
pub fn address(graph: &Graph, object: ObjectIndex) -> String {
    format!("{:#x}", graph.address(object))
}

/// The objects on the path to an object.
pub fn steps(graph: &Graph, paths: &Paths, object: ObjectIndex) -> Vec<Step> {
    let path = paths.to(object);
    let step = |(at, object): (usize, &ObjectIndex)| Step {
        address: address(graph, *object),
        class: graph.class_name(graph.class(*object)).into_owned(),
        name: graph.own_name(*object).map(Cow::into_owned),
        via: match at.checked_sub(1).and_then(|before| path.get(before)) {
            Some(_) => via(graph, paths, *object),
            None => match paths::root_of(graph, *object) {
                Some(root) => {
                    format!("root {} {}", graph.text(root.category), graph.text(root.label)).trim_end().to_owned()
                }
                None => "root".to_owned(),
            },
        },
    };
    path.iter().enumerate().map(step).collect()
}

fn via(graph: &Graph, paths: &Paths, object: ObjectIndex) -> String {
    match paths.label(graph, object) {
        Label::Named(name) => graph.text(name).into_owned(),
        Label::Unnamed => String::new(),
        Label::Class => "class".to_owned(),
    }
}

fn class(graph: &Graph, paths: &Paths, target: &str, limit: usize, view: &mut View) -> Result<(), Failure> {
    let is_it: Vec<bool> = (0..graph.classes().len() as u32).map(|class| graph.class_name(class) == target).collect();
    let mut objects = Vec::new();
    for object in graph.all().filter(|object| is_it[graph.class(*object) as usize]) {
        match paths.reaches(object) {
            true => objects.push(object),
            false => view.unreachable += 1,
        }
    }
    if objects.is_empty() && view.unreachable == 0 {
        let message = format!("the dump has no object of class {}", quoted(target));
        let all = format!("`diagctl heap top {} -n 1000` lists the classes", printable(&view.dump));
        let is_named =
            |object: &ObjectIndex| is_module(graph, *object) && graph.own_name(*object).as_deref() == Some(target);
        let known = graph.all().find(is_named).map(|class| (class, "a class or module", "it"));
        let known = known.or_else(|| constant(graph, target).map(|object| (object, "a constant", "its object")));
        let known = known.or_else(|| variable(graph, target).map(|object| (object, "a variable", "its object")));
        let hint = match (known, similar(graph, target)) {
            (Some((object, kind, shown)), _) => format!(
                "{} is {kind}: `diagctl heap object {} {}` shows {shown}",
                printable(target),
                printable(&view.dump),
                address(graph, object)
            ),
            (None, Some(class)) => format!("did you mean {}? {all}", printable(&class)),
            (None, None) => all,
        };
        return Err(Failure::new(Exit::NoMatch, message).hint(hint));
    }
    let families = Families::new(graph, paths);
    let of = |object| families.of(object);
    let spell = |family| families.spell(graph, family);
    let sums = diff::sums(graph, objects.into_iter(), families.count(), of, spell);
    view.left_out = sums.len().saturating_sub(limit);
    let size = |sum: &Sum| (sum.amount.objects, sum.amount.bytes);
    let largest = diff::largest(sums.into_values(), limit, size, |sum| spell(sum.group));
    let path = |(path, Sum { amount, .. })| Path { path, objects: amount.objects, bytes: amount.bytes };
    view.paths = largest.into_iter().map(path).collect();
    Ok(())
}

// Returns the object that a constant holds, unless it is a class. The name may lack the module.
fn constant(graph: &Graph, target: &str) -> Option<ObjectIndex> {
    let (module, last) = target.rsplit_once("::").map_or((None, target), |(module, last)| (Some(module), last));
    let edges = graph.edges();
    let modules = graph.all().filter(|object| is_module(graph, *object));
    let of_module = modules.filter(|object| module.is_none_or(|name| graph.own_name(*object).as_deref() == Some(name)));
    let place = of_module.flat_map(|object| edges.range(object)).find(|place| {
        let label = graph.label(*place);
        let is_it = graph.name_kind(label) == NameKind::Constant && graph.text(label) == last;
        is_it && !is_module(graph, edges.target(*place))
    });
    place.map(|place| edges.target(place))
}

// Returns the object that a variable of a class or module holds, written as paths are: `Session.@@all`, `Session.@cache`.
fn variable(graph: &Graph, target: &str) -> Option<ObjectIndex> {
    let (module, name) = target.split_once(".@").map(|(module, _)| (module, &target[module.len() + 1..]))?;
    let edges = graph.edges();
    let of_module = graph.all().filter(|object| graph.own_name(*object).as_deref() == Some(module));
    let place = of_module.flat_map(|object| edges.range(object)).find(|place| graph.text(graph.label(*place)) == name);
    place.map(|place| edges.target(place))
}

fn is_module(graph: &Graph, object: ObjectIndex) -> bool {
    matches!(graph.kind(object), Type::CLASS | Type::MODULE)
}

// Returns a class in a module that was left out, or with a similar name.
fn similar(graph: &Graph, target: &str) -> Option<String> {
    // A comparison takes the product of the lengths.
    let names: Vec<Cow<'_, str>> = graph.short_class_names(LONGEST_NAME).collect();
    let last = |name: &str| name.rsplit("::").next().is_some_and(|last| last.eq_ignore_ascii_case(target));
    let names = || names.iter().map(|name| &**name);
    names().find(|name| last(name)).or_else(|| nearest(target, names())).map(str::to_owned)
}

fn text(view: &View) -> String {
    if let Some(path) = view.paths.first().filter(|_| !view.steps.is_empty()) {
        let rows: Vec<Vec<String>> = view
            .steps
            .iter()
            .map(|step| {
                vec![step.address.clone(), step.via.clone(), step.name.clone().unwrap_or_else(|| step.class.clone())]
            })
            .collect();
        return format!(
            "{}\n\n{}",
            printable(&path.path),
            output::table_with_cuts(&["ADDRESS", "VIA", "OBJECT"], &rows, &[1], &[1])
        );
    }
    let rows: Vec<Vec<String>> =
        view.paths.iter().map(|path| vec![path.objects.to_string(), size(path.bytes), path.path.clone()]).collect();
    let mut text = output::table(&["OBJECTS", "BYTES", "PATH"], &rows, &[0, 1], &[]) + &super::left_out(view.left_out);
    if view.unreachable > 0 {
        text.push_str(&format!("\n{} more are garbage that was not freed yet", view.unreachable));
    }
    text
}
