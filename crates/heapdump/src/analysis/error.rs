//! The reasons why a heap dump cannot be analysed.

/// The reason why a heap dump cannot be analysed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no dump.
    #[error("it is empty")]
    Empty,
    /// It is neither a heap graph nor JSON.
    #[error("it is neither a heap graph nor what ObjectSpace.dump_all writes")]
    Unknown,
    /// The graph cannot be read.
    #[error(transparent)]
    Graph(#[from] crate::Error),
    /// The input cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// It has more objects or references than can be numbered.
    #[error("it has more than 4 billion objects or references")]
    TooLarge,
    /// The graph would not fit into memory.
    #[error("it needs more than {limit} bytes of memory ({objects} objects were read)")]
    Memory {
        /// The memory that it may use, bytes.
        limit: u64,
        /// The objects that were read.
        objects: usize,
    },
    /// There are more pages than any heap has.
    #[error("it has objects on more pages than any Ruby heap, the last at {address:#x}")]
    Scattered {
        /// The address of an object on one page more.
        address: u64,
    },
}

/// A result of this module.
pub type Result<T> = std::result::Result<T, Error>;
