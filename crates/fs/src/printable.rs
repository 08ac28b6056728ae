//! Safe printing of names and paths, which come from outside and end up on terminals and in logs.

use super::without_secrets;

/// Returns true if a character controls a terminal or reorders the text of a line.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes text from outside (paths, names, messages) for printing. Control characters, and Unicode characters that reorder a
/// line, become escapes, so that the text cannot control a terminal or forge a line.
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

/// A value from outside in quotes, as errors name it: printable like all of them, without secrets, and not longer than a line.
pub fn quoted(value: &str) -> String {
    const SHOWN: usize = 120;
    let value = &*without_secrets(value);
    match value.char_indices().nth(SHOWN) {
        None => format!("{value:?}"),
        Some((end, _)) => format!("{:?}… ({} bytes)", &value[..end], value.len()),
    }
}
