//! Checks of the configuration and of the main switch.

use super::check::Check;
use crate::cli::error::Failure;
use crate::config::{Loaded, Place, Source};
use crate::grant::labels;
use crate::section::Problem;
use diagctl_store::encryption::Encryption;

/// Checks the configuration file, and looks for rules and keys that cannot work here.
pub fn configuration(loaded: &Loaded, broken: Option<&Failure>, place: &Place) -> Vec<Check> {
    if let Some(failure) = broken {
        let in_force = if loaded.file.is_some() { "the last good configuration" } else { "the defaults" };
        let hint = match &failure.hint {
            Some(hint) => format!("{hint}; the checks below use {in_force}"),
            None => format!("fix it until `diagctl config check` says OK; the checks below use {in_force}"),
        };
        return vec![Check::fail("config.file", failure.message.clone(), hint)];
    }
    let file = match &loaded.file {
        Some(path) => Check::ok("config.file", format!("{} is valid", path.display()))
            .seen("file", path.display().to_string())
            .seen("rules", loaded.config.rules.len()),
        None => Check::ok("config.file", format!("{} does not exist; the defaults apply", crate::config::DEFAULT_FILE))
            .seen("file", serde_json::Value::Null)
            .seen("rules", loaded.config.rules.len()),
    };
    vec![file, warnings(&loaded.warnings(place))]
}

fn warnings(warnings: &[Problem]) -> Check {
    let list: Vec<String> = warnings.iter().map(|warning| format!("{}: {}", warning.path, warning.message)).collect();
    match list.as_slice() {
        [] => Check::ok("config.rules", "every rule can fire on this machine"),
        _ => Check::warn("config.rules", list.join("; "), "`diagctl config check` says what to change")
            .seen("doubts", list.clone()),
    }
}

/// Checks the labels in this environment. Not a check if there are none.
pub fn labels(given: Option<&str>) -> Option<Check> {
    let (labels, wrong) = labels::parse(given?);
    let check = if wrong.is_empty() {
        Check::ok("labels", format!("{} labels in {} for every capture", labels.len(), labels::VARIABLE))
    } else {
        Check::warn(
            "labels",
            format!("{} is not a label, and is left out", wrong.join(", ")),
            format!("write {}=region=eu,canary=yes: lowercase letters, digits and _ before the =", labels::VARIABLE),
        )
    };
    Some(check.seen("labels", serde_json::json!(labels)))
}

/// Checks to whom reports are encrypted. Not a check if they are not.
pub fn encryption(encryption: Option<&Encryption>) -> Option<Check> {
    let Encryption { recipients, except, broken } = encryption?;
    if let Some(why) = broken {
        let hint = "correct it: until then, no report is stored";
        return Some(Check::fail("encryption", format!("reports cannot be encrypted: {why}"), hint));
    }
    let rest = if except.is_empty() { String::new() } else { format!("; readable: {}", except.join(", ")) };
    let check = Check::ok("encryption", format!("reports are encrypted to {}{rest}", recipients.join(", ")));
    Some(check.seen("recipients", recipients.clone()).seen("except", except.clone()))
}

/// Checks the main switch in this environment.
pub fn switch(loaded: &Loaded) -> Check {
    let source = loaded.sources.get("enabled").copied().unwrap_or(Source::Default);
    let check = if loaded.config.enabled {
        Check::ok("switch", format!("on in this environment ({source})"))
    } else {
        Check::warn(
            "switch",
            format!("off in this environment ({source}): a process with the same environment takes no captures"),
            "set DIAGCTL_ENABLED=1 for the workers, or enabled = true in the configuration",
        )
    };
    check.seen("enabled", loaded.config.enabled).seen("source", source.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::check::{Status, complaints};
    use crate::config::{Overrides, SourceOf};

    fn loaded(enabled: bool) -> Loaded {
        let dir = Some(("/store".into(), SourceOf::Flag));
        crate::config::defaults(&Overrides { dir, enabled: Some(enabled) }).unwrap()
    }

    #[test]
    fn an_invalid_file_fails_and_a_rule_that_never_fires_warns() {
        assert_eq!(
            complaints(&configuration(
                &loaded(true),
                None,
                &Place { host: Some(1 << 30), memory: Some(1 << 30), ..Place::default() }
            )),
            []
        );
        let broken = Failure::failed("line 3: what is this").hint("remove it");
        let found = configuration(&loaded(true), Some(&broken), &Place::default());
        assert_eq!(complaints(&found), [("config.file", Status::Fail)]);
        assert!(found[0].hint.as_ref().unwrap().starts_with("remove it; the checks below use the defaults"));
        let mut never = loaded(true);
        never.config.limits.budget_hour = 1;
        let found = configuration(&never, None, &Place::default());
        assert_eq!(complaints(&found), [("config.rules", Status::Warn)]);
        assert!(found[1].message.contains("budget_hour"), "{}", found[1].message);
    }

    #[test]
    fn what_is_no_label_is_named() {
        assert!(labels(None).is_none());
        assert_eq!(labels(Some("region=eu")).unwrap().status, Status::Ok);
        let wrong = labels(Some("region=eu,Canary")).unwrap();
        assert!(wrong.status == Status::Warn && wrong.message.contains("Canary is not a label"), "{}", wrong.message);
    }

    #[test]
    fn recipients_are_told_and_a_table_that_cannot_be_used_fails() {
        assert!(encryption(None).is_none());
        let to = Encryption { recipients: vec!["age1x".into()], except: vec!["gc_stat".into()], broken: None };
        let check = encryption(Some(&to)).unwrap();
        assert_eq!(
            (check.status, check.message.as_str()),
            (Status::Ok, "reports are encrypted to age1x; readable: gc_stat")
        );
        assert_eq!(encryption(Some(&Encryption::broken("x"))).unwrap().status, Status::Fail);
    }

    #[test]
    fn a_disabled_switch_is_reported_with_its_source() {
        assert_eq!(switch(&loaded(true)).status, Status::Ok);
        let off = switch(&loaded(false));
        assert_eq!(off.status, Status::Warn);
        assert!(off.message.contains("environment DIAGCTL_ENABLED"), "{}", off.message);
    }
}
