//! Faults for tests: they show that a walker that crashes or hangs does no harm.

#![expect(unsafe_code, reason = "a fault is what it makes")]

use crate::sys;

/// A fault that is to happen in the middle of a walk. The default is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fault {
    kind: u64,
    after: u64,
}

impl Fault {
    /// 1 reads address 8, 2 aborts, 3 hangs; each after so many objects.
    pub const fn new(kind: u64, after: u64) -> Self {
        Self { kind, after }
    }

    /// Makes the fault if its time has come.
    pub fn strike(self, objects: u64) {
        if self.kind == 0 || objects < self.after {
            return;
        }
        match self.kind {
            1 => {
                let nowhere = core::hint::black_box(core::ptr::without_provenance::<u64>(8));
                // SAFETY: there is none. The kernel answers with SIGSEGV, as it does to a walker that is wrong about Ruby.
                core::hint::black_box(unsafe { nowhere.read_volatile() });
            }
            2 => sys::abort(),
            _ => loop {
                core::hint::spin_loop();
            },
        }
    }
}
