//! The answer to "why is this process so large?", from cheap reports: mappings, the allocator's statistics, `GC.stat`, objects by class
//! and recorded samples.
//!
//! [`Evidence`] is what the reports say, [`Account`] divides the resident memory, [`Verdict`] names a cause or says what is missing.
//! Pure: reports go in as bytes, and nothing is read or printed here.

mod account;
mod allocator;
mod cause;
mod compare;
mod evidence;
mod family;
mod gc_stat;
mod growth;
mod next;
mod objects;
mod smaps;
#[cfg(test)]
mod tests;
mod verdict;

pub use account::{Account, Line, Part};
pub use compare::{ClassChange, Comparison, compare};
pub use evidence::{Content, Evidence};
pub use family::Family;
pub use growth::Growth;
pub use next::{FromCapture, Step, steps};
pub use smaps::Mappings;
pub use verdict::{Verdict, judge};
