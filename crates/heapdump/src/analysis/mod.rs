//! What can be learned from a heap graph.

pub mod address;
pub mod builder;
pub mod classes;
pub mod dominators;
pub mod edges;
pub mod error;
pub mod memory;
pub mod reach;
pub mod retained;
pub mod sizes;
#[cfg(test)]
mod testing;
