//! diagctl: diagnostic reports from production Ruby processes, taken by the processes themselves, one at a time.
//!
//! Dependencies point one way, which `make lint` checks: `cli` → `grant` → `config` → `rules` → `state`, and from all of them to the
//! crates `store`, `fs` and `observe`. Decisions are pure functions of values; the code that acts on them is thin. The contracts
//! are in `docs/`.

mod cli;
mod config;
mod context;
mod deadline;
mod deaths;
mod diagnose;
pub mod exit_code;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod grant;
mod history;
mod operator_command;
mod reports;
mod rules;
mod section;
mod state;
mod sys;
mod units;
mod users;

// The names under which the modules use these crates.
use diagctl_fs::{self as fsio, checksum as seal};
use diagctl_observe::{cgroup, clock, proc};

pub use cli::{command, main};
pub use sys::prepare;
