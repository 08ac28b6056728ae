use serde_json::Value;

use super::convert::{FIXTURES, unpack};
use crate::convert::{Options, to_graph};
use crate::json::{ExportError, export, strip};

fn exported(dump: &[u8]) -> Vec<Value> {
    let (_, _, graph) = to_graph(dump, Vec::new(), &Options::default()).unwrap();
    let mut json = Vec::new();
    let told = export(&*graph, &mut json).unwrap();
    assert_eq!(told.damage, None);
    let text = String::from_utf8(json).unwrap();
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn an_export_says_what_the_dump_said_but_for_values() {
    for (name, packed) in FIXTURES {
        let dump = unpack(packed);
        let exported = exported(&dump);
        let mut lines = exported.iter();
        for line in dump.split(|byte| *byte == b'\n') {
            let Ok(line) = serde_json::from_slice::<Value>(line) else { continue };
            if ["NONE", "SHAPE", "ROOT"].contains(&line["type"].as_str().unwrap()) {
                continue;
            }
            // Lines that are not JSON have been repaired.
            let found = lines.find(|found| found["address"] == line["address"]).expect(name);
            for key in [
                "type",
                "superclass",
                "frozen",
                "embedded",
                "fstring",
                "shared",
                "chilled",
                "length",
                "size",
                "bytesize",
                "singleton",
                "imemo_type",
                "struct",
                "encoding",
                "file",
                "line",
                "method",
                "generation",
                "memsize",
            ] {
                // A symbol's length says something of its value.
                if key == "bytesize" && line["type"] == "SYMBOL" || key == "superclass" && line["references"].is_null()
                {
                    continue;
                }
                let dropped = key == "frozen" && line[key] == false;
                assert!(found[key] == line[key] || dropped, "{name}: {key} of {line}: {found}");
            }
            if line["type"] != "IMEMO" {
                assert_eq!(
                    (&found["references"], &found["class"]),
                    (&line["references"], &line["class"]),
                    "{name}: {line}"
                );
            }
            for (flag, value) in line["flags"].as_object().into_iter().flatten() {
                assert!(flag == "age" || found["flags"][flag] == true || value != true, "{name}: {flag} of {line}");
            }
        }
        assert!(exported.iter().all(|line| line.get("value").is_none()));
    }
}

#[test]
fn huge_arrays_are_exported_whole() {
    let references =
        (0..200_000u64).map(|i| format!("\"{:#x}\"", 0x7f00_0000_0000 + 8 * i)).collect::<Vec<_>>().join(", ");
    let line = format!(
        "{{\"address\":\"0x7f0000000008\", \"type\":\"ARRAY\", \"length\":200000, \"references\":[{references}], \"memsize\":40}}\n"
    );
    let roots = format!("{{\"type\":\"ROOT\", \"root\":\"vm\", \"references\":[{references}]}}\n");
    let small =
        "{\"address\":\"0x7f0000000010\", \"type\":\"ARRAY\", \"references\":[\"0x7f0000000008\"], \"memsize\":40}\n"
            .repeat(3);
    let exported = exported(format!("{roots}{small}{line}{small}").as_bytes());
    assert_eq!(exported.len(), 8);
    let huge = exported.iter().find(|line| line["address"] == "0x7f0000000008").unwrap();
    for line in [huge, exported.iter().find(|line| line["type"] == "ROOT").unwrap()] {
        assert_eq!(line["references"].as_array().unwrap().len(), 200_000);
        assert_eq!(line["references"][199_999], "0x7f00001869f8");
    }
}

#[test]
fn a_graph_cut_off_is_exported_as_far_as_it_goes() {
    let (_, _, graph) = to_graph(&*unpack(FIXTURES[0].1), Vec::new(), &Options::default()).unwrap();
    let mut json = Vec::new();
    let told = export(&graph[..graph.len() - 20], &mut json).unwrap();
    assert!(told.damage.unwrap().contains("cut off") && told.objects > 100);
    assert!(std::str::from_utf8(&json).unwrap().lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}

#[test]
fn a_dump_that_another_program_wrote_again_is_exported_whole() {
    let stripped = |dump: &[u8]| {
        let mut json = Vec::new();
        let told = strip(dump, &mut json).unwrap();
        assert_eq!(told.damage, None);
        String::from_utf8(json).unwrap()
    };
    let of_ruby = String::from_utf8(unpack(FIXTURES[0].1)).unwrap();
    let lines: Vec<&str> = of_ruby.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).collect();
    let expected = stripped((lines.join("\n") + "\n").as_bytes());
    let windows = format!("\u{feff}{}\r\n", lines.join("\r\n"));
    let again = |line: &&str| serde_json::from_str::<serde_json::Map<String, Value>>(line).unwrap();
    let compact = lines.iter().map(again).map(|line| serde_json::to_string(&line).unwrap() + "\n").collect::<String>();
    assert_eq!(stripped(windows.as_bytes()), expected);
    assert_eq!(stripped(compact.as_bytes()), expected);
}

#[test]
fn what_has_no_object_is_not_exported() {
    for input in ["", "{}\n", "[1]\n", "{\"address\":\n"] {
        assert!(matches!(strip(input.as_bytes(), Vec::new()), Err(ExportError::NoObjects)), "{input:?}");
    }
}
