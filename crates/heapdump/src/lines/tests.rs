use super::*;

const DUMP: &[u8] = include_bytes!("../../fixtures/ruby31.json");

fn check(data: &[u8]) -> Option<String> {
    check_in_chunks(data, data.len().max(1))
}

fn check_in_chunks(data: &[u8], size: usize) -> Option<String> {
    let mut lines = HeapLines::default();
    data.chunks(size).for_each(|chunk| lines.feed(chunk));
    lines.finish()
}

// Checks a line between two good ones. The first one establishes the length of an address.
fn in_the_middle(line: &str) -> Option<String> {
    let usual = r#"{"address":"0x7fc4927c4120", "type":"OBJECT", "class":"0x7fc4927c41e8", "ivars":3, "memsize":40}"#;
    check(format!("{usual}\n{line}\n{usual}\n").as_bytes())
}

#[test]
fn a_real_dump_is_whole() {
    assert_eq!(check(DUMP), None);
    assert_eq!(check(b""), None);
}

#[test]
fn every_valid_kind_of_line_is_accepted() {
    for line in [
        r#"{"type":"ROOT", "root":"vm", "references":["0x7fc4927c4120", "0x7fc4927c41e8"]}"#,
        r#"{"address":"0x7fc4927c4120", "type":"NONE", "slot_size":40}"#,
        r#"{"address":"0x7fc4927c4120", "type":"ZOMBIE"}"#,
        r#"{"address":"0x7fc4927c4120", "type":"SHAPE", "id":5, "parent_id":1, "depth":2, "shape_type":"IVAR","edge_name":"@a", "edges":0, "memsize":40}"#,
        r#"{"address":"0x7fc4927c4120", "type":"IMEMO", "class":"0x8", "imemo_type":"cref"}"#,
        r#"{"address":"0x7fc4927c4120", "type":"HASH", "size":0, "default":"0x8"}"#,
        r#"{"address":"0x7fc4927c4120", "type":"FLOAT", "value":"1.50000", "memsize":40}"#,
        r#"{"address":"0x7fc4927c4120", "type":"FILE", "fd":-1}"#,
        r#"{"address":"0x7fc4927c4120", "type":"STRING", "embedded":true, "bytesize":6, "value":"\"\\\u0001a\nb", "encoding":"UTF-8", "memsize":40}"#,
        // Names that Ruby leaves unescaped.
        r#"{"address":"0x7fc4927c4120", "type":"OBJECT", "file":"/srv/a"b\c/é.rb", "line":3, "method":"say "hi"", "memsize":40}"#,
        "{\"address\":\"0x7fc4927c4120\", \"type\":\"CLASS\", \"name\":\"A\u{1}\t\"}",
        // Flags of later versions.
        r#"{"address":"0x7fc4927c4120", "type":"OBJECT", "flags":{"old":true, "object_id":8, "pinned":null, "shareable":{"type":"SYMBOL", "value":"a"}}}"#,
    ] {
        assert_eq!(in_the_middle(line), None, "{line}");
    }
    let latin = b"{\"address\":\"0x7fc4927c4120\", \"type\":\"CLASS\", \"name\":\"A\xff\xfe\"}\n";
    assert_eq!(check(latin), None);
}

#[test]
fn every_kind_of_damage_is_reported() {
    for (line, why) in [
        ("", "it is empty"),
        ("x", "it does not begin with a brace"),
        ("{}", "it has no type"),
        (r#"{"address":"0x7fc4927c4120"}"#, "it has no type"),
        (r#"{"address":"0x7fc4927c4120", "type":"STR"#, "it ends inside a string"),
        (r#"{"address":"0x7fc4927c4120", "type":"STRING", "bytesize":7"#, "it ends before its last brace"),
        (
            r#"{"address":"0x7fc4927c4120", "type":"STR{"address":"0x7fc4927c4120", "type":"STRING"}"#,
            "it has no comma after a value",
        ),
        (
            r#"{"address":"0x7fc4927c4120", "type":"STRING"}{"address":"0x7fc4927c4120"}"#,
            "it goes on after its last brace",
        ),
        (r#"{"address":"0x7fc4927c4120", "type":"ARRAY", "type":"STRING"}"#, "a key comes twice"),
        (r#"{"memsize":40, "type":"ARRAY"}"#, "it has no address"),
        (
            r#"{"type":"ROOT", "root":"vm", "address":"0x7fc4927c4120", "memsize":40}"#,
            "it has the key of a root and an address",
        ),
        (r#"{"address":"0x7fc4927c4120", ZING"}"#, "it has something else where a key is due"),
        (r#"{"address":"0x7fc4927c4120", "0x7fc4927c4120", "0x7fc4927c4120"]}"#, "it has no colon after a key"),
        (
            r#"{"address":"0x7fc4927c4120", "type":"ARRAY", "references":["0x7fc4927c4120"}"#,
            "its braces and brackets do not match",
        ),
        (
            r#"{"address":"0x7fc4927c4120", "type":"ARRAY", "references":["0x7fc4STRING"]}"#,
            "it has an address that cannot be",
        ),
        (
            r#"{"address":"0x7fc4927c4120", "type":"ARRAY", "references":["0x7fc4927c412f"]}"#,
            "it has an address that cannot be",
        ),
        (
            r#"{"address":"0x7fc4927c4120", "type":"ARRAY", "references":["0x7fc44120"]}"#,
            "it has a reference to an address that cannot be",
        ),
        (
            r#"{"address":"0x7fc4927c4120", "type":"STRING", "embedded":tr40, "memsize":40}"#,
            "it has a value that is none",
        ),
        (
            r#"{"address":"0x7fc4927c4120", "type":"STRING", "bytesize":7, "value":"abc"}"#,
            "it has a string of another length than it says",
        ),
        (r#"{"address":"0x7fc4927c4120", "type":"STRING", "value":"\x"}"#, "it has an escape that JSON does not know"),
    ] {
        let told = in_the_middle(line).unwrap_or_default();
        assert_eq!(told, format!("line 2 (byte 97) of the heap dump is damaged: {why}"), "{line}");
    }
}

#[test]
fn a_last_line_without_its_newline_is_damaged() {
    let told = check(br#"{"address":"0x7fc4927c4120", "type":"NONE"}"#).unwrap();
    assert_eq!(told, "line 1 (byte 0) of the heap dump is damaged: it has no newline at its end");
}

#[test]
fn an_unknown_key_is_damage_in_one_line_and_a_newer_ruby_in_many() {
    let line = |key: &str| format!("{{\"address\":\"0x7fc4927c4120\", \"type\":\"OBJECT\", \"{key}\":1}}\n");
    let told = check((line("ivars") + &line("ivaize") + &line("ivars")).as_bytes()).unwrap_or_default();
    assert!(told.starts_with("line 2 ") && told.ends_with("damaged: it has a key that no other line has"), "{told}");
    assert_eq!(check(line("colour").repeat(3).as_bytes()), None);
}

#[test]
fn the_first_damaged_line_is_reported_and_the_others_are_counted() {
    let told = check(b"{\"type\":\"ROOT\"}\n{\"ty\n{\"type\":\"ROOT\"}\nx\n{\"type\":\"ROOT\"").unwrap();
    assert_eq!(told, "line 2 (byte 16) of the heap dump is damaged: it ends inside a string; 3 damaged lines in all");
}

// A generator that returns the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % limit as u64) as usize
    }
}

fn with_hole(random: &mut Random) -> (Vec<u8>, std::ops::Range<usize>) {
    let most = [300, 4096, 20_000][random.below(3)];
    let length = 20 + random.below(most);
    let begin = random.below(DUMP.len() - length);
    let mut data = DUMP[..begin].to_vec();
    data.extend_from_slice(&DUMP[begin + length..]);
    (data, begin..begin + length)
}

#[test]
fn a_hole_is_almost_always_found() {
    let mut random = Random(1);
    let missed = (0..2000).filter(|_| check(&with_hole(&mut random).0).is_none()).count();
    assert!(missed < 60, "missed {missed} of 2000");
}

#[test]
fn chunk_boundaries_do_not_matter() {
    assert_eq!(check_in_chunks(DUMP, 1), None);
    let mut random = Random(2);
    for _ in 0..100 {
        let (data, hole) = with_hole(&mut random);
        let whole = check(&data);
        for size in [1, 7, 100, 1000] {
            assert_eq!(check_in_chunks(&data, size), whole, "hole at {hole:?}, chunks of {size}");
        }
    }
}
