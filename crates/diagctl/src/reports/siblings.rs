//! `siblings`: the parent of the process and the parent's other children, each with its memory.

use serde_json::{Value, json};

use super::Source;
use crate::proc::figure;

pub fn collect(source: Source<'_>) -> Result<Value, String> {
    let Source { proc, pid, .. } = source;
    let parent = proc.stat(pid)?.ppid;
    let own_image = proc.image(pid).ok().flatten();
    let family: Vec<Value> = proc
        .pids()
        .into_iter()
        .filter_map(|other| {
            let stat = proc.stat(other).ok()?;
            let relation = match other {
                _ if other == pid => "self",
                _ if other == parent => "parent",
                _ if stat.ppid == pid => "child",
                // Children of init are unrelated to each other.
                _ if stat.ppid == parent && parent > 1 => "sibling",
                _ => return None,
            };
            // Each reading walks the page tables.
            let rollup = proc.read(&format!("{other}/smaps_rollup")).unwrap_or_default();
            let status = proc.read(&format!("{other}/status")).unwrap_or_default();
            let image = proc.image(other).ok().flatten();
            Some(json!({
                "pid": other,
                "relation": relation,
                "comm": stat.comm,
                "state": stat.state.to_string(),
                "start_ticks": stat.start_ticks,
                "rss_bytes": figure(&status, "VmRSS"),
                "anon_bytes": figure(&status, "RssAnon"),
                "swap_bytes": figure(&status, "VmSwap"),
                "pss_bytes": figure(&rollup, "Pss"),
                "private_dirty_bytes": figure(&rollup, "Private_Dirty"),
                "shared_dirty_bytes": figure(&rollup, "Shared_Dirty"),
                // False if it has executed a program since it was forked, or since the process was.
                "same_image": own_image.zip(image).map(|(own, other)| own == other),
            }))
        })
        .collect();
    Ok(json!({ "pid": pid, "parent": parent, "processes": family }))
}
