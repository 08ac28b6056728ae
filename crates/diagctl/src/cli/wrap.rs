//! Text that is broken at blanks.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

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

/// Does the same for a cell of a table, beside which nothing may run over: a longer word is broken too, after one of the signs that
/// names and paths are made of if there is one.
pub fn fitted(room: usize, text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for line in broken(room, text) {
        let mut rest = line.as_str();
        while rest.width() > room {
            let (line, more) = rest.split_at(break_of(rest, room));
            lines.push(line.to_owned());
            rest = more;
        }
        // A sign wider than a line leaves nothing.
        if !rest.is_empty() || line.is_empty() {
            lines.push(rest.to_owned());
        }
    }
    lines
}

// Returns the length of the first line of a long word.
fn break_of(word: &str, room: usize) -> usize {
    let (mut width, mut end, mut after_sign) = (0, 0, None);
    let is_sign = |c: char| matches!(c, ':' | '/' | '.' | ',' | '-' | '_' | '=' | '#' | ']');
    for (at, c) in word.char_indices() {
        width += c.width().unwrap_or(0);
        if width > room && end > 0 {
            break;
        }
        end = at + c.len_utf8();
        // Not between two signs: `App::` belongs together.
        if is_sign(c) && !word[end..].starts_with(is_sign) {
            after_sign = Some(end);
        }
    }
    // A sign at the beginning would waste the line.
    after_sign.filter(|at| *at > end / 3).unwrap_or(end)
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

    #[test]
    fn a_word_longer_than_a_cell_is_broken_after_a_sign() {
        let table = [
            (20, "rss 1 GiB", "rss 1 GiB"),
            (8, "rss 1 GiB", "rss 1|GiB"),
            (20, "in /var/lib/diagctl/reports/20261121", "in|/var/lib/diagctl/|reports/20261121"),
            (12, "ActiveRecord::Relation is", "ActiveRecord|::Relation|is"),
            (14, "ActiveRecord::Relation is", "ActiveRecord::|Relation|is"),
            (20, "Action::ActiveRecord::Relation", "Action::|ActiveRecord::|Relation"),
            (4, "abcdefghij", "abcd|efgh|ij"),
            (3, "日本日本", "日|本|日|本"),
            (1, "日本", "日|本"),
            (5, "", ""),
        ];
        for (room, text, expected) in table {
            assert_eq!(fitted(room, text).join("|"), expected, "{text}");
        }
    }
}
