//! A converter of valid lines that is slow and obvious, and a target that keeps what it is told.

use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher};

use serde_json::Value;

use crate::class_name::is_from_code;
use crate::convert::{Options, Target};
use crate::record::*;

/// One thing that a converter says, with names as texts.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Object { object: Object, name: String, encoding: String, site: (String, u32, String) },
    Edge(u64, String),
    Root(String, u64),
    Free(FreeSlots),
    Stats(Vec<(String, u64)>),
}

/// Keeps what it is told.
#[derive(Debug, Default)]
pub struct Recorder {
    pub said: Vec<Said>,
    names: Vec<String>,
    sites: Vec<Site>,
}

impl Recorder {
    fn text(&self, id: NameId) -> String {
        (id.0 as usize).checked_sub(1).map_or(String::new(), |i| self.names[i].clone())
    }
}

impl Target for Recorder {
    type Error = Infallible;

    fn name(&mut self, kind: NameKind, text: &[u8]) -> Result<NameId, Infallible> {
        let prefix = if kind == NameKind::Text { "" } else { "internal " };
        self.names.push(format!("{prefix}{}", String::from_utf8_lossy(text)));
        Ok(NameId(u32::try_from(self.names.len()).unwrap()))
    }

    fn site(&mut self, site: &Site) -> Result<SiteId, Infallible> {
        self.sites.push(*site);
        Ok(SiteId(u32::try_from(self.sites.len()).unwrap()))
    }

    fn object(&mut self, object: &Object) -> Result<(), Infallible> {
        let site = (object.site.0 as usize).checked_sub(1).map_or(Site::default(), |i| self.sites[i]);
        let site = (self.text(site.file), site.line, self.text(site.method));
        let (name, encoding) = (self.text(object.name), self.text(object.encoding));
        let object = Object { name: NameId::NONE, encoding: NameId::NONE, site: SiteId::NONE, ..*object };
        self.said.push(Said::Object { object, name, encoding, site });
        Ok(())
    }

    fn edges_ahead(&mut self, _: u64) -> Result<(), Infallible> {
        Ok(())
    }

    fn edge(&mut self, edge: Edge) -> Result<(), Infallible> {
        let label = self.text(edge.label);
        self.said.push(Said::Edge(edge.target, label));
        Ok(())
    }

    fn root(&mut self, root: &Root) -> Result<(), Infallible> {
        let category = self.text(root.category);
        self.said.push(Said::Root(category, root.edge.target));
        Ok(())
    }

    fn free(&mut self, slots: &FreeSlots) -> Result<(), Infallible> {
        self.said.push(Said::Free(*slots));
        Ok(())
    }

    fn stats(&mut self, stats: &[(NameId, u64)]) -> Result<(), Infallible> {
        let stats = stats.iter().map(|(name, value)| (self.text(*name), *value)).collect();
        self.said.push(Said::Stats(stats));
        Ok(())
    }
}

/// Converts a heap dump whose lines are all valid JSON.
pub fn convert(dump: &str, options: &Options, slot_size: u32) -> Vec<Said> {
    let mut said = Vec::new();
    let mut shapes = (0, 0);
    for line in dump.lines() {
        let value: Value = serde_json::from_str(line).expect(line);
        line_of(&value, options, slot_size, &mut said, &mut shapes);
    }
    if shapes.0 > 0 {
        said.push(Said::Stats(vec![
            ("dump_all.shapes".into(), shapes.0),
            ("dump_all.shapes_memsize".into(), shapes.1),
        ]));
    }
    said
}

fn address(value: &Value) -> u64 {
    value.as_str().map_or(0, |text| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap())
}

fn line_of(line: &Value, options: &Options, slot_size: u32, said: &mut Vec<Said>, shapes: &mut (u64, u64)) {
    let number = |key: &str| line[key].as_u64();
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let references: Vec<u64> = line["references"].as_array().into_iter().flatten().map(address).collect();
    let slot_size = number("slot_size").map_or(slot_size, |size| u32::try_from(size).unwrap());
    let kind = match text("type").as_str() {
        "ROOT" => return said.extend(references.iter().map(|target| Said::Root(text("root"), *target))),
        "SHAPE" => {
            *shapes = (shapes.0 + 1, shapes.1 + number("memsize").unwrap_or(0));
            return;
        }
        "NONE" => return said.push(Said::Free(FreeSlots { address: address(&line["address"]), slot_size, count: 1 })),
        "UNKNOWN" => Type::MOVED,
        name => Type::named(name.as_bytes()).expect(name),
    };
    let mut flags = Flags::default();
    for (flag, key) in [
        (Flags::FROZEN, "frozen"),
        (Flags::EMBEDDED, "embedded"),
        (Flags::SHARED, "shared"),
        (Flags::FSTRING, "fstring"),
        (Flags::CHILLED, "chilled"),
        (Flags::SINGLETON, "singleton"),
        (Flags::BROKEN, "broken"),
        (Flags::TOO_COMPLEX_SHAPE, "too_complex_shape"),
    ] {
        if line[key] == Value::Bool(true) {
            flags = flags.with(flag);
        }
    }
    for (flag, key) in Flags::GC {
        let value = &line["flags"][key];
        if value == &Value::Bool(true) || value.as_u64().is_some_and(|number| number > 0) {
            flags = flags.with(*flag);
        }
    }
    let hash = line["value"].as_str().filter(|value| kind == Type::STRING && !value.is_empty()).map(|value| {
        let mut hasher = options.hash_key.build_hasher();
        hasher.write(value.as_bytes());
        hasher.finish()
    });
    let internal = matches!(kind, Type::IMEMO | Type::NODE);
    let object = Object {
        address: address(&line["address"]),
        kind,
        class: if internal { 0 } else { address(&line["class"]) },
        size: number("memsize").unwrap_or(0),
        slot_size,
        flags,
        generation: number("generation").unwrap_or(0),
        length: if kind == Type::STRING { number("bytesize") } else { number("size").or(number("length")) },
        hash,
        ..Object::default()
    };
    let name = match kind {
        Type::CLASS | Type::MODULE | Type::ICLASS => {
            Some(text("name")).filter(|name| is_from_code(name.as_bytes())).unwrap_or_default()
        }
        _ => text("imemo_type") + &text("struct") + &text("node_type"),
    };
    let line_number = u32::try_from(number("line").unwrap_or(0)).unwrap();
    let encoding = if kind == Type::STRING { text("encoding") } else { String::new() };
    said.push(Said::Object { object, name, encoding, site: (text("file"), line_number, text("method")) });
    let hidden = matches!(text("imemo_type").as_str(), "iseq" | "env" | "cref" | "svar" | "ment" | "constcache");
    if hidden && address(&line["class"]) > 0x40 {
        said.push(Said::Edge(address(&line["class"]), String::new()));
    }
    let mut named = vec![(address(&line["superclass"]), "superclass"), (address(&line["default"]), "default")];
    for target in references {
        let at = named.iter().position(|(address, _)| *address == target);
        let label = at.map_or(String::new(), |at| format!("internal {}", named.remove(at).1));
        said.push(Said::Edge(target, label));
    }
}
