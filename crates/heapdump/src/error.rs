//! The reasons why a heap graph cannot be read.

/// An error of reading a heap graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input could not be read.
    #[error("the heap graph cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The input does not begin with the magic of a heap graph.
    #[error("this is not a heap graph")]
    NotAGraph,
    /// The graph was written in a later version of the format.
    #[error("the heap graph has format {found}, and this version of diagctl reads up to {known}")]
    TooNew {
        /// The version in the graph.
        found: u32,
        /// The latest version that this reader knows.
        known: u32,
    },
    /// The input ends before the trailer.
    #[error("the heap graph is cut off after {bytes} bytes")]
    Truncated {
        /// Bytes that were read.
        bytes: u64,
    },
    /// A block has another checksum than it says. The next one can be read.
    #[error("block {ordinal} of the heap graph is damaged: its checksum differs")]
    Checksum {
        /// The number of blocks before it.
        ordinal: u64,
    },
    /// The content of a block contradicts itself. The next one can be read.
    #[error("block {ordinal} of the heap graph is damaged: {why}")]
    Malformed {
        /// The number of blocks before it.
        ordinal: u64,
        /// The contradiction.
        why: &'static str,
    },
    /// The head of a block cannot be true, so the rest of the graph is lost.
    #[error("block {ordinal} of the heap graph is damaged: {why}")]
    BadHead {
        /// The number of blocks before it.
        ordinal: u64,
        /// The contradiction.
        why: &'static str,
    },
    /// A block of a type that must not be skipped, and that this version does not know.
    #[error("the heap graph needs a later version of diagctl: it has a block of type {kind}")]
    UnknownBlock {
        /// The type.
        kind: u16,
    },
    /// The tables of the graph are larger than the reader accepts.
    #[error("the heap graph has too many {what}: more than {limit}")]
    TooMany {
        /// The table.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The trailer contradicts the blocks.
    #[error("the heap graph is damaged: its trailer says {said} {what}, but it has {found}")]
    Totals {
        /// The number that differs.
        what: &'static str,
        /// The value in the trailer.
        said: u64,
        /// The value found in the blocks.
        found: u64,
    },
    /// The producer did not reach the end of the heap.
    #[error("the heap graph is incomplete: its producer did not reach the end of the heap")]
    Incomplete,
    /// Bytes follow the trailer.
    #[error("bytes follow the end of the heap graph")]
    TrailingBytes,
}

impl Error {
    /// Returns true if the reader can go on with the next block.
    pub fn is_recoverable(&self) -> bool {
        matches!(self, Self::Checksum { .. } | Self::Malformed { .. } | Self::Totals { .. })
    }
}
