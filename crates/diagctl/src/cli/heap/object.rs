//! `diagctl heap object`: everything that a dump says about one object.

use std::borrow::Cow;

use diagctl_heapdump::analysis::address::ObjectIndex;
use diagctl_heapdump::analysis::builder::Wanted;
use diagctl_heapdump::analysis::held::Held;
use diagctl_heapdump::analysis::memory::{Graph, type_name};
use diagctl_heapdump::analysis::paths::{self, Paths};
use diagctl_heapdump::analysis::strings;
use diagctl_heapdump::record::{Flags, NameId, SiteId};
use serde::Serialize;

use super::{Context, Done, Failure, input, path};
use crate::cli::error::{printable, quoted};
use crate::cli::output;
use crate::exit_code::Exit;
use crate::units::size;

/// Show one object: what it is, what it refers to, and what refers to it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  diagctl heap object latest 0x7f71a5726848")]
pub struct Args {
    /// Capture, file or `-`
    pub(super) dump: String,
    /// Address of the object
    address: String,
    /// Show at most N references in each direction
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    limit: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct View {
    schema: u32,
    dump: String,
    address: String,
    #[serde(rename = "type")]
    kind: &'static str,
    class: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot_size: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
    /// The hash of a string, as in `heap strings`.
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    /// None if the object is garbage.
    #[serde(skip_serializing_if = "Option::is_none")]
    retained: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u32>,
    flags: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dominator: Option<Reference>,
    #[serde(skip_serializing_if = "String::is_empty")]
    path: String,
    references: References,
    referrers: References,
}

#[derive(Default, Serialize)]
struct References {
    count: usize,
    first: Vec<Reference>,
}

#[derive(Serialize)]
struct Reference {
    address: String,
    class: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let wanted = Wanted { labels: true, sites: true, strings: true, slots: true, flags: true, ..Wanted::default() };
    let input = input::load(cx, &args.dump, wanted)?;
    let graph = &input.loaded.graph;
    let object = path::find(graph, &args.address)?.ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{} is not an address", quoted(&args.address)))
            .hint("`diagctl heap path` takes the name of a class, too")
    })?;
    input.done(args.json, &view(graph, object, args), text)
}

fn view(graph: &Graph, object: ObjectIndex, args: &Args) -> View {
    let (held, columns, at) = (Held::new(graph), graph.columns(), object as usize);
    let edges = graph.edges();
    let mut references = References { count: edges.range(object).len(), ..References::default() };
    let places = edges.range(object).take(args.limit);
    references.first.extend(places.map(|place| reference(graph, edges.target(place), graph.label(place))));
    let mut referrers = References::default();
    for from in graph.all() {
        for place in edges.range(from).filter(|place| edges.target(*place) == object) {
            referrers.count += 1;
            if referrers.first.len() < args.limit {
                referrers.first.push(reference(graph, from, graph.label(place)));
            }
        }
    }
    let paths = Paths::new(graph);
    let site = columns.sites.get(at).filter(|site| **site != SiteId::NONE).map(|site| graph.site(*site));
    let above = held.reach.number(object).and_then(|number| held.dominators.above(number).next());
    View {
        schema: 1,
        dump: args.dump.clone(),
        address: path::address(graph, object),
        kind: type_name(graph.kind(object)),
        class: graph.class_name(graph.class(object)).into_owned(),
        name: graph.own_name(object).map(Cow::into_owned),
        size: graph.size(object),
        slot_size: columns.slots.get(at).copied().filter(|size| *size > 0),
        length: columns.lengths.binary_search_by_key(&object, |(at, _)| *at).ok().map(|at| columns.lengths[at].1),
        hash: strings::hash(graph, object).map(super::strings::hash),
        retained: held.retained(object),
        site: site.map(|site| format!("{}:{}", graph.text(site.file), site.line)),
        generation: columns.generations.get(at).copied().filter(|generation| *generation > 0),
        flags: columns.flags.get(at).map(|flags| names(*flags)).unwrap_or_default(),
        dominator: above.map(|number| reference(graph, held.reach.object(number), NameId::NONE)),
        path: paths::spell(graph, &paths, object),
        references,
        referrers,
    }
}

fn names(flags: Flags) -> Vec<&'static str> {
    Flags::GC.iter().filter(|(flag, _)| flags.has(*flag)).map(|(_, name)| *name).collect()
}

fn reference(graph: &Graph, object: ObjectIndex, label: NameId) -> Reference {
    let class = graph.class_name(graph.class(object));
    Reference {
        address: path::address(graph, object),
        class: graph.own_name(object).map_or_else(|| class.into_owned(), |name| name.to_string()),
        name: graph.text(label).into_owned(),
    }
}

fn text(view: &View) -> String {
    let retained = view.retained.map_or_else(|| "nothing: no root holds it".to_owned(), size);
    let optional = |value: &Option<String>| value.clone().unwrap_or_default();
    let dominator = view.dominator.as_ref().map(|by| format!("{} {}", by.address, by.class)).unwrap_or_default();
    let lines = [
        ("object", view.address.clone()),
        ("class", format!("{} ({})", view.class, view.kind)),
        ("name", optional(&view.name)),
        ("size", size(view.size)),
        ("length", view.length.map(|length| length.to_string()).unwrap_or_default()),
        ("slot", view.slot_size.map(|slot| size(slot.into())).unwrap_or_default()),
        ("retains", retained),
        ("allocated", optional(&view.site)),
        ("generation", view.generation.map(|generation| generation.to_string()).unwrap_or_default()),
        ("flags", view.flags.join(" ")),
        ("dominator", dominator),
        ("path", view.path.clone()),
    ];
    let mut text: String = lines
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| format!("{key:<11}{}\n", printable(value)))
        .collect();
    for (heading, list) in [("refers to", &view.references), ("held by", &view.referrers)] {
        let rows: Vec<Vec<String>> =
            list.first.iter().map(|to| vec![to.address.clone(), to.name.clone(), to.class.clone()]).collect();
        text.push_str(&format!("\n{heading} {}\n", super::objects(list.count as u64)));
        if !rows.is_empty() {
            text.push_str(&output::table_with_cuts(&["ADDRESS", "NAME", "CLASS"], &rows, &[1], &[1]));
            text.push_str(&super::left_out(list.count - rows.len()));
            text.push('\n');
        }
    }
    text
}
