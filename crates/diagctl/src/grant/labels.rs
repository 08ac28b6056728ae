//! `DIAGCTL_LABELS`: labels that an operator gives to every capture, `region=eu,canary=yes`.

use std::collections::BTreeMap;

use diagctl_fs::without_secrets;

/// The variable.
pub const VARIABLE: &str = "DIAGCTL_LABELS";

/// The maximum length of a value, in bytes.
const LONGEST: usize = 256;

/// Returns the labels in this environment, without secrets. Invalid ones are left out; `doctor` names them.
pub fn of_environment() -> BTreeMap<String, String> {
    let text = std::env::var_os(VARIABLE).unwrap_or_default();
    let labels = parse(&text.to_string_lossy()).0.into_iter();
    labels.map(|(name, value)| (name, without_secrets(&value).into_owned())).collect()
}

/// Parses a list of labels. Also returns the parts that are none.
pub fn parse(text: &str) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut labels, mut wrong) = (BTreeMap::new(), Vec::new());
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
            Some((name, value)) if is_name(name) && is_value(value) => {
                _ = labels.insert(name.to_owned(), value.to_owned())
            }
            _ => wrong.push(part.to_owned()),
        }
    }
    (labels, wrong)
}

fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn is_value(value: &str) -> bool {
    !value.is_empty() && value.len() <= LONGEST && !value.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_pairs_and_the_rest_is_named() {
        type Pairs = &'static [(&'static str, &'static str)];
        let table: [(&str, Pairs, &[&str]); 6] = [
            ("", &[], &[]),
            ("region=eu", &[("region", "eu")], &[]),
            (" region = eu , canary=yes,", &[("canary", "yes"), ("region", "eu")], &[]),
            ("url=a=b", &[("url", "a=b")], &[]),
            ("region, Region=eu,=x,x=,1a=b", &[], &["region", "Region=eu", "=x", "x=", "1a=b"]),
            ("a=\u{1b}[2J,b=1", &[("b", "1")], &["a=\u{1b}[2J"]),
        ];
        for (text, labels, wrong) in table {
            let (found, rest) = parse(text);
            let found: Vec<(&str, &str)> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!((found.as_slice(), rest), (labels, wrong.iter().map(|w| (*w).to_owned()).collect()), "{text}");
        }
    }
}
