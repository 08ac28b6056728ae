//! The lines of a document, for its problems.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::section::Problem;

/// Adds to each problem the line of its key, or that of the nearest table around a missing one.
pub fn add(text: &str, problems: &mut [Problem]) {
    if problems.is_empty() {
        return;
    }
    let Ok(document) = DeTable::parse(text) else { return };
    for problem in problems.iter_mut().filter(|problem| problem.line.is_none()) {
        let span = find(document.get_ref(), &problem.path);
        let before = span.and_then(|span| text.get(..span.start));
        problem.line = before.map(|before| before.matches('\n').count() + 1);
    }
}

// Follows a path such as `rules[1].trigger.timer.every` as far as the document has it.
fn find(document: &DeTable<'_>, path: &str) -> Option<Range<usize>> {
    let (mut table, mut found) = (document, None);
    for part in path.split('.') {
        let (key, index) = part.split_once('[').map_or((part, None), |(key, index)| (key, Some(index)));
        let Some((name, value)) = table.iter().find(|(name, _)| name.get_ref() == key) else { return found };
        found = Some(name.span());
        let mut value = value;
        if let (Some(index), DeValue::Array(items)) = (index, value.get_ref()) {
            let index = index.strip_suffix(']').and_then(|index| index.parse::<usize>().ok());
            let Some(item) = index.and_then(|index| items.get(index)) else { return found };
            found = Some(item.span());
            value = item;
        }
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => return found,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::config::examine;

    #[test]
    fn a_problem_has_the_line_of_its_key_or_of_its_table() {
        let text = "poll_interval = \"1\"\n\n[guards]\nmax_rs = 1\n\n[[rules]]\nname = \"a\"\nreports = [\"smaps\"]\n\
                    trigger.timer = { every = \"1h\" }\n\n[[rules]]\nname = \"b\"\nreports = [\"smaps\"]\n\
                    trigger.any = [\n  { timer = { every = \"1h\" } },\n  { timer = { every = \"often\" } },\n]\n\n\
                    [[rules]]\nname = \"c\"\ntrigger.on_demand = {}\n\n[encrypt]\nrecipients = [\n  # one\n  \"age1x\",\n]\n";
        let found = examine(text).unwrap_or_else(|problems| panic!("{problems:?}")).problems;
        let lines: Vec<_> = found.iter().map(|problem| (problem.path.as_str(), problem.line)).collect();
        let expected = [
            ("poll_interval", Some(1)),
            ("guards.max_rs", Some(4)),
            ("encrypt.recipients[0]", Some(26)),
            ("rules[1].trigger.any[1].timer.every", Some(16)),
            ("rules[2].reports", Some(19)),
        ];
        assert_eq!(lines, expected);
        assert!(found[0].to_string().starts_with("poll_interval (line 1): "), "{}", found[0]);
        let syntax = examine("a = 1\nb = x y\n").map(|_| ()).unwrap_err();
        assert!(syntax[0].to_string().starts_with("line 2: "), "{}", syntax[0]);
    }

    #[test]
    fn a_problem_in_a_template_has_the_line_of_the_template() {
        let text = "[templates.t]\nselect = \"all\"\n\n[[rules]]\nname = \"a\"\ntemplate = \"t\"\nreports = [\"smaps\"]\n\
                    trigger.on_demand = {}\n";
        let found = examine(text).unwrap_or_else(|problems| panic!("{problems:?}")).problems;
        assert_eq!((found[0].path.as_str(), found[0].line), ("templates.t.select", Some(2)));
    }
}
