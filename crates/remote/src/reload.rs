//! Changes of `[remote.requests]` while `ship --watch` runs: a permission that is taken back counts at the next look.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::output;
use crate::settings::{Remote, Requests, Settings};

/// The time between two looks at the file while no requests are obeyed.
const SELDOM: Duration = Duration::from_secs(60);

/// A state of a file. Any change makes another one.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

/// The configuration file, and what was read from it last.
#[derive(Debug)]
pub struct Reload<'a> {
    settings: &'a Settings,
    seen: Option<Stamp>,
    /// The problem that was told last.
    told: Option<String>,
}

impl<'a> Reload<'a> {
    /// Begins with the settings that this program was started with.
    pub fn new(settings: &'a Settings) -> Self {
        Self { settings, seen: stamp(settings), told: None }
    }

    /// Returns the rules about requests if the file has changed. A file that cannot be used changes nothing, and is told once.
    pub async fn changed(&mut self) -> Option<Option<Requests>> {
        let now = stamp(self.settings);
        if now == self.seen {
            return None;
        }
        self.seen = now;
        match self.settings.reread().await {
            Ok(remote) => {
                self.told = None;
                if with_the_rules_of(&remote, &self.settings.remote) != self.settings.remote {
                    self.tell(
                        "[remote] has changed: all but [remote.requests] counts when the shipper is started anew"
                            .into(),
                    );
                }
                Some(remote.requests)
            }
            Err(why) => {
                // Asked again at the next look, in case `diagctl` only had no time.
                self.seen = None;
                self.tell(format!(
                    "the changed configuration cannot be used, [remote.requests] stays as it was: {why}"
                ));
                None
            }
        }
    }

    /// Waits for the time of the next look, if there is no inbox that has one of its own.
    pub async fn due() {
        tokio::time::sleep(SELDOM).await;
    }

    fn tell(&mut self, what: String) {
        if self.told.as_ref() != Some(&what) {
            output::note(&what);
            self.told = Some(what);
        }
    }
}

fn with_the_rules_of(remote: &Remote, other: &Remote) -> Remote {
    Remote { requests: other.requests.clone(), ..remote.clone() }
}

fn stamp(settings: &Settings) -> Option<Stamp> {
    let of = |file: &Path| {
        let meta = std::fs::metadata(file).ok()?;
        Some((meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()))
    };
    settings.diagctl.as_ref().and_then(|diagctl| of(&diagctl.config))
}
