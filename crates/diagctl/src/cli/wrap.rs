//! Text that is broken at blanks.

use super::error::printable;

/// Columns.
const WIDTH: usize = 80;

/// Breaks a text at blanks. The first line begins with the mark, and the others are indented as far.
pub fn wrapped(mark: &str, text: &str) -> String {
    wrapped_in(WIDTH, mark, text)
}

/// Breaks a text at this width.
pub fn wrapped_in(width: usize, mark: &str, text: &str) -> String {
    let blank = " ".repeat(mark.len());
    let (mut all, mut line) = (String::new(), mark.to_owned());
    let mut is_empty = true;
    for word in printable(text).split(' ') {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > width {
            all.push_str(&format!("{line}\n"));
            line.clone_from(&blank);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    format!("{all}{line}\n")
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
