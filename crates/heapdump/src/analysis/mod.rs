//! Analysis of a heap graph.

pub mod address;
pub mod builder;
pub mod classes;
pub mod diff;
pub mod dominators;
pub mod edges;
pub mod error;
pub mod export;
pub mod families;
pub mod frames;
pub mod held;
pub mod load;
pub mod memory;
pub mod paths;
pub mod reach;
pub mod retained;
pub mod sizes;
pub mod strings;
#[cfg(test)]
mod testing;
pub mod top;
pub mod tree;
pub mod waste;
