use std::io::Read;

use super::oracle::{self, Recorder, Said};
use crate::convert::{Converter, Options, Summary, to_graph};
use crate::reader::Options as ReadOptions;
use crate::{Block, Reader, spacing};

pub const FIXTURES: &[(&str, &[u8])] = &[
    ("3.1 plain", include_bytes!("../../fixtures/ruby31-plain.json.gz")),
    ("3.1 full", include_bytes!("../../fixtures/ruby31-full.json.gz")),
    ("3.2 full", include_bytes!("../../fixtures/ruby32-full.json.gz")),
    ("3.2 shapes", include_bytes!("../../fixtures/ruby32-shapes.json.gz")),
    ("3.3 full", include_bytes!("../../fixtures/ruby33-full.json.gz")),
    ("3.3 shapes", include_bytes!("../../fixtures/ruby33-shapes.json.gz")),
    ("3.4 full", include_bytes!("../../fixtures/ruby34-full.json.gz")),
    ("3.4 shapes", include_bytes!("../../fixtures/ruby34-shapes.json.gz")),
    ("4.0 full", include_bytes!("../../fixtures/ruby40-full.json.gz")),
    ("2.7 plain", include_bytes!("../../fixtures/ruby27-plain.json.gz")),
    ("2.7 full", include_bytes!("../../fixtures/ruby27-full.json.gz")),
];

pub fn unpack(packed: &[u8]) -> Vec<u8> {
    let mut dump = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut dump).unwrap();
    dump
}

/// Hands out a few bytes at a time.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = self.1.min(buffer.len()).min(self.0.len());
        buffer[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        Ok(len)
    }
}

fn convert_from(read: impl Read, options: &Options) -> (Summary, Vec<Said>) {
    let (summary, recorder) = Converter::new(read).unwrap().run(Recorder::default(), options).unwrap();
    (summary, recorder.said)
}

fn convert(dump: &[u8], options: &Options) -> (Summary, Vec<Said>) {
    convert_from(dump, options)
}

// The lines of a dump that are valid JSON.
fn valid(dump: &[u8]) -> String {
    let lines = dump.split_inclusive(|byte| *byte == b'\n');
    let lines = lines.filter_map(|line| std::str::from_utf8(line).ok());
    lines.filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok_and(|value| value.is_object())).collect()
}

fn same(dump: &str, slot_size: u32) {
    let options = Options::default();
    let (summary, said) = convert(dump.as_bytes(), &options);
    let expected = oracle::convert(dump, &options, slot_size);
    for (said, expected) in said.iter().zip(&expected) {
        assert_eq!(said, expected);
    }
    assert_eq!(said.len(), expected.len());
    assert_eq!((summary.lost, summary.repaired, summary.damage), (0, 0, None));
}

#[test]
fn real_lines_become_what_a_json_parser_says() {
    for (name, packed) in FIXTURES {
        let dump = unpack(packed);
        let lines = valid(&dump);
        assert!(lines.len() > dump.len() / 2, "{name}");
        // WebAssembly has 32 bits.
        same(&lines, if name.starts_with("4.0") || name.starts_with("3.2") { 20 } else { 40 });
    }
}

#[test]
fn real_dumps_are_converted_whole_and_what_ruby_wrote_damaged_is_repaired() {
    for (name, packed) in FIXTURES {
        let dump = unpack(packed);
        let (summary, said) = convert(&dump, &Options::default());
        assert_eq!((summary.lost, &summary.damage), (0, &None), "{name}");
        assert!(summary.repaired >= 2, "{name}: {summary:?}");
        let sites: Vec<_> = said
            .iter()
            .filter_map(|said| if let Said::Object { site, .. } = said { Some(site) } else { None })
            .collect();
        assert!(sites.iter().any(|site| site.0 == "/srv/a \"quoted\" \\ path.rb"), "{name}");
        assert!(sites.iter().any(|site| site.0 == "/srv/a\nb.rb"), "{name}");
        let method = match &name[..3] {
            "3.1" => "??t??",
            // The method that has allocated is written in C.
            "2.7" | "3.2" => "new",
            _ => "été",
        };
        assert!(sites.iter().any(|site| site.2 == method), "{name}");
        assert!(said.iter().any(|said| matches!(said, Said::Object { name, .. } if name == "Café")), "{name}");
        assert!(said.iter().any(|said| matches!(said, Said::Root(category, _) if category == "vm")), "{name}");
    }
}

// The lines with their keys in the order of the alphabet, as Python's `sort_keys` and `jq -S` write them.
fn sorted(dump: &str) -> String {
    let line = |line: &str| {
        let line: std::collections::BTreeMap<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        serde_json::to_string(&line).unwrap() + "\n"
    };
    let mut sorted = String::new();
    let compact: String = dump.lines().map(line).collect();
    spacing::of_ruby(compact.as_bytes()).unwrap().read_to_string(&mut sorted).unwrap();
    sorted
}

#[test]
fn the_order_of_keys_has_no_meaning() {
    let options = Options::default();
    for (name, packed) in FIXTURES {
        let dump = valid(&unpack(packed));
        let (expected, said) = convert(&dump.into_bytes(), &options);
        let (summary, of_sorted) = convert(sorted(&valid(&unpack(packed))).as_bytes(), &options);
        assert_eq!((summary.lost, summary.damage), (expected.lost, expected.damage), "{name}");
        assert!(said == of_sorted, "{name}");
    }
}

#[test]
fn pieces_of_any_size_give_the_same() {
    let dump = unpack(FIXTURES[1].1);
    let options = Options::default();
    let whole = convert(&dump, &options);
    for size in [1, 13, 4096] {
        assert!(convert_from(Slow(&dump, size), &options) == whole, "pieces of {size}");
    }
}

#[test]
fn a_graph_holds_what_was_converted() {
    for (name, packed) in FIXTURES {
        let dump = unpack(packed);
        let options = Options::default();
        let (_, said) = convert(&dump, &options);
        let (_, trailer, graph) = to_graph(&*dump, Vec::new(), &options).unwrap();
        let mut reader = Reader::with_options(&*graph, ReadOptions::default()).unwrap();
        let (mut objects, mut edges) = (Vec::new(), Vec::new());
        while let Some(block) = reader.next_block().unwrap() {
            if let Block::Objects(batch) = block {
                objects.extend(batch.objects());
                edges.extend(batch.edges().iter().map(|edge| edge.target));
            }
        }
        let said_objects = said.iter().filter_map(|said| match said {
            Said::Object { object, .. } => {
                Some((object.address, object.kind, object.class, object.size, object.length))
            }
            _ => None,
        });
        let read = objects.iter().map(|object| (object.address, object.kind, object.class, object.size, object.length));
        assert!(said_objects.eq(read), "{name}");
        let said_edges =
            said.iter().filter_map(|said| if let Said::Edge(target, _) = said { Some(*target) } else { None });
        assert!(said_edges.eq(edges.iter().copied()), "{name}");
        assert_eq!(trailer.objects, objects.len() as u64);
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    fn address(&mut self) -> String {
        format!("{:#x}", 0x7f00_0000_0000u64 + 8 * self.below(1 << 20))
    }

    fn text(&mut self) -> (String, usize) {
        let parts = ["a", "some text", "\\n", "\\\"", "\\\\", "\\u001b", "\\u0000", "}", ",", "{\\\"address\\\":", " "];
        let chosen: Vec<&str> = (0..self.below(9)).map(|_| self.one(&parts)).collect();
        let json: String = chosen.concat();
        let plain: String = serde_json::from_str(&format!("\"{json}\"")).unwrap();
        (json, plain.len())
    }

    // A line that Ruby could write, with keys in the order of Ruby's.
    fn line(&mut self) -> String {
        let kind = self.one(&[
            "STRING", "OBJECT", "ARRAY", "HASH", "CLASS", "DATA", "IMEMO", "SYMBOL", "NONE", "SHAPE", "ZOMBIE", "FLOAT",
        ]);
        let mut line = format!("{{\"address\":\"{}\", \"type\":\"{kind}\"", self.address());
        macro_rules! maybe {
            ($text:expr $(,)?) => {{
                let text: String = $text;
                if self.below(2) == 0 {
                    line.push_str(", ");
                    line.push_str(&text);
                }
            }};
        }
        let text = format!("\"class\":\"{}\"", self.address());
        maybe!(text);
        maybe!(format!("\"shape_id\":5, \"slot_size\":{}", 40 << self.below(3)));
        maybe!("\"frozen\":true".into());
        maybe!("\"colour\":{\"a\":[1, \"}\"]}".into());
        match kind {
            "STRING" | "SYMBOL" => {
                let (json, length) = self.text();
                maybe!(format!("\"bytesize\":{length}, \"value\":\"{json}\", \"encoding\":\"UTF-8\""));
            }
            "CLASS" => {
                let (name, superclass) = (self.text().0, self.address());
                maybe!(format!("\"superclass\":\"{superclass}\""));
                let name = if self.below(2) == 0 { name } else { "_b::Ünï".to_owned() };
                maybe!(format!("\"name\":\"A{name}\""));
            }
            "HASH" => maybe!(format!("\"size\":{}, \"default\":\"0x7f0000000008\"", self.below(99))),
            "ARRAY" => maybe!(format!("\"length\":{}, \"embedded\":true", self.below(99))),
            "DATA" => maybe!("\"struct\":\"proc\"".into()),
            "IMEMO" => {
                let kind = self.one(&["iseq", "callcache", "fields"]);
                maybe!(format!("\"imemo_type\":\"{kind}\""));
            }
            "FLOAT" => maybe!("\"value\":\"1.5\"".into()),
            _ => {}
        }
        let references: Vec<String> = (0..self.below(5)).map(|_| format!("\"{}\"", self.address())).collect();
        maybe!(format!("\"references\":[{}]", references.join(", ")));
        maybe!(format!(
            "\"file\":\"/a/{}.rb\", \"line\":{}, \"method\":\"m\", \"generation\":7",
            self.below(9),
            self.below(99)
        ),);
        maybe!(format!("\"memsize\":{}", self.below(5000)));
        maybe!("\"flags\":{\"wb_protected\":true, \"old\":true, \"object_id\":8, \"age\":3, \"marked\":false}".into(),);
        line + "}\n"
    }
}

#[test]
fn generated_lines_become_what_a_json_parser_says() {
    let mut random = Random(3);
    for _ in 0..100 {
        let dump: String = (0..40).map(|_| random.line()).collect();
        same(&dump, 40);
    }
}

#[test]
fn lines_longer_than_the_window_are_converted_in_pieces() {
    let options = Options::default();
    let references =
        (0..200_000u64).map(|i| format!("\"{:#x}\"", 0x7f00_0000_0000 + 8 * i)).collect::<Vec<_>>().join(", ");
    let text = "some \\\"text\\\" \\u001b\\n".repeat(60_000);
    let length = "some \"text\" \u{1b}\n".len() * 60_000;
    let dump = format!(
        concat!(
            "{{\"type\":\"ROOT\", \"root\":\"vm\", \"references\":[{0}]}}\n",
            "{{\"address\":\"0x7f0000000008\", \"type\":\"ARRAY\", \"length\":200000, \"references\":[{0}], \"memsize\":1600040}}\n",
            "{{\"address\":\"0x7f0000000010\", \"type\":\"STRING\", \"bytesize\":{2}, \"value\":\"{1}\", \"encoding\":\"UTF-8\", \"memsize\":40}}\n",
            "{{\"address\":\"0x7f0000000018\", \"type\":\"STRING\", \"memsize\":40}}\n",
        ),
        references, text, length
    );
    let (summary, mut said) = convert(dump.as_bytes(), &options);
    let mut expected = oracle::convert(&dump, &options, 40);
    assert_eq!((summary.lost, summary.damage), (0, None));
    // The edges come before the array.
    let key = |said: &Said| format!("{said:?}");
    said.sort_by_key(key);
    expected.sort_by_key(key);
    assert!(said == expected);
    // Roots of that length need their kind before their references.
    let objects: String = dump.split_inclusive('\n').skip(1).collect();
    let (summary, mut of_sorted) = convert(sorted(&objects).as_bytes(), &options);
    of_sorted.sort_by_key(key);
    said.retain(|said| !matches!(said, Said::Root(..)));
    assert_eq!((summary.lost, summary.damage), (0, None));
    assert_eq!(of_sorted.len(), said.len());
    assert!(of_sorted == said);
    let length_last = format!(
        "{{\"address\":\"0x7f0000000010\", \"type\":\"STRING\", \"value\":\"{text}\", \"bytesize\":{length}}}\n"
    );
    let (summary, of_string) = convert(length_last.as_bytes(), &options);
    assert_eq!((summary.lost, summary.damage), (0, None));
    assert!(matches!(of_string[..], [Said::Object { object, .. }] if object.length == Some(length as u64)));
    let (_, trailer, graph) = to_graph(dump.as_bytes(), Vec::new(), &options).unwrap();
    assert_eq!((trailer.objects, trailer.edges, trailer.roots), (3, 200_000, 200_000));
    let mut reader = Reader::new(&*graph).unwrap();
    let mut ahead = 0;
    while let Some(block) = reader.next_block().unwrap() {
        if let Block::Objects(batch) = block
            && let Some((address, edges)) = batch.continued()
        {
            assert_eq!(address, 0x7f00_0000_0008);
            ahead += edges.len();
        }
    }
    assert_eq!(ahead, 200_000);
}

#[test]
fn hostile_lines_cost_bounded_memory() {
    let options = Options::default();
    let good = "{\"address\":\"0x7f0000000018\", \"type\":\"STRING\", \"memsize\":40}\n";
    for endless in [
        "{\"address\":\"0x7f0000000018\", \"type\":\"STRING\", \"file\":\"",
        "{\"a",
        "[",
        "{\"address\":\"0x7f0000000018\", \"type\":\"ARRAY\", \"references\":[\"0x7f0000000018\", \"0x",
    ] {
        let head = format!("{good}{endless}");
        let tail = format!("\n{good}");
        let read = head.as_bytes().chain(std::io::repeat(b'1').take(2 << 20)).chain(tail.as_bytes());
        let (summary, said) = convert_from(read, &options);
        assert_eq!(summary.lost, 1, "{endless}");
        assert!(summary.damage.is_some());
        assert_eq!(said.iter().filter(|said| matches!(said, Said::Object { .. })).count(), 2, "{endless}");
    }
}

#[test]
fn a_hole_is_counted_and_the_lines_around_it_are_converted() {
    let dump = unpack(FIXTURES[2].1);
    let options = Options::default();
    let all = convert(&dump, &options).1.len();
    let mut random = Random(9);
    for _ in 0..100 {
        let length = usize::try_from(1 + random.below(3000)).unwrap();
        let begin = usize::try_from(random.below((dump.len() - length) as u64)).unwrap();
        let holed = [&dump[..begin], &dump[begin + length..]].concat();
        let (summary, said) = convert(&holed, &options);
        assert!(summary.lost <= 2 && said.len() <= all, "{summary:?}");
        assert!(summary.lost == 0 || summary.damage.is_some(), "{summary:?}");
    }
}

#[test]
fn no_value_is_in_a_graph() {
    for (name, packed) in FIXTURES {
        let (_, _, graph) = to_graph(&*unpack(packed), Vec::new(), &Options::default()).unwrap();
        for value in [&b"quoted\\\" \\\\ "[..], b"ascii 1", b"text 1", b"a \"symbol\"", b"1.5e+300", b"aaaaaaaaaa"] {
            assert!(memchr::memmem::find(&graph, value).is_none(), "{name}: {}", String::from_utf8_lossy(value));
        }
        assert!(graph.len() * 6 < unpack(packed).len(), "{name}");
    }
}
