//! Gives the lines of a heap dump the white space that Ruby writes: one blank after each comma, and no other. Other programs write
//! more or less of it (`jq -c`, Python's `json.dumps`), and a carriage return stands before each newline of a file that went through
//! Windows.

use std::io::{self, BufRead, Read};

/// The size of the pieces that are read, bytes.
const CHUNK: usize = 64 << 10;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Skips a byte order mark at the beginning of the input.
pub fn skip_byte_order_mark(input: &mut impl BufRead) -> io::Result<()> {
    if input.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
        input.consume(BYTE_ORDER_MARK.len());
    }
    Ok(())
}

/// Returns JSON as Ruby writes it: without a byte order mark, and with the white space of Ruby.
pub fn of_ruby<'a>(mut input: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    skip_byte_order_mark(&mut input)?;
    let start = input.fill_buf()?;
    // Roots can be a line that is longer than the buffer.
    let first_line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(if is_of_ruby(first_line) { Box::new(input) } else { Box::new(OfRuby::new(input)) })
}

// Returns true for a line, or the beginning of one, that Ruby may have written.
fn is_of_ruby(line: &[u8]) -> bool {
    let (mut place, mut before) = (Place::default(), b'{');
    for &byte in line {
        let is_outside = place.is_outside();
        place.step(byte);
        let is_missing_or_other = (byte == b' ') != (before == b',') || matches!(byte, b'\r' | b'\t');
        if is_outside && is_missing_or_other {
            return false;
        }
        before = if is_outside { byte } else { 0 };
    }
    true
}

/// The position in a line: outside of all strings, or in one.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    in_string: bool,
    escaped: bool,
}

impl Place {
    fn is_outside(self) -> bool {
        !self.in_string
    }

    fn step(&mut self, byte: u8) {
        match byte {
            // No string goes on in the next line.
            b'\n' => *self = Self::default(),
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            _ => {}
        }
    }
}

/// JSON with the white space of Ruby.
#[derive(Debug)]
struct OfRuby<R> {
    input: R,
    place: Place,
    chunk: Vec<u8>,
    /// What is still to be given out.
    ready: Vec<u8>,
    given: usize,
}

impl<R: Read> OfRuby<R> {
    fn new(input: R) -> Self {
        Self { input, place: Place::default(), chunk: vec![0; CHUNK], ready: Vec::new(), given: 0 }
    }

    // Returns false at the end of the input.
    fn fill(&mut self) -> io::Result<bool> {
        (self.given, self.ready) = (0, std::mem::take(&mut self.ready));
        self.ready.clear();
        let read = self.input.read(&mut self.chunk)?;
        for &byte in &self.chunk[..read] {
            let is_outside = self.place.is_outside();
            self.place.step(byte);
            match byte {
                b' ' | b'\t' | b'\r' if is_outside => {}
                b',' if is_outside => self.ready.extend(b", "),
                _ => self.ready.push(byte),
            }
        }
        Ok(read > 0)
    }
}

impl<R: Read> Read for OfRuby<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.ready.len() {
            if !self.fill()? {
                return Ok(0);
            }
        }
        let rest = &self.ready[self.given..];
        let given = rest.len().min(buffer.len());
        buffer[..given].copy_from_slice(&rest[..given]);
        self.given += given;
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUBYS: &str = r#"{"address":"0x10", "value":"a, b: [\"c\"]\\", "references":["0x20", "0x30"], "flags":{"old":true, "frozen":true}}"#;

    #[test]
    fn the_white_space_becomes_that_of_ruby_and_strings_stay_as_they_are() {
        assert!(is_of_ruby(RUBYS.as_bytes()));
        let value: serde_json::Value = serde_json::from_str(RUBYS).unwrap();
        let compact = serde_json::to_string(&value).unwrap();
        let wide = RUBYS.replace("\":", "\": ");
        for line in
            [&compact, &wide, &format!("{RUBYS}\r"), &RUBYS.replacen('{', "{ ", 1), &RUBYS.replace(", \"", ",\t\"")]
        {
            assert!(!is_of_ruby(line.as_bytes()), "{line}");
            let dump = [line.as_str(), RUBYS, ""].join("\n");
            let mut changed = String::new();
            OfRuby::new(dump.as_bytes()).read_to_string(&mut changed).unwrap();
            assert_eq!(changed, format!("{RUBYS}\n{RUBYS}\n"));
        }
    }

    #[test]
    fn a_string_that_is_not_ended_ends_with_its_line() {
        let mut changed = String::new();
        OfRuby::new(&b"{\"a\":\"cut\n{\"b\":[1,2]}\n"[..]).read_to_string(&mut changed).unwrap();
        assert_eq!(changed, "{\"a\":\"cut\n{\"b\":[1, 2]}\n");
    }
}
