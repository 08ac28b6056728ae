//! Readings of this machine: `/proc`, cgroups v1 and v2, pressure stall information (PSI), the clocks and the identity of a boot.
//!
//! Owns the formats of those files and the system clock, which no other crate reads. Every reader starts from a root path, so
//! that a test can pass a directory with the same files. The crate returns numbers, or the reason why a number could not be
//! read. It must not know about configuration, rules, the store, or the meaning of a number.

pub mod cgroup;
pub mod clock;
mod cpu_limit;
pub mod pressure;
pub mod proc;
mod sys;
#[cfg(test)]
mod testing;

pub use cpu_limit::CpuLimit;
pub use sys::{page_size, ticks_per_second};
