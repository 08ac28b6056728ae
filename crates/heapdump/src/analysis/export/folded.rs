//! Folded stacks, one line each: the input of flame graph tools.

use std::io::{self, Write};

use crate::analysis::frames::Frames;

/// Writes the stacks of classes with their own bytes.
pub fn write(frames: &Frames, out: &mut dyn Write) -> io::Result<()> {
    for line in lines(frames) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// The lines.
pub fn lines(frames: &Frames) -> impl Iterator<Item = String> + '_ {
    frames.filled().map(|(frame, filled)| {
        let mut names: Vec<String> = frames.stack(frame).map(|frame| clean(frames.name(frame))).collect();
        names.reverse();
        format!("{} {}", names.join(";"), filled.own.bytes)
    })
}

// The format has no escapes.
fn clean(name: &str) -> String {
    name.chars().map(|c| if c == ';' || super::steers(c) { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::held::Held;
    use crate::analysis::testing::{Heap, application, object};
    use crate::record::Type;

    #[test]
    fn every_reachable_byte_is_in_one_line() {
        let graph = application(10);
        let held = Held::new(&graph);
        let mut out = Vec::new();
        write(&Frames::new(&graph, &held), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let bytes: u64 = text.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
        assert_eq!(bytes, held.retained[0], "{text}");
        assert!(text.contains("root;Object;App;Hash;Array 40\n"), "{text}");
    }

    #[test]
    fn a_class_name_cannot_forge_a_line() {
        let mut heap = Heap::new();
        heap.root("vm", 0x2000).class(0x1000, "A;B\nC 9\x1b[2J", &[]).add(object(0x2000, Type::OBJECT, 0x1000), &[]);
        let graph = heap.finish();
        let frames = Frames::new(&graph, &Held::new(&graph));
        let lines: Vec<String> = lines(&frames).collect();
        assert!(lines.contains(&"root;A_B_C 9_[2J 40".to_owned()), "{lines:?}");
    }
}
