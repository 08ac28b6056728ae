//! `process`: status, stat, limits, io and the threads of the process.

use std::fs;

use serde_json::{Map, Value, json};

use super::Source;
use crate::proc::read;
use diagctl_observe::ticks_per_second;

pub fn collect(source: Source<'_>) -> Result<Value, String> {
    let dir = source.proc.pid(source.pid);
    let status = read(&dir.join("status"))?;
    let text = |name: &str| read(&dir.join(name)).unwrap_or_else(String::from);
    let threads: Vec<Value> = fs::read_dir(dir.join("task"))
        .map_err(|e| format!("cannot read {}: {e}", dir.join("task").display()))?
        .flatten()
        .filter_map(|entry| {
            let tid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // utime and stime are fields 14 and 15; `fields` starts at field 3, after the name.
            let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
            let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok());
            Some(json!({
                "tid": tid,
                "name": fs::read_to_string(entry.path().join("comm")).ok()?.trim(),
                "state": fields.first()?,
                "user_ticks": ticks(11),
                "system_ticks": ticks(12),
                "wchan": fs::read_to_string(entry.path().join("wchan")).ok(),
            }))
        })
        .collect();
    Ok(json!({
        "pid": source.pid,
        "status": pairs(&status),
        "stat": text("stat").trim(),
        "limits": text("limits").lines().collect::<Vec<_>>(),
        "io": pairs(&text("io")),
        "oom_score": text("oom_score").trim(),
        "oom_score_adj": text("oom_score_adj").trim(),
        "cgroup": text("cgroup").lines().collect::<Vec<_>>(),
        "ticks_per_second": ticks_per_second(),
        "threads": threads,
    }))
}

/// Parses the `Key: value` lines of a file.
pub fn pairs(text: &str) -> Map<String, Value> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.trim().to_owned(), Value::from(value.trim())))
        .collect()
}
