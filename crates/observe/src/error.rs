//! Why a number could not be read.

use std::io;
use std::path::PathBuf;

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A reading that failed. Its text is one clause that names the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file is not written as documented.
    #[error("{} is not in the form of {format}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The document: `proc(5)`, `PSI`.
        format: &'static str,
    },
    /// The file has no line with this key.
    #[error("{} has no {key}", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// The file should hold a number and holds something else.
    #[error("{} is not a number", path.display())]
    NotNumber {
        /// The file.
        path: PathBuf,
    },
    /// No mounted hierarchy with this controller has the process.
    #[error("process {pid} is in no {controller} cgroup that is mounted at {}", mount.display())]
    NoCgroup {
        /// The process.
        pid: u32,
        /// The controller.
        controller: String,
        /// The mount point of the cgroups.
        mount: PathBuf,
    },
    /// The memory of this cgroup is accounted to no group.
    #[error("cgroup {} has no memory figures: it is the root, or the memory controller is not enabled for it", group.display())]
    NotAccounted {
        /// Its directory.
        group: PathBuf,
    },
}

impl From<Error> for String {
    fn from(error: Error) -> Self {
        error.to_string()
    }
}
