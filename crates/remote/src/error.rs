//! The errors of this program.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use diagctl_store::{Id, units};

/// The result of an operation.
pub type Result<T> = std::result::Result<T, Error>;

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
    /// A local file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The remote failed.
    #[error("cannot {action} {key}: {}", chain(source))]
    Remote {
        /// The operation.
        action: &'static str,
        /// The object.
        key: String,
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
    /// The remote has no such capture.
    #[error("capture {id} of {} is not in the remote", diagctl_fs::printable(host))]
    NoCapture {
        /// The capture.
        id: Id,
        /// Its machine.
        host: String,
    },
    /// No node would obey a request.
    #[error("no node {} obeys requests for these reports", diagctl_fs::printable(host))]
    NoNode {
        /// The pattern of the machines.
        host: String,
    },
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
    /// The cache cannot be used.
    #[error("the cache {} cannot be used: {why}", path.display())]
    Cache {
        /// The directory.
        path: PathBuf,
        /// The reason.
        why: String,
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
        matches!(self, Self::Remote { .. } | Self::Directory { .. } | Self::Unconfirmed { .. })
    }

    /// Returns true if the credentials are known, and may not do this.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Remote { source, .. } => is_forbidden(source) && !is_of_identity(&chain(source)),
            Self::Directory { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }

    /// Returns true if the remote is there and knows the credentials, and would refuse the same again.
    pub fn is_refused(&self) -> bool {
        let is_request = |source| has_status(source, "400") && !is_of_identity(&chain(source));
        self.is_denied() || matches!(self, Self::Remote { source, .. } if is_request(source))
    }

    /// Returns the next step for the reader.
    pub fn hint(&self) -> Option<&'static str> {
        use object_store::Error as Remote;
        match self {
            Self::Remote { source, action, .. } => match source {
                _ if is_of_identity(&chain(source)) => Some("check the credentials, and the clock of this machine"),
                _ if is_forbidden(source) => {
                    Some("the credentials may not do this: docs/fleet.md has the policies for nodes and for people")
                }
                Remote::NotFound { .. } => {
                    Some("check remote.url, remote.endpoint and remote.region, and that the bucket exists")
                }
                Remote::NotImplemented { .. } | Remote::Generic { .. } if *action == "delete" => {
                    Some("a server that cannot delete many objects at once needs AWS_DISABLE_BULK_DELETE=true")
                }
                _ if matches!(*action, "list" | "read" | "delete") => None,
                _ => Some("nothing is lost: the captures stay in the store, and the next run resumes"),
            },
            Self::Directory { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("make room there; nothing is lost: the captures stay in the store, and the next run resumes")
            }
            Self::NoCapture { .. } => {
                Some("`diagctl list --remote` shows what is there; a lifecycle rule may have deleted it meanwhile")
            }
            Self::NoNode { .. } => Some(
                "a node obeys with [remote.requests] allow_reports in its configuration, while `diagctl ship --watch` runs",
            ),
            Self::Untrue { .. } => {
                Some("somebody has changed it, or it was damaged; a bucket with versions still has what the node wrote")
            }
            Self::Busy { .. } => {
                Some("`diagctl status` says what waits and how shipping goes; --wait waits for longer")
            }
            Self::NoRequest(_) => Some("`diagctl request --list --remote` shows those that count"),
            Self::Cache { .. } => Some("set XDG_CACHE_HOME to a directory of yours, or remove what is there"),
            Self::Directory { .. } => {
                Some("the directory of remote.url must exist, and be writable for the owner of the store")
            }
            _ => None,
        }
    }
}

fn captures_wait(count: usize) -> String {
    format!("{count} capture{}", if count == 1 { " waits" } else { "s wait" })
}

fn tried(attempts: u32) -> String {
    if attempts > 1 { format!(", at each of {attempts} attempts") } else { String::new() }
}

// The outer errors of object_store say little, and its inner ones repeat each other. S3 answers with a document, of which the code
// and the message are for people.
pub fn chain(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        source = error.source();
    }
    if let (Some(code), Some(message)) =
        (between(&text, "<Code>", "</Code>"), between(&text, "<Message>", "</Message>"))
    {
        // Azure adds lines with the request's number and time.
        return format!("{code}: {}", message.lines().next().unwrap_or(message).trim());
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

// A list that is refused is an error without a kind.
fn is_forbidden(error: &object_store::Error) -> bool {
    has_status(error, "403") || matches!(error, object_store::Error::PermissionDenied { .. })
}

fn has_status(error: &object_store::Error, status: &str) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.to_string().contains(&format!("status code: {status}")) {
            return true;
        }
        source = error.source();
    }
    false
}

fn is_of_identity(answer: &str) -> bool {
    const S3: [&str; 4] = ["SignatureDoesNotMatch", "InvalidAccessKeyId", "RequestTimeTooSkewed", "ExpiredToken"];
    const GOOGLE: [&str; 2] = ["AuthenticationRequired", "InvalidSecurity"];
    const AZURE: [&str; 3] =
        ["failed to authenticate the request", "InvalidAuthenticationInfo", "NoAuthenticationInformation"];
    S3.iter().chain(&GOOGLE).chain(&AZURE).any(|code| answer.contains(code))
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    Some(text.split_once(start)?.1.split_once(end)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(answer: &str) -> Error {
        let source = object_store::Error::PermissionDenied { path: "k".into(), source: answer.into() };
        Error::Remote { action: "write", key: "k".into(), source }
    }

    #[test]
    fn a_full_directory_wants_room_and_another_failure_wants_the_directory() {
        for (kind, hint) in [(io::ErrorKind::StorageFull, "make room"), (io::ErrorKind::NotFound, "must exist")] {
            let error = Error::Directory { action: "write", path: "/mnt/x".into(), source: kind.into() };
            assert!(error.hint().unwrap().contains(hint), "{kind}");
        }
    }

    #[test]
    fn an_answer_of_s3_is_told_by_its_code_and_message() {
        let error =
            denied("403: <Error><Code>AccessDenied</Code><Message>No.</Message><RequestId>1</RequestId></Error>");
        assert_eq!(error.to_string(), "cannot write k: AccessDenied: No.");
        assert!(error.hint().unwrap().contains("policies"));
        let error = denied("403: <Error><Code>SignatureDoesNotMatch</Code><Message>No.</Message></Error>");
        assert!(error.hint().unwrap().contains("clock"));
        let generic = |answer: &str| Error::Remote {
            action: "read",
            key: "k".into(),
            source: object_store::Error::Generic { store: "S3", source: answer.into() },
        };
        assert!(generic("Server returned non-2xx status code: 400 Bad Request: it needs its key").is_refused());
        for passes in ["status code: 400: <Code>ExpiredToken</Code>", "status code: 503", "connection refused"] {
            assert!(!generic(passes).is_refused(), "{passes}");
        }
        assert!(denied("403\n  Forbidden").to_string().ends_with("403 Forbidden"));
    }
}
