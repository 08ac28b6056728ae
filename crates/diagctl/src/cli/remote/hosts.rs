//! The machines that a person means by `--host`.
//!
//! A request names a node: a machine, or one store of it (`web-1~4be11a02`). A capture records its machine only, so the name of a node
//! stands for its machine here.

use std::collections::BTreeSet;

use diagctl_fs::printable;
use diagctl_store::pattern::is_like;

use crate::cli::names;

/// Returns true if a person who gives this name, with asterisks or not, means the machine.
pub fn is_meant(name: &str, host: &str) -> bool {
    is_like(name, host) || is_like(name, machine(host)) || is_like(machine(name), host)
}

/// Returns true if this name means the machine only because it is that of a node, so that the capture may be of another store.
pub fn is_wider(name: &str, host: &str) -> bool {
    is_meant(name, host) && !is_like(name, host)
}

fn machine(node: &str) -> &str {
    node.rsplit_once('~').map_or(node, |(machine, _)| machine)
}

/// Returns what a person has to know who gave the name of a node and reads captures of all stores of the machine.
pub fn of_all_stores<'h>(name: &str, hosts: impl IntoIterator<Item = &'h str>) -> Option<String> {
    let is_node = machine(name) != name && hosts.into_iter().any(|host| is_wider(name, host));
    is_node.then(|| {
        let (name, machine) = (printable(name), printable(machine(name)));
        format!(
            "{name} is one store of {machine}; a capture names its machine only, so those of all its stores are meant"
        )
    })
}

/// Asks if a machine with a similar name was meant, or lists the machines that have captures. Returns nothing if there are none, or if the
/// name is of one of them.
pub fn meant<'h>(name: &str, hosts: impl IntoIterator<Item = &'h str>) -> Option<String> {
    let known: BTreeSet<&str> = hosts.into_iter().collect();
    if known.iter().any(|host| is_meant(name, host)) { None } else { names::meant(name, known) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_meant_by_its_name_and_by_that_of_a_node() {
        let table = [
            ("web-1", "web-1", true),
            ("web-1", "web-11", false),
            ("web-*", "web-1", true),
            ("web-1~4be11a02", "web-1", true),
            ("web-*~4be11a02", "web-1", true),
            ("web-1~4be11a02", "web-2", false),
            ("web-1~4be11a02", "web-1~4be11a02", true),
            ("web-1~4be11a02", "web-1~0c3fa911", false),
            ("web-1", "web-1~4be11a02", true),
            ("~x", "web-1", false),
        ];
        for (name, host, expected) in table {
            assert_eq!(is_meant(name, host), expected, "{name} {host}");
        }
    }

    #[test]
    fn the_name_of_a_node_is_told_to_be_that_of_a_machine() {
        let hosts = ["web-1", "web-2~4be11a02"];
        for (name, expected) in [("web-1", false), ("web-1~4be11a02", true), ("web-2~4be11a02", false), ("x~1", false)]
        {
            assert_eq!(of_all_stores(name, hosts).is_some(), expected, "{name}");
        }
    }

    #[test]
    fn the_machines_that_there_are_are_named_if_none_is_meant() {
        let hosts = ["web-1", "web-2", "db-1"];
        let table = [
            ("web-1", None),
            ("web-1~4be11a02", None),
            ("wbe-2", Some("did you mean \"web-2\"?")),
            ("sidekiq", Some("there are db-1, web-1, web-2")),
        ];
        for (name, expected) in table {
            assert_eq!(meant(name, hosts).as_deref(), expected, "{name}");
        }
        assert_eq!(meant("web-1", []), None);
    }
}
