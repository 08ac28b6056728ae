//! The graph in the formats of other tools. None has a value of the application.

pub mod folded;
pub mod heapsnapshot;
pub mod pprof;
