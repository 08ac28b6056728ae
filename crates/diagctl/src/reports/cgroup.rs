//! `cgroup`: the process's memory cgroup with its figures, limit and events, and the figures of the cgroup whose limit applies.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Source;
use crate::cgroup::MemoryCgroup;

pub fn collect(source: Source<'_>) -> Result<Value, String> {
    let group = source.cgroups.memory_of(source.proc, source.pid)?;
    let files = |dir: &Path| -> Map<String, Value> {
        MemoryCgroup::files(dir).into_iter().map(|(name, text)| (name, Value::from(text.trim_end()))).collect()
    };
    let limited_by = group.limited_by();
    Ok(json!({
        "path": group.dir(),
        "working_set_bytes": group.working_set().ok(),
        "limit_bytes": group.limit(),
        "available_bytes": group.available(|_| 0),
        "limited_by": limited_by,
        "files": files(group.dir()),
        "limited_by_files": limited_by.filter(|dir| *dir != group.dir()).map(files),
    }))
}
