//! The heap graph of a Ruby process: its format and what can be learned from it.

pub mod analysis;
pub mod record;
