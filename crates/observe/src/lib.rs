//! Readings of this machine: `/proc`, cgroups v1 and v2, pressure stall information (PSI), the clocks and the identity of a boot.
//!
//! Owns the formats of those files and the system clock, which no other crate reads. Everything starts from a root path, so that a
//! test can hand in a directory with the same files. It returns numbers, and says why one could not be read; it must not know
//! configuration, rules, the store, or what follows from a number.

pub mod cgroup;
pub mod clock;
mod cpu_limit;
mod error;
pub mod pressure;
pub mod proc;
mod process_id;
mod sys;
#[cfg(test)]
mod testing;

pub use cpu_limit::CpuLimit;
pub use error::{Error, Result};
pub use process_id::{Presence, ProcessId};
pub use sys::{page_size, ticks_per_second};
