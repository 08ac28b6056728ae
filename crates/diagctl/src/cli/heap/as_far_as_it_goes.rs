//! Content that ends where its compression or encryption is cut off or damaged.

use std::error::Error;
use std::io::{self, Read};

/// A reader that ends at damage, which it remembers. Errors of the operating system stay errors, as does damage before the first byte.
#[derive(Debug)]
pub struct AsFarAsItGoes<R> {
    content: R,
    bytes: u64,
    /// The damage that ended it.
    pub damage: Option<Damage>,
}

/// The damage that ended a dump.
#[derive(Debug, thiserror::Error)]
#[error("it is cut off or damaged after {bytes} bytes, decompressed: {why}")]
pub struct Damage {
    bytes: u64,
    why: io::Error,
}

impl<R> AsFarAsItGoes<R> {
    /// Wraps decompressed content.
    pub fn new(content: R) -> Self {
        Self { content, bytes: 0, damage: None }
    }
}

impl<R: Read> Read for AsFarAsItGoes<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.damage.is_some() {
            return Ok(0);
        }
        match self.content.read(buffer) {
            Ok(read) => {
                self.bytes += read as u64;
                Ok(read)
            }
            Err(why) if self.bytes > 0 && !is_of_system(&why) => {
                self.damage = Some(Damage { bytes: self.bytes, why });
                Ok(0)
            }
            Err(why) => Err(why),
        }
    }
}

fn is_of_system(why: &io::Error) -> bool {
    if why.raw_os_error().is_some() || why.kind() == io::ErrorKind::Interrupted {
        return true;
    }
    let mut cause = why.get_ref().map(|inner| inner as &(dyn Error + 'static));
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.raw_os_error().is_some()) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(&'static [u8], fn() -> io::Error);

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() { Err((self.1)()) } else { self.0.read(buffer) }
        }
    }

    #[test]
    fn damage_ends_the_content_and_errors_of_the_disk_fail() {
        // (content, then this error) → what it ends with
        type Row = (&'static [u8], fn() -> io::Error, Option<&'static str>);
        let damage = || io::Error::other("corrupt");
        let disk = || io::Error::from_raw_os_error(5);
        let in_store = || io::Error::other(io::Error::from_raw_os_error(5));
        let table: [Row; 4] = [
            (b"ab", damage, Some("it is cut off or damaged after 2 bytes, decompressed: corrupt")),
            (b"", damage, None),
            (b"ab", disk, None),
            (b"ab", in_store, None),
        ];
        for (content, error, expected) in table {
            let mut reader = AsFarAsItGoes::new(Failing(content, error));
            let mut all = Vec::new();
            assert_eq!(reader.read_to_end(&mut all).is_ok(), expected.is_some());
            assert_eq!((all, reader.damage.map(|damage| damage.to_string()).as_deref()), (content.to_vec(), expected));
        }
    }
}
