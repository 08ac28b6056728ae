//! The configuration of commands that only need the store. A broken file does not stop them, and where the shell names no file,
//! the file of the processes that poll the store counts.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::examine::{examine, parse};
use super::load::{LAST_GOOD, MAX_FILE, defaults, last_good, load_settled, merge, parsed, read};
use super::{DEFAULT_FILE, Error, Loaded, Overrides, Result};
use crate::fsio::{self, Spot};
use crate::section::Problem;
use diagctl_fs::printable;

/// The configuration that processes last used, as kept in their store.
#[derive(Debug)]
pub struct Copy {
    /// Their file, as they name it.
    pub file: PathBuf,
    text: String,
}

/// Reads and merges the configuration. A broken file is replaced by the last good copy in the store; without one, by its own valid
/// values over the defaults, unless the command is one for which no default may stand in (it deletes, or uses the network), or the file no longer
/// tells which store is meant. Without a file, the copy counts, too.
pub fn load_for_store(file: Option<&Path>, overrides: &Overrides, exact: bool) -> Result<Loaded> {
    let error = match load_settled(file, None, overrides) {
        Ok(loaded) if loaded.broken.is_some() => return Ok(Loaded { held: None, ..loaded }),
        Ok(loaded) => return Ok(or_of_the_workers(loaded, overrides)),
        Err(error) => error,
    };
    let broken = match &error {
        Error::Invalid { .. } => true,
        Error::Unreadable { source, .. } => source.kind() == ErrorKind::InvalidData,
        _ => false,
    };
    if !broken {
        return Err(error);
    }
    // The directory of the store may be in the part of the file that is valid.
    let rest = read(file).ok().and_then(|(text, _)| examine(&text).ok());
    let lost = |problem: &Problem| problem.path == "dir";
    let has_lost_dir = match &error {
        Error::Invalid { problems, .. } => rest.is_none() || problems.iter().any(lost),
        _ => true,
    };
    // Another store would be shown, or even changed, than the one that the file names.
    let is_unknown_store = overrides.dir.is_none() && has_lost_dir;
    let fallback = match rest {
        Some(rest) => merge(rest.into(), overrides),
        None => defaults(overrides)?,
    };
    let text = brief(&error);
    match last_good(file, Spot::hold(&fallback.config.dir).ok(), overrides, error) {
        Ok(good) => {
            let broken = Some(format!("{text}; the last good configuration stays in force"));
            Ok(Loaded { held: None, broken, ..good })
        }
        Err(error) if exact || is_unknown_store => Err(error),
        Err(_) => {
            let file = file.unwrap_or(Path::new(DEFAULT_FILE));
            let why = no_copy(&fallback.config.dir, file);
            let broken = Some(format!("{text}; {why}, so the defaults stand in for what is wrong"));
            Ok(Loaded { file: Some(file.to_path_buf()), broken, ..fallback })
        }
    }
}

// The reason why there is no good copy of a file in the store.
fn no_copy(dir: &Path, file: &Path) -> String {
    let Ok(store) = Spot::hold(dir) else { return "there is no store with a good copy".to_owned() };
    match copy_in(&store).filter(|copy| copy.file != file) {
        Some(copy) => format!("the good copy in the store is of {}", printable(&copy.file.to_string_lossy())),
        None => "the store has no good copy".to_owned(),
    }
}

// Names a few problems on one line. The command is about something else.
fn brief(error: &Error) -> String {
    let Error::Invalid { path, problems } = error else { return error.to_string() };
    let few: Vec<String> = problems.iter().take(2).map(|p| format!("{}: {}", p.path, p.message)).collect();
    let more = match problems.len() - few.len() {
        0 => String::new(),
        n => format!(", and {n} more"),
    };
    format!("{} is not valid: {}{more} (see `diagctl config check`)", path.display(), few.join("; "))
}

/// Returns the configuration of the processes that poll the store, if no file was read.
pub fn or_of_the_workers(loaded: Loaded, overrides: &Overrides) -> Loaded {
    let borrowed = if loaded.file.is_none() { of_the_workers(overrides, &loaded) } else { None };
    borrowed.unwrap_or(loaded)
}

fn of_the_workers(overrides: &Overrides, loaded: &Loaded) -> Option<Loaded> {
    let copy = copy_in(&Spot::hold(&loaded.config.dir).ok()?)?;
    let dir = loaded.config.dir.clone();
    let theirs = parsed(&copy.text).ok()?;
    let mut borrowed = merge(Loaded { borrowed: Some(copy.file), ..theirs }, overrides);
    // The store is the one in which the copy was found, and the switch is that of this environment, whatever the copy says.
    borrowed.config.dir = dir;
    borrowed.config.enabled = loaded.config.enabled;
    borrowed.sources.extend(loaded.sources.get("enabled").map(|source| ("enabled", *source)));
    Some(borrowed)
}

/// Returns the copy in a store.
pub fn copy_in(dir: &Spot) -> Option<Copy> {
    let kept = fsio::read_bounded(&dir.join(LAST_GOOD), MAX_FILE + 8192).ok()?;
    let kept = String::from_utf8_lossy(&kept);
    let (head, text) = kept.split_once('\n')?;
    let file = head.strip_prefix("# last good copy of \"")?.strip_suffix('"')?;
    Some(Copy { file: file.replace("\\\"", "\"").replace("\\\\", "\\").into(), text: text.to_owned() })
}

impl Copy {
    /// Returns true if it says the same as a configuration, apart from the switch and the directory, which the environment may set.
    pub fn agrees_with(&self, loaded: &Loaded) -> bool {
        let Ok((mut config, _)) = parse(&self.text) else { return true };
        config.dir.clone_from(&loaded.config.dir);
        config.enabled = loaded.config.enabled;
        config == loaded.config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SourceOf, cache, keep, load};

    const GOOD: &str = "enabled = false\npoll_interval = \"7s\"\n[retention]\nmax_use = \"9MiB\"\n";

    struct Place {
        _root: tempfile::TempDir,
        file: PathBuf,
        dir: PathBuf,
    }

    impl Place {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let (file, dir) = (root.path().join("diagctl.toml"), root.path().join("store"));
            std::fs::create_dir(&dir).unwrap();
            Self { _root: root, file, dir }
        }

        fn write(&self, text: &str) {
            std::fs::write(&self.file, text).unwrap();
        }

        fn overrides(&self) -> Overrides {
            Overrides { dir: Some((self.dir.clone(), SourceOf::Flag)), enabled: None }
        }

        // A process reads the file and leaves its copy.
        fn poll(&self) {
            let identity = cache::Identity::of(&self.file);
            let loaded = Loaded { identity, ..load(Some(&self.file), &self.overrides()).unwrap() };
            keep(&loaded, &Spot::hold(&self.dir).unwrap()).unwrap();
        }

        fn max_use(loaded: &Loaded) -> u64 {
            loaded.config.retention.max_use >> 20
        }
    }

    #[test]
    fn what_stands_in_for_a_broken_file_is_told_with_the_reason() {
        let place = Place::new();
        place.write(GOOD);
        place.poll();
        let other = place.file.with_file_name("other.toml");
        std::fs::write(&other, "colour = 1").unwrap();
        let told = || load_for_store(Some(&other), &place.overrides(), false).unwrap().broken.unwrap();
        let expected = format!("; the good copy in the store is of {}, so the defaults", place.file.display());
        assert!(told().contains(&expected), "{}", told());
        std::fs::remove_dir_all(&place.dir).unwrap();
        assert!(told().contains("; there is no store with a good copy, so the defaults"), "{}", told());
    }

    #[test]
    fn a_broken_file_is_replaced_by_the_last_good_one_or_by_what_is_valid_in_it() {
        // The file as a process read it, the file now, and the result: the cap in MiB and part of the message, or an error.
        let table = [
            (Some(GOOD), "colour = 1", false, Some((9, "the last good configuration stays in force"))),
            (Some(GOOD), "not toml", true, Some((9, "the last good configuration stays in force"))),
            (None, "colour = 1\n[retention]\nmax_use = \"5MiB\"", false, Some((5, "the store has no good copy"))),
            (None, "not toml", false, Some((1024, "the store has no good copy"))),
            (None, "not toml", true, None),
        ];
        for (before, now, deletes, expected) in table {
            let place = Place::new();
            if let Some(before) = before {
                place.write(before);
                place.poll();
            }
            place.write(now);
            let loaded = load_for_store(Some(&place.file), &place.overrides(), deletes).ok();
            let got = loaded.as_ref().map(|loaded| (Place::max_use(loaded), loaded.broken.clone().unwrap()));
            match (&got, expected) {
                (None, None) => {}
                (Some((got, message)), Some((cap, part))) => {
                    assert_eq!(*got, cap, "{now}");
                    assert!(message.contains(part), "{message}");
                }
                _ => panic!("{now}: {got:?}"),
            }
        }
    }

    #[test]
    fn the_store_is_found_through_a_broken_file() {
        let place = Place::new();
        place.write(&format!("dir = {:?}\ncolour = 1", place.dir));
        let none = Overrides { dir: None, enabled: None };
        assert_eq!(load_for_store(Some(&place.file), &none, false).unwrap().config.dir, place.dir);
        for lost in [format!("dir = {:?}\n[rules", place.dir), "dir = 5".to_owned()] {
            place.write(&lost);
            assert!(load_for_store(Some(&place.file), &none, false).is_err(), "{lost}: not the default store");
            assert_eq!(load_for_store(Some(&place.file), &place.overrides(), false).unwrap().config.dir, place.dir);
        }
    }

    #[test]
    fn without_a_file_the_workers_file_counts() {
        let place = Place::new();
        place.write(GOOD);
        place.poll();
        let loaded = defaults(&place.overrides()).unwrap();
        let borrowed = of_the_workers(&place.overrides(), &loaded).unwrap();
        assert_eq!((Place::max_use(&borrowed), borrowed.borrowed.as_ref()), (9, Some(&place.file)));
        assert_eq!(borrowed.config.dir, place.dir);
        assert_eq!(borrowed.sources["enabled"], crate::config::Source::Default, "the switch is not borrowed");
        let copy = copy_in(&Spot::hold(&place.dir).unwrap()).unwrap();
        assert!(!copy.agrees_with(&loaded));
        assert!(copy.agrees_with(&load(Some(&place.file), &Overrides::default()).unwrap()));
    }
}
