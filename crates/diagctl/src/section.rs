//! Walks a TOML document key by key, and collects every problem instead of stopping at the first. A key that the caller never
//! asked for is a problem too, with the nearest known key as its hint.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use toml::{Table, Value};

use crate::units::{self, Amount, Invalid};
use diagctl_fs::{printable, quoted, without_query, without_secrets};

/// One problem in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key path: `rules[1].trigger.timer.every`.
    pub path: String,
    /// The problem, with the value.
    pub message: String,
    /// Advice on the next step.
    pub hint: Option<String>,
    /// The line of the document.
    pub line: Option<usize>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{} (line {line}): {}", self.path, self.message)?,
            None => write!(f, "{}: {}", self.path, self.message)?,
        }
        match &self.hint {
            Some(hint) => write!(f, "\n    hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// A shared list of problems.
#[derive(Clone, Default)]
pub struct Problems(Rc<RefCell<Vec<Problem>>>);

impl Problems {
    /// Records a problem, without the secrets in it.
    pub fn add(&self, path: impl Into<String>, message: impl Into<String>, hint: Option<String>) {
        let clean = |text: String| without_secrets(&text).into_owned();
        let (path, message, hint) = (clean(path.into()), clean(message.into()), hint.map(clean));
        self.0.borrow_mut().push(Problem { path, message, hint, line: None });
    }

    /// Returns the collected problems.
    pub fn into_vec(self) -> Vec<Problem> {
        self.0.take()
    }
}

/// One table of the document, with the keys that have been asked for.
pub struct Section<'a> {
    path: String,
    table: &'a Table,
    asked: RefCell<BTreeSet<&'static str>>,
    problems: Problems,
}

impl<'a> Section<'a> {
    /// The document's root.
    pub fn root(table: &'a Table, problems: &Problems) -> Self {
        Self { path: String::new(), table, asked: RefCell::default(), problems: problems.clone() }
    }

    /// The full path of a key in this table.
    pub fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Wraps a table from outside the document, and shows it under the given path.
    pub fn apart(path: &str, table: &'a Table, problems: &Problems) -> Self {
        Self { path: path.to_owned(), ..Self::root(table, problems) }
    }

    /// Its position in the list that contains it.
    pub fn position(&self) -> usize {
        let index = self.path.rsplit_once('[').and_then(|(_, rest)| rest.strip_suffix(']'));
        index.and_then(|index| index.parse().ok()).unwrap_or(0)
    }

    /// The table as written.
    pub fn table(&self) -> &'a Table {
        self.table
    }

    /// Returns true if the table has the key.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Records a problem with a key of this table.
    pub fn problem(&self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.add(self.at(key), message, Some(hint.into()));
    }

    /// Records a problem with the value of a key, and shows the value.
    pub fn wrong_value(&self, key: &str, message: &str, hint: &str) {
        let value = self.table.get(key).map_or_else(String::new, |value| format!("{}: ", shown(value)));
        self.problem(key, format!("{value}{message}"), hint);
    }

    /// Does the same with a value that should be a URL, and shows nothing of it that may be a secret.
    pub fn wrong_url(&self, key: &str, message: &str, hint: &str) {
        let value = self.table.get(key).and_then(Value::as_str).map(|url| Value::from(&*without_query(url)));
        let value = value.map_or_else(String::new, |value| format!("{}: ", shown(&value)));
        self.problem(key, format!("{value}{message}"), hint);
    }

    /// Marks a key that is read elsewhere as known.
    pub fn know(&self, key: &'static str) {
        self.asked.borrow_mut().insert(key);
    }

    fn raw(&self, key: &'static str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(key);
        self.table.get(key)
    }

    fn wrong_type(&self, key: &str, value: &Value, wanted: &str) {
        self.problem(
            key,
            format!("{} is {}, not {wanted}", shown(value), article(value.type_str())),
            format!("write {wanted}"),
        );
    }

    fn text_as<T>(&self, key: &'static str, wanted: &str, parse: impl Fn(&str) -> Result<T, Invalid>) -> Option<T> {
        let value = self.raw(key)?;
        let Some(text) = value.as_str() else {
            self.wrong_type(key, value, wanted);
            return None;
        };
        self.checked(&self.at(key), text, parse)
    }

    fn checked<T>(&self, path: &str, text: &str, parse: impl Fn(&str) -> Result<T, Invalid>) -> Option<T> {
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(Invalid { why, hint }) => {
                self.problems.add(path, format!("{}: {why}", quoted(text)), Some(hint));
                None
            }
        }
    }

    /// Reads a string.
    pub fn text(&self, key: &'static str) -> Option<String> {
        self.text_as(key, "a string in quotes", |text| Ok(text.to_owned()))
    }

    /// Reads a duration like `"10m"`.
    pub fn duration(&self, key: &'static str) -> Option<Duration> {
        self.text_as(key, "a duration like \"10m\"", units::parse_duration)
    }

    /// Reads a size like `"1.5GiB"`.
    pub fn size(&self, key: &'static str) -> Option<u64> {
        self.text_as(key, "a size like \"1.5GiB\"", units::parse_size)
    }

    /// Reads a size or a percentage.
    pub fn amount(&self, key: &'static str) -> Option<Amount> {
        self.text_as(key, "a size or a share like \"1.5GiB\" or \"80%\"", units::parse_amount)
    }

    /// Reads a required increase; `hint` says what to write.
    pub fn required_increase(&self, key: &'static str, hint: &str) -> Option<Amount> {
        let amount = self.text_as(key, "a size or a share like \"200MiB\" or \"30%\"", units::parse_increase);
        if !self.has(key) {
            self.problem(key, "missing", hint);
        }
        amount
    }

    /// Reads one amount or a list of amounts.
    pub fn amounts(&self, key: &'static str) -> Option<Vec<Amount>> {
        match self.raw(key)? {
            Value::Array(items) => {
                let parsed: Vec<_> = items
                    .iter()
                    .enumerate()
                    .filter_map(|(i, item)| match item.as_str() {
                        Some(text) => self.checked(&format!("{}[{i}]", self.at(key)), text, units::parse_amount),
                        None => {
                            self.wrong_type(key, item, "a list like [\"70%\", \"80%\"]");
                            None
                        }
                    })
                    .collect();
                (parsed.len() == items.len()).then_some(parsed)
            }
            _ => self.amount(key).map(|amount| vec![amount]),
        }
    }

    /// Reads a percentage like `"50%"`.
    pub fn percent(&self, key: &'static str) -> Option<f64> {
        self.text_as(key, "a percentage like \"50%\"", units::parse_percent)
    }

    /// Reads a string from a fixed list of choices.
    pub fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let names = || choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        self.text_as(key, "one of the valid choices in quotes", |text| {
            choices
                .iter()
                .find(|(name, _)| *name == text)
                .map(|(_, value)| *value)
                .ok_or_else(|| Invalid::new("not a valid choice", format!("use one of {}", names())))
        })
    }

    /// Reads `true` or `false`.
    pub fn boolean(&self, key: &'static str) -> Option<bool> {
        let value = self.raw(key)?;
        if value.as_bool().is_none() {
            self.wrong_type(key, value, "true or false");
        }
        value.as_bool()
    }

    /// Reads a whole number, zero or more.
    pub fn count(&self, key: &'static str) -> Option<u32> {
        let value = self.raw(key)?;
        let count = value.as_integer().and_then(|n| u32::try_from(n).ok());
        if count.is_none() {
            self.wrong_type(key, value, "a whole number, zero or more");
        }
        count
    }

    /// Reads a number, zero or more, whole or not.
    pub fn factor(&self, key: &'static str) -> Option<f64> {
        let number = self.number(key)?;
        if number < 0.0 {
            self.problem(key, format!("{number} is negative"), "write a number, zero or more");
            return None;
        }
        Some(number)
    }

    /// Reads any number.
    pub fn number(&self, key: &'static str) -> Option<f64> {
        let value = self.raw(key)?;
        #[expect(clippy::cast_precision_loss, reason = "thresholds of gauges are small")]
        let number = value.as_float().or_else(|| value.as_integer().map(|n| n as f64)).filter(|n| n.is_finite());
        if number.is_none() {
            self.wrong_type(key, value, "a number");
        }
        number
    }

    /// Reads a list of strings.
    pub fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        let value = self.raw(key)?;
        let texts: Option<Vec<String>> =
            value.as_array().and_then(|items| items.iter().map(|i| i.as_str().map(str::to_owned)).collect());
        if texts.is_none() {
            self.wrong_type(key, value, "a list of strings like [\"one\", \"two\"]");
        }
        texts
    }

    /// Reads a string or a list of strings.
    pub fn text_or_texts(&self, key: &'static str) -> Option<Vec<String>> {
        match self.raw(key)? {
            Value::String(text) => Some(vec![text.clone()]),
            _ => self.texts(key),
        }
    }

    /// Returns a table in this one.
    pub fn section(&self, key: &'static str) -> Option<Section<'a>> {
        self.section_at(key, self.raw(key)?)
    }

    fn section_at(&self, key: &str, value: &'a Value) -> Option<Section<'a>> {
        let Some(table) = value.as_table() else {
            let path = self.at(key);
            match is_list_of_tables(value) {
                true => self.problems.add(&path, NOT_ONE_TABLE, Some(as_one_table(&path))),
                false => self.wrong_type(key, value, "a table"),
            }
            return None;
        };
        Some(Section { path: self.at(key), table, asked: RefCell::default(), problems: self.problems.clone() })
    }

    /// Returns a list of tables in this one.
    pub fn sections(&self, key: &'static str) -> Option<Vec<Section<'a>>> {
        let value = self.raw(key)?;
        let Some(items) = value.as_array() else {
            let header = header(&self.at(key));
            match value {
                Value::Table(_) => self.problem(key, "a table, not a list of tables", several(&header)),
                _ => self.wrong_type(key, value, "a list of tables"),
            }
            return None;
        };
        Some(items.iter().enumerate().filter_map(|(i, item)| self.section_at(&format!("{key}[{i}]"), item)).collect())
    }

    /// Returns every table in this one, whatever its key: the keys are names that the operator chose.
    pub fn named_sections(&self) -> Vec<(&'a str, Section<'a>)> {
        self.table.iter().filter_map(|(key, value)| Some((key.as_str(), self.section_at(key, value)?))).collect()
    }

    /// Returns the keys of this table.
    pub fn keys(&self) -> Vec<&'a str> {
        self.table.keys().map(String::as_str).collect()
    }

    /// Reports every key that was not asked for. Must be called after all known keys have been asked for.
    pub fn finish(&self) {
        let asked = self.asked.borrow();
        for key in self.table.keys().filter(|key| !asked.contains(key.as_str())) {
            let known = || match asked.iter().copied().collect::<Vec<_>>().join(", ") {
                none if none.is_empty() => "this table takes no keys; remove it".to_owned(),
                known => format!("valid keys: {known}"),
            };
            let hint = nearest(key, asked.iter().copied()).map_or_else(known, |near| format!("did you mean {near:?}?"));
            self.problems.add(self.at(&printable(key)), "unknown key", Some(hint));
        }
    }
}

/// Returns the candidate that a misspelt word most likely stands for.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// The problem with `[[guards]]`.
pub const NOT_ONE_TABLE: &str = "a list of tables, not one table";

/// The hint for it.
pub fn as_one_table(path: &str) -> String {
    format!("write [{}], with single brackets, once", header(path))
}

/// The hint for `[rules]`.
pub fn several(header: &str) -> String {
    format!("write [[{header}]], with double brackets, before each one")
}

/// Returns true for the value of `[[guards]]`.
pub fn is_list_of_tables(value: &Value) -> bool {
    value.as_array().is_some_and(|items| !items.is_empty() && items.iter().all(Value::is_table))
}

// The header of a table in TOML: `rules.trigger` for `rules[1].trigger`.
fn header(path: &str) -> String {
    let parts = path.split('.').map(|part| part.split_once('[').map_or(part, |(key, _)| key));
    parts.collect::<Vec<_>>().join(".")
}

fn shown(value: &Value) -> String {
    let text = printable(&without_secrets(&value.to_string()));
    if text.chars().count() > 60 { text.chars().take(57).chain("...".chars()).collect() } else { text }
}

fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}
