//! Reading the configuration: the file, the environment, the flags, and the copies that the store keeps.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::SETTLED_S;
use super::examine::{Examined, examine, parse};
use super::{DEFAULT_FILE, Error, Loaded, Overrides, Result, Source, SourceOf, cache, encrypt};
use crate::fsio::{self, Durability, Spot};
use crate::section::Problem;
use diagctl_observe::clock::Reading;
use diagctl_store::encryption::Encryption;

/// The store's copy of the last valid configuration.
pub(super) const LAST_GOOD: &str = "config.good.toml";

/// The maximum size of a configuration file, in bytes. A longer file is not a configuration.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// Reads and merges the configuration. `file` is the path that was given; without it the default file is read if it exists.
pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Loaded> {
    let (text, read) = read(file)?;
    interpret(file, &text, read, overrides)
}

fn interpret(file: Option<&Path>, text: &str, read: Option<PathBuf>, overrides: &Overrides) -> Result<Loaded> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let loaded = parsed(text).map_err(|problems| Error::Invalid { path: path.to_owned(), problems })?;
    Ok(merge(Loaded { file: read, ..loaded }, overrides))
}

/// Like [`load`], but while a program may be writing the file in place, the last good configuration stays in force: the defaults
/// would delete captures, store reports in plain, and put off the next poll.
pub fn load_settled(file: Option<&Path>, held: Option<&Spot>, overrides: &Overrides) -> Result<Loaded> {
    let (text, read) = read(file)?;
    let emptied = read.as_ref().filter(|path| text.is_empty() && has_just_changed(path)).cloned();
    let loaded = interpret(file, &text, read, overrides)?;
    let Some(path) = emptied else { return Ok(loaded) };
    let held = held.cloned().or_else(|| Spot::hold(&loaded.config.dir).ok());
    let good = last_good(file, held, overrides, Error::Emptied { path });
    Ok(good.ok().filter(|good| good.config != loaded.config).unwrap_or(loaded))
}

fn has_just_changed(path: &Path) -> bool {
    let now = Reading::take(String::new()).wall_ms / 1000;
    // Unlike the modification time, the change time cannot be set back.
    std::fs::metadata(path).is_ok_and(|meta| now.abs_diff(meta.ctime()) < SETTLED_S.unsigned_abs())
}

/// Returns the text of the given file, or of the default file if it exists, with the path that was read.
pub fn read(file: Option<&Path>) -> Result<(String, Option<PathBuf>)> {
    let named = file.is_some();
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    Ok(match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !named => (String::new(), None),
        Err(source) => return Err(Error::Missing { path: path.to_owned(), source }),
        Ok(meta) if !meta.is_file() || meta.len() > MAX_FILE => {
            return Err(Error::NotAFile { path: path.to_owned() });
        }
        Ok(_) => {
            let text =
                std::fs::read_to_string(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })?;
            (text, Some(path.to_path_buf()))
        }
    })
}

/// Returns the configuration that is in force without a file.
pub fn defaults(overrides: &Overrides) -> Result<Loaded> {
    let loaded = parsed("").map_err(|problems| Error::Invalid { path: DEFAULT_FILE.into(), problems })?;
    Ok(merge(loaded, overrides))
}

// Parses a document that must be valid.
pub(super) fn parsed(text: &str) -> std::result::Result<Loaded, Vec<Problem>> {
    let examined = examine(text)?;
    if examined.problems.is_empty() { Ok(examined.into()) } else { Err(examined.problems) }
}

impl From<Examined> for Loaded {
    fn from(examined: Examined) -> Self {
        Self { sources: examined.given, idle: examined.idle, ..Self::new(examined.config) }
    }
}

/// Reads and merges the configuration for a command that works for a running process. Uses the store's cache while it matches
/// the file. An invalid file does not stop the process: the last good configuration, kept in the store, stays in force. Without
/// `--dir` the store is unknown, and only the file counts.
pub fn load_for_process(file: Option<&Path>, overrides: &Overrides) -> Result<Loaded> {
    let Some((dir, _)) = &overrides.dir else { return load(file, overrides) };
    let held = std::path::absolute(dir).and_then(|dir| Spot::hold(&dir)).ok();
    let path = file.unwrap_or(Path::new(DEFAULT_FILE)).to_path_buf();
    let identity = cache::Identity::of(&path);
    let cached = identity.as_ref().zip(held.as_ref()).and_then(|(identity, held)| cache::read(held, identity));
    if let Some((config, enabled_given)) = cached {
        let enabled = if enabled_given { Source::File } else { Source::Default };
        let sources = [("enabled", enabled)].into();
        return Ok(merge(Loaded { file: Some(path), sources, held, ..Loaded::new(config) }, overrides));
    }
    match load_settled(file, held.as_ref(), overrides) {
        Ok(loaded) if loaded.broken.is_some() => Ok(loaded),
        Ok(loaded) => Ok(Loaded { identity, held, ..loaded }),
        Err(error) => last_good(file, held, overrides, error),
    }
}

pub(super) fn last_good(
    file: Option<&Path>,
    held: Option<Spot>,
    overrides: &Overrides,
    error: Error,
) -> Result<Loaded> {
    let kept = held.as_ref().and_then(|held| fsio::read_bounded(&held.join(LAST_GOOD), MAX_FILE + 8192).ok());
    let kept = kept.map(|kept| String::from_utf8_lossy(&kept).into_owned()).unwrap_or_default();
    // Another application may share the store with a file of its own, whose rules do not apply to this process.
    let text = kept.strip_prefix(&head_of_copy(file.unwrap_or(Path::new(DEFAULT_FILE))));
    let Some(mut good) = text.and_then(|text| parsed(text).ok()) else {
        return Err(error);
    };
    if let Some(encryption) = encryption_in(file, good.config.encrypt.is_some()) {
        good.config.encrypt = Some(encryption);
    }
    let broken = Some(format!("{error}; the last good configuration stays in force"));
    Ok(merge(Loaded { file: file.map(Path::to_path_buf), broken, held, ..good }, overrides))
}

// Returns the encryption that a file with problems asks for, in place of that of the last good one, which may have had none. If
// that part of it cannot be read, nothing is stored.
fn encryption_in(file: Option<&Path>, was_encrypted: bool) -> Option<Box<Encryption>> {
    let (text, _) = read(file).ok()?;
    let asks =
        || text.lines().any(|line| line.trim_start().trim_start_matches('[').trim_start().starts_with("encrypt"));
    match examine(&text) {
        Ok(examined) => examined.config.encrypt,
        Err(_) => (!was_encrypted && asks()).then(|| Box::new(encrypt::broken())),
    }
}

// Returns the first line of a copy, which names the original file.
fn head_of_copy(file: &Path) -> String {
    format!("# last good copy of {:?}\n", file.display().to_string())
}

impl Loaded {
    /// Names the configuration: its file, or that there is none.
    pub fn whose(&self) -> String {
        let file = self.borrowed.as_deref().or(self.file.as_deref());
        file.map_or_else(|| format!("{DEFAULT_FILE} (which does not exist)"), |file| file.display().to_string())
    }

    /// Says why reports are not encrypted, if they are not.
    pub fn why_plain(&self) -> String {
        match self.config.plain {
            true => format!("{} says encrypt = false", self.whose()),
            false => format!("{} has no [encrypt]", self.whose()),
        }
    }
}

/// Saves a newly read file: in the cache, and as the last good copy.
pub fn keep(loaded: &Loaded, dir: &Spot) -> Result<()> {
    let (Some(file), Some(identity)) = (&loaded.file, &loaded.identity) else { return Ok(()) };
    let text = fsio::read_bounded(&Spot::outside(file), MAX_FILE)?;
    if cache::Identity::of(file).as_ref() != Some(identity) {
        return Ok(()); // It has changed since it was loaded.
    }
    // Caches only the file's values: flags and environment may differ from poll to poll.
    let Ok((config, sources)) = parse(&String::from_utf8_lossy(&text)) else { return Ok(()) };
    let copy = [head_of_copy(file).as_bytes(), &text].concat();
    fsio::write_atomic(&dir.join(LAST_GOOD), &copy, Durability::Volatile)?;
    cache::write(dir, identity.clone(), &config, sources["enabled"] == Source::File)
}

pub(super) fn merge(mut loaded: Loaded, overrides: &Overrides) -> Loaded {
    let Loaded { config, sources, .. } = &mut loaded;
    if let Some((dir, source)) = &overrides.dir {
        // A path from a shell is relative to the shell's directory; a path in a file must be absolute.
        config.dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        let source = match source {
            SourceOf::Flag => Source::Flag("--dir"),
            SourceOf::Environment => Source::Environment("DIAGCTL_DIR"),
        };
        sources.insert("dir", source);
    }
    if let Some(enabled) = overrides.enabled {
        config.enabled = enabled;
        sources.insert("enabled", Source::Environment("DIAGCTL_ENABLED"));
    }
    loaded
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[encrypt]\nrecipients = [\"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\"]\n";

    #[test]
    fn a_file_that_was_just_emptied_is_not_taken_for_a_wish_for_the_defaults() {
        let root = tempfile::tempdir().unwrap();
        let (file, dir) = (root.path().join("diagctl.toml"), root.path().to_owned());
        let overrides = Overrides { dir: Some((dir.clone(), SourceOf::Flag)), enabled: None };
        let poll = || {
            let loaded = load_for_process(Some(&file), &overrides).unwrap();
            keep(&loaded, &Spot::hold(&dir).unwrap()).unwrap();
            (loaded.config.encrypt.is_some(), loaded.broken.unwrap_or_default())
        };
        std::fs::write(&file, "").unwrap();
        assert_eq!(poll(), (false, String::new()), "there was no other configuration");
        assert_eq!(poll(), (false, String::new()), "the last good one says the same");
        std::fs::write(&file, GOOD).unwrap();
        assert_eq!(poll(), (true, String::new()));
        std::fs::write(&file, "").unwrap();
        let (encrypted, broken) = poll();
        assert!(encrypted);
        let expected = "is empty and was changed less than 10 s ago: a program may be writing it; the last good";
        assert!(broken.contains(expected), "{broken}");
        let command = super::super::load_for_store(Some(&file), &overrides, true).unwrap();
        assert!(command.config.encrypt.is_some() && command.broken.unwrap().contains(expected));
        std::fs::write(&file, "poll_interval = \"7s\"").unwrap();
        assert_eq!(poll(), (false, String::new()), "it has been written");
    }

    #[test]
    fn what_was_replaced_while_it_was_read_is_not_kept() {
        let root = tempfile::tempdir().unwrap();
        let (file, dir) = (root.path().join("diagctl.toml"), Spot::hold(root.path()).unwrap());
        let overrides = Overrides { dir: Some((root.path().to_owned(), SourceOf::Flag)), enabled: None };
        std::fs::write(&file, GOOD).unwrap();
        let loaded = load_for_process(Some(&file), &overrides).unwrap();
        std::fs::write(&file, "").unwrap();
        keep(&loaded, &dir).unwrap();
        assert!(!root.path().join(LAST_GOOD).exists());
    }

    #[test]
    fn a_file_that_breaks_never_turns_encryption_off() {
        // The file as a process read it, the file now, and the encryption: none, to somebody, or so that nothing is stored.
        let broken_elsewhere = format!("colour = 1\n{GOOD}");
        let cut = &GOOD[..60];
        let two = GOOD.replace("\"]", "\", \"age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg\"]");
        // From the test vectors of age: the key of no one.
        let key = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
        let (in_comment, in_list) = (format!("{GOOD}# {key}\n"), format!("[encrypt]\nrecipients = [\"{key}\"]\n"));
        let table: [(&str, &str, &str); 12] = [
            ("", "colour = 1", "none"),
            ("", "colour = ", "none"),
            ("", &broken_elsewhere, "to 1"),
            (GOOD, "colour = 1", "to 1"),
            (GOOD, "colour = ", "to 1"),
            ("", "[encrypt]\nrecipients = []", "nothing"),
            (GOOD, "[encrypt]\nrecipients = [\"age1x\"]", "nothing"),
            ("", cut, "nothing"),
            (GOOD, cut, "to 1"),
            ("", &in_comment, "to 1"),
            (&two, &in_comment, "to 1"),
            (GOOD, &in_list, "nothing"),
        ];
        for (before, now, expected) in table {
            let root = tempfile::tempdir().unwrap();
            let (file, dir) = (root.path().join("diagctl.toml"), root.path().to_owned());
            let overrides = Overrides { dir: Some((dir.clone(), SourceOf::Flag)), enabled: None };
            std::fs::write(&file, before).unwrap();
            let loaded = load_for_process(Some(&file), &overrides).unwrap();
            keep(&loaded, &Spot::hold(&dir).unwrap()).unwrap();
            std::fs::write(&file, now).unwrap();
            let loaded = load_for_process(Some(&file), &overrides).unwrap();
            assert!(loaded.broken.is_some(), "{now}");
            let got = match loaded.config.encrypt.as_deref() {
                None => "none".to_owned(),
                Some(Encryption { broken: Some(_), .. }) => "nothing".to_owned(),
                Some(Encryption { recipients, .. }) => format!("to {}", recipients.len()),
            };
            assert_eq!(got, expected, "{before:?}, then {now:?}");
        }
    }
}
