//! The few calls that the standard library cannot make safely. Nothing else in this crate is `unsafe`.

#![expect(unsafe_code, reason = "this module is the one that may")]

use std::os::fd::{BorrowedFd, IntoRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{Mode, OFlags};

/// What Rust's own start-up does for every program: a closed pipe is an error and not the end of the process, and a standard
/// descriptor that is closed becomes `/dev/null`, so that no file of the store is ever opened under its number and printed into.
/// For the start of `main`, before anything is opened.
pub fn prepare() {
    // SAFETY: no handler is installed; the process has one thread.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    for fd in 0..=2 {
        if rustix::io::fcntl_getfd(borrow_fd(fd)).is_err() {
            // The lowest number that is free, which is this one.
            match rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()) {
                Ok(null) => _ = null.into_raw_fd(),
                Err(_) => std::process::abort(),
            }
        }
    }
}

/// Borrows a descriptor that was inherited under a number. Whoever calls it makes sure that nothing in this process
/// closes the number; on one that is not open every call fails with EBADF.
pub fn borrow_fd(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the caller keeps the descriptor open; calls on a number that is not open fail and touch nothing.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Has the kernel kill a command when this process dies, so that it never outlives the poll that started it.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(Into::into)
        });
    }
}

/// The signals by which people and supervisors end a program: SIGTERM, SIGINT and SIGHUP, as far as they are not ignored
/// (`nohup`).
#[derive(Clone, Copy)]
pub struct Endings(libc::sigset_t);

impl Endings {
    /// Keeps them from ending this thread, and threads that it starts from now on. To be called before there are others.
    /// Commands that are spawned get an empty mask from the standard library.
    pub fn hold_back() -> Self {
        // SAFETY: the kernel and libc fill in structures that live here; the set was initialised before it is used.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                let mut action: libc::sigaction = std::mem::zeroed();
                let known = libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0;
                if known && action.sa_sigaction != libc::SIG_IGN {
                    libc::sigaddset(&raw mut set, signal);
                }
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            Self(set)
        }
    }

    /// Waits for one: its number, and whether the kernel sent it, as it does to a whole foreground group on Ctrl-C.
    pub fn wait(&self) -> (i32, bool) {
        loop {
            // SAFETY: the set is initialised, and the kernel fills in the information that lives here.
            let (signal, info) = unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                (libc::sigwaitinfo(&raw const self.0, &raw mut info), info)
            };
            if signal > 0 {
                return (signal, info.si_code == libc::SI_KERNEL);
            }
        }
    }

    /// Ends this process by a signal, as if it had never been held back: whoever waits for the process sees which it was.
    pub fn end_by(&self, signal: i32) -> ! {
        // SAFETY: no memory is involved but the initialised set.
        unsafe {
            libc::raise(signal);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const self.0, std::ptr::null_mut());
        }
        std::process::exit(128 + signal)
    }
}
