//! The capture in the remote that a person means: `ID`, a prefix, or `latest`, each with `HOST/` before it and `:REPORT` after it.

use std::collections::BTreeSet;

use diagctl_store::index::Entry;
use diagctl_store::{Error, Id};

use super::hints::shell_word;
use super::{Days, hosts, misplaced};
use crate::cli::Failure;
use crate::cli::error::{printable, quoted};
use crate::exit_code::Exit;

/// Number of captures that are listed for an ambiguous prefix.
const SHOWN: usize = 5;

/// A capture in the remote, and one of its reports if the person named one.
#[derive(Clone, Debug)]
pub struct Target {
    /// The capture.
    pub entry: Entry,
    /// The report.
    pub report: Option<String>,
}

/// A capture as a person named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named<'t> {
    host: Option<&'t str>,
    name: &'t str,
    report: Option<&'t str>,
}

/// Returns the names of machines that a person gave for a capture.
pub fn machines<'n>(host: Option<&'n str>, text: &'n str) -> impl Iterator<Item = &'n str> {
    let also = Named::parse(text).host.filter(|named| Some(*named) != host);
    host.into_iter().chain(also)
}

/// Fails if a person named a store and no whole ID: the capture that was found may be of another store.
pub fn require_certain(target: &Target, host: Option<&str>, text: &str) -> Result<(), Failure> {
    let (name, of) = (Named::parse(text).name, printable(&target.entry.host));
    let wide = machines(host, text).find(|name| hosts::is_wider(name, &target.entry.host));
    let Some(wide) = wide.filter(|_| name.parse::<Id>().is_err()) else { return Ok(()) };
    let message = format!(
        "{} of {} may be a capture of another store of {of}, because a capture names its machine only",
        quoted(name),
        printable(wide)
    );
    let hint =
        format!("name it by its whole ID, {of}/ID: `diagctl list --remote --host {}` shows them", shell_word(&of));
    Err(Failure::new(Exit::NoMatch, message).hint(hint))
}

impl<'t> Named<'t> {
    fn parse(text: &'t str) -> Self {
        let (host, rest) = text.split_once('/').map_or((None, text), |(host, rest)| (Some(host), rest));
        let (name, report) = rest.split_once(':').map_or((rest, None), |(name, report)| (name, Some(report)));
        Self { host, name, report }
    }
}

/// Returns the days on which a capture of this name can be: an id begins with its day.
pub fn days(text: &str) -> Days {
    let name = Named::parse(text).name;
    let Some(day) = name.get(..8).filter(|day| day.bytes().all(|byte| byte.is_ascii_digit())) else {
        return Days::default();
    };
    let day = format!("{}-{}-{}", &day[..4], &day[4..6], &day[6..]);
    Days { since: Some(day.clone()), until: Some(day) }
}

/// Finds the capture among those in the remote, the newest first.
pub fn resolve(entries: &[Entry], host: Option<&str>, text: &str) -> Result<Target, Failure> {
    let named = Named::parse(text);
    let is_of =
        |entry: &&Entry| [host, named.host].into_iter().flatten().all(|wanted| hosts::is_meant(wanted, &entry.host));
    let none = || none(entries, text, host);
    let of_host = entries.iter().filter(is_of);
    let report = named.report.map(str::to_owned);
    let found = |entry: &Entry| Ok(Target { entry: entry.clone(), report: report.clone() });
    if named.name == "latest" {
        let has = |entry: &&Entry| {
            report.as_ref().is_none_or(|wanted| entry.reports.iter().any(|r| r.name == **wanted && r.has_data()))
        };
        return match (of_host.clone().find(has), of_host.clone().next(), &report) {
            (Some(entry), ..) => found(entry),
            (None, Some(_), Some(report)) => {
                let known: BTreeSet<_> = of_host.flat_map(|entry| &entry.reports).map(|r| r.name.clone()).collect();
                Err(Error::NoCaptureWith { report: report.clone(), known: known.into_iter().collect() }.into())
            }
            _ => Err(none()),
        };
    }
    let is_meant = |entry: &&Entry| !named.name.is_empty() && entry.id.as_str().starts_with(named.name);
    let matching: Vec<&Entry> = of_host.filter(is_meant).collect();
    match matching.as_slice() {
        [] => Err(none()),
        [entry] => found(entry),
        [entry, rest @ ..] if rest.iter().all(|other| other.id == entry.id) => {
            let hosts: Vec<String> = matching.iter().map(|entry| printable(&entry.host)).collect();
            let message =
                format!("capture {} is in the remote for {} machines: {}", entry.id, hosts.len(), hosts.join(", "));
            Err(Failure::new(Exit::NoMatch, message)
                .hint(format!("write HOST/ID, for example {}/{}", hosts[0], entry.id)))
        }
        many => {
            let first: Vec<Id> = many.iter().take(SHOWN).map(|entry| entry.id).collect();
            Err(Error::Ambiguous { prefix: named.name.to_owned(), count: many.len(), first }.into())
        }
    }
}

fn none(entries: &[Entry], text: &str, host: Option<&str>) -> Failure {
    if text.contains("://") {
        return misplaced::url();
    }
    let meant = [host, Named::parse(text).host]
        .into_iter()
        .flatten()
        .find_map(|name| hosts::meant(name, entries.iter().map(|entry| entry.host.as_str())));
    // Only the captures of that day were listed.
    let when = if days(text) == Days::default() { "" } else { "of the captures of that day, " };
    let meant = meant.map(|meant| format!("{when}{meant}"));
    Failure::new(Exit::NoMatch, format!("no capture in the remote{} matches {}", of_host(host), quoted(text)))
        .hint(and_the_list(meant.as_deref()))
}

fn and_the_list(meant: Option<&str>) -> String {
    let meant = meant.map(|meant| format!("{meant}{} ", if meant.ends_with('?') { "" } else { ";" }));
    format!("{}`diagctl list --remote` shows the captures", meant.unwrap_or_default())
}

/// The failure if the remote has captures, and none of a machine with this name.
pub fn no_machine(host: &str, meant: &str) -> Failure {
    Failure::new(Exit::NoMatch, format!("no capture in the remote is{}", of_host(Some(host))))
        .hint(and_the_list(Some(meant)))
}

/// Returns the words that name the filter for machines.
pub fn of_host(host: Option<&str>) -> String {
    host.map(|host| format!(" of a machine like {}", quoted(host))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use diagctl_store::index::EntryReport;

    fn entry(id: &str, host: &str, report: &str) -> Entry {
        let reports = vec![EntryReport::new(report.parse().unwrap())];
        Entry { id: id.parse().unwrap(), host: host.into(), reports, ..Entry::default() }
    }

    #[test]
    fn a_capture_is_found_by_id_prefix_latest_and_host() {
        let entries = [
            entry("20261128T100000003Z-cccccccc", "web-2", "smaps"),
            entry("20261128T100000002Z-bbbbbbbb", "web-1", "heap_dump"),
            entry("20261128T100000002Z-bbbbbbbb", "web-2", "heap_dump"),
            entry("20261127T100000001Z-aaaaaaaa", "web-1", "smaps"),
        ];
        let table = [
            ("latest", None, Ok((0, None))),
            ("latest:heap_dump", None, Ok((1, Some("heap_dump")))),
            ("latest", Some("web-1"), Ok((1, None))),
            ("web-1/latest:smaps", None, Ok((3, Some("smaps")))),
            ("20261127", None, Ok((3, None))),
            ("20261127:smaps", None, Ok((3, Some("smaps")))),
            ("web-2/20261128T100000002Z-bbbbbbbb", None, Ok((2, None))),
            ("20261128T100000002Z-bbbbbbbb", Some("*-1"), Ok((1, None))),
            ("20261128T100000002Z-bbbbbbbb", None, Err("is in the remote for 2 machines: web-1, web-2")),
            ("2026", None, Err("matches 4 captures")),
            (
                "20261127",
                Some("web-2"),
                Err("no capture in the remote of a machine like \"web-2\" matches \"20261127\""),
            ),
            ("latest:gc_stat", None, Err("gc_stat")),
            ("", None, Err("no capture in the remote matches")),
            ("../../etc/passwd", None, Err("no capture in the remote matches")),
        ];
        for (text, host, expected) in table {
            match (resolve(&entries, host, text), expected) {
                (Ok(target), Ok((n, report))) => {
                    assert_eq!((&target.entry, target.report.as_deref()), (&entries[n], report), "{text}");
                }
                (Err(failure), Err(part)) => assert!(failure.message.contains(part), "{text}: {failure}"),
                (other, _) => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_machine_that_has_nothing_is_told_with_those_that_have() {
        let entries = [
            entry("20261128T100000003Z-cccccccc", "web-1", "smaps"),
            entry("20261128T100000002Z-bbbbbbbb", "db", "smaps"),
        ];
        let all = "`diagctl list --remote` shows the captures";
        let table = [
            ("latest", Some("sidekiq"), format!("there are db, web-1; {all}")),
            ("sidekiq/latest", None, format!("there are db, web-1; {all}")),
            ("latest", Some("web1"), format!("did you mean \"web-1\"? {all}")),
            ("sidekiq/20261128", None, format!("of the captures of that day, there are db, web-1; {all}")),
            ("20261127", Some("web-1"), all.to_owned()),
        ];
        for (text, host, expected) in table {
            assert_eq!(resolve(&entries, host, text).unwrap_err().hint, Some(expected), "{text} {host:?}");
        }
        assert_eq!(resolve(&entries, Some("web-1~4be11a02"), "latest").unwrap().entry.host, "web-1");
    }

    #[test]
    fn only_a_whole_id_is_certain_where_a_store_was_named() {
        let target = |host| Target { entry: entry("20261128T100000003Z-cccccccc", host, "smaps"), report: None };
        let id = "20261128T100000003Z-cccccccc";
        let table = [
            ("web-1", None, "latest", true),
            ("web-1", Some("web-*"), "latest", true),
            ("web-1", Some("web-1"), "web-1/2026", true),
            ("web-1", None, "web-1~4be11a02/latest", false),
            ("web-1", None, "web-1~4be11a02/20261128T1", false),
            ("web-1", Some("web-1~4be11a02"), "latest", false),
            ("web-1", Some("web-*~4be11a02"), "2026", false),
            ("web-1", Some("web-1"), "web-1~4be11a02/latest", false),
            ("web-1", Some("web-1~4be11a02"), id, true),
            ("web-1", None, &format!("web-1~4be11a02/{id}"), true),
            ("web-1~4be11a02", None, "web-1~4be11a02/latest", true),
            ("web-1~4be11a02", None, "web-1/latest", false),
        ];
        for (of, host, text, expected) in table {
            assert_eq!(require_certain(&target(of), host, text).is_ok(), expected, "{of} {host:?} {text}");
        }
    }

    #[test]
    fn an_id_names_its_day() {
        let day = |day: &str| Days { since: Some(day.into()), until: Some(day.into()) };
        assert_eq!(days("web-1/20261128T100000002Z-bbbbbbbb:smaps"), day("2026-11-28"));
        assert_eq!(days("20261128"), day("2026-11-28"));
        assert_eq!(
            (days("202611"), days("latest"), days("2026112é")),
            (Days::default(), Days::default(), Days::default())
        );
    }
}
