//! `[defaults]` and `[templates.NAME]`: keys that rules share, written once.
//!
//! A rule's own keys override its template's, which override the defaults. `limits` and `match` are merged key by key. The
//! merge comes before all checks, so that merged keys are checked like any others.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::Origins;
use crate::section::{NOT_ONE_TABLE, Problems, as_one_table, is_list_of_tables, nearest};
use diagctl_fs::printable;

/// Tables that are merged key by key.
const MERGED: [&str; 2] = ["limits", "match"];

/// Merges defaults and templates into the rules, and removes both from the document. Returns the sources of each rule's keys,
/// and the defaults and templates that no rule uses, which would otherwise go unchecked.
pub fn expand(document: &mut Table, problems: &Problems) -> (Vec<Origins>, BTreeMap<String, Table>) {
    let defaults = take_table(document, "defaults", problems);
    let templates = take_table(document, "templates", problems);
    let mut unused: BTreeMap<String, Table> = templates
        .iter()
        .filter_map(|(name, template)| Some((format!("templates.{name}"), template.as_table()?.clone())))
        .collect();
    unused.insert("defaults".into(), defaults.clone());
    let mut all = Vec::new();
    for (i, rule) in document.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        let mut origins = Origins::new();
        // A rule that is not a table is reported by the parser of rules.
        if let Some(rule) = rule.as_table_mut() {
            if let Some(named) = rule.remove("template") {
                let path = format!("rules[{i}].template");
                match (named.as_str(), named.as_str().and_then(|name| templates.get(name))) {
                    (Some(name), Some(Value::Table(template))) => {
                        fill(rule, template, &format!("template {name}"), &mut origins);
                        unused.remove(&format!("templates.{name}"));
                    }
                    // The template is not a table, which `take_table` has reported.
                    (Some(_), Some(_)) => {}
                    (Some(name), None) => {
                        let near = nearest(name, templates.keys().map(String::as_str));
                        let hint = near.map_or_else(
                            || format!("declare it as [templates.{name}]"),
                            |near| format!("did you mean {near:?}?"),
                        );
                        problems.add(path, format!("there is no template {name:?}"), Some(hint));
                    }
                    (None, _) => {
                        let hint = "write it like template = \"heap\", and declare [templates.heap]".to_owned();
                        problems.add(path, format!("{named} is not the name of a template"), Some(hint));
                    }
                }
            }
            fill(rule, &defaults, "defaults", &mut origins);
            unused.remove("defaults");
        }
        all.push(origins);
    }
    (all, unused)
}

/// Returns the path at which a key of a rule was written: `templates.heap.for` for a `rules[0].for` from that template.
pub fn written_at(path: &str, origins: &[Origins]) -> String {
    let written = || {
        let (index, key) = path.strip_prefix("rules[")?.split_once("].")?;
        let origins = origins.get(index.parse::<usize>().ok()?)?;
        let mut ends = key.match_indices(['.', '[']).map(|(at, _)| at).chain([key.len()]);
        let origin = ends.find_map(|end| origins.get(&key[..end]))?;
        let table = origin.strip_prefix("template ").map_or_else(|| origin.clone(), |name| format!("templates.{name}"));
        Some(format!("{table}.{key}"))
    };
    written().unwrap_or_else(|| path.to_owned())
}

fn take_table(document: &mut Table, key: &str, problems: &Problems) -> Table {
    let mut table = match document.remove(key) {
        None => Table::new(),
        Some(Value::Table(table)) => table,
        Some(other) if is_list_of_tables(&other) => {
            problems.add(key, NOT_ONE_TABLE, Some(as_one_table(key)));
            Table::new()
        }
        Some(other) => {
            problems.add(
                key,
                format!("expected a table, found {}", other.type_str()),
                Some(format!("write it as [{key}]")),
            );
            Table::new()
        }
    };
    if key == "defaults" {
        take_forbidden(key, &mut table, problems);
        return table;
    }
    for (name, template) in &mut table {
        let path = format!("{key}.{}", printable(name));
        match template {
            Value::Table(template) => take_forbidden(&path, template, problems),
            other if is_list_of_tables(other) => {
                let hint = as_one_table(&path);
                problems.add(path, NOT_ONE_TABLE, Some(hint));
            }
            other => {
                let hint = format!("write it as [{path}], followed by the keys of a rule");
                problems.add(path, format!("expected a table, found {}", other.type_str()), Some(hint));
            }
        }
    }
    table
}

// Removes keys that cannot be shared, so that they are reported once and not again for every rule.
fn take_forbidden(path: &str, table: &mut Table, problems: &Problems) {
    for forbidden in ["name", "template"].into_iter().filter(|forbidden| table.remove(*forbidden).is_some()) {
        let hint = "set it in each rule".to_owned();
        problems.add(format!("{path}.{forbidden}"), "cannot be shared by rules", Some(hint));
    }
}

fn fill(rule: &mut Table, from: &Table, origin: &str, origins: &mut Origins) {
    for (key, value) in from {
        match (rule.get_mut(key), value) {
            (None, value) => {
                rule.insert(key.clone(), value.clone());
                origins.insert(key.clone(), origin.to_owned());
            }
            (Some(Value::Table(own)), Value::Table(theirs)) if MERGED.contains(&key.as_str()) => {
                for (inner, value) in theirs.iter().filter(|(inner, _)| !own.contains_key(*inner)).collect::<Vec<_>>() {
                    own.insert(inner.clone(), value.clone());
                    origins.insert(format!("{key}.{inner}"), origin.to_owned());
                }
            }
            (Some(_), _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn rules_override_templates_and_templates_override_defaults() {
        let text = r#"
            [defaults]
            select = "largest"
            limits = { cooldown = "1h", max_count = 3 }
            [templates.heap]
            reports = ["heap_dump", "smaps"]
            select = "round_robin"
            match = { role = "puma" }
            [[rules]]
            name = "a"
            template = "heap"
            match = { name = "worker-0" }
            limits = { cooldown = "5m" }
            trigger.timer = { every = "1h" }
            [[rules]]
            name = "b"
            reports = ["smaps"]
            trigger.timer = { every = "1h" }
        "#;
        let (config, _) = parse(text).unwrap_or_else(|p| panic!("{p:?}"));
        let (a, b) = (&config.rules[0], &config.rules[1]);
        assert_eq!(a.reports, ["smaps", "heap_dump"]);
        assert_eq!(
            (a.matching.role.clone(), a.matching.name.clone()),
            (Some(vec!["puma".into()]), Some(vec!["worker-0".into()]))
        );
        assert_eq!((a.limits.cooldown.as_secs(), a.limits.max_count), (300, Some(3)));
        assert_eq!(a.origins["select"], "template heap");
        assert_eq!(a.origins["limits.max_count"], "defaults");
        assert_eq!((b.origins["select"].as_str(), b.limits.cooldown.as_secs()), ("defaults", 3600));
        assert!(!b.origins.contains_key("reports"));
    }

    #[test]
    fn unmergeable_keys_are_reported() {
        let rule = "[[rules]]\nname = \"a\"\nreports = [\"smaps\"]\ntrigger.timer = { every = \"1h\" }\n";
        let table = [
            (format!("{rule}template = \"heep\"\n[templates.heap]\nfor = \"1m\""), "did you mean \"heap\"?"),
            (format!("{rule}template = 3"), "rules[0].template: 3 is not the name of a template"),
            (format!("defaults = 3\n{rule}"), "defaults: expected a table, found integer"),
            (format!("{rule}[defaults]\nname = \"x\""), "defaults.name: cannot be shared by rules"),
            (format!("{rule}[defaults]\nselekt = \"first\""), "defaults.selekt: unknown key"),
            (format!("{rule}[templates.unused]\nselekt = \"first\""), "templates.unused.selekt: unknown key"),
            (
                format!("{rule}template = \"heap\"\n[templates.heap]\nlimits = {{ cooldown = 3 }}"),
                "templates.heap.limits.cooldown: 3 is",
            ),
            (
                format!("{rule}template = \"heap\"\n[templates]\nheap = 3"),
                "templates.heap: expected a table, found integer",
            ),
        ];
        for (text, expected) in table {
            let problems = parse(&text).err().unwrap_or_default();
            let found: Vec<String> =
                problems.iter().map(|p| format!("{}: {} {:?}", p.path, p.message, p.hint)).collect();
            assert!(found.len() == 1 && found[0].replace('\\', "").contains(expected), "{text}\n{found:?}");
        }
    }
}
