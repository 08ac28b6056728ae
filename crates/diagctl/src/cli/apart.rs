//! Work on a thread of its own, whose credentials end with it: opening a store of another user makes the thread that user.

use std::thread::Builder;

use super::Failure;

/// Runs something on a thread of its own. Fails if the thread cannot be started, or panics.
pub fn run<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    std::thread::scope(|scope| {
        let thread = Builder::new().spawn_scoped(scope, work);
        let thread = thread.map_err(|e| {
            Failure::failed(format!("cannot start a thread: {e}"))
                .hint("the limit on processes is reached: see `ulimit -u` and pids.max of the cgroup")
        })?;
        thread.join().map_err(|_| Failure::failed("the store could not be read: the reading thread panicked"))
    })
}
