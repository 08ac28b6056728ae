//! From the operator's rules and the readings of one poll to a decision. Pure but for [`readings`], which reads the figures.
//!
//! Knows no file, no configuration format and no command line.

pub mod decide;
pub mod guard;
pub mod limit;
pub mod memory;
pub mod readings;
pub mod rule;
mod rule_name;
pub mod trigger;

pub use rule_name::{ON_DEMAND, RuleName};
