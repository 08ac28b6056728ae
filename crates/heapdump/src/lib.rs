//! The heap graph of a Ruby process: its format and what can be learned from it.

pub mod address;
pub mod dominators;
pub mod edges;
pub mod reach;
pub mod retained;
#[cfg(test)]
mod testing;
