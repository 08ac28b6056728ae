//! The errors of a capture that is handed to its dumper.

use diagctl_fs::quoted;
use diagctl_store::Id;

/// The result type of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// A capture cannot be continued.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] diagctl_store::Error),
    /// The records on stdin cannot be read.
    #[error("cannot read the records on stdin: {0}")]
    Records(#[source] std::io::Error),
    /// A line on stdin does not begin a record.
    #[error("{} is not KIND NAME LENGTH, the first line of a record", quoted(line))]
    MalformedRecord {
        /// The line.
        line: String,
    },
    /// The dumper of a capture is alive and holds the lease.
    #[error("capture {capture} cannot be taken over: its dumper still holds the lease")]
    DumperLives {
        /// The capture.
        capture: Id,
    },
    /// The lease was granted anew since the capture was begun.
    #[error("capture {capture} does not belong to the current grant")]
    AnotherGeneration {
        /// The capture.
        capture: Id,
    },
    /// The descriptor does not hold the lease for this capture.
    #[error("capture {capture} cannot be written: {}", current.as_ref().map_or_else(
        || "this descriptor does not hold the lease".to_owned(),
        |current| format!("the lease has passed on to capture {current}"),
    ))]
    NotHolder {
        /// The capture.
        capture: Id,
        /// The capture that the lease is held for, if it is another.
        current: Option<Id>,
    },
}

impl From<diagctl_fs::Error> for Error {
    fn from(error: diagctl_fs::Error) -> Self {
        Self::Store(error.into())
    }
}
