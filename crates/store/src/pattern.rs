//! Patterns of names: of machines, processes and people.

/// Returns true if a text matches a pattern, in which `*` stands for any characters and `?` for one.
pub fn is_like(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return text.chars().count() == pattern.chars().count()
            && pattern.chars().zip(text.chars()).all(|(wanted, c)| wanted == '?' || wanted == c);
    };
    let mut tail = text;
    for wanted in head.chars() {
        let mut chars = tail.chars();
        if !chars.next().is_some_and(|c| wanted == '?' || wanted == c) {
            return false;
        }
        tail = chars.as_str();
    }
    // Names have at most 128 bytes, and patterns few stars.
    tail.char_indices().map(|(at, _)| at).chain([tail.len()]).any(|at| is_like(rest, &tail[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_and_a_question_mark_one_character() {
        let table = [
            ("web-1", "web-1", true),
            ("web-1", "web-11", false),
            ("web-?", "web-ä", true),
            ("web-?", "web-11", false),
            ("web-*", "web-", true),
            ("*", "", true),
            ("*-eu-*", "web-eu-1", true),
            ("*@acme.example", "ann@acme.example", true),
            ("*@acme.example", "ann@acme.example.org", false),
            ("a*b*c", "a1b2c3c", true),
            ("a*b", "ab-", false),
            ("*ü", "xü", true),
            ("", "a", false),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(is_like(pattern, text), expected, "{pattern} {text}");
        }
    }
}
