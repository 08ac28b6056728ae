//! A page of memory that the dumper reads while the walker runs: its state, its progress, and why it gave up.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// The stage that the walker has reached. The dumper takes an unexpected end in any but the last two for a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum State {
    /// Nothing was called yet.
    Started = 0,
    /// The proof is under way.
    Proving = 1,
    /// Objects are being read.
    Walking = 2,
    /// A write is under way, which may wait for the reader.
    Writing = 3,
    /// Everything was written.
    Done = 4,
    /// The walk did not begin, or its output could not be written. The reason says why.
    GaveUp = 5,
}

const REASON_BYTES: usize = 1024;

/// The page. The dumper reads it as five 64-bit numbers in the machine's order, the reason as that many bytes, and then the layout.
#[derive(Debug)]
#[repr(C)]
pub struct Status {
    state: AtomicU64,
    /// Grows with every page of the heap and with every write.
    progress: AtomicU64,
    bytes: AtomicU64,
    objects: AtomicU64,
    reason_len: AtomicU64,
    reason: [AtomicU8; REASON_BYTES],
    layout: AtomicU64,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            state: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            objects: AtomicU64::new(0),
            reason_len: AtomicU64::new(0),
            reason: [const { AtomicU8::new(0) }; REASON_BYTES],
            layout: AtomicU64::new(0),
        }
    }
}

impl Status {
    /// Enters a state, and returns the one that was left.
    pub fn enter(&self, state: State) -> State {
        self.progress.fetch_add(1, Relaxed);
        match self.state.swap(state as u64, Relaxed) {
            1 => State::Proving,
            2 => State::Walking,
            3 => State::Writing,
            4 => State::Done,
            5 => State::GaveUp,
            _ => State::Started,
        }
    }

    /// Tells the layout of this Ruby, by its number.
    pub fn found(&self, layout: usize) {
        self.layout.store(layout as u64, Relaxed);
    }

    /// Counts bytes that the pipe took.
    pub fn wrote(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.progress.fetch_add(1, Relaxed);
    }

    /// Counts the objects of one page of the heap.
    pub fn walked(&self, objects: u64) {
        self.objects.fetch_add(objects, Relaxed);
        self.progress.fetch_add(1, Relaxed);
    }

    /// Appends to the reason. What does not fit is cut off.
    pub fn explain(&self, parts: &[&[u8]]) {
        let mut len = self.reason_len.load(Relaxed);
        for byte in parts.iter().copied().flatten() {
            let Some(place) = usize::try_from(len).ok().and_then(|index| self.reason.get(index)) else { break };
            place.store(*byte, Relaxed);
            len += 1;
        }
        self.reason_len.store(len, Relaxed);
    }

    /// Returns the reason.
    pub fn reason(&self) -> impl Iterator<Item = u8> {
        let len = usize::try_from(self.reason_len.load(Relaxed)).unwrap_or(0).min(REASON_BYTES);
        self.reason[..len].iter().map(|byte| byte.load(Relaxed))
    }
}
