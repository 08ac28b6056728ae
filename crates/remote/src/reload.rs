//! Changes of the configuration while `ship --watch` runs: a permission that is taken back counts at once.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use diagctl_observe::clock::Stopwatch;

use crate::output;
use crate::settings::{Remote, Requests, Settings};

/// The time between two looks at the file, each of which is one system call.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The time for which the file must stay as it is before it is read: editors and `cp` empty a file before they write it anew.
const SETTLED: Duration = Duration::from_millis(300);

/// The most looks at a file that does not settle.
const MOST_LOOKS: u32 = 20;

/// The time after which a file that could not be used is read again.
const AGAIN: Duration = Duration::from_secs(60);

/// A state of a file. Any change makes another one.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

/// The configuration file, and what was read from it last.
#[derive(Debug)]
pub struct Reload<'a> {
    settings: &'a Settings,
    seen: Option<Stamp>,
    /// The last time at which the file could not be used, if it cannot.
    failed: Option<Stopwatch>,
    /// The problem that was told last.
    told: Option<String>,
    /// The remote that counts, if there is one.
    remote: Option<Remote>,
}

impl<'a> Reload<'a> {
    /// Begins with the settings that this program was started with.
    pub fn new(settings: &'a Settings) -> Self {
        Self { settings, seen: stamp(settings), failed: None, told: None, remote: Some(settings.remote.clone()) }
    }

    /// Returns true if the configuration names no remote by now.
    pub fn is_off(&self) -> bool {
        self.remote.is_none()
    }

    /// Returns the rules about requests, if any are obeyed.
    pub fn rules(&self) -> Option<Requests> {
        self.remote.as_ref().and_then(|remote| remote.requests.clone())
    }

    /// Waits until the file has changed.
    pub async fn due(&self) {
        while !self.is_due() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Reads the file if it has changed, and returns true if it can be used. One with problems changes nothing, and is told once.
    pub async fn changed(&mut self) -> bool {
        if !self.is_due() {
            return false;
        }
        self.seen = stamp(self.settings);
        for _ in 0..MOST_LOOKS {
            tokio::time::sleep(SETTLED).await;
            let before = std::mem::replace(&mut self.seen, stamp(self.settings));
            if before == self.seen {
                break;
            }
        }
        match self.settings.reread().await {
            Ok(remote) => {
                (self.failed, self.told) = (None, None);
                match (&remote, self.is_off()) {
                    (None, false) => output::note(
                        "the configuration names no remote any more: nothing is shipped, and no request is obeyed, until it does",
                    ),
                    (Some(_), true) => output::note("the configuration names a remote again"),
                    _ => {}
                }
                if remote
                    .as_ref()
                    .is_some_and(|now| with_the_rules_of(now, &self.settings.remote) != self.settings.remote)
                {
                    self.tell(
                        "[remote] has changed: all but [remote.requests] counts when the shipper is started anew"
                            .into(),
                    );
                }
                self.remote = remote;
                true
            }
            Err(why) => {
                // Asked again, in case `diagctl` only had no time.
                self.failed = Some(Stopwatch::start());
                self.tell(format!(
                    "the changed configuration cannot be used, [remote.requests] stays as it was: {why}"
                ));
                false
            }
        }
    }

    fn is_due(&self) -> bool {
        stamp(self.settings) != self.seen || self.failed.is_some_and(|failed| failed.elapsed() >= AGAIN)
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
