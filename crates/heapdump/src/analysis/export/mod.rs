//! The graph in the formats of other tools. None has a value of the application.

pub mod folded;
pub mod heapsnapshot;
pub mod pprof;

use std::io::{self, Write};

// Returns true for what a terminal acts on: control characters, and those that reorder a line.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

// Writes a string of JSON.
fn quoted(text: &str, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"\"")?;
    let mut written = 0;
    for (at, c) in text.char_indices() {
        if c == '"' || c == '\\' || steers(c) {
            out.write_all(&text.as_bytes()[written..at])?;
            write!(out, "\\u{:04x}", u32::from(c))?;
            written = at + c.len_utf8();
        }
    }
    out.write_all(&text.as_bytes()[written..])?;
    out.write_all(b"\"")
}
