//! The pipe into `diagctl put`.

use core::cell::Cell;

use crate::status::{State, Status};
use crate::sys;

/// Writes everything, however often a signal interrupts it or the pipe is full.
#[derive(Debug)]
pub struct Output<'a> {
    fd: i32,
    status: &'a Status,
    failed: Cell<Option<isize>>,
}

impl<'a> Output<'a> {
    /// A descriptor to write to, and the status that counts the bytes.
    pub fn new(fd: i32, status: &'a Status) -> Self {
        Self { fd, status, failed: Cell::new(None) }
    }

    /// Writes the bytes. After an error, which [`Output::error`] returns, the rest is dropped.
    pub fn write(&self, mut bytes: &[u8]) {
        if self.failed.get().is_some() || bytes.is_empty() {
            return;
        }
        let before = self.status.enter(State::Writing);
        while !bytes.is_empty() {
            match sys::write(self.fd, bytes) {
                written @ 1.. => {
                    let written = written.cast_unsigned();
                    bytes = &bytes[written..];
                    self.status.wrote(written);
                }
                error if error == -sys::EINTR => {}
                error if error == -sys::EAGAIN => sys::wait_writable(self.fd),
                error => {
                    self.failed.set(Some(-error));
                    break;
                }
            }
        }
        self.status.enter(before);
    }

    /// Returns the error number of the write that failed.
    pub fn error(&self) -> Option<isize> {
        self.failed.get()
    }
}
