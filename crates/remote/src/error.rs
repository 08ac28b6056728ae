//! The errors of this program.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diagctl_store::{Id, units};

use crate::reason::{self, Kind};

/// The result of an operation.
pub type Result<T> = std::result::Result<T, Error>;

/// The next step if a manifest cannot be read.
pub const UNREADABLE: &str = "restore the object from its archive, or mend the rights of the file; one that diagctl has not written can be deleted";

/// An error, with what is needed to word it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program was not started by `diagctl`.
    #[error("this program is started by `diagctl ship`, which gives it the checked configuration")]
    NoSettings,
    /// The settings cannot be parsed.
    #[error("the settings from diagctl cannot be used: {0}")]
    Settings(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] diagctl_store::Error),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] diagctl_fs::Error),
    /// A report does not match its record.
    #[error("report {report} of capture {capture} is damaged, so the capture is not shipped: {why}")]
    Damaged {
        /// The capture.
        capture: Id,
        /// The report.
        report: String,
        /// The damage.
        why: String,
    },
    /// The record of a capture in the store cannot be read.
    #[error("capture {capture} cannot be shipped: {source}")]
    Unshippable {
        /// The capture.
        capture: Id,
        /// The reason.
        source: Box<diagctl_store::Error>,
    },
    /// A local file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The remote failed.
    #[error("cannot {action} {object}: {}", reason::text(source, object))]
    Remote {
        /// The operation.
        action: &'static str,
        /// The object and its remote, with the server if one is configured.
        object: String,
        /// The reason.
        source: object_store::Error,
    },
    /// The remote holds something else than what was sent.
    #[error("{key} has {found} bytes in the remote, and {expected} were sent")]
    Unconfirmed {
        /// The object.
        key: String,
        /// The size that the remote tells.
        found: u64,
        /// The size that was sent.
        expected: u64,
    },
    /// The directory that is the remote failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Directory {
        /// The operation.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The directory that is the remote has none of the captures that were sent to it.
    #[error("{} has none of the captures that were sent to it", path.display())]
    Unmounted {
        /// The directory.
        path: PathBuf,
    },
    /// The remote has no such capture.
    #[error("capture {id} of {} is not in the remote", diagctl_fs::printable(host))]
    NoCapture {
        /// The capture.
        id: Id,
        /// Its machine.
        host: String,
    },
    /// No node would obey a request.
    #[error(transparent)]
    NoNode(#[from] crate::no_node::NoNode),
    /// An object is longer than it may be.
    #[error("{key} has more than {most} bytes, so it was not read")]
    TooLarge {
        /// The object.
        key: String,
        /// The most that is read.
        most: u64,
    },
    /// The remote does not hold what it should.
    #[error("{key} in the remote cannot be trusted, and nothing of it was kept: {why}")]
    Untrue {
        /// The object.
        key: String,
        /// The contradiction.
        why: String,
    },
    /// The file of a report is gone.
    #[error("{key} is missing in the remote; the record of its capture is there, and names it")]
    Missing {
        /// The object.
        key: String,
    },
    /// A newer version of diagctl wrote a record.
    #[error("{key} in the remote has version {found}; this diagctl knows version {known}")]
    Newer {
        /// The object.
        key: String,
        /// Its version.
        found: u32,
        /// The version that this program reads.
        known: u32,
    },
    /// The storage account of Azure is not known.
    #[error("{url} names no storage account")]
    NoAccount {
        /// The URL.
        url: String,
    },
    /// The cache cannot be used.
    #[error("the cache {} cannot be used: {why}", path.display())]
    Cache {
        /// The directory.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The clocks of this machine and of the remote differ too much to delete anything by its age.
    #[error("nothing was deleted: it is {} here, and {} by the clock of the remote", time(*here), time(*remote))]
    Clocks {
        /// The time of this machine, milliseconds.
        here: u64,
        /// The time of the remote, milliseconds.
        remote: u64,
    },
    /// The remote does not tell its time.
    #[error("nothing was deleted: {key} was written and is not there, so that the clock of the remote is unknown")]
    NoClock {
        /// The object.
        key: String,
    },
    /// Captures may be pinned in manifests that cannot be read.
    #[error("nothing was deleted: {} cannot be read, and may say that captures are pinned: {one}", manifests(*count))]
    UnknownPins {
        /// The number of manifests.
        count: usize,
        /// The failure of one of them.
        one: Box<Error>,
    },
    /// The request cannot be parsed.
    #[error("cannot read what diagctl asks for: {0}")]
    Asked(String),
    /// A webhook was not told.
    #[error("{why}{}", tried(*attempts))]
    Webhook {
        /// The failure of the last attempt.
        why: String,
        /// The number of attempts.
        attempts: u32,
    },
    /// A setting that may be secret cannot be used.
    #[error("{from} {what}")]
    Secret {
        /// The setting, or its file.
        from: String,
        /// The problem.
        what: &'static str,
    },
    /// Another shipper works on the store.
    #[error("{holder} is still at work on this store after {}; {}", units::duration(units::ms(*waited)), captures_wait(*waiting))]
    Busy {
        /// The other one.
        holder: String,
        /// The time.
        waited: Duration,
        /// The number of captures that wait.
        waiting: usize,
    },
    /// There is no such request, or more than one.
    #[error("{0}")]
    NoRequest(String),
    /// The runtime cannot start.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

impl Error {
    /// Returns true if the next capture would most likely fail in the same way.
    pub fn is_of_the_remote(&self) -> bool {
        matches!(self, Self::Remote { .. } | Self::Directory { .. } | Self::Unmounted { .. } | Self::Unconfirmed { .. })
    }

    /// Returns true if the credentials are known, and may not do this.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Remote { source, .. } => Kind::of(source) == Kind::Denied,
            Self::Directory { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }

    /// Returns true if the remote is there and knows the credentials, and would refuse the same again.
    pub fn is_refused(&self) -> bool {
        let is_request = |source| reason::status_of(source) == Some(400) && Kind::of(source) != Kind::Identity;
        self.is_denied() || matches!(self, Self::Remote { source, .. } if is_request(source))
    }

    /// Returns true if another object may well be written: the remote refuses this one, or a directory has something else in its place.
    pub fn is_of_one_object(&self) -> bool {
        match self {
            Self::Remote { source, .. } => match Kind::of(source) {
                Kind::Denied => true,
                Kind::Other => reason::status_of(source).is_some_and(|status| (400..500).contains(&status)),
                _ => false,
            },
            // The directory itself is opened, not read.
            Self::Directory { action: "open" | "use", .. } => false,
            Self::Directory { action: "read", .. } => true,
            Self::Directory { source, .. } => {
                use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, IsADirectory, NotADirectory, PermissionDenied};
                let is_loop = rustix::io::Errno::from_io_error(source) == Some(rustix::io::Errno::LOOP);
                is_loop
                    || [AlreadyExists, DirectoryNotEmpty, IsADirectory, NotADirectory, PermissionDenied]
                        .contains(&source.kind())
            }
            _ => false,
        }
    }

    /// Returns the next step for the reader.
    pub fn hint(&self) -> Option<String> {
        const RESUMES: &str = "nothing is lost: the captures stay in the store, and the next run resumes";
        let hint = match self {
            Self::Remote { source, action, object } => {
                use object_store::Error as Remote;
                let of_kind = match source {
                    Remote::NotImplemented { .. } | Remote::Generic { .. }
                        if *action == "delete" && Kind::of(source) == Kind::Other =>
                    {
                        Some("a server that cannot delete many objects at once needs AWS_DISABLE_BULK_DELETE=true")
                    }
                    _ => Kind::of(source).hint(),
                };
                let and_then = match *action {
                    "list" | "read" => None,
                    "delete" => Some("the same command deletes the rest"),
                    _ if is_shipped(object) => Some(RESUMES),
                    "write" if object.starts_with("probes/") && self.is_denied() => {
                        Some("the credentials need s3:PutObject on probes/*")
                    }
                    _ => None,
                };
                let parts: Vec<&str> = of_kind.into_iter().chain(and_then).collect();
                return (!parts.is_empty()).then(|| parts.join("; "));
            }
            Self::Directory { source, path, .. } if source.kind() == io::ErrorKind::StorageFull => {
                let room = "make room there";
                return Some(if is_beside_shipments(path) { room.into() } else { format!("{room}; {RESUMES}") });
            }
            Self::Unshippable { source, .. } if matches!(**source, diagctl_store::Error::NewerFile { .. }) => {
                "a newer diagctl wrote it; use the diagctl-remote of that version"
            }
            Self::Unshippable { capture, .. } => {
                return Some(format!(
                    "restore the file from a copy, or delete the capture with `diagctl rm {capture}`"
                ));
            }
            Self::Store(diagctl_store::Error::NoStore { .. }) => {
                "name the store with --dir, DIAGCTL_DIR or `dir` in the configuration; the first capture makes it, and `diagctl doctor`, in \
                 the environment of a worker, tells why there is none; `diagctl ship --watch` waits for it"
            }
            Self::Store(_) => "`diagctl doctor` says what is wrong with the store",
            Self::NoNode(none) => return Some(none.hint()),
            Self::NoCapture { .. } => {
                "`diagctl list --remote` shows what is there; a lifecycle rule may have deleted it meanwhile"
            }
            Self::Untrue { .. } => {
                "somebody has changed it, or it was damaged; `diagctl ship --again ID` on its node sends it once more, and a bucket with versions \
                 still has what the node wrote"
            }
            Self::Missing { .. } => {
                "somebody, or a lifecycle rule, has deleted it; `diagctl ship --again ID` on its node sends the capture once more, and a bucket \
                 with versions still has it"
            }
            Self::Newer { .. } => "a newer diagctl wrote it; use that version",
            Self::Busy { .. } => "`diagctl status` says what waits and how shipping goes; --wait waits for longer",
            Self::NoRequest(_) => "`diagctl request --list --remote` shows those that count",
            Self::Clocks { .. } => "set the clock that is wrong (chrony, systemd-timesyncd), and try again",
            Self::UnknownPins { .. } => UNREADABLE,
            Self::NoClock { .. } => {
                "does something else delete objects under probes/? `diagctl doctor --remote` says what the remote keeps"
            }
            Self::Cache { .. } => "set XDG_CACHE_HOME to a directory of yours, or remove what is there",
            Self::Directory { action: "open" | "use", .. } => {
                "the directory of remote.url must exist: create it once, or mount the share"
            }
            Self::Unmounted { path } => {
                return Some(format!(
                    "mount the share; if it was emptied on purpose, `mkdir {}` lets the captures go there again",
                    path.join("captures").display()
                ));
            }
            Self::NoAccount { .. } => {
                "add endpoint = \"https://ACCOUNT.blob.core.windows.net\" to [remote], or set AZURE_STORAGE_ACCOUNT"
            }
            // A link or a pipe.
            Self::Directory { source, .. } if source.kind() == io::ErrorKind::Other => {
                "diagctl writes no such thing there: see who did, and remove it"
            }
            Self::Directory { action: "list" | "read" | "examine", .. } => {
                "the directory of remote.url must be readable for you: docs/fleet.md, Rights"
            }
            Self::Directory { action: "delete", .. } => "you may not delete there: ask the owner of that directory",
            Self::Directory { path, .. } if is_of_people(path) => {
                "you may not write there: ask the owner of the directory of remote.url"
            }
            Self::Directory { .. } => "the directory of remote.url must be writable for the owner of the store",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

// True for what a shipper writes.
fn is_shipped(object: &str) -> bool {
    object.starts_with("captures/") || (object.starts_with("manifests/") && !object.contains("/~deleted~"))
}

// True for a file that no shipment writes into the directory that is the remote.
fn is_beside_shipments(path: &Path) -> bool {
    is_of_people(path) || is_in(path, &["nodes", "answers"])
}

// True for a file that a person writes there.
fn is_of_people(path: &Path) -> bool {
    let is_list = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("~deleted~"));
    is_list || is_in(path, &["requests", "probes", "merged"])
}

// True for these areas, and for what is in one, or in a directory of one.
fn is_in(path: &Path, areas: &[&str]) -> bool {
    path.ancestors().take(3).any(|dir| areas.iter().any(|area| dir.ends_with(area)))
}

fn time(wall_ms: u64) -> String {
    diagctl_observe::clock::utc(i64::try_from(wall_ms).unwrap_or(i64::MAX))
}

fn manifests(count: usize) -> String {
    format!("{count} manifest{}", if count == 1 { "" } else { "s" })
}

fn captures_wait(count: usize) -> String {
    format!("{count} capture{}", if count == 1 { " waits" } else { "s wait" })
}

fn tried(attempts: u32) -> String {
    if attempts > 1 { format!(", at each of {attempts} attempts") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys;

    #[test]
    fn a_full_directory_wants_room_and_another_failure_wants_the_directory() {
        use io::ErrorKind::{NotFound, PermissionDenied, StorageFull};
        const ROOM: &str = "make room there";
        const SHIPPED: &str =
            "make room there; nothing is lost: the captures stay in the store, and the next run resumes";
        const YOURS: &str = "you may not write there: ask the owner of the directory of remote.url";
        const NODE: &str = "the directory of remote.url must be writable for the owner of the store";
        let table = [
            ("write", "", StorageFull, SHIPPED),
            ("write", "captures/day/web-1/id/meta.json", StorageFull, SHIPPED),
            ("write", "manifests/day/web-1~0.jsonl", StorageFull, SHIPPED),
            ("write", "manifests/day/~deleted~0.jsonl", StorageFull, ROOM),
            ("write", "merged/day/0.jsonl.gz", StorageFull, ROOM),
            ("write", "requests/id~expires.json", StorageFull, ROOM),
            ("write", "probes/web-1~doctor.json", StorageFull, ROOM),
            ("write", "nodes/web-1~0.json", StorageFull, ROOM),
            ("write", "answers/id/web-1~0.json", StorageFull, ROOM),
            ("create", "requests/id~expires.json", PermissionDenied, YOURS),
            ("create", "probes", PermissionDenied, YOURS),
            ("create", "manifests/day/~deleted~0.jsonl", PermissionDenied, YOURS),
            ("create", "captures/day", PermissionDenied, NODE),
            ("create", "nodes/web-1~0.json", PermissionDenied, NODE),
            (
                "delete",
                "captures/day/web-1/id/meta.json",
                PermissionDenied,
                "you may not delete there: ask the owner of that directory",
            ),
            (
                "list",
                "captures",
                PermissionDenied,
                "the directory of remote.url must be readable for you: docs/fleet.md, Rights",
            ),
            ("open", "", NotFound, "the directory of remote.url must exist: create it once, or mount the share"),
        ];
        for (action, key, kind, hint) in table {
            let error = Error::Directory { action, path: Path::new("/mnt/x").join(key), source: kind.into() };
            assert_eq!(error.hint().unwrap(), hint, "{action} {key} {kind}");
        }
    }

    #[test]
    fn a_store_that_cannot_be_opened_is_told_with_a_command() {
        let missing = diagctl_store::Error::NoStore { dir: "/srv/store".into() };
        assert!(Error::Store(missing).hint().unwrap().contains("`diagctl doctor`"));
        let file = diagctl_fs::Error::NoParent { path: "/".into() };
        assert_eq!(
            Error::Store(file.into()).hint().as_deref(),
            Some("`diagctl doctor` says what is wrong with the store")
        );
    }

    #[test]
    fn the_next_step_is_that_of_the_command_which_wrote_the_object() {
        let day = "2026-11-28";
        let table = [
            (keys::capture(day, "web-1", "id/meta.json"), "the next run resumes"),
            (keys::manifest(day, "web-1", "0"), "the next run resumes"),
            (keys::deleted(day, "0"), "policies for nodes and for people"),
            (keys::request("id", "expires"), "policies for nodes and for people"),
            ("probes/web-1~clock.json".into(), "the credentials need s3:PutObject on probes/*"),
        ];
        for (key, last) in table {
            let error = Error::Remote {
                action: "write",
                object: format!("{key} in s3://acme"),
                source: object_store::Error::PermissionDenied { path: key.clone(), source: "403".into() },
            };
            assert!(error.hint().unwrap().ends_with(last), "{key}: {:?}", error.hint());
        }
    }

    #[test]
    fn what_may_be_of_one_object_is_told_from_what_is_of_the_remote() {
        use io::ErrorKind::{
            AlreadyExists, IsADirectory, NotADirectory, NotFound, Other, PermissionDenied, StorageFull,
        };
        let table = [
            ("read", Other, true),
            ("write", IsADirectory, true),
            ("list", NotADirectory, true),
            ("create", AlreadyExists, true),
            ("create", PermissionDenied, true),
            ("open", NotFound, false),
            ("open", PermissionDenied, false),
            ("use", NotADirectory, false),
            ("write", StorageFull, false),
            ("sync", Other, false),
        ];
        for (action, kind, expected) in table {
            let error = Error::Directory { action, path: "/mnt/x".into(), source: kind.into() };
            assert_eq!(error.is_of_one_object(), expected, "{action} {kind}");
        }
        let table = [
            ("status code: 403 Forbidden", true),
            ("status code: 400 Bad Request", true),
            ("status code: 409 Conflict: <Code>BlobImmutableDueToPolicy</Code><Message>No.</Message>", true),
            ("status code: 403: <Code>SignatureDoesNotMatch</Code><Message>No.</Message>", false),
            ("status code: 401 Unauthorized", false),
            ("status code: 404 Not Found", false),
            ("status code: 429 Too Many Requests", false),
            ("status code: 503 Service Unavailable", false),
            ("it was cut", false),
        ];
        for (answer, expected) in table {
            let source = object_store::Error::Generic { store: "S3", source: answer.into() };
            let error = Error::Remote { action: "write", object: "k in s3://acme".into(), source };
            assert_eq!(error.is_of_one_object(), expected, "{answer}");
        }
    }

    #[test]
    fn what_would_be_refused_again_is_told_from_what_may_pass() {
        let generic = |answer: &str| Error::Remote {
            action: "read",
            object: "k in s3://acme".into(),
            source: object_store::Error::Generic { store: "S3", source: answer.into() },
        };
        assert!(generic("Server returned non-2xx status code: 400 Bad Request: it needs its key").is_refused());
        for passes in
            ["status code: 400: <Code>ExpiredToken</Code><Message>No.</Message>", "status code: 503", "refused"]
        {
            assert!(!generic(passes).is_refused(), "{passes}");
        }
        assert!(generic("status code: 403 Forbidden").is_denied());
    }
}
