//! The nodes that obey requests, and those that a person means.
//!
//! A node is a store. A person names the machine, or the node itself where a machine has several.

use diagctl_fs::random_u64;
use diagctl_store::pattern::is_like;
use futures_util::{StreamExt, stream};

use crate::bucket::Bucket;
use crate::error::Result;
use crate::foreign::Foreign;
use crate::no_node::{FEW, NoNode};
use crate::ticket::Node;

/// A node that has not announced itself for so long is gone, milliseconds. It does so twice a day.
const GONE_MS: u64 = 25 * 3_600_000;

/// The longest time between two looks that a node is believed, milliseconds.
const LONGEST_POLL_MS: u64 = 3_600_000;

/// The most nodes of a request.
const MOST: usize = 1000;

/// Number of nodes that are read at once.
const AT_ONCE: usize = 32;

/// The nodes that a person wants.
#[derive(Debug)]
pub struct Wanted<'w> {
    /// The machine or the node; an asterisk stands for any text.
    pub name: Option<&'w str>,
    /// The reports.
    pub reports: &'w [String],
    /// The most nodes, chosen at random.
    pub most: Option<usize>,
}

/// The nodes for a request.
#[derive(Debug)]
pub struct Chosen {
    /// The nodes by name, sorted.
    pub nodes: Vec<(String, Node)>,
    /// The number of nodes with the name that the person gave.
    pub of: usize,
}

/// Returns the machine of a node.
pub fn host(node: &str) -> &str {
    node.rsplit_once('~').map_or(node, |(host, _)| host)
}

/// Returns the name of a node for people: that of its machine, unless another node of the same machine is among them.
pub fn label<'n>(node: &'n str, among: &[String]) -> &'n str {
    let is_alone = among.iter().all(|other| other == node || host(other) != host(node));
    if is_alone { host(node) } else { node }
}

/// Lists nodes with what they allow. Two of one machine also have their directories.
pub fn shown(nodes: &[(String, Node)]) -> String {
    let names: Vec<String> = nodes.iter().map(|(name, _)| name.clone()).collect();
    let one = |(name, node): &(String, Node)| match node.store.as_str() {
        store if !store.is_empty() && label(name, &names) == name => format!("{name} ({store:.200})"),
        _ => name.clone(),
    };
    let more = if nodes.len() > FEW { ", …" } else { "" };
    format!("{}{more}", nodes.iter().take(FEW).map(one).collect::<Vec<_>>().join(", "))
}

/// Chooses nodes that are there and allow the reports, at random.
///
/// # Errors
///
/// If there is none, or the remote cannot be read.
pub async fn choose(bucket: &Bucket, wanted: &Wanted<'_>, now_ms: u64) -> Result<Chosen> {
    let pattern = wanted.name.unwrap_or("*");
    let objects = bucket.list_under("nodes").await?;
    let nodes = objects.iter().filter_map(|object| {
        let name = object.key.strip_prefix("nodes/")?.strip_suffix(".json").filter(|name| !name.contains('/'))?;
        Some((name, now_ms.saturating_sub(object.written_ms)))
    });
    let (there, gone): (Vec<_>, Vec<_>) = nodes.partition(|(_, ago_ms)| *ago_ms <= GONE_MS);
    let is_meant = |name: &str| is_like(pattern, host(name)) || is_like(pattern, name);
    let mut names: Vec<&str> = there.iter().map(|(name, _)| *name).filter(|name| is_meant(name)).collect();
    if names.is_empty() {
        let there: Vec<&str> = there.iter().map(|(name, _)| *name).collect();
        let gone = gone.into_iter().filter(|(name, _)| is_meant(name)).min_by_key(|(_, ago_ms)| *ago_ms);
        return Err(unknown(wanted.name, &there, gone).into());
    }
    for last in (1..names.len()).rev() {
        names.swap(last, usize::try_from(random_u64()? % (last as u64 + 1)).unwrap_or(0));
    }
    let most = wanted.most.unwrap_or(MOST).min(MOST);
    let foreign = &Foreign::new(bucket);
    let read = |name: String| async move { (foreign.read::<Node>(&format!("nodes/{name}.json")).await, name) };
    let mut read = stream::iter(names.iter().map(|name| (*name).to_owned())).map(read).buffered(AT_ONCE);
    let (mut nodes, mut others) = (Vec::new(), Vec::new());
    while nodes.len() < most
        && let Some((node, name)) = read.next().await
    {
        let Some(mut node) = node? else { continue };
        node.poll_ms = node.poll_ms.min(LONGEST_POLL_MS);
        let is_allowed = wanted.reports.iter().all(|report| node.allow_reports.contains(report));
        if is_allowed { &mut nodes } else { &mut others }.push((name, node));
    }
    nodes.sort_by(|a, b| a.0.cmp(&b.0));
    if nodes.is_empty() {
        return Err(not_allowed(wanted, others).into());
    }
    Ok(Chosen { nodes, of: names.len() })
}

fn unknown(name: Option<&str>, there: &[&str], gone: Option<(&str, u64)>) -> NoNode {
    let all: Vec<String> = there.iter().map(|name| (*name).to_owned()).collect();
    let mut labels: Vec<&str> = there.iter().map(|node| label(node, &all)).collect();
    match name {
        _ if there.is_empty() && gone.is_none() => NoNode::Nobody,
        Some(name) => {
            let likeness = |label: &str| strsim::jaro_winkler(name, label);
            labels.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)).then(a.cmp(b)));
            let there = labels.into_iter().map(str::to_owned).collect();
            let gone = gone.map(|(name, ago_ms)| (host(name).to_owned(), ago_ms));
            NoNode::Unknown { name: name.to_owned(), there, gone }
        }
        None => NoNode::Nobody,
    }
}

fn not_allowed(wanted: &Wanted<'_>, mut others: Vec<(String, Node)>) -> NoNode {
    others.sort_by(|a, b| a.0.cmp(&b.0));
    let names: Vec<String> = others.iter().map(|(name, _)| name.clone()).collect();
    let allow = others.into_iter().map(|(name, node)| (label(&name, &names).to_owned(), node.allow_reports)).collect();
    NoNode::NotAllowed { name: wanted.name.map(str::to_owned), reports: wanted.reports.to_vec(), allow }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    async fn bucket(dir: &tempfile::TempDir, nodes: &[(&str, &str)]) -> Bucket {
        let bucket = Bucket::Directory(dir.path().to_owned().into());
        for (name, json) in nodes {
            bucket.put(&format!("nodes/{name}.json"), (*json).to_owned().into()).await.unwrap();
        }
        bucket
    }

    async fn chosen(bucket: &Bucket, name: Option<&str>, reports: &[&str], later_ms: u64) -> String {
        let now_ms = u64::try_from(diagctl_observe::clock::Reading::take(String::new()).wall_ms).unwrap() + later_ms;
        let reports: Vec<String> = reports.iter().map(|name| (*name).to_owned()).collect();
        match choose(bucket, &Wanted { name, reports: &reports, most: None }, now_ms).await {
            Ok(chosen) => format!("{} of {}: {}", chosen.nodes.len(), chosen.of, shown(&chosen.nodes)),
            Err(error) => format!("{error} | {}", error.hint().unwrap_or_default()),
        }
    }

    #[tokio::test]
    async fn a_person_names_a_machine_or_one_of_its_stores() {
        let dir = tempfile::tempdir().unwrap();
        let gc = r#"{"allow_reports":["gc_stat"],"store":"/srv/shop"}"#;
        let both = r#"{"allow_reports":["gc_stat","heap_dump"],"store":"/srv/jobs"}"#;
        let off = r#"{"allow_reports":[]}"#;
        let nodes = [("web-1~aaaaaaaa", gc), ("web-1~bbbbbbbb", both), ("web-2~cccccccc", gc), ("old~dddddddd", off)];
        let bucket = bucket(&dir, &nodes).await;
        const HOW: &str = "a node obeys with [remote.requests] allow_reports in its configuration, while `diagctl ship --watch` runs there";
        let there = "4 nodes do: web-2, web-1~aaaaaaaa, web-1~bbbbbbbb, old";
        let table: [(Option<&str>, &[&str], u64, String); 12] = [
            (Some("web-2"), &["gc_stat"], 0, "1 of 1: web-2~cccccccc".into()),
            (Some("web-1"), &["gc_stat"], 0, "2 of 2: web-1~aaaaaaaa (/srv/shop), web-1~bbbbbbbb (/srv/jobs)".into()),
            (Some("web-1~bbbbbbbb"), &["gc_stat"], 0, "1 of 1: web-1~bbbbbbbb".into()),
            (Some("*~bbbb*"), &["gc_stat"], 0, "1 of 1: web-1~bbbbbbbb".into()),
            (Some("web-1"), &["heap_dump"], 0, "1 of 2: web-1~bbbbbbbb".into()),
            (Some("web-22"), &["gc_stat"], 0, format!("no node like \"web-22\" obeys requests | {there}; {HOW}")),
            (Some("web-2"), &["heap_dump"], 0, "no node like \"web-2\" allows heap_dump | web-2 allows gc_stat".into()),
            (
                Some("web-1"),
                &["heap_dump", "threads", "gc_stat"],
                0,
                "no node like \"web-1\" allows threads | web-1~aaaaaaaa allows gc_stat; web-1~bbbbbbbb allows gc_stat, heap_dump"
                    .into(),
            ),
            (
                Some("web-*"),
                &["threads"],
                0,
                "no node like \"web-*\" allows threads | web-1~aaaaaaaa, web-2 allow gc_stat; web-1~bbbbbbbb allows gc_stat, heap_dump"
                    .into(),
            ),
            (Some("old"), &["gc_stat"], 0, "no node like \"old\" allows gc_stat | old allows nothing".into()),
            (
                Some("web-2"),
                &["gc_stat"],
                50 * HOUR_MS,
                format!("no node like \"web-2\" obeys requests | web-2 announced itself 2d ago for the last time; {HOW}"),
            ),
            (None, &["gc_stat"], 50 * HOUR_MS, format!("no node obeys requests through this remote | {HOW}")),
        ];
        for (name, reports, later_ms, expected) in table {
            assert_eq!(chosen(&bucket, name, reports, later_ms).await, expected, "{name:?} {reports:?}");
        }
    }

    #[tokio::test]
    async fn reports_that_different_nodes_allow_are_not_had_together() {
        let dir = tempfile::tempdir().unwrap();
        let allow = |report: &str| format!("{{\"allow_reports\":[\"{report}\"]}}");
        let bucket = bucket(&dir, &[("a~1", &allow("gc_stat")), ("b~1", &allow("smaps"))]).await;
        assert_eq!(
            chosen(&bucket, None, &["gc_stat", "smaps"], 0).await,
            "no node allows all of gc_stat, smaps | a allows gc_stat; b allows smaps"
        );
    }

    #[tokio::test]
    async fn a_hostile_node_stops_no_request_and_is_not_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let never = format!("{{\"allow_reports\":[\"gc_stat\"],\"poll_ms\":{}}}", u64::MAX);
        let large = " ".repeat(70_000);
        let good = "{\"allow_reports\":[\"gc_stat\"],\"poll_ms\":1000}";
        let bucket = bucket(&dir, &[("good~1", good), ("never~1", &never), ("large~1", &large)]).await;
        let reports = ["gc_stat".to_owned()];
        let chosen = choose(&bucket, &Wanted { name: None, reports: &reports, most: None }, 0).await;
        let nodes = chosen.unwrap().nodes;
        let polls: Vec<_> = nodes.iter().map(|(name, node)| (name.as_str(), node.poll_ms)).collect();
        assert_eq!(polls, [("good~1", 1000), ("never~1", LONGEST_POLL_MS)]);
    }
}
