//! The reasons why there is no node for a request, and what a person can do.

use std::collections::BTreeMap;

use diagctl_fs::{printable, quoted};
use diagctl_store::units;

/// The most names in a message.
pub const FEW: usize = 5;

/// The reason why there is no node for a request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoNode {
    /// There are no nodes.
    #[error("no node obeys requests through this remote")]
    Nobody,
    /// None has the name.
    #[error("no node like {} obeys requests", quoted(name))]
    Unknown {
        /// The name that the person gave.
        name: String,
        /// The nodes that are there, the most similar first.
        there: Vec<String>,
        /// A node of that name that is gone, and when it announced itself last, milliseconds ago.
        gone: Option<(String, u64)>,
    },
    /// None allows all of the reports.
    #[error("no node{} allows {}", like(name.as_deref()), refused(reports, allow))]
    NotAllowed {
        /// The name that the person gave.
        name: Option<String>,
        /// The reports.
        reports: Vec<String>,
        /// The nodes of that name, with the reports that each allows.
        allow: Vec<(String, Vec<String>)>,
    },
}

impl NoNode {
    /// Returns the next step.
    pub fn hint(&self) -> String {
        const HOW: &str = "a node obeys with [remote.requests] allow_reports in its configuration, while `diagctl ship --watch` runs there";
        match self {
            Self::Nobody => HOW.to_owned(),
            // What they announced cannot be read; that was told before.
            Self::NotAllowed { allow, .. } if allow.is_empty() => HOW.to_owned(),
            Self::Unknown { there, gone, .. } => {
                let gone = gone.as_ref().map(|(name, ago_ms)| {
                    let days = Some(ago_ms / 86_400_000).filter(|days| *days > 1).map(|days| format!("{days}d"));
                    let ago = days.unwrap_or_else(|| units::duration(ago_ms / 3_600_000 * 3_600_000));
                    format!("{name} announced itself {ago} ago for the last time; ")
                });
                let there = match there.as_slice() {
                    [] => String::new(),
                    [name] => format!("{name} does; "),
                    names => format!("{} nodes do: {}; ", names.len(), few(names)),
                };
                format!("{}{there}{HOW}", gone.unwrap_or_default())
            }
            Self::NotAllowed { allow, .. } => {
                let mut by_reports: BTreeMap<&[String], Vec<String>> = BTreeMap::new();
                for (name, reports) in allow {
                    by_reports.entry(reports).or_default().push(name.clone());
                }
                let text = |(reports, names): (&[String], Vec<String>)| {
                    let verb = if names.len() == 1 { "allows" } else { "allow" };
                    let reports = if reports.is_empty() { "nothing".to_owned() } else { few(reports) };
                    format!("{} {verb} {reports}", few(&names))
                };
                by_reports.into_iter().take(FEW).map(text).collect::<Vec<_>>().join("; ")
            }
        }
    }
}

// Names those that no node allows. If each is allowed somewhere, none allows all of them.
fn refused(reports: &[String], allow: &[(String, Vec<String>)]) -> String {
    let is_allowed = |report: &&String| allow.iter().any(|(_, allowed)| allowed.contains(report));
    let refused: Vec<&str> = reports.iter().filter(|report| !is_allowed(report)).map(String::as_str).collect();
    if refused.is_empty() {
        format!("all of {}", printable(&reports.join(", ")))
    } else {
        printable(&refused.join(", "))
    }
}

fn like(name: Option<&str>) -> String {
    name.map(|name| format!(" like {}", quoted(name))).unwrap_or_default()
}

fn few(names: &[String]) -> String {
    let more = if names.len() > FEW { format!(" and {} more", names.len() - FEW) } else { String::new() };
    format!(
        "{}{more}",
        names.iter().take(FEW).map(|name| format!("{:.64}", printable(name))).collect::<Vec<_>>().join(", ")
    )
}
