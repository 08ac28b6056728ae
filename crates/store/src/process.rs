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
        subject(self.pid, self.start_ticks)
    }
}

/// Returns the name of a process, see [`Process::subject`].
pub fn subject(pid: u32, start_ticks: u64) -> String {
    format!("{pid}@{start_ticks}")
}
