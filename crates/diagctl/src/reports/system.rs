//! `system`: memory, pressure and load of the host.

use serde_json::{Value, json};

use super::Source;
use super::process::pairs;

pub fn collect(source: Source<'_>) -> Result<Value, String> {
    let text = |path: &str| source.proc.read(path);
    let lines = |path: &str| text(path).map(|t| t.lines().map(str::to_owned).collect::<Vec<_>>()).ok();
    Ok(json!({
        "hostname": source.proc.hostname(),
        "kernel": text("sys/kernel/osrelease").ok().map(|t| t.trim().to_owned()),
        "uptime": text("uptime").ok().map(|t| t.trim().to_owned()),
        "loadavg": text("loadavg").ok().map(|t| t.trim().to_owned()),
        "meminfo": pairs(&text("meminfo")?),
        "pressure": {
            "cpu": lines("pressure/cpu"),
            "memory": lines("pressure/memory"),
            "io": lines("pressure/io"),
        },
        "vmstat": lines("vmstat"),
    }))
}
