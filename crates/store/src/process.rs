//! The identity of a process in captures and requests.

/// A process that polls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The pid as diagctl sees it.
    pub pid: u32,
    /// The start of the process, in clock ticks since boot.
    pub start_ticks: u64,
    /// The role.
    pub role: String,
    /// The name within the role.
    pub name: String,
}

impl Process {
    /// Returns a name that is unique within one boot.
    pub fn subject(&self) -> String {
        format!("{}@{}", self.pid, self.start_ticks)
    }
}
