//! Lines that exceed the window: huge arrays, and huge strings.
//!
//! Such a line is a beginning, one huge value, and an end. The beginning and the end are kept and read as a line of their own; the
//! value passes.

use std::hash::{BuildHasher, Hasher};
use std::io::Read;

use memchr::{memchr, memchr3};

use super::input::Input;
use super::line::{Kind, Line};
use super::loose::{self, Bad};
use super::target::Target;
use super::{Error, Run, Streamed};
use crate::lines::{hex, key};
use crate::record::{Edge, NameId, Root};

/// The end of a long line, without its huge value, is shorter than this.
const LONGEST_END: usize = 64 << 10;

/// A long line without what passed, and what that was. `None` if the line makes no sense.
type Rest = Option<(Vec<u8>, Streamed)>;

impl<T: Target> Run<T> {
    /// Converts the line at the beginning of a window that does not hold all of it.
    pub(super) fn long_line<R: Read>(&mut self, input: &mut Input<R>) -> Result<(), Error<T::Error>> {
        let mut line = Line::default();
        let cut = loose::read(input.window(), &mut line);
        let (kind, address) = (line.kind, line.address);
        let root = line.root.to_vec();
        let before = self.lines.damaged();
        let read = match cut {
            Err(Bad::Cut { key: key::REFERENCES, at })
                if kind == Kind::Root || address != 0 && (address | line.bits) & self.state.misaligned == 0 =>
            {
                drop(line);
                self.long_references(input, at, kind, address, &root)?
            }
            Err(Bad::Cut { key: key::VALUE, at }) => {
                drop(line);
                self.long_value(input, at)?
            }
            _ => None,
        };
        let Some((whole, streamed)) = read else {
            self.skip(input)?;
            self.lost += 1;
            if self.lines.damaged() == before {
                self.lines.condemn("it is too long");
            }
            return Ok(());
        };
        let mut line = Line::default();
        let good = loose::read(&whole, &mut line).is_ok() && self.lines.damaged() == before;
        if good && kind == Kind::Root {
            return Ok(());
        }
        if !good || !self.state.write(&line, Some(streamed)).map_err(Error::Target)? {
            self.lost += 1;
            if self.lines.damaged() == before {
                self.lines.condemn("it cannot be understood");
            }
        }
        Ok(())
    }

    // Passes references on. Returns the line without them.
    fn long_references<R: Read>(
        &mut self,
        input: &mut Input<R>,
        at: usize,
        kind: Kind,
        address: u64,
        root: &[u8],
    ) -> Result<Rest, Error<T::Error>> {
        let mut whole = input.window()[..=at].to_vec();
        self.take(input, at + 1);
        let state = &mut self.state;
        let category = if kind == Kind::Root {
            state.names.text(&mut state.target, root).map_err(Error::Target)?
        } else {
            state.target.edges_ahead(address).map_err(Error::Target)?;
            NameId::NONE
        };
        loop {
            let window = input.window();
            let mut at = 0;
            let mut last = false;
            while let Some(rest) = window.get(at..).filter(|rest| rest.len() > hex::LONGEST + 4) {
                let Some(Ok((target, length))) = loose::reference(rest, 0) else { return Ok(None) };
                if target & self.state.misaligned != 0 {
                    return Ok(None);
                }
                let edge = Edge { target, label: NameId::NONE };
                if kind == Kind::Root {
                    self.state.target.root(&Root { category, edge }).map_err(Error::Target)?;
                } else {
                    self.state.target.edge(edge).map_err(Error::Target)?;
                }
                match &rest[length..length + 2] {
                    b", " => at += length + 2,
                    [b']', _] => {
                        at += length;
                        last = true;
                        break;
                    }
                    _ => return Ok(None),
                }
            }
            self.take(input, at);
            if last {
                break;
            }
            if input.is_at_end() {
                return Ok(None);
            }
            input.fill().map_err(Error::Read)?;
        }
        Ok(self.end(input, &mut whole)?.then_some((whole, Streamed { edges: true, value: None })))
    }

    // Hashes the content of a string. Returns the line without it.
    fn long_value<R: Read>(&mut self, input: &mut Input<R>, at: usize) -> Result<Rest, Error<T::Error>> {
        let mut whole = input.window()[..at].to_vec();
        let mut hasher = self.state.hash_key.build_hasher();
        let mut length = 0u64;
        let mut text = Vec::new();
        self.take(input, at + 1);
        loop {
            let window = input.window();
            // Escapes have at most six bytes; one at the end of the window waits for the rest.
            let usable = if input.is_at_end() { window.len() } else { window.len().saturating_sub(6) };
            let mut at = 0;
            let mut last = false;
            while at < usable {
                match memchr3(b'"', b'\\', b'\n', &window[at..usable]) {
                    None => at = usable,
                    Some(skip) => {
                        at += skip;
                        match (window[at], window.get(at + 1)) {
                            (b'\\', Some(b'u')) => at += 6,
                            (b'\\', Some(_)) => at += 2,
                            (b'"', _) => {
                                last = true;
                                break;
                            }
                            _ => return Ok(None),
                        }
                    }
                }
            }
            let at = at.min(window.len());
            loose::unescape(&window[..at], &mut text);
            hasher.write(&text);
            length += text.len() as u64;
            self.take(input, at);
            if last {
                break;
            }
            if input.is_at_end() {
                return Ok(None);
            }
            input.fill().map_err(Error::Read)?;
        }
        whole.push(b'"');
        let streamed = Streamed { edges: false, value: Some((hasher.finish(), length)) };
        let is_ended = self.end(input, &mut whole)?;
        remove_bytesize(&mut whole);
        Ok(is_ended.then_some((whole, streamed)))
    }

    // Appends the rest of the line to `whole`. Returns false if that is too long or cut off.
    fn end<R: Read>(&mut self, input: &mut Input<R>, whole: &mut Vec<u8>) -> Result<bool, Error<T::Error>> {
        loop {
            if let Some(end) = super::input::line_end(input.window()) {
                whole.extend_from_slice(&input.window()[..end]);
                self.take(input, end);
                return Ok(true);
            }
            if input.is_at_end() || input.window().len() > LONGEST_END {
                return Ok(false);
            }
            input.fill().map_err(Error::Read)?;
        }
    }

    // Skips the rest of the line.
    fn skip<R: Read>(&mut self, input: &mut Input<R>) -> Result<(), Error<T::Error>> {
        loop {
            let window = input.window();
            match memchr(b'\n', window) {
                Some(end) => {
                    self.take(input, end + 1);
                    return Ok(());
                }
                None => {
                    let all = window.len();
                    self.take(input, all);
                }
            }
            if input.is_at_end() {
                return Ok(());
            }
            input.fill().map_err(Error::Read)?;
        }
    }

    // Consumes bytes, which the state machine checks.
    fn take<R: Read>(&mut self, input: &mut Input<R>, bytes: usize) {
        self.lines.feed(input.window().get(..bytes).unwrap_or_default());
        input.consume(bytes);
    }
}

// Removes the length of a string from its line: the content has passed.
fn remove_bytesize(line: &mut Vec<u8>) {
    const KEY: &[u8] = b", \"bytesize\":";
    let Some(start) = memchr::memmem::find(line, KEY) else { return };
    let digits = line[start + KEY.len()..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    line.drain(start..start + KEY.len() + digits);
}
