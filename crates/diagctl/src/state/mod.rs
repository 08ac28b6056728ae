//! The store's memory of its processes: what must survive (`schedule`), and the last poll of each process (`samples`).

pub mod files;
pub mod samples;
pub mod schedule;
