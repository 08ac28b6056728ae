//! Recognizes a directory that is not a store, so that nothing of somebody else's is overwritten or deleted.

use std::io::Read;

use crate::error::Result;
use crate::inbox::INBOX;
use crate::layout::{HARMLESS, HOOKS, LEFT, REMOTE, SUBDIRS};
use diagctl_fs::{self as fs, Spot};

/// Returns a name in the directory that prevents it from becoming a store, quoted.
pub fn foreign_entry(dir: &Spot) -> Result<Option<String>> {
    let names: Vec<String> = fs::list(dir)?.flatten().map(|entry| entry.name.to_string_lossy().into_owned()).collect();
    let is_known = |name: &&String| {
        SUBDIRS.iter().chain(&HARMLESS).chain(&LEFT).chain(&[INBOX, REMOTE, HOOKS]).any(|known| name == known)
            || name.strip_prefix(".tmp-").is_some_and(is_random)
    };
    // Looks into nothing while the names alone say that the directory is foreign.
    let foreign = names.iter().find(|name| !is_known(name)).cloned();
    let foreign = foreign.or_else(|| names.iter().find_map(|name| foreign_content(dir, name)));
    Ok(foreign.map(|name| diagctl_fs::quoted(&name)))
}

// Returns a name that shows that something with the name of a store's file or directory is foreign.
fn foreign_content(dir: &Spot, name: &str) -> Option<String> {
    match name {
        // Everything in these is deleted some day, so a user's directory of that name must not become one of them.
        "trash" | "quarantine" => fs::children(&dir.join(name)).find_map(|entry| {
            let inner = entry.name.to_string_lossy();
            let ending = if name == "trash" { &inner } else { inner.rsplit('.').next().unwrap_or_default() };
            (!is_random(ending)).then(|| format!("{name}/{inner}"))
        }),
        INBOX => fs::children(&dir.join(name)).find_map(|entry| {
            let inner = entry.name.to_string_lossy();
            (!inner.starts_with("20") || !inner.ends_with(".json")).then(|| format!("{name}/{inner}"))
        }),
        _ if LEFT.contains(&name) => (!may_be_ours(&dir.join(name))).then(|| name.to_owned()),
        _ => None,
    }
}

// Returns true for a part of a name that `random_hex` could have made.
fn is_random(name: &str) -> bool {
    name.len() == 8 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

// Another program may have a `state.json`, too, which must not be overwritten.
fn may_be_ours(file: &Spot) -> bool {
    const BEGINNINGS: [&[u8]; 4] = [b"{\"check\":\"", b"{\"at\":", b"{\"schema\":", b"{\n  \"schema\":"];
    let is_json = file.file_name().is_some_and(|name| name != "execs.json" && name.to_string_lossy().contains(".json"));
    let Ok(opened) = fs::open_read(file) else { return true };
    let mut start = Vec::new();
    let read = opened.take(16).read_to_end(&mut start);
    !is_json || read.is_err() || start.is_empty() || BEGINNINGS.iter().any(|beginning| start.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::{Access, Store, StoreOptions};

    #[test]
    fn only_a_directory_with_nothing_but_store_names_becomes_a_store() {
        let ours = "{\"check\":\"00000000\"}";
        // Files with their contents; a name that ends with `/` is a directory.
        type Files<'a> = &'a [(&'a str, &'a str)];
        let table: [(Files<'_>, Option<&str>); 13] = [
            (&[], None),
            (&[("lost+found", "x")], None),
            (&[("samples.jsonl", "{\"at\":1}")], None),
            (&[("state.lock", ""), ("index.jsonl", ""), (".tmp-0123abcd", "x"), ("catalog.bin", "x")], None),
            (&[("state.json", ours), ("lease.json", "{\n  \"schema\": 1"), ("execs.json", "{}")], None),
            (&[("trash/", ""), ("trash/0123abcd", "x"), ("quarantine/", ""), ("quarantine/core.0123abcd", "x")], None),
            (&[("index.jsonl", ours), ("notes", "x")], Some("\"notes\"")),
            (&[("wp-config.php", "x")], Some("\"wp-config.php\"")),
            (&[("state.json", "{\"u\":1}")], Some("\"state.json\"")),
            (&[("events.jsonl", "u")], Some("\"events.jsonl\"")),
            (&[(".tmp-notes", "x")], Some("\".tmp-notes\"")),
            (&[("trash/", ""), ("trash/thesis", "x")], Some("\"trash/thesis\"")),
            (&[("quarantine/", ""), ("quarantine/notes.txt", "x")], Some("\"quarantine/notes.txt\"")),
        ];
        for (files, foreign) in table {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("store");
            fs::create_dir(&Spot::outside(&root), 0o700).unwrap();
            for (name, contents) in files {
                match name.strip_suffix('/') {
                    Some(name) => fs::create_dir(&Spot::outside(&root.join(name)), 0o700).unwrap(),
                    None => std::fs::write(root.join(name), contents).unwrap(),
                }
            }
            let opened = Store::open(StoreOptions::new(&root), Access::Create);
            match (opened, foreign) {
                (Ok(_), None) => assert!(root.join("FORMAT").is_file(), "{files:?}"),
                (Err(Error::Foreign { name, .. }), Some(foreign)) => {
                    assert_eq!(name, foreign);
                    assert!(!root.join("FORMAT").exists());
                    assert!(files.iter().all(|(name, _)| root.join(name).exists()), "{files:?}");
                }
                (other, _) => panic!("{files:?}: {other:?}"),
            }
        }
    }
}
