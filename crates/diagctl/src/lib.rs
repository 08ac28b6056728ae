//! diagctl: diagnostic reports from production Ruby processes, taken by the processes themselves, one at a time.
//!
//! Dependencies point one way: `cli → {lease, decide, trigger, limit, guard, store, collect, config} → {fsio, proc, clock}`.
//! Deciding is pure and takes values; doing is thin. The contracts are in `docs/` and in the repository's README.

mod cli;
mod collect;
mod config;
mod context;
mod deadline;
mod decide;
mod error;
pub mod exit_code;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod grant;
mod guard;
mod lease;
mod limit;
mod probe;
mod readings;
mod recording;
mod report;
mod sample;
mod section;
mod state;
mod store;
mod sys;
mod trigger;
mod units;

// The names that the modules know them by.
use diagctl_fs::{self as fsio, checksum as seal};
use diagctl_observe::{cgroup, clock, proc};

pub use cli::main;
pub use sys::prepare;
