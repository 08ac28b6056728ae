//! `smaps`, `smaps_rollup`: the kernel's text, unchanged.

use std::fs::File;
use std::io::Read;

use super::Source;

pub fn open(name: &str, source: Source<'_>) -> Result<Box<dyn Read>, String> {
    let path = source.proc.pid(source.pid).join(name);
    let file =
        File::open(&path).map_err(|e| format!("cannot open {}: {e}{}", path.display(), source.why_denied(&e)))?;
    Ok(Box::new(file))
}
