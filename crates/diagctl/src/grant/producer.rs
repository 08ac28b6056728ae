//! The producer that writes a report into the stdin of `put`: this process's parent. The end of the input is the end of the report
//! only if the producer lives; otherwise the kernel has closed the pipe, and half a report would pass for a whole one.

use std::io::{self, Read};

use crate::proc::Proc;

/// The input of a producer. If the producer has died, the end of the input is an error.
pub struct Produced<R> {
    input: R,
    proc: Proc,
    producer: Option<u32>,
}

impl<R: Read> Produced<R> {
    /// Watches the parent of this process.
    pub fn new(input: R, proc: &Proc) -> Self {
        Self { input, proc: proc.clone(), producer: parent() }
    }

    // The kernel sets the flag before it closes the descriptors, and only then gives the children to another parent.
    fn lives(&self) -> bool {
        let Some(producer) = self.producer else { return true };
        // A process that may not be looked at (hidepid) still has children only while it lives.
        let is_whole = self.proc.stat(producer).map_or(true, |stat| !stat.is_ending && stat.state != 'Z');
        parent() == self.producer && is_whole
    }
}

fn parent() -> Option<u32> {
    rustix::process::getppid().and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok())
}

impl<R: Read> Read for Produced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer)? {
            0 if !buffer.is_empty() && !self.lives() => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "its producer died before the end of the report"))
            }
            n => Ok(n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_input_counts_only_while_the_producer_lives() {
        let mut text = String::new();
        Produced::new(&b"whole"[..], &Proc::default()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "whole");
        let dead = Produced { input: &b"half"[..], proc: Proc::default(), producer: Some(u32::MAX) };
        let error = io::BufReader::new(dead).read_to_string(&mut text).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
