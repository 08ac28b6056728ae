//! `siblings`: the parent of the process and the parent's other children, each with its memory.

use serde_json::{Value, json};

use super::Source;

pub fn collect(source: Source<'_>) -> Result<Value, String> {
    let Source { proc, pid, .. } = source;
    let parent = proc.stat(pid)?.ppid;
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
            Some(json!({
                "pid": other,
                "relation": relation,
                "comm": stat.comm,
                "state": stat.state.to_string(),
                "start_ticks": stat.start_ticks,
                "rss_bytes": proc.figure(other, "status", "VmRSS").ok(),
                "swap_bytes": proc.figure(other, "status", "VmSwap").ok(),
                "pss_bytes": proc.figure(other, "smaps_rollup", "Pss").ok(),
                "private_dirty_bytes": proc.figure(other, "smaps_rollup", "Private_Dirty").ok(),
            }))
        })
        .collect();
    Ok(json!({ "pid": pid, "parent": parent, "processes": family }))
}
