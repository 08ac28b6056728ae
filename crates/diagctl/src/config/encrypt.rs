//! The table `[encrypt]`: to whom reports are encrypted, and which ones stay readable.
//!
//! A mistake in it must never turn encryption off, so a table that cannot be used becomes a setting that stores nothing. A secret key in
//! it is never repeated.

use toml::Value;

use super::Config;
use crate::section::{Problem, Section};
use diagctl_fs::{SECRET_KEY, has_secret_key, quoted};
use diagctl_store::encryption::{BadRecipient, Encryption, MAX_RECIPIENTS, check_recipient};

/// The keys, for `config show`.
pub(super) const KEYS: [&str; 2] = ["encrypt.recipients", "encrypt.except"];

const EXAMPLE: &str = "write recipients = [\"age1…\"]; `age-keygen -o key.txt` makes a key and prints its recipient";

/// The recipients of the documentation and of the example, which nobody can mean.
pub(super) const OF_THE_EXAMPLE: [&str; 2] = [
    "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
    "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg",
];

/// Reads the table.
pub(super) fn read(section: &Section<'_>, config: &Config) -> Box<Encryption> {
    let recipients = recipients(section);
    let except = section.texts("except");
    let mut usable = recipients.is_some() && except.is_some() == section.has("except");
    for name in except.iter().flatten().filter(|name| !config.knows_report(name)) {
        usable = false;
        section.problem("except", format!("{} is not a report", quoted(name)), config.report_hint(name));
    }
    usable &= section.keys().iter().all(|key| ["recipients", "except"].contains(key));
    section.finish();
    let (recipients, except) = (recipients.unwrap_or_default(), except.unwrap_or_default());
    Box::new(if usable { Encryption { recipients, except, broken: None } } else { broken() })
}

/// Returns true if somebody meant this table and wrote another name.
pub(super) fn is_misspelt(key: &str) -> bool {
    key != "encrypt" && crate::section::nearest(key, ["encrypt"]).is_some()
}

/// The setting for a table that cannot be used.
pub(super) fn broken() -> Encryption {
    Encryption::broken("the table [encrypt] of the configuration is not valid; see `diagctl config check`")
}

fn recipients(section: &Section<'_>) -> Option<Vec<String>> {
    section.know("recipients");
    let list = match section.table().get("recipients") {
        None => {
            section.problem("recipients", "missing", EXAMPLE);
            return None;
        }
        Some(Value::Array(list)) => list,
        Some(_) => {
            section.problem("recipients", "this is not a list", EXAMPLE);
            return None;
        }
    };
    if list.is_empty() {
        let hint = format!(
            "{EXAMPLE}; to store reports in plain, write encrypt = false at the top of the file instead of the table"
        );
        section.problem("recipients", "the list is empty, so nobody could read the reports", hint);
        return None;
    }
    if list.len() > MAX_RECIPIENTS {
        let hint = "use one key for a team";
        section.problem(
            "recipients",
            format!("these are {} recipients; the most is {MAX_RECIPIENTS}", list.len()),
            hint,
        );
        return None;
    }
    let mut all: Option<Vec<String>> = Some(Vec::new());
    for (number, item) in list.iter().enumerate() {
        match item.as_str().map(|text| (text, check_recipient(text))) {
            Some((text, Ok(()))) => all.iter_mut().for_each(|all| all.push(text.to_owned())),
            Some((text, Err(why))) => {
                let message = match why {
                    BadRecipient::SecretKey => why.to_string(),
                    _ => format!("{}: {why}", quoted(text)),
                };
                section.problem(&format!("recipients[{number}]"), message, hint(why));
                all = None;
            }
            None => {
                section.problem(&format!("recipients[{number}]"), "this is not a string", EXAMPLE);
                all = None;
            }
        }
    }
    all.map(|mut all| {
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|recipient| seen.insert(recipient.clone()));
        all
    })
}

fn hint(why: BadRecipient) -> &'static str {
    match why {
        BadRecipient::SecretKey => {
            "whoever has it reads every report, so it must not be on this machine: remove it, make a new key, and write the \
             recipient, which `age-keygen -y key.txt` prints"
        }
        BadRecipient::Ssh | BadRecipient::OtherKind => {
            "write a recipient of the kind that `age-keygen` prints: age1 and 58 characters"
        }
        BadRecipient::Damaged => "copy it again: `age-keygen -y key.txt` prints it",
        BadRecipient::Other => EXAMPLE,
    }
}

/// Finds a secret key anywhere in a document, even in a comment. A document with one is invalid: the store keeps a copy of a valid one.
pub(super) fn refuse_secrets(text: &str, problems: &mut Vec<Problem>) {
    // Upper case changes no length in ASCII, so positions are the same.
    let at = text.to_ascii_uppercase().find(SECRET_KEY);
    let line = at.map(|at| format!("line {}", text[..at].matches('\n').count() + 1));
    let Some(path) = line.or_else(|| behind_escapes(text)) else { return };
    let is_told = |problem: &Problem| problem.message == BadRecipient::SecretKey.to_string();
    if !problems.iter().any(is_told) {
        problems.push(Problem {
            path,
            message: BadRecipient::SecretKey.to_string(),
            hint: Some(hint(BadRecipient::SecretKey).to_owned()),
            line: None,
        });
    }
}

// Returns the key of a value in which a secret key is written with escapes: `"\u0041GE-SECRET-KEY-…"`.
fn behind_escapes(text: &str) -> Option<String> {
    fn find(path: &str, value: &Value) -> Option<String> {
        match value {
            Value::String(text) => has_secret_key(text).then(|| path.to_owned()),
            Value::Array(items) => items.iter().enumerate().find_map(|(i, item)| find(&format!("{path}[{i}]"), item)),
            Value::Table(table) => table.iter().find_map(|(key, value)| {
                let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                if has_secret_key(key) { Some(path.to_owned()) } else { find(&place, value) }
            }),
            _ => None,
        }
    }
    text.contains('\\').then(|| text.parse().ok())?.and_then(|table: toml::Table| find("", &Value::Table(table)))
}

#[cfg(test)]
mod tests {
    use crate::config::{examine, parse};

    const ONE: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    const TWO: &str = "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg";
    // From the test vectors of age: the key of no one.
    const KEY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

    #[test]
    fn recipients_and_exceptions_are_read() {
        assert_eq!(parse("").unwrap().0.encrypt, None);
        let text = format!("[encrypt]\nrecipients = [{ONE:?}, {TWO:?}, {ONE:?}]\nexcept = [\"gc_stat\"]\n");
        let encrypt = parse(&text).unwrap().0.encrypt.unwrap();
        assert_eq!((encrypt.recipients, encrypt.except), (vec![ONE.into(), TWO.into()], vec!["gc_stat".to_owned()]));
        assert_eq!(encrypt.broken, None);
    }

    #[test]
    fn each_mistake_is_told_and_stops_the_storing() {
        let short = &ONE[..61];
        let table = [
            (String::new(), "encrypt.recipients: missing"),
            ("recipients = []".into(), "encrypt.recipients: the list is empty, so nobody could read the reports"),
            (format!("recipients = {ONE:?}"), "encrypt.recipients: this is not a list"),
            ("recipients = [1]".into(), "encrypt.recipients[0]: this is not a string"),
            (
                format!("recipients = [{ONE:?}, {short:?}]"),
                "encrypt.recipients[1]: \"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8\": this is not a whole recipient: a character is wrong or missing",
            ),
            (
                "recipients = [\"ssh-ed25519 AAAA\"]".into(),
                "encrypt.recipients[0]: \"ssh-ed25519 AAAA\": this is an SSH key, which diagctl does not encrypt to",
            ),
            (
                "recipients = [\"ops@example.org\"]".into(),
                "encrypt.recipients[0]: \"ops@example.org\": this is not an age recipient",
            ),
            (format!("recipients = [{ONE:?}]\nexcept = [\"gcstat\"]"), "encrypt.except: \"gcstat\" is not a report"),
            (
                format!("recipients = [{ONE:?}]\nexcept = 1"),
                "encrypt.except: 1 is an integer, not a list of strings like [\"one\", \"two\"]",
            ),
            (format!("recipients = [{ONE:?}]\nexcpt = []"), "encrypt.excpt: unknown key"),
            (
                format!("recipients = {:?}", vec![ONE; 33]),
                "encrypt.recipients: these are 33 recipients; the most is 32",
            ),
        ];
        for (text, expected) in table {
            let examined = examine(&format!("[encrypt]\n{text}\n")).unwrap();
            let told: Vec<String> = examined.problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect();
            assert_eq!(told, [expected]);
            assert!(examined.config.encrypt.unwrap().broken.is_some(), "{text}");
        }
        let (config, _) = parse("encrypt = false").unwrap();
        assert_eq!((config.encrypt, config.plain), (None, true));
        for text in ["encrypt = true", "encrypt = \"false\"", "[encrypted]", "[encyrpt]", "[Encrypt]", "[encryption]"] {
            let examined = examine(text).unwrap();
            assert!(examined.config.encrypt.unwrap().broken.is_some() && examined.problems.len() == 1, "{text}");
        }
    }

    #[test]
    fn a_secret_key_is_refused_wherever_it_is_and_never_repeated() {
        let table = [
            format!("[encrypt]\nrecipients = [{KEY:?}]"),
            format!("[encrypt]\nrecipients = [{:?}]", KEY.to_lowercase()),
            format!("[encrypt]\nrecipients = {KEY:?}"),
            format!("[encrypt]\nrecipient = {KEY:?}"),
            format!("[encrypt]\nexcept = [{KEY:?}]\nrecipients = [{ONE:?}]"),
            format!("[encrypt]\n{KEY} = 1\nrecipients = [{ONE:?}]"),
            format!("[encrypt]\nrecipients = [{ONE:?}] # {KEY}"),
            format!("group = {KEY:?}"),
            format!("poll_interval = \"x {KEY}\""),
            format!("[encrypt]\nrecipients = [{KEY}]"),
            format!("group = \"\\u0041{}\"", &KEY[1..]),
            format!("[on_capture]\ncommand = [\"/bin/true\", \"\\u0041{}\"]", &KEY[1..]),
            format!("[reports.\"\\u0041{}\"]\ncommand = [\"/bin/true\"]", &KEY[1..]),
            KEY.to_owned(),
        ];
        for text in table {
            let problems = parse(&text).unwrap_err();
            let told = format!("{problems:?}").to_uppercase();
            assert!(!told.contains("GFPYYSJZ"), "{told}");
            assert!(problems.iter().any(|p| p.message.contains("this is a secret key")), "{told}");
        }
    }
}
