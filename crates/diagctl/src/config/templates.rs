//! `[defaults]` and `[templates.NAME]`: what rules have in common, written once.
//!
//! A key of the rule beats its template's, the template's beats the defaults'. `limits` and `match` are merged key by key.
//! It is done on the document, before anything is checked, so that what is merged is checked like anything else.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::reader::{Problems, nearest};

/// Where the keys of a rule came from that are not its own: `template heap`, `defaults`.
pub type Origins = BTreeMap<String, String>;

/// Tables whose keys are merged one by one.
const MERGED: [&str; 2] = ["limits", "match"];

/// Merges defaults and templates into the rules, and takes both out of the document.
pub fn expand(document: &mut Table, problems: &Problems) -> Vec<Origins> {
    let defaults = take_table(document, "defaults", problems);
    let templates = take_table(document, "templates", problems);
    let Some(rules) = document.get_mut("rules").and_then(Value::as_array_mut) else { return Vec::new() };
    let mut all = Vec::new();
    for (i, rule) in rules.iter_mut().enumerate() {
        let mut origins = Origins::new();
        // What is no table is a problem that the reader of the rules tells.
        if let Some(rule) = rule.as_table_mut() {
            if let Some(named) = rule.remove("template") {
                let path = format!("rules[{i}].template");
                match (named.as_str(), named.as_str().and_then(|name| templates.get(name))) {
                    (Some(name), Some(Value::Table(template))) => {
                        fill(rule, template, &format!("template {name}"), &mut origins);
                    }
                    (Some(name), _) => {
                        let near = nearest(name, templates.keys().map(String::as_str));
                        let hint = near.map_or_else(
                            || format!("declare it as [templates.{name}]"),
                            |near| format!("did you mean {near:?}?"),
                        );
                        problems.add(path, format!("there is no template {name:?}"), Some(hint));
                    }
                    (None, _) => problems.add(path, format!("{named} is not the name of a template"), None),
                }
            }
            fill(rule, &defaults, "defaults", &mut origins);
        }
        all.push(origins);
    }
    all
}

fn take_table(document: &mut Table, key: &str, problems: &Problems) -> Table {
    let table = match document.remove(key) {
        None => Table::new(),
        Some(Value::Table(table)) => table,
        Some(other) => {
            problems.add(key, format!("it is {}, not a table", other.type_str()), Some(format!("write it as [{key}]")));
            Table::new()
        }
    };
    let own = if key == "defaults" { vec![(key.to_owned(), &table)] } else { named(key, &table) };
    for (path, table) in own {
        for forbidden in ["name", "template"].into_iter().filter(|forbidden| table.contains_key(*forbidden)) {
            let hint = "say it in the rule itself".to_owned();
            problems.add(format!("{path}.{forbidden}"), "rules cannot have it in common", Some(hint));
        }
    }
    table
}

fn named<'t>(key: &str, table: &'t Table) -> Vec<(String, &'t Table)> {
    table.iter().filter_map(|(name, value)| Some((format!("{key}.{name}"), value.as_table()?))).collect()
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
    fn a_rule_beats_its_template_and_a_template_the_defaults() {
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
        assert_eq!((a.matching.role.as_deref(), a.matching.name.as_deref()), (Some("puma"), Some("worker-0")));
        assert_eq!((a.limits.cooldown.as_secs(), a.limits.max_count), (300, Some(3)));
        assert_eq!(a.origins["select"], "template heap");
        assert_eq!(a.origins["limits.max_count"], "defaults");
        assert_eq!((b.origins["select"].as_str(), b.limits.cooldown.as_secs()), ("defaults", 3600));
        assert!(!b.origins.contains_key("reports"));
    }

    #[test]
    fn what_cannot_be_merged_is_told() {
        let rule = "[[rules]]\nname = \"a\"\nreports = [\"smaps\"]\ntrigger.timer = { every = \"1h\" }\n";
        let table = [
            (format!("{rule}template = \"heep\"\n[templates.heap]\nfor = \"1m\""), "did you mean \"heap\"?"),
            (format!("{rule}template = 3"), "rules[0].template: 3 is not the name of a template"),
            (format!("defaults = 3\n{rule}"), "defaults: it is integer, not a table"),
            (format!("{rule}[defaults]\nname = \"x\""), "defaults.name: rules cannot have it in common"),
            (format!("{rule}[defaults]\nselekt = \"first\""), "rules[0].selekt: unknown key"),
        ];
        for (text, expected) in table {
            let problems = parse(&text).err().unwrap_or_default();
            let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert!(found.join("\n").contains(expected), "{text}\n{found:?}");
        }
    }
}
