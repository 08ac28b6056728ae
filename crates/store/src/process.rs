//! The identity of a process, as captures and requests carry it.

/// A process that polls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its pid, as diagctl sees it.
    pub pid: u32,
    /// Its start, in clock ticks since boot.
    pub start_ticks: u64,
    /// What it does.
    pub role: String,
    /// Its name within the role.
    pub name: String,
}

impl Process {
    /// Names it for ever within one boot.
    pub fn subject(&self) -> String {
        format!("{}@{}", self.pid, self.start_ticks)
    }
}
