//! From a decision to a capture: the poll that decides, the one way to begin a capture, and the capture's life until it is
//! published or given up.

pub mod begin;
pub mod capture;
pub mod cpu_throttle;
pub mod dump_limits;
mod error;
pub mod exec;
mod follow_up;
pub mod labels;
pub mod leftovers;
pub mod lock_holders;
mod off;
pub mod orders;
pub mod overdue;
pub mod poll;
pub mod producer;
pub mod records;

pub use begin::{Applicant, Begun, begin};
pub use error::Error;
pub use follow_up::{IN_HOOK, is_in_hook};
pub use off::note_off;
