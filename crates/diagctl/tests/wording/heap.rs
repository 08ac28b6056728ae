//! The output of `diagctl heap` for a small heap, and for input that is not a heap dump.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use super::environment::{BIN, Environment};
use super::fixture::{self, HEAP};

/// A heap as `ObjectSpace.dump_all` writes it: `App::CACHE` holds an Array of `sessions` sessions, each with a String of its own. One more
/// String is garbage.
fn dump(sessions: u64) -> String {
    let mut dump = String::from(
        r#"{"type":"ROOT", "root":"vm", "references":["0x1000"]}
{"type":"ROOT", "root":"machine_context", "references":["0x10000"]}
{"address":"0x1000", "type":"CLASS", "class":"0x1028", "name":"Object", "references":["0x1050", "0x10c8", "0x10f0", "0x1118"], "memsize":1200, "flags":{"wb_protected":true, "old":true, "marked":true}}
{"address":"0x1028", "type":"CLASS", "class":"0x1028", "name":"Class", "memsize":640, "flags":{"old":true}}
{"address":"0x1050", "type":"MODULE", "class":"0x1078", "name":"App", "references":["0x2000"], "memsize":560, "flags":{"old":true}}
{"address":"0x1078", "type":"CLASS", "class":"0x1028", "name":"Module", "memsize":640}
{"address":"0x10c8", "type":"CLASS", "class":"0x1028", "name":"String", "memsize":640}
{"address":"0x10f0", "type":"CLASS", "class":"0x1028", "name":"Array", "memsize":640}
{"address":"0x1118", "type":"CLASS", "class":"0x1028", "name":"Session", "memsize":640}
{"address":"0x1140", "type":"IMEMO", "imemo_type":"iseq", "memsize":320}
{"address":"0x3000", "type":"STRING", "class":"0x10c8", "bytesize":9, "value":"forgotten", "memsize":40}
"#,
    );
    let at = |i: u64| 0x1_0000 + i * 80;
    let all: Vec<String> = (0..sessions).map(|i| format!("\"{:#x}\"", at(i))).collect();
    let _ = writeln!(
        dump,
        r#"{{"address":"0x2000", "type":"ARRAY", "class":"0x10f0", "length":{sessions}, "references":[{}], "memsize":{}}}"#,
        all.join(", "),
        40 + 8 * sessions
    );
    for i in 0..sessions {
        let (session, string) = (at(i), at(i) + 40);
        let _ = writeln!(
            dump,
            r#"{{"address":"{session:#x}", "type":"OBJECT", "class":"0x1118", "ivars":1, "references":["{string:#x}"], "file":"app/session.rb", "line":7, "method":"new", "generation":{}, "memsize":40}}
{{"address":"{string:#x}", "type":"STRING", "class":"0x10c8", "bytesize":11, "value":"the same {}!", "memsize":40}}"#,
            3 + i % 2,
            i % 2
        );
    }
    // Addresses of 64 bits.
    dump.replace("\"0x", "\"0x7f000")
}

fn environment() -> Environment {
    let environment = Environment::new();
    for (name, sessions) in [("a.json", 10), ("b.json", 15), ("c.json", 13)] {
        environment.write(name, &dump(sessions));
    }
    environment
}

#[test]
fn heap_top_and_retained() {
    let mut environment = environment();
    for (line, column) in [
        ("heap top a.json", "CLASS"),
        ("heap top a.json --by type --sort count -n 3", "TYPE"),
        ("heap top a.json --by site", "SITE"),
        ("heap top a.json --by generation", "GENERATION"),
        ("heap retained a.json -n 4", "CLASS"),
        ("heap retained a.json --by class -n 2", "CLASS"),
    ] {
        environment.run_text_table(line, &[column]);
    }
    environment.run_json("heap top a.json --json -n 1");
    environment.run_json("heap retained a.json --json -n 1");
    environment.snapshot("heap_top_and_retained");
}

#[test]
fn heap_top_of_a_summary() {
    const SUMMARY: &str = r#"{"schema":1,"producer":"walker","ruby":"3.4.1","complete":true,
        "objects":{"count":1500,"bytes":90000,"old":1200,"old_bytes":80000},"free_slots":12,"free_bytes":480,
        "types":{"groups":[]},"sites":{"groups":[]},"generations":{"groups":[]},
        "classes":{"groups":[{"name":"String","count":1000,"bytes":50000,"old":900,"old_bytes":45000},
                             {"name":"Session","count":500,"bytes":40000,"old":300,"old_bytes":35000}],"left_out":7}}"#;
    let mut environment = environment();
    environment.write("summary.json", SUMMARY);
    environment.run_text_table("heap top summary.json", &["CLASS"]);
    environment.run_text_table("heap top summary.json --sort count -n 1", &["CLASS"]);
    environment.run_json("heap top summary.json --json -n 1");
    for line in
        ["heap top summary.json --sort retained", "heap top summary.json --by site", "heap path summary.json Session"]
    {
        environment.run(line);
    }
    environment.snapshot("heap_top_of_a_summary");
}

#[test]
fn heap_paths_and_objects() {
    let mut environment = environment();
    environment.run_text_table("heap path a.json Session", &["PATH"]);
    environment.run("heap path a.json 0x7f00010028");
    environment.run("heap object a.json 0x7f00010000");
    environment.run_json("heap path a.json 0x7f0002000 --json");
    for line in [
        "heap path a.json 0x7f0003000",
        "heap path a.json Sessions",
        "heap path a.json session",
        "heap path a.json Nonsense",
        "heap path a.json 0x7f0000008",
        "heap object a.json App",
        "heap path a.json 7f00010028",
        "heap path a.json 0X7F00010028",
        "heap path a.json 7F0000008",
        "heap path a.json Facade",
    ] {
        environment.run(line);
    }
    let facade = dump(1).replace("\"name\":\"Session\"", "\"name\":\"Facade0\"");
    environment.write("facade.json", &facade.replace("0x7f00010000", "0xfacade0").replace("0x7f00010028", "0xfacad8"));
    environment.run("heap path facade.json Facade0");
    environment.snapshot("heap_paths_and_objects");
}

#[test]
fn heap_differences() {
    let mut environment = environment();
    environment.run_text_table("heap diff a.json b.json", &["PATH"]);
    environment.run_text_table("heap diff a.json b.json c.json", &["PATH"]);
    environment.run_json("heap diff a.json b.json --json -n 1");
    environment.comment("in the reversed order");
    environment.run("heap diff b.json a.json");
    environment.run("heap diff b.json a.json a.json");
    environment.comment("the same dump twice");
    environment.run("heap diff a.json ./a.json");
    environment.snapshot("heap_differences");
}

#[test]
fn heap_strings_and_waste() {
    let mut environment = environment();
    // The key of the hashes is random.
    environment.redact(r#""hash": "[0-9a-f]{16}""#, r#""hash": "0123456789abcdef""#);
    environment.run_text_table("heap strings a.json", &["PATH"]);
    environment.run_json("heap strings a.json --json -n 1 --members 3");
    environment.run_json("heap object a.json 0x7f00010028 --json");
    environment.run_table("heap waste a.json");
    environment.comment("one of each");
    environment.write(
        "one.json",
        r#"{"type":"ROOT", "root":"vm", "references":["0x7f0000001000", "0x7f0000002000"]}
{"address":"0x7f0000001000", "type":"STRING", "shared":true, "memsize":40}
"#,
    );
    environment.run("heap strings one.json");
    environment.snapshot("heap_strings_and_waste");
}

#[test]
fn heap_exports() {
    let mut environment = environment();
    environment.run("heap export a.json --format folded");
    environment.shell("diagctl heap export c.json --format json | head -n 3");
    environment.shell("diagctl heap export a.json --format json | diagctl heap top - -n 2");
    environment.comment("to a reader that needs no more");
    environment.write("large.json", &dump(2_000));
    for format in ["json", "heapsnapshot", "folded", "svg", "pprof"] {
        environment.shell(&format!("diagctl heap export large.json --format {format} | head -c 1 > /dev/null"));
    }
    for format in ["heapsnapshot", "pprof", "svg"] {
        environment.run(&format!("heap export a.json --format {format} -o out.{format}"));
        assert!(environment.path(&format!("out.{format}")).metadata().unwrap().len() > 100, "{format}");
    }
    environment.snapshot("heap_exports");
}

#[test]
fn heap_dumps_that_cannot_be_read() {
    let mut environment = environment();
    environment.write("text", "not a heap dump\n");
    environment.write("empty", "");
    environment.write("object", "{\"name\":\"package.json\"}\n");
    environment.write("cut.json", &dump(10)[..2000]);
    environment.write("cut.gz", "\u{1f}");
    for line in [
        "heap top text",
        "heap top empty",
        "heap top object",
        "heap top cut.json -n 1",
        "heap path cut.json String -n 1",
        "heap waste cut.json",
        "heap diff cut.json a.json -n 1",
        "heap export cut.json --format folded",
        "heap export cut.json --format json",
        "heap export object --format json -o object.out",
        "heap export empty --format json",
        "heap top missing.json",
        "heap top ./missing.json",
        "heap top .",
        "heap path a.json",
        "heap",
        "heap top",
        "heap export a.json --format exe",
        "heap export a.json",
    ] {
        environment.run(line);
    }
    assert!(!environment.path("object.out").exists());
    environment.snapshot("heap_dumps_that_cannot_be_read");
}

#[test]
fn a_compressed_dump_that_is_damaged_is_read_as_far_as_it_goes() {
    let environment = Environment::new();
    let dump = dump(2_000);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(dump.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(dump.as_bytes(), 1).unwrap();
    let cut = |data: &[u8]| data[..data.len() * 3 / 4].to_vec();
    let with_garbage = |data: &[u8]| [data, b"garbage"].concat();
    let mut bad_checksum = gzip.clone();
    let checksum = bad_checksum.len() - 8;
    bad_checksum[checksum] ^= 0x55;
    let inputs = [cut(&gzip), cut(&zstd), with_garbage(&gzip), with_garbage(&zstd), bad_checksum];
    for (number, data) in inputs.into_iter().enumerate() {
        std::fs::write(environment.path("damaged"), data).unwrap();
        for line in ["heap top damaged -n 1", "heap export damaged --format json"] {
            let output = environment.command(BIN).args(line.split(' ')).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(5), "{number} {line}: {stderr}");
            assert!(stderr.contains("damaged: it is cut off or damaged after "), "{number} {line}: {stderr}");
            assert!(output.stdout.len() > 100, "{number} {line}");
        }
    }
    std::fs::write(environment.path("damaged"), &gzip[..15]).unwrap();
    let output = environment.command(BIN).args(["heap", "top", "damaged"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn heap_dumps_of_unusual_form() {
    let mut environment = environment();
    environment.write("windows.json", &format!("\u{feff}{}", dump(1).replace('\n', "\r\n")));
    environment.write("twice.json", &dump(1).repeat(2));
    // The same program again: the kernel has given it other addresses. More classes than these two would tell.
    let classes = |base: u64| -> String {
        let class = |at: u64| {
            format!(
                "{{\"address\":\"{:#x}\", \"type\":\"CLASS\", \"class\":\"{:#x}\", \"name\":\"C{at}\", \"memsize\":40}}\n",
                base + at * 40,
                base + at * 40
            )
        };
        (0..20).map(class).collect()
    };
    environment.write("one.json", &classes(0x7f00_0000_0000));
    environment.write("other.json", &classes(0x7e00_0000_0000));
    for line in [
        "heap top windows.json -n 2",
        "heap top twice.json -n 2",
        "heap diff - a.json -",
        "heap diff one.json other.json -n 1",
    ] {
        environment.run(line);
    }
    environment.shell("diagctl heap export windows.json --format json | diagctl heap top - -n 2");
    environment.shell("mkfifo pipe; cat a.json > pipe & diagctl heap top pipe -n 1");
    environment.snapshot("heap_dumps_of_unusual_form");
}

#[test]
fn the_heap_dump_of_a_capture_is_read() {
    let mut environment = fixture::environment();
    environment.run(&format!("heap top {HEAP} -n 3"));
    environment.run(&format!("heap top {HEAP}:gc_stat"));
    environment.run("heap top latest:nothing");
    environment.run("heap top latest:heapdump");
    environment.run(&format!("heap diff {HEAP} 20261119 -n 1"));
    environment.snapshot("the_heap_dump_of_a_capture_is_read");
}

#[test]
fn names_do_not_break_the_terminal() {
    let environment = Environment::new();
    // A name in Ruby can hold these: other control characters are in no constant. A file can have any name.
    let name = "Evil\\u009b31m\\u202e";
    let dump = dump(1)
        .replace("\"name\":\"Session\"", &format!("\"name\":\"{name}\""))
        .replace("app/session.rb", "app/Evil\u{1b}[2J\u{7}\u{202e}.rb");
    for command in [
        "top -",
        "top - --by site",
        "retained -",
        "path - 0x7f00010000",
        "object - 0x7f00010000",
        "export - --format folded",
    ] {
        let arguments = command.split(' ');
        let mut child = environment
            .command(BIN)
            .arg("heap")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(dump.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("Evil"), "{command}: {text}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'), "{command}: {text:?}");
    }
}
