//! System calls for which the standard library has no safe wrapper. Nothing else in this crate is `unsafe`.

#![expect(unsafe_code, reason = "this module is the one that may")]

use std::os::fd::{BorrowedFd, IntoRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Returns true if this process was started without a stdout: what it prints is lost.
pub fn stdout_was_closed() -> bool {
    STDOUT_WAS_CLOSED.load(Ordering::Relaxed)
}

/// Does what Rust's own start-up does for every program. A closed pipe becomes an error instead of ending the process, and so
/// does a file that reaches the size limit of the process (SIGXFSZ would end it without a word). A closed standard descriptor
/// becomes `/dev/null`, so that no file of the store is opened under its number and printed into. Must be
/// called at the start of `main`, before anything is opened.
pub fn prepare() {
    // SAFETY: no handler is installed; the process has one thread.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
    for fd in 0..=2 {
        if rustix::io::fcntl_getfd(borrow_fd(fd)).is_err() {
            STDOUT_WAS_CLOSED.fetch_or(fd == 1, Ordering::Relaxed);
            // `open` returns the lowest free number, which is this descriptor.
            match rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()) {
                Ok(null) => _ = null.into_raw_fd(),
                Err(_) => std::process::abort(),
            }
        }
    }
}

/// Borrows a descriptor that was inherited under a number. The caller ensures that nothing in this process closes the number.
/// If it is not open, every call on it fails with EBADF.
pub fn borrow_fd(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the caller keeps the descriptor open; calls on a number that is not open fail and touch nothing.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Makes the kernel end this process by SIGALRM after this time.
pub fn alarm(time: Duration) {
    let seconds = u32::try_from(time.as_secs().saturating_add(1)).unwrap_or(u32::MAX);
    // SAFETY: sets a timer; SIGALRM has its default action.
    unsafe {
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        libc::alarm(seconds);
    }
}

/// Makes the kernel kill a command when this process dies, so that the command never outlives the poll that started it.
pub fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec only prctl(2) and getppid(2) are called, which are async-signal-safe, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // It may have died before.
            match rustix::process::getppid() == Some(parent) {
                true => Ok(()),
                false => Err(rustix::io::Errno::SRCH.into()),
            }
        });
    }
}

/// Lets a command run in a session of its own: no signal to the group or the terminal of this process reaches it.
pub fn in_a_session_of_its_own(command: &mut Command) {
    // SAFETY: between fork and exec only setsid(2) is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into));
    }
}

/// Keeps every descriptor but the standard ones from the programs that this process starts, whoever opened it.
pub fn pass_no_descriptors() {
    let listed = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    for fd in listed.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok()).filter(|fd| *fd > 2) {
        // That of the listing is closed by now.
        let _ = rustix::io::fcntl_setfd(borrow_fd(fd), rustix::io::FdFlags::CLOEXEC);
    }
}

/// Gives way to everything else: the lowest priority for the processor and the disk, any processor, and the first to go when
/// memory runs out. What is not allowed stays as it is.
pub fn give_way() {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_IDLE: libc::c_int = 3 << 13;
    let _ = rustix::process::setpriority_process(None, 19);
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    // A dumper stays on one processor, and may have started this process.
    let mut all = rustix::thread::CpuSet::new();
    (0..rustix::thread::CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    let _ = rustix::thread::sched_setaffinity(None, &all);
    // SAFETY: sets the priority of this process; no memory is involved.
    unsafe {
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE);
    }
}

/// The signals with which people and supervisors end a program: SIGTERM, SIGINT and SIGHUP. Signals that are ignored (`nohup`)
/// are left out.
#[derive(Clone, Copy)]
pub struct Endings(libc::sigset_t);

impl Endings {
    /// Blocks these signals in this thread and in threads that it starts later. Must be called before there are other threads.
    /// The standard library gives spawned commands an empty mask.
    pub fn hold_back() -> Self {
        // SAFETY: the kernel and libc fill in local structures; the set is initialised before it is used.
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

    /// Waits for one of the signals. Returns its number, and true if the kernel sent it, as on Ctrl-C to a whole foreground
    /// group.
    pub fn wait(&self) -> (i32, bool) {
        loop {
            // SAFETY: the set is initialised, and the kernel fills in a local structure.
            let (signal, info) = unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                (libc::sigwaitinfo(&raw const self.0, &raw mut info), info)
            };
            if signal > 0 {
                return (signal, info.si_code == libc::SI_KERNEL);
            }
        }
    }

    /// Waits at most this long for one of the signals, and returns its number.
    pub fn arrived(&self, within: Duration) -> Option<i32> {
        let seconds = libc::time_t::try_from(within.as_secs()).unwrap_or(libc::time_t::MAX);
        let limit = libc::timespec { tv_sec: seconds, tv_nsec: within.subsec_nanos().into() };
        // SAFETY: the set and the limit are initialised; no information about the signal is asked for.
        let signal = unsafe { libc::sigtimedwait(&raw const self.0, std::ptr::null_mut(), &raw const limit) };
        (signal > 0).then_some(signal)
    }

    /// Ends this process by a signal as if it had never been blocked, so that the parent sees which signal it was.
    pub fn end_by(&self, signal: i32) -> ! {
        // SAFETY: the initialised set is the only memory involved.
        unsafe {
            libc::raise(signal);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const self.0, std::ptr::null_mut());
        }
        std::process::exit(128 + signal)
    }
}
