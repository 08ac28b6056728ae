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

#[cfg(test)]
mod tests {
    #![expect(unsafe_code, reason = "a signal handler, and a descriptor that does not block")]

    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
    use std::thread;
    use std::time::Duration;

    static INTERRUPTIONS: AtomicU64 = AtomicU64::new(0);

    extern "C" fn count(_: libc::c_int) {
        INTERRUPTIONS.fetch_add(1, Relaxed);
    }

    // Writes 8 MB into a pipe whose reader is slow, and returns what arrived.
    fn through_a_pipe(data: &[u8], prepare: impl FnOnce(i32)) -> Vec<u8> {
        let (mut reader, writer) = std::io::pipe().unwrap();
        prepare(writer.as_raw_fd());
        thread::scope(|scope| {
            let arrived = scope.spawn(move || {
                let mut arrived = Vec::new();
                let mut chunk = vec![0; 50_000];
                while let Ok(n @ 1..) = reader.read(&mut chunk) {
                    arrived.extend_from_slice(&chunk[..n]);
                    thread::sleep(Duration::from_micros(300));
                }
                arrived
            });
            let status = Status::default();
            let output = Output::new(writer.as_raw_fd(), &status);
            data.chunks(1 << 20).for_each(|chunk| output.write(chunk));
            assert_eq!(output.error(), None);
            drop(writer);
            arrived.join().unwrap()
        })
    }

    #[test]
    fn a_full_pipe_that_does_not_block_and_signals_lose_no_byte() {
        let data: Vec<u8> = (0..8u32 << 20).map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()[3]).collect();
        let over = &AtomicBool::new(false);
        thread::scope(|scope| {
            // SAFETY: a handler that only adds to a number, without SA_RESTART.
            let this = unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = count as *const () as usize;
                libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
                libc::pthread_self()
            };
            scope.spawn(move || {
                while !over.load(Relaxed) {
                    // SAFETY: the thread waits for this one.
                    unsafe { libc::pthread_kill(this, libc::SIGUSR1) };
                    thread::sleep(Duration::from_micros(200));
                }
            });
            assert!(through_a_pipe(&data, |_| ()) == data, "blocking");
            let arrived = through_a_pipe(&data, |fd| {
                // SAFETY: sets a flag of an open descriptor.
                unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) };
            });
            over.store(true, Relaxed);
            assert!(arrived == data, "not blocking");
        });
        assert!(INTERRUPTIONS.load(Relaxed) > 0);
    }

    #[test]
    fn a_reader_that_is_gone_ends_the_output() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = Status::default();
        let output = Output::new(writer.as_raw_fd(), &status);
        output.write(b"into nothing");
        assert_eq!(output.error(), Some(32), "EPIPE");
    }
}
