//! Text that is broken at blanks.

use unicode_width::UnicodeWidthStr as _;

use super::error::printable;

/// Columns.
const WIDTH: usize = 80;

/// Breaks a text at blanks. The first line begins with the mark, and the others are indented as far.
pub fn wrapped(mark: &str, text: &str) -> String {
    let blank = " ".repeat(mark.len());
    let lines = broken(WIDTH.saturating_sub(mark.len()), text);
    lines.iter().enumerate().map(|(i, line)| format!("{}{line}\n", if i == 0 { mark } else { &blank })).collect()
}

/// Breaks a text at blanks into lines of at most so many columns. A longer word has a line to itself.
pub fn broken(room: usize, text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in printable(text).split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.width() + 1 + word.width() <= room => line.extend([" ", word]),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_at_blanks_and_indented() {
        let text = wrapped("  - ", &"word ".repeat(30));
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.starts_with("  - word") && text.lines().nth(1).is_some_and(|line| line.starts_with("    word")));
        let long = "x".repeat(200);
        assert_eq!(wrapped("", &long), format!("{long}\n"));
    }
}
