//! The surroundings of a configuration: programs, files and directories that a machine lacks or that are in the wrong place, and a store
//! that was encrypted until now.

use super::{Place, Warning};
use crate::config::Config;
use crate::config::encrypt::OF_THE_EXAMPLE;
use crate::rules::trigger::Trigger;
use diagctl_store::pattern;

/// Something outside of the store that a configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its key.
    pub key: String,
    /// Its path, or the name of a program that is looked up in PATH.
    pub path: String,
    /// The kind of thing.
    pub kind: Kind,
}

/// A kind of thing that a configuration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A program.
    Program,
    /// A file.
    File,
    /// A directory.
    Directory,
}

impl Config {
    /// Returns what the configuration names outside of the store, but for the commands of triggers.
    fn named(&self) -> Vec<Named> {
        let mut all = Vec::new();
        let mut name = |key: &str, path: String, kind| all.push(Named { key: key.to_owned(), path, kind });
        for (report, custom) in &self.reports {
            let program = custom.command.as_ref().and_then(|command| command.command.first());
            program.iter().for_each(|p| name(&format!("reports.{report}.command"), (*p).clone(), Kind::Program));
        }
        if let Some(remote) = &self.remote {
            let program = remote.credential_command.first();
            program.iter().for_each(|p| name("remote.credential_command", (*p).clone(), Kind::Program));
            let dir = remote.url.strip_prefix("file://");
            dir.iter().for_each(|dir| name("remote.url", (*dir).to_owned(), Kind::Directory));
        }
        if let Some(hook) = &self.on_capture {
            hook.command.first().iter().for_each(|p| name("on_capture.command", (*p).clone(), Kind::Program));
            let webhook = hook.webhook.iter();
            let files = webhook.flat_map(|w| [("webhook_file", &w.url_file), ("headers_file", &w.headers_file)]);
            for (key, file) in files.filter_map(|(key, file)| Some((key, file.as_ref()?))) {
                name(&format!("on_capture.{key}"), file.display().to_string(), Kind::File);
            }
        }
        all
    }

    /// Returns everything that the configuration names outside of the store.
    pub fn names(&self) -> Vec<Named> {
        let mut all = self.named();
        for rule in &self.rules {
            rule.trigger.visit(&mut |trigger| {
                if let Trigger::Exec(exec) = trigger
                    && let Some(program) = exec.command.first()
                {
                    let key = format!("{}.trigger.exec.command", rule.name);
                    all.push(Named { key, path: program.clone(), kind: Kind::Program });
                }
            });
        }
        all
    }

    /// Finds what is missing on the machine, or cannot work where it is.
    pub(super) fn of_surroundings(&self, place: &Place) -> Vec<Warning> {
        let mut warnings: Vec<Warning> = Vec::new();
        for named in self.named() {
            if let Some(why) = place.missing.get(&named.path) {
                let hint = match named.kind {
                    Kind::Directory => "mount or create it first: shipping fails until it is there",
                    _ => ABSENT,
                };
                warnings.push((named.key, format!("{} {why}", named.path), hint));
            }
        }
        if let Some(record) = place.encryption.as_ref().filter(|_| self.encrypt.is_none() && !self.plain) {
            let to = record.recipients.join(", ");
            let message = if record.on {
                format!(
                    "missing, but captures in this store are encrypted to {to}: the next ones would be stored in plain"
                )
            } else {
                format!(
                    "missing: reports are stored in plain since {}; earlier captures are encrypted to {to}",
                    record.since
                )
            };
            let hint =
                "write the table [encrypt] again; if this is on purpose, write encrypt = false at the top of the file";
            warnings.push(("encrypt".into(), message, hint));
        }
        // Elsewhere it may stay an example.
        let here = place.host.is_some();
        let recipients = self.encrypt.iter().filter(|_| here).flat_map(|encrypt| &encrypt.recipients);
        for recipient in recipients.filter(|recipient| OF_THE_EXAMPLE.contains(&recipient.as_str())) {
            let message = format!("{recipient} is the one of the example, whose key you do not have");
            warnings.push((
                "encrypt.recipients".into(),
                message,
                "write your own, which `age-keygen -y key.txt` prints; only a stranger can read what is encrypted to this one",
            ));
        }
        let dir = self.remote.as_ref().and_then(|remote| remote.url.strip_prefix("file://"));
        if let Some(dir) = dir.filter(|dir| std::path::Path::new(dir).starts_with(&self.dir)) {
            let message =
                format!("{dir} is in the store, so a capture and its copy are lost together, and fill one disk");
            warnings.push(("remote.url".into(), message, "use a directory on another disk or machine"));
        }
        for wanted in self.on_capture.iter().flat_map(|hook| &hook.rules) {
            let names = || self.rules.iter().map(|rule| &*rule.name).chain(["run", "on_demand"]);
            if !names().any(|name| pattern::is_like(wanted, name)) {
                let all = names().collect::<Vec<_>>().join(", ");
                let message = format!("no rule is called {wanted:?} (there are: {all})");
                warnings.push((
                    "on_capture.rules".into(),
                    message,
                    "nobody is told of these; correct the name, or use *",
                ));
            }
        }
        warnings
    }
}

/// The hint for a program or file that is not there.
pub(super) const ABSENT: &str =
    "install it, correct the path, or check with --elsewhere if this is for another machine";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use diagctl_store::encryption_record::Record;

    fn told(text: &str, missing: &[&str]) -> Vec<String> {
        let (config, _) = parse(text).unwrap_or_else(|p| panic!("{p:?}"));
        let missing = missing.iter().map(|path| ((*path).to_owned(), "does not exist")).collect();
        let warnings = config.warnings(&[], &Place { missing, ..Place::default() });
        warnings.iter().map(|warning| format!("{}: {}", warning.path, warning.message)).collect()
    }

    #[test]
    fn what_is_missing_or_misplaced_is_told_with_its_key() {
        let rule = "[[rules]]\nname = \"heap-on-growth\"\nreports = [\"smaps\"]\n";
        let exec = format!("{rule}trigger.any = [ {{ exec = {{ command = [\"/bin/gone\"] }} }} ]");
        let table = [
            ("[on_capture]\ncommand = [\"/bin/gone\"]", "on_capture.command: /bin/gone does not exist"),
            ("[on_capture]\nwebhook_file = \"/run/gone\"", "on_capture.webhook_file: /run/gone does not exist"),
            (
                "[on_capture]\nwebhook = \"http://h\"\nheaders_file = \"/run/gone\"",
                "on_capture.headers_file: /run/gone does not exist",
            ),
            ("[reports.x]\ncommand = [\"gone\"]", "reports.x.command: gone does not exist"),
            (
                "[remote]\nurl = \"s3://b\"\ncredential_command = [\"/bin/gone\"]",
                "remote.credential_command: /bin/gone does not exist",
            ),
            ("[remote]\nurl = \"file:///mnt/gone\"", "remote.url: /mnt/gone does not exist"),
            (&exec, "rules[0].trigger.exec.command: /bin/gone does not exist"),
            (
                "dir = \"/var/s\"\n[remote]\nurl = \"file:///var/s/copy\"",
                "remote.url: /var/s/copy is in the store, so a capture and its copy are lost together, and fill one disk",
            ),
            (
                "[on_capture]\ncommand = [\"/bin/tell\"]\nrules = [\"run\", \"heap-*\", \"*\", \"rout?ne\"]",
                "on_capture.rules: no rule is called \"heap-*\" (there are: routine, run, on_demand)",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(told(text, &["/bin/gone", "gone", "/run/gone", "/mnt/gone"]), [expected], "{text}");
        }
        let example = format!("[encrypt]\nrecipients = [{:?}]", OF_THE_EXAMPLE[0]);
        let (config, _) = parse(&example).unwrap();
        assert_eq!(config.warnings(&[], &Place::default()), []);
        let warnings = config.warnings(&[], &Place { host: Some(1 << 30), ..Place::default() });
        assert!(warnings[0].message.ends_with("is the one of the example, whose key you do not have"), "{warnings:?}");
        assert_eq!(told("dir = \"/var/s\"\n[remote]\nurl = \"file:///var/s2\"", &[]), [""; 0]);
        assert_eq!(parse(&exec).unwrap().0.names()[0].path, "/bin/gone");
    }

    #[test]
    fn a_store_that_was_encrypted_is_not_left_in_plain_without_a_word() {
        let record = |on| Record {
            on,
            since: "2026-11-22T10:15:30.000Z".into(),
            recipients: vec!["age1x".into()],
            ..Default::default()
        };
        let with = "[encrypt]\nrecipients = [\"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\"]";
        let table = [
            ("", None, ""),
            ("", Some(record(true)), "encrypt: missing, but captures in this store are encrypted to age1x"),
            ("", Some(record(false)), "encrypt: missing: reports are stored in plain since 2026-11-22T10:15:30.000Z"),
            (with, Some(record(true)), ""),
            (with, Some(record(false)), ""),
            ("encrypt = false", Some(record(false)), ""),
        ];
        for (text, encryption, expected) in table {
            let place = Place { encryption, ..Place::default() };
            let found = parse(text).unwrap().0.warnings(&[], &place);
            let told =
                found.first().map(|warning| format!("{}: {}", warning.path, warning.message)).unwrap_or_default();
            assert!(told.starts_with(expected) && told.is_empty() == expected.is_empty(), "{text}: {told}");
        }
    }
}
