//! The table `[on_capture]`: who is told of a capture after it was published. `acquire` only knows that it is there.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::section::Section;
use crate::units::ms;
use diagctl_store::pattern;

/// The keys, in the order in which they are shown.
pub(super) const KEYS: [&str; 6] = [
    "on_capture.command",
    "on_capture.webhook",
    "on_capture.webhook_file",
    "on_capture.headers_file",
    "on_capture.timeout",
    "on_capture.rules",
];

/// The longest time-out, milliseconds. A hook is a message, not a job.
const LONGEST_MS: u64 = 600_000;

/// The hook: the command and the webhook that are told of each capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnCapture {
    /// Program and arguments; there is no shell. Empty if only a webhook is told.
    pub command: Vec<String>,
    /// The webhook.
    pub webhook: Option<Webhook>,
    /// Time after which the command is killed, and an attempt at the webhook is given up, milliseconds.
    pub timeout_ms: u64,
    /// Patterns of the rules whose captures count.
    pub rules: Vec<String>,
}

/// A URL to which the capture is posted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// The URL.
    pub url: Option<String>,
    /// The file with the URL, which may be a secret.
    pub url_file: Option<PathBuf>,
    /// The file with more headers, one a line.
    pub headers_file: Option<PathBuf>,
}

impl OnCapture {
    /// Returns true if somebody is told of captures of this rule.
    pub fn wants(&self, rule: &str) -> bool {
        self.rules.iter().any(|wanted| pattern::is_like(wanted, rule))
    }
}

/// Reads the table. Returns `None` if nobody is told.
pub(super) fn read(section: &Section<'_>) -> Option<Box<OnCapture>> {
    let command = section.texts("command");
    let url = section.text("webhook");
    let path = |key| {
        let path: Option<PathBuf> = section.text(key).map(PathBuf::from);
        if path.as_ref().is_some_and(|path| !path.is_absolute()) {
            section.wrong_value(key, "not an absolute path", "write /run/secrets/NAME, readable for the store's owner");
        }
        path
    };
    let (url_file, headers_file) = (path("webhook_file"), path("headers_file"));
    let timeout_ms = section.duration("timeout").map_or(30_000, ms);
    let rules = section.text_or_texts("rules").unwrap_or_else(|| vec!["*".into()]);
    section.finish();
    let names_none =
        |words: &Vec<String>| words.first().is_none_or(|word| word.contains('/') && !word.starts_with('/'));
    if command.as_ref().is_some_and(names_none) {
        section.wrong_value(
            "command",
            "names no program",
            "list the program, with its absolute path, and its arguments: [\"/usr/local/bin/tell\", \"--urgent\"]",
        );
    }
    if url.as_ref().is_some_and(|url| !is_web_url(url)) {
        section.wrong_url("webhook", "not a URL", "write https://HOST/PATH, or put a secret URL into webhook_file");
    }
    if url.is_some() && url_file.is_some() {
        section.problem("webhook_file", "there is one webhook", "remove webhook or webhook_file");
    }
    let has_webhook = url.is_some() || url_file.is_some();
    if headers_file.is_some() && !has_webhook {
        section.problem("headers_file", "has no effect without a webhook", "remove it, or set webhook");
    }
    if timeout_ms == 0 || timeout_ms > LONGEST_MS {
        section.wrong_value("timeout", "must be between 1ms and 10m", "30s is the default");
    }
    let command = command.unwrap_or_default();
    if command.is_empty() && !has_webhook {
        if !section.has("command") && !section.keys().is_empty() {
            section.problem("command", "missing", "set command, webhook or webhook_file");
        }
        return None;
    }
    let webhook = has_webhook.then_some(Webhook { url, url_file, headers_file });
    Some(Box::new(OnCapture { command, webhook, timeout_ms, rules }))
}

// Schemes may be in upper case.
fn is_web_url(text: &str) -> bool {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    ["https", "http"].into_iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn a_hook_is_read_whole_and_each_problem_is_told() {
        let text = "[on_capture]\ncommand = [\"/bin/tell\", \"x\"]\nwebhook_file = \"/run/url\"\nrules = \"heap-*\"\n";
        let hook = parse(text).unwrap().0.on_capture.unwrap();
        assert_eq!((hook.command.len(), hook.timeout_ms), (2, 30_000));
        assert!(hook.wants("heap-on-growth") && !hook.wants("summary"));
        assert_eq!(parse("").unwrap().0.on_capture, None);

        let table = [
            ("rules = \"*\"", "on_capture.command: missing"),
            ("command = []", "on_capture.command: []: names no program"),
            ("command = [\"bin/tell\"]", "on_capture.command: [\"bin/tell\"]: names no program"),
            (
                "command = \"tell\"",
                "on_capture.command: \"tell\" is a string, not a list of strings like [\"one\", \"two\"]",
            ),
            ("webhook = \"host/x\"", "on_capture.webhook: \"host/x\": not a URL"),
            ("webhook = \"htp://h/x?a=S3KRET\"", "on_capture.webhook: \"htp://h/x?a=(hidden)\": not a URL"),
            ("webhook = \"https:u:S3KRET@h/x\"", "on_capture.webhook: \"https:(hidden)@h/x\": not a URL"),
            ("webhook = \"http://h\"\nwebhook_file = \"/x\"", "on_capture.webhook_file: there is one webhook"),
            ("command = [\"x\"]\nheaders_file = \"/x\"", "on_capture.headers_file: has no effect without a webhook"),
            ("webhook_file = \"x\"", "on_capture.webhook_file: \"x\": not an absolute path"),
            ("command = [\"x\"]\ntimeout = \"1h\"", "on_capture.timeout: \"1h\": must be between 1ms and 10m"),
            ("command = [\"x\"]\ncmd = 1", "on_capture.cmd: unknown key"),
        ];
        for (text, expected) in table {
            let problems = parse(&format!("[on_capture]\n{text}\n")).unwrap_err();
            let told: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect();
            assert_eq!(told, [expected]);
        }
    }
}
