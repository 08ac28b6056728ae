//! `cgroup`: the memory cgroup of the process, with its figures, limit and events.

use serde_json::{Map, Value, json};

use super::Source;

pub fn collect(source: Source<'_>) -> Result<Value, String> {
    let group = source.cgroups.memory_of(source.proc, source.pid)?;
    let files: Map<String, Value> =
        group.files().into_iter().map(|(name, text)| (name, Value::from(text.trim_end()))).collect();
    Ok(json!({
        "path": group.dir,
        "working_set_bytes": group.working_set().ok(),
        "limit_bytes": group.limit(),
        "files": files,
    }))
}
