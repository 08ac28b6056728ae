//! A window that moves over a heap dump.

use std::io::Read;

use memchr::{memchr, memmem};

use super::loose::{STALE, STALE_LEN};
use crate::lines::hex;

/// The size of the window. A longer line is read piece by piece.
const SIZE: usize = 512 << 10;

/// Bytes that a line with a newline in it may have after it, and the number of lines that they may be.
pub(super) const JOIN: usize = 16 << 10;
pub(super) const JOINED_LINES: usize = 4;

#[derive(Debug)]
pub(super) struct Input<R> {
    read: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    at_end: bool,
    consumed: u64,
}

impl<R: Read> Input<R> {
    pub fn new(read: R) -> Self {
        Self { read, buffer: vec![0; SIZE], start: 0, end: 0, at_end: false, consumed: 0 }
    }

    /// The bytes that were read and not consumed.
    pub fn window(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    pub fn consume(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.end);
        self.consumed += bytes as u64;
    }

    /// Bytes consumed, and in the window.
    pub fn bytes(&self) -> u64 {
        self.consumed + (self.end - self.start) as u64
    }

    pub fn is_at_end(&self) -> bool {
        self.at_end
    }

    /// Returns true if the window cannot grow.
    pub fn is_full(&self) -> bool {
        self.end - self.start == self.buffer.len()
    }

    /// Reads more.
    pub fn fill(&mut self) -> std::io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let Some(room) = self.buffer.get_mut(self.end..).filter(|room| !room.is_empty()) else { return Ok(()) };
        loop {
            match self.read.read(room) {
                Ok(read) => {
                    self.at_end = read == 0;
                    self.end += read;
                    return Ok(());
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// Returns the length of the first line with its newline. A newline in a damaged character of a name ends no line.
pub(super) fn line_end(window: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr(b'\n', window.get(at..)?)? + 1;
        let before = window.get(at.saturating_sub(STALE_LEN)..at).unwrap_or_default();
        if memmem::find(before, STALE).is_none() {
            return Some(at);
        }
    }
}

/// Returns the bytes of a pointer, and the binary logarithm of the unit of addresses, that the first lines show.
pub(super) fn addresses(window: &[u8]) -> (u8, u8) {
    let mut all = 0;
    for at in memmem::find_iter(window, b"\"0x") {
        let text = window.get(at + 1..(at + 1 + hex::LONGEST).min(window.len())).unwrap_or_default();
        if let Some(address) = memchr(b'"', text).and_then(|end| hex::read_any(&text[..end])) {
            all |= address;
        }
    }
    let pointer_size = if all > u64::from(u32::MAX) || all == 0 { 8 } else { 4 };
    (pointer_size, if all & 7 == 0 { 3 } else { 2 })
}
