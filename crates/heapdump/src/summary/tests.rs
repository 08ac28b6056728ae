use super::*;
use crate::convert::{self, Converter};
use crate::tests::convert::{FIXTURES, unpack};

const LINES: &str = r#"{"type":"ROOT", "root":"vm", "references":["0x7f0000001000"]}
{"address":"0x7f0000001000", "type":"CLASS", "class":"0x7f0000001028", "name":"Session", "memsize":600, "flags":{"old":true}}
{"address":"0x7f0000001028", "type":"CLASS", "class":"0x7f0000001028", "memsize":400}
{"address":"0x7f0000001050", "type":"OBJECT", "class":"0x7f0000001000", "file":"app/session.rb", "line":7, "generation":3, "memsize":40, "flags":{"old":true}}
{"address":"0x7f0000001078", "type":"OBJECT", "class":"0x7f0000001000", "file":"app/session.rb", "line":7, "generation":4, "memsize":40}
{"address":"0x7f00000010a0", "type":"STRING", "class":"0x7f00000010f0", "bytesize":6, "value":"secret", "memsize":40}
{"address":"0x7f00000010c8", "type":"IMEMO", "imemo_type":"iseq", "memsize":320}
"#;

fn of_json(lines: &str) -> Summary {
    let converter = Converter::new(lines.as_bytes()).unwrap();
    let (summary, counter) = converter.run(Counter::default(), &convert::Options::default()).unwrap();
    counter.finish(Producer::DumpAll, "3.4.1", summary.damage.is_none())
}

fn named<'s>(groups: &'s Groups, name: &str) -> (u64, u64, u64, u64) {
    let group: Option<&'s Group> = groups.groups.iter().find(|group| group.name == name);
    group.map_or((0, 0, 0, 0), |Group { amount, .. }| (amount.count, amount.bytes, amount.old, amount.old_bytes))
}

#[test]
fn objects_are_counted_by_class_type_site_and_generation_without_values() {
    let summary = of_json(LINES);
    assert_eq!((summary.objects.count, summary.objects.bytes, summary.complete), (6, 1440, true));
    assert_eq!(named(&summary.classes, "Session"), (2, 80, 1, 40));
    assert_eq!(named(&summary.classes, "Class"), (2, 1000, 1, 600));
    assert_eq!(named(&summary.classes, "(IMEMO iseq)"), (1, 320, 0, 0));
    assert_eq!(named(&summary.classes, "(class without a name)"), (1, 40, 0, 0));
    assert_eq!(named(&summary.types, "OBJECT"), (2, 80, 1, 40));
    assert_eq!(named(&summary.sites, "app/session.rb:7"), (2, 80, 1, 40));
    assert_eq!(named(&summary.generations, "4"), (1, 40, 0, 0));
    let text = serde_json::to_string(&summary).unwrap();
    assert!(!text.contains("secret"), "{text}");
    assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
}

#[test]
fn a_graph_and_the_dump_that_it_was_made_of_have_the_same_summary() {
    let options = convert::Options { ruby: "3.4.1".into(), ..convert::Options::default() };
    let (_, _, graph) = convert::to_graph(LINES.as_bytes(), Vec::new(), &options).unwrap();
    let (summary, damage) = of_graph(&graph[..]).unwrap();
    assert!(damage.is_none(), "{damage:?}");
    assert_eq!(summary, of_json(LINES));
    // One that is cut off says so, and is counted as far as it goes.
    let (cut, damage) = of_graph(&graph[..graph.len() - 9]).unwrap();
    assert_eq!((cut.complete, cut.objects), (false, summary.objects));
    assert!(damage.is_some());
    assert!(of_graph(&b"nothing"[..]).is_err());
}

// The objects of a block that were decoded, and the classes that it counts.
fn decoded(graph: &[u8]) -> (usize, usize) {
    let mut reader = Reader::with_options(graph, OPTIONS).unwrap();
    let (mut objects, mut counts) = (0, 0);
    while let Some(block) = reader.next_block().unwrap() {
        if let Block::Objects(batch) = block {
            objects += batch.len();
            counts += batch.counts().len();
        }
    }
    (objects, counts)
}

// A dump of the same objects while no allocations are traced, as far as a graph is concerned.
fn without_generations(dump: &[u8]) -> Vec<u8> {
    const KEY: &[u8] = b", \"generation\":";
    let (mut kept, mut rest) = (Vec::new(), dump);
    while let Some(at) = memchr::memmem::find(rest, KEY) {
        kept.extend_from_slice(&rest[..at]);
        let after = &rest[at + KEY.len()..];
        rest = &after[after.iter().position(|byte| !byte.is_ascii_digit()).unwrap()..];
    }
    [&kept, rest].concat()
}

#[test]
fn the_counts_of_blocks_say_what_their_objects_add_up_to() {
    let graph_of = |dump: &[u8]| convert::to_graph(dump, Vec::new(), &convert::Options::default()).unwrap().2;
    for (name, packed) in FIXTURES {
        let dump = unpack(packed);
        assert!(check_counts(&graph_of(&dump)), "{name}");
        // A block with an allocation site is decoded.
        let graph = graph_of(&without_generations(&dump));
        assert!(check_counts(&graph), "{name}");
        let (objects, counts) = decoded(&graph);
        assert!(objects == 0 && counts > 50, "{name}: {objects} {counts}");
    }
    let graph = graph_of(LINES.as_bytes());
    check_counts(&graph);
    assert_eq!(decoded(&graph), (6, 0));
    // Classes without a number: the table of a writer has no place for all of these.
    let object = |i: u64| {
        let (address, class) = (0x7f00_0001_0000 + i * 40, 0x7e00_0000_0000 + i * 1000);
        format!("{{\"address\":\"{address:#x}\", \"type\":\"OBJECT\", \"class\":\"{class:#x}\", \"memsize\":40}}\n")
    };
    let graph = graph_of((0..30_000).map(object).collect::<String>().as_bytes());
    assert!(check_counts(&graph));
    let (objects, counts) = decoded(&graph);
    assert!(objects > 10_000 && counts > 10_000, "{objects} {counts}");
}

#[test]
fn a_summary_stays_small_and_adds_up_however_many_classes_there_are() {
    let many: String = (0..5000u64)
        .map(|i| {
            let (class, object) = (0x7f00_0001_0000 + i * 80, 0x7f00_0001_0028 + i * 80);
            format!(
                "{{\"address\":\"{class:#x}\", \"type\":\"CLASS\", \"class\":\"0x7f0000001000\", \"name\":\"Generated::Class{i}\", \"memsize\":{}}}\n\
                 {{\"address\":\"{object:#x}\", \"type\":\"OBJECT\", \"class\":\"{class:#x}\", \"memsize\":{}}}\n",
                500, 40 + i
            )
        })
        .collect();
    let summary = of_json(&(LINES.to_owned() + &many));
    let classes = &summary.classes;
    let shown: u64 = classes.groups.iter().map(|group| group.amount.bytes).sum();
    assert_eq!(shown + classes.others.bytes, summary.objects.bytes);
    assert_eq!(classes.groups.len(), KEPT + KEPT / 2);
    assert!(classes.groups.iter().any(|group| group.name == "Generated::Class4999"));
    assert!(serde_json::to_string(&summary).unwrap().len() < 20_000);
}

#[test]
fn long_names_that_begin_alike_are_cut_and_stay_apart() {
    let long = "K".repeat(250);
    let class = |address: u64, name: &str| {
        format!(
            "{{\"address\":\"{address:#x}\", \"type\":\"CLASS\", \"class\":\"0x7f0000001000\", \"name\":\"{name}\", \"memsize\":500}}\n\
             {{\"address\":\"{:#x}\", \"type\":\"OBJECT\", \"class\":\"{address:#x}\", \"memsize\":40}}\n",
            address + 40
        )
    };
    let summary =
        of_json(&[class(0x7f00_0001_0000, &format!("{long}A")), class(0x7f00_0002_0000, &format!("{long}B"))].concat());
    let cut: Vec<_> = summary.classes.groups.iter().filter(|group| group.name.starts_with("KKK")).collect();
    assert_eq!(cut.len(), 2, "{cut:?}");
    assert!(
        cut.iter()
            .all(|group| group.amount.count == 1 && group.name.chars().count() == crate::tables::MAX_NAME / 4 + 9)
    );
}
