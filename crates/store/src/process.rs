//! The processes that polls, captures and requests are about.

pub use diagctl_observe::ProcessId;

/// A process that polls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The identity of the process.
    pub id: ProcessId,
    /// The role.
    pub role: String,
    /// The name within the role.
    pub name: String,
}
