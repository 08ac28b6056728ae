//! The compressed and perhaps encrypted file of a report, and the room that it takes.

use std::fs::File;
use std::io::{self, Write};

use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::hex;
use super::room::{ROOM_STEP, Room};
use crate::encryption::{Encryption, Encryptor};
use crate::error::{Error, Result};
use crate::options::Compression;
use crate::report_name::ReportName;
use diagctl_fs::{self as fs, Spot};

/// zlib-rs at level 2 compresses a heap dump as well as `gzip -1`, in a third of its CPU time.
const GZIP_LEVEL: u32 = 2;

/// zstd at level 1 compresses as well as gzip at level 6, and is faster than gzip at level 1.
const ZSTD_LEVEL: i32 = 1;

/// A heap graph is numbers, small already. At level -5 it takes 12 % less space, and a quarter more time.
const GRAPH_LEVEL: i32 = -8;

pub(super) enum Encoder<W: Write> {
    Gzip(GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<'r, 'a> Encoder<Target<'r, 'a>> {
    pub(super) fn new(compression: Compression, spot: &Spot, sink: Target<'r, 'a>) -> Result<Self> {
        Ok(match compression {
            Compression::Gzip => Self::Gzip(GzEncoder::new(sink, flate2::Compression::new(GZIP_LEVEL))),
            Compression::Zstd => {
                Self::Zstd(zstd(sink, ZSTD_LEVEL).map_err(|e| Error::io("compress into", spot.path(), e))?)
            }
        })
    }

    /// Compresses a heap graph. diagctl reads it, and nothing else, so zstd may be used, which takes half of gzip's time.
    pub(super) fn for_graph(spot: &Spot, sink: Target<'r, 'a>) -> Result<Self> {
        Ok(Self::Zstd(zstd(sink, GRAPH_LEVEL).map_err(|e| Error::io("compress into", spot.path(), e))?))
    }
}

fn zstd<W: Write>(sink: W, level: i32) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    zstd::stream::write::Encoder::new(sink, level)
}

impl<W: Write> Encoder<W> {
    // Writes the trailer, which may fail. Dropping the encoder would lose that error.
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(encoder) => encoder.write(data),
            Self::Zstd(encoder) => encoder.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

/// The file of a report, or what encrypts into it.
pub(super) enum Target<'r, 'a> {
    Plain(Sink<'r, 'a>),
    Encrypted(Box<Encryptor<Sink<'r, 'a>>>),
}

impl<'r, 'a> Target<'r, 'a> {
    pub(super) fn new(sink: Sink<'r, 'a>, report: &ReportName, encryption: Option<&Encryption>) -> Result<Self> {
        let Some(encryption) = encryption else { return Ok(Self::Plain(sink)) };
        match Encryptor::new(encryption, sink) {
            Ok(encryptor) => Ok(Self::Encrypted(Box::new(encryptor))),
            Err(why) => Err(Error::NotEncrypted { report: report.clone(), why }),
        }
    }

    /// Ends the encrypted file. Returns its length, bytes, and its SHA-256.
    pub(super) fn finish(self) -> io::Result<(u64, String)> {
        Ok(match self {
            Self::Plain(sink) => sink,
            Self::Encrypted(encryptor) => encryptor.finish()?,
        }
        .summed())
    }
}

impl Write for Target<'_, '_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(sink) => sink.write(data),
            Self::Encrypted(encryptor) => encryptor.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(sink) => sink.flush(),
            Self::Encrypted(encryptor) => encryptor.flush(),
        }
    }
}

pub(super) struct Sink<'r, 'a> {
    file: File,
    spot: Spot,
    hash: Sha256,
    written: u64,
    room: &'r mut Room<'a>,
}

impl<'r, 'a> Sink<'r, 'a> {
    pub(super) fn new(file: File, spot: &Spot, room: &'r mut Room<'a>) -> Self {
        Self { file, spot: spot.clone(), hash: Sha256::new(), written: 0, room }
    }

    fn summed(self) -> (u64, String) {
        (self.written, hex(&self.hash.finalize()))
    }
}

impl Write for Sink<'_, '_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let grown = fs::occupied(self.written + data.len() as u64) - fs::occupied(self.written);
        self.room.take(grown).map_err(io::Error::other)?;
        let n = match self.file.write(data) {
            Err(e) if fs::Error::io("write", self.spot.path(), copy(&e)).is_no_space() => {
                // Makes room once. If the disk is still full, the write fails.
                self.room.make(ROOM_STEP).map_err(io::Error::other)?;
                self.file.write(data)?
            }
            other => other?,
        };
        self.hash.update(&data[..n]);
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

pub(super) fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

// Recovers an error of the room, which passes through the encoder inside an io::Error.
pub(super) fn unwrap(error: io::Error, spot: &Spot) -> Error {
    match error.downcast::<Error>() {
        Ok(failure) => failure,
        Err(error) => Error::io("write", spot.path(), error),
    }
}
