//! SIGTERM and Ctrl-C: what is under way gets some time, unless there is a second one.

use std::pin::{Pin, pin};
use std::time::Duration;

use diagctl_store::units;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Error, Result};
use crate::output;

/// The signals that end the program.
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
    /// There was one.
    pub told: bool,
}

impl Stop {
    /// Listens from now on.
    pub fn install() -> Result<Self> {
        let on = |kind| signal(kind).map_err(Error::Runtime);
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())?, told: false })
    }

    async fn heard(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        self.told = true;
    }

    /// Runs until a signal.
    pub async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.heard() => None,
            done = work => Some(done),
        }
    }

    /// Runs to the end, but only for so long after a signal, or until the next one. What goes on beside it ends at the signal, or with an error.
    pub async fn within<T>(
        &mut self,
        deadline: Duration,
        work: impl Future<Output = T>,
        beside: Pin<&mut impl Future<Output = Error>>,
    ) -> Result<Option<T>> {
        let mut work = pin!(work);
        if !self.told {
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                error = beside => return Err(error),
                () = self.heard() => {}
            }
            let most = units::duration(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
            output::note(&format!(
                "stopping when what is under way has arrived, after {most} at most; a second signal stops at once"
            ));
        }
        Ok(self.unless(tokio::time::timeout(deadline, work)).await.and_then(std::result::Result::ok))
    }
}
