//! What `ObjectSpace.dump_all` writes, without values: for heapy, sheap, harb and reap.

use std::io::{self, Write};

use crate::analysis::address::ObjectIndex;
use crate::analysis::classes::Class;
use crate::analysis::memory::{Graph, type_name};
use crate::record::{Flags, NameId, SiteId, Type};

/// Writes a line for each root category, object and run of free slots.
pub fn write(graph: &Graph, out: &mut dyn Write) -> io::Result<()> {
    let roots = graph.roots();
    let mut at = 0;
    while let Some(first) = roots.get(at) {
        let same = roots[at..].iter().take_while(|root| root.category == first.category).count();
        out.write_all(b"{\"type\":\"ROOT\", \"root\":")?;
        quoted(&graph.text(first.category), out)?;
        references(graph, roots[at..at + same].iter().map(|root| root.object), out)?;
        out.write_all(b"}\n")?;
        at += same;
    }
    graph.all().try_for_each(|object| line(graph, object, out))
}

fn line(graph: &Graph, object: ObjectIndex, out: &mut dyn Write) -> io::Result<()> {
    let (columns, at, kind) = (graph.columns(), object as usize, graph.kind(object));
    write!(out, "{{\"address\":\"{:#x}\", \"type\":\"{}\"", graph.address(object), type_name(kind))?;
    if let Some(slot) = columns.slots.get(at).filter(|slot| **slot > 0) {
        write!(out, ", \"slot_size\":{slot}")?;
    }
    match graph.classes()[graph.class(object) as usize] {
        Class::Real(address) => write!(out, ", \"class\":\"{address:#x}\"")?,
        Class::Internal(Type::IMEMO, name) if name != NameId::NONE => {
            out.write_all(b", \"imemo_type\":")?;
            quoted(&graph.text(name), out)?;
        }
        Class::Internal(..) => {}
    }
    if let Some(name) = graph.own_name(object) {
        out.write_all(b", \"name\":")?;
        quoted(&name, out)?;
    }
    // reap refuses arrays without a length and hashes without a size.
    let length = columns.lengths.binary_search_by_key(&object, |(at, _)| *at).ok().map(|at| columns.lengths[at].1);
    match kind {
        Type::ARRAY => write!(out, ", \"length\":{}", length.unwrap_or_default())?,
        Type::HASH => write!(out, ", \"size\":{}", length.unwrap_or_default())?,
        Type::STRING if length.is_some() => write!(out, ", \"bytesize\":{}", length.unwrap_or_default())?,
        _ => {}
    }
    if !graph.edges().explicit_of(object).is_empty() {
        references(graph, graph.edges().explicit_of(object).iter().copied(), out)?;
    }
    if let Some(site) = columns.sites.get(at).filter(|site| **site != SiteId::NONE) {
        let site = graph.site(*site);
        out.write_all(b", \"file\":")?;
        quoted(&graph.text(site.file), out)?;
        write!(out, ", \"line\":{}", site.line)?;
        if site.method != NameId::NONE {
            out.write_all(b", \"method\":")?;
            quoted(&graph.text(site.method), out)?;
        }
        write!(out, ", \"generation\":{}", columns.generations.get(at).copied().unwrap_or_default())?;
    }
    write!(out, ", \"memsize\":{}", graph.size(object))?;
    let flags = columns.flags.get(at).copied().unwrap_or_default();
    let set: Vec<String> =
        Flags::GC.iter().filter(|(flag, _)| flags.has(*flag)).map(|(_, key)| format!("\"{key}\":true")).collect();
    if !set.is_empty() {
        write!(out, ", \"flags\":{{{}}}", set.join(", "))?;
    }
    out.write_all(b"}\n")
}

fn references(graph: &Graph, objects: impl Iterator<Item = ObjectIndex>, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b", \"references\":[")?;
    for (at, object) in objects.enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        write!(out, "{comma}\"{:#x}\"", graph.address(object))?;
    }
    out.write_all(b"]")
}

fn quoted(text: &str, out: &mut dyn Write) -> io::Result<()> {
    super::quoted(text, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::application;
    use serde_json::Value;

    #[test]
    fn each_object_is_a_line_of_json() {
        let graph = application(3);
        let mut out = Vec::new();
        write(&graph, &mut out).unwrap();
        let lines: Vec<Value> =
            String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2 + graph.objects());
        assert_eq!(lines[0]["root"], "vm");
        let app = lines.iter().find(|line| line["name"] == "App").unwrap();
        assert_eq!((app["address"].as_str(), app["references"][0].as_str()), (Some("0x1050"), Some("0x2000")));
        let array = lines.iter().find(|line| line["type"] == "ARRAY").unwrap();
        assert_eq!(array["references"].as_array().unwrap().len(), 3);
    }
}
