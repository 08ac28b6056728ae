//! The ways to group and sort the objects of a heap.

/// The key by which objects are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    Class,
    Type,
    Site,
    Generation,
}

/// The order of groups, the largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    Count,
    Shallow,
    Retained,
}
