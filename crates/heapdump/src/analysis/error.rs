//! What can be wrong with a heap dump as a whole.

use std::fmt;

/// The reason why a heap dump cannot be analysed.
#[derive(Debug)]
pub enum Error {
    /// It has more objects or references than can be numbered.
    TooLarge,
    /// An object is at an address where none can be, or there are more pages than any heap has.
    FalseAddress {
        /// The address.
        address: u64,
    },
}

/// A result of this module.
pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("it has more than 4 billion objects or references"),
            Self::FalseAddress { address } => write!(f, "it has an object at {address:#x}, where no Ruby heap has one"),
        }
    }
}

impl std::error::Error for Error {}
