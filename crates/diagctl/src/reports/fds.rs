//! `fds`: the open descriptors of the process with their targets, and a count by kind.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::Source;

pub fn collect(source: Source<'_>) -> Result<Value, String> {
    let dir = source.proc.pid(source.pid).join("fd");
    let entries =
        fs::read_dir(&dir).map_err(|e| format!("cannot read {}: {e}{}", dir.display(), source.why_denied(&e)))?;
    let mut open: Vec<(u32, String)> = entries
        .flatten()
        .filter_map(|entry| {
            let fd = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            Some((fd, target.to_string_lossy().into_owned()))
        })
        .collect();
    open.sort();
    let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
    for (_, target) in &open {
        *kinds.entry(kind(target)).or_default() += 1;
    }
    let list: Vec<Value> = open.iter().map(|(fd, target)| json!({ "fd": fd, "target": target })).collect();
    Ok(json!({ "pid": source.pid, "count": open.len(), "kinds": kinds, "open": list }))
}

fn kind(target: &str) -> &str {
    match target.split_once(':') {
        Some((kind @ ("socket" | "pipe" | "anon_inode"), _)) => kind,
        _ => "file",
    }
}
