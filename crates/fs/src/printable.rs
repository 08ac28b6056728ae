//! Names and paths come from outside and end up on terminals and in logs.

/// Tells whether a character makes a terminal do something, or reorders what is on a line.
pub fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Makes text from outside (paths, names, messages) safe to print: control characters, and the Unicode
/// characters that reorder a line, become escapes, so nothing can steer a terminal or forge a line.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
