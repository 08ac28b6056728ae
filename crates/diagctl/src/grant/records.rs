//! The records that a worker or a dumper writes to the stdin of `put` and `finalize`: inline reports, the reasons why others could
//! not be made, costs and labels. A whole capture without a snapshot takes one program that way, and nothing that an application
//! wrote is on a command line.
//!
//! A record is a line `KIND NAME LENGTH` and then LENGTH bytes. The last record is `end - 0`; without it the writer died.

use std::io::{self, BufRead, Read};

use diagctl_fs::Spot;
use diagctl_store::commit::Told;
use diagctl_store::staging::{self, Grant};
use diagctl_store::writer::{self, Room};
use diagctl_store::{ReportName, Store};

use super::error::{Error, Result};

/// The longest first line of a record, bytes.
const LONGEST_LINE: u64 = 256;

/// The longest message or value that is kept, bytes. Longer ones are cut.
pub const LONGEST_TEXT: u64 = 4096;

/// The error of all that is missing when the records end too early.
const CUT_SHORT: &str = "the process that made the reports ended before it was done";

/// A record that is not a report.
#[derive(Debug, PartialEq, Eq)]
pub enum Fact {
    /// A report that could not be made, and why.
    Failed(ReportName, String),
    /// A key and its value: a cost, a version, a label.
    Set(String, String),
}

/// The processes that may write into the staged capture at this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Others put reports, too.
    Several,
    /// This process ends the capture, and all others have exited. What they have not finished is written anew.
    ThisOne,
}

/// Reads all records. Reports go into the staged capture; everything else is returned. `told` records what was cut short.
pub fn read(
    store: &Store,
    grant: &Grant,
    writers: Writers,
    input: &mut dyn BufRead,
    told: &mut Told,
) -> Result<Vec<Fact>> {
    let mut room = None;
    parse(input, told, |name, data| {
        let room = match &mut room {
            Some(room) => room,
            none => none.insert(Room::of(store, grant)?),
        };
        store_report(room, store, grant, (name, writers), data)
    })
}

/// Reads all records. `report` takes the content of each report, as far as it reads it.
pub fn parse(
    input: &mut dyn BufRead,
    told: &mut Told,
    mut report: impl FnMut(ReportName, &mut dyn Read) -> Result<Option<Fact>>,
) -> Result<Vec<Fact>> {
    let mut facts = Vec::new();
    loop {
        let Some(Head { kind, name, length }) = head(input)? else {
            told.broken_off.get_or_insert_with(|| CUT_SHORT.to_owned());
            return Ok(facts);
        };
        match kind.as_str() {
            "end" => return Ok(facts),
            "report" => {
                let mut data = Exactly { input, left: length };
                facts.extend(report(report_name(&name)?, &mut data)?);
                data.skip_rest();
            }
            "failed" => facts.push(Fact::Failed(report_name(&name)?, text(input, length)?)),
            "set" if !name.is_empty() && name.len() <= 128 => facts.push(Fact::Set(name, text(input, length)?)),
            "broken_off" => told.broken_off = Some(text(input, length)?),
            // A later version may have more kinds.
            _ => drop(text(input, length)?),
        }
    }
}

// A report that cannot be stored is a fact; only a broken stream is an error.
fn store_report(
    room: &mut Room<'_>,
    store: &Store,
    grant: &Grant,
    (name, writers): (ReportName, Writers),
    data: &mut dyn Read,
) -> Result<Option<Fact>> {
    let staging = store.own_staging(&grant.meta.id)?;
    let mut failed = None;
    if !grant.planned.contains(&name) {
        failed = Some(Fact::Failed(name, "it was not asked for".to_owned()));
    } else if is_open(&staging, &name, writers)? {
        // A failure is in the report's sidecar.
        let _ = writer::store_report(room, &staging, &name, data);
    }
    Ok(failed)
}

fn is_open(staging: &Spot, name: &ReportName, writers: Writers) -> Result<bool> {
    let noted = staging::read_sidecar(staging, name)?;
    if writers == Writers::Several {
        return Ok(noted.is_none() && staging::claim(staging, name)?);
    }
    staging::discard_partial(staging, name)?;
    Ok(noted.is_none_or(|report| report.file.is_none()))
}

struct Head {
    kind: String,
    name: String,
    length: u64,
}

// Returns `None` at the end of the input, also in the middle of a line.
fn head(input: &mut dyn BufRead) -> Result<Option<Head>> {
    let mut line = Vec::new();
    input.take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(Error::Records)?;
    let malformed = || Error::MalformedRecord { line: String::from_utf8_lossy(&line).trim_end().to_owned() };
    if line.last() != Some(&b'\n') {
        return if (line.len() as u64) < LONGEST_LINE { Ok(None) } else { Err(malformed()) };
    }
    let words = std::str::from_utf8(&line).map_err(|_| malformed())?.trim_end_matches('\n');
    let mut words = words.split(' ');
    let (Some(kind), Some(name), Some(length), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(malformed());
    };
    let length = length.parse().map_err(|_| malformed())?;
    Ok(Some(Head { kind: kind.to_owned(), name: name.to_owned(), length }))
}

fn report_name(name: &str) -> Result<ReportName> {
    ReportName::parse(name).ok_or_else(|| Error::MalformedRecord { line: name.to_owned() })
}

fn text(input: &mut dyn BufRead, length: u64) -> Result<String> {
    let mut bytes = Vec::new();
    let mut data = Exactly { input, left: length };
    // The rest of the input is missing only if the writer died, which the next read finds.
    let _ = (&mut data).take(LONGEST_TEXT).read_to_end(&mut bytes);
    data.skip_rest();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

// The data of one record. An input that ends within it is an error, so that half a report is not taken for a whole one.
struct Exactly<'a> {
    input: &'a mut dyn BufRead,
    left: u64,
}

impl Exactly<'_> {
    fn skip_rest(&mut self) {
        let _ = io::copy(&mut self.input.take(self.left), &mut io::sink());
        self.left = 0;
    }
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.input.read(&mut buffer[..most])?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, CUT_SHORT));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(mut input: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        loop {
            match head(&mut input) {
                Ok(Some(head)) => {
                    let text = text(&mut input, head.length).unwrap();
                    found.push(format!("{} {} {}", head.kind, head.name, text.len()));
                }
                Ok(None) => return found,
                Err(error) => {
                    found.push(error.to_string());
                    return found;
                }
            }
        }
    }

    #[test]
    fn a_record_is_a_line_and_as_many_bytes_as_it_says() {
        assert_eq!(heads(b"set cost.x 3\n1.5failed a 4\nno\n.end - 0\n"), ["set cost.x 3", "failed a 4", "end - 0"]);
        assert_eq!(heads(b"set cost.x 3\n1.5fai"), ["set cost.x 3"]);
        assert_eq!(
            heads(&[b"set a 9000\n".to_vec(), vec![b'x'; 9000], b"end - 0\n".to_vec()].concat()),
            ["set a 4096", "end - 0"]
        );
        for wrong in ["set a\n", "set a b\n", "set a 1 2\n", "set a -1\n"] {
            assert!(heads(wrong.as_bytes())[0].contains("is not KIND NAME LENGTH"), "{wrong:?}");
        }
        assert!(heads(&[b'x'; 300])[0].contains("is not KIND NAME LENGTH"));
    }

    #[test]
    fn half_a_report_is_an_error_and_not_a_report() {
        let mut input: &[u8] = b"half";
        let mut data = Exactly { input: &mut input, left: 8 };
        let mut read = Vec::new();
        assert_eq!(data.read_to_end(&mut read).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut input: &[u8] = b"whole and more";
        let mut data = Exactly { input: &mut input, left: 5 };
        let mut read = Vec::new();
        data.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"whole");
    }
}
