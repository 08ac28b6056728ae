//! The heap graph: every object of a Ruby process and every edge between them, without one value of the application.
//!
//! This crate owns the format (`docs/heap-graph.md`), its writer and its reader. It must not know the store, compression, files or
//! the command line. Without the feature `std` only the writer remains, which needs neither libc nor an allocator: the heap walker
//! uses it inside a forked Ruby process.

#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(feature = "std")]
pub mod analysis;
pub mod block;
mod block_counts;
pub mod checksum;
pub mod class_name;
pub mod memory;
pub mod record;
mod trailer;
mod varint;
pub mod writer;

#[cfg(feature = "std")]
pub mod convert;
#[cfg(feature = "std")]
pub mod error;
#[cfg(feature = "std")]
pub mod fuzz;
#[cfg(feature = "std")]
pub mod json;
#[cfg(feature = "std")]
pub mod lines;
#[cfg(feature = "std")]
pub mod reader;
#[cfg(feature = "std")]
mod spacing;
#[cfg(feature = "std")]
pub mod summary;
#[cfg(feature = "std")]
pub mod tables;

pub use block_counts::BlockCounts;
#[cfg(feature = "std")]
pub use error::Error;
#[cfg(feature = "std")]
pub use memory::OwnedMemory;
#[cfg(feature = "std")]
pub use reader::{Batch, Block, Reader};
pub use record::{Header, Object, Trailer};
pub use writer::{Sink, Writer};

#[cfg(test)]
#[cfg(feature = "std")]
mod tests;
