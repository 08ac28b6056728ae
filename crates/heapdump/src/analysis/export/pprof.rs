//! The profile format of pprof: <https://github.com/google/pprof/blob/main/proto/profile.proto>.
//!
//! A sample is a stack of the dominator tree with two values, objects and bytes. The message is small enough to be written by hand; a
//! reader takes it compressed with gzip or as it is.

use std::io::{self, Write};

use crate::analysis::frames::Frames;

// Field numbers of the messages.
const PROFILE_SAMPLE_TYPE: u64 = 1;
const PROFILE_SAMPLE: u64 = 2;
const PROFILE_LOCATION: u64 = 4;
const PROFILE_FUNCTION: u64 = 5;
const PROFILE_STRING_TABLE: u64 = 6;
const PROFILE_DEFAULT_SAMPLE_TYPE: u64 = 14;

/// The strings before the names of classes.
const STRINGS: [&str; 5] = ["", "objects", "count", "space", "bytes"];

/// Writes the profile.
pub fn write(frames: &Frames, out: &mut dyn Write) -> io::Result<()> {
    for (kind, unit) in [(1, 2), (3, 4)] {
        message(out, PROFILE_SAMPLE_TYPE, |m| m.number(1, kind).number(2, unit))?;
    }
    for (frame, filled) in frames.filled() {
        // The location of a name has its index, from 1. The innermost comes first.
        let stack: Vec<u64> = frames.stack(frame).map(|at| 1 + u64::from(frames.frames[at as usize].name)).collect();
        let own = [filled.own.objects, filled.own.bytes.min(i64::MAX as u64)];
        message(out, PROFILE_SAMPLE, |m| m.packed(1, &stack).packed(2, &own))?;
    }
    let ids = || 1..=frames.names.len() as u64;
    for id in ids() {
        let mut line = Message::default();
        line.number(1, id);
        message(out, PROFILE_LOCATION, |m| m.number(1, id).bytes(4, &line.0))?;
    }
    for id in ids() {
        let name = id - 1 + STRINGS.len() as u64;
        // Without the name in the program (3), which pprof would take for one of C++: "#<Class:App>" would become "#".
        message(out, PROFILE_FUNCTION, |m| m.number(1, id).number(2, name))?;
    }
    for text in STRINGS.into_iter().chain(frames.names.iter().map(|name| &**name)) {
        let mut field = Message::default();
        field.bytes(PROFILE_STRING_TABLE, text.as_bytes());
        out.write_all(&field.0)?;
    }
    let mut default = Message::default();
    default.number(PROFILE_DEFAULT_SAMPLE_TYPE, 3);
    out.write_all(&default.0)
}

fn message(out: &mut dyn Write, field: u64, fill: impl FnOnce(&mut Message) -> &mut Message) -> io::Result<()> {
    let (mut content, mut framed) = (Message::default(), Message::default());
    fill(&mut content);
    framed.bytes(field, &content.0);
    out.write_all(&framed.0)
}

/// A message of the protocol buffers' wire format.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    fn number(&mut self, field: u64, number: u64) -> &mut Self {
        self.varint(field << 3);
        self.varint(number);
        self
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) -> &mut Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn packed(&mut self, field: u64, numbers: &[u64]) -> &mut Self {
        let mut content = Self::default();
        numbers.iter().for_each(|number| content.varint(*number));
        self.bytes(field, &content.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::held::Held;
    use crate::analysis::testing::application;

    // A field and its content: a number, or bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, &[u8])> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let (mut number, mut shift) = (0, 0);
            loop {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                number |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    return number;
                }
            }
        }
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let number = varint(&mut bytes);
            let content = if key & 7 == 2 { number as usize } else { 0 };
            fields.push((key >> 3, number, &bytes[..content]));
            bytes = &bytes[content..];
        }
        fields
    }

    #[test]
    fn the_profile_has_all_bytes_and_refers_to_what_it_has() {
        let graph = application(10);
        let held = Held::new(&graph);
        let mut out = Vec::new();
        write(&Frames::new(&graph, &held), &mut out).unwrap();
        let of =
            |field| fields(&out).into_iter().filter(move |(found, ..)| *found == field).map(|(_, _, content)| content);
        let strings: Vec<&str> = of(6).map(|text| std::str::from_utf8(text).unwrap()).collect();
        assert_eq!(strings[..6], ["", "objects", "count", "space", "bytes", "root"]);
        let (locations, functions) = (of(4).count(), of(5).count());
        assert_eq!((locations, functions), (strings.len() - 5, strings.len() - 5));
        let mut total = 0;
        for sample in of(2) {
            let sample = fields(sample);
            let packed = |content| fields_of_numbers(content);
            assert!(packed(sample[0].2).iter().all(|location| (1..=locations as u64).contains(location)));
            total += packed(sample[1].2)[1];
        }
        assert_eq!(total, held.retained[0]);
    }

    fn fields_of_numbers(bytes: &[u8]) -> Vec<u64> {
        let (mut numbers, mut number, mut shift) = (Vec::new(), 0u64, 0);
        for byte in bytes {
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if *byte < 0x80 {
                numbers.push(std::mem::take(&mut number));
                shift = 0;
            }
        }
        numbers
    }
}
