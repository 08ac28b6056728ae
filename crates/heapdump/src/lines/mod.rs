//! Checks the lines of a heap dump as they stream past.
//!
//! `ObjectSpace.dump_all` writes one JSON object a line. When a signal interrupts a write, bytes can be lost anywhere, and the
//! head of one line is then followed by the tail of another. Nearly all such seams can be detected: by invalid JSON, a repeated
//! key, an address with too many digits, or a string whose length differs from its `bytesize`.
//!
//! Ruby leaves some names unescaped (file names, for example), so not every line is strict JSON.

pub(crate) mod glance;
pub(crate) mod hex;
pub(crate) mod key;
mod skip;
mod step;

use memchr::memchr;

/// The maximum length of a key that Ruby writes.
const LONGEST_KEY: usize = 32;

/// The maximum nesting. Ruby nests three levels: the line, its flags, and a value in them.
const DEEPEST: u32 = 8;

/// A damaged line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Damage {
    line: u64,
    byte: u64,
    why: &'static str,
}

/// The parser's position in a line, by what may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Begin,
    FirstKey,
    KeyQuote,
    Key,
    Colon,
    Value,
    FirstElement,
    Word,
    Text,
    Escape,
    Unicode(u8),
    LooseQuote,
    AfterValue,
    End,
    Damaged,
}

/// The syntax of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    /// Valid JSON.
    Strict,
    /// Possibly unescaped: a quote ends the string only where a value may end.
    Loose,
    /// `0x` and hexadecimal digits.
    Address,
}

/// An unknown key. If more than one line has it, a later version of Ruby writes it.
#[derive(Clone, Copy, Debug)]
struct Unknown {
    name: [u8; LONGEST_KEY],
    line: u64,
    byte: u64,
    again: bool,
}

/// References with one length of address, in otherwise good lines.
#[derive(Clone, Copy, Debug, Default)]
struct Odd {
    first: Option<(u64, u64)>,
    lines: u64,
}

/// The checker. Its size is fixed: it keeps a few numbers, but no lines.
#[derive(Debug)]
pub struct HeapLines {
    at: At,
    /// Number of the current line, from 1.
    line: u64,
    /// Position of the current line's first byte.
    line_byte: u64,
    /// Bytes in earlier chunks.
    passed: u64,
    depth: u32,
    /// A stack of nesting levels, one bit each: set for an object, clear for a list. The innermost is the lowest bit.
    objects: u32,
    /// Keys seen in the line and its flags.
    seen: u64,
    /// The last top-level key.
    key: u64,
    /// An incomplete key or word, with its length.
    token: [u8; LONGEST_KEY],
    token_length: usize,
    text: Text,
    /// Length of the string so far, in unescaped bytes.
    text_length: u64,
    /// The last byte of the address so far.
    last: u8,
    bytesize: Option<u64>,
    /// Lengths of the line's own address, of its class's address, and of all other addresses in it, as bit sets.
    own_length: u32,
    class_length: u32,
    lengths: u32,
    /// Lengths of the addresses that have a line of their own.
    known_lengths: u32,
    odd: [Odd; 32],
    unknown: [Option<Unknown>; 16],
    /// Length of the last address.
    usual: usize,
    first: Option<Damage>,
    last_why: &'static str,
    damaged: u64,
}

impl Default for HeapLines {
    fn default() -> Self {
        Self {
            at: At::Begin,
            line: 1,
            line_byte: 0,
            passed: 0,
            depth: 0,
            objects: 0,
            seen: 0,
            key: key::OTHER,
            token: [0; LONGEST_KEY],
            token_length: 0,
            text: Text::Strict,
            text_length: 0,
            last: 0,
            bytesize: None,
            own_length: 0,
            class_length: 0,
            lengths: 0,
            known_lengths: 0,
            odd: [Odd::default(); 32],
            unknown: [None; 16],
            usual: 0,
            first: None,
            last_why: "",
            damaged: 0,
        }
    }
}

impl HeapLines {
    /// Checks the next bytes.
    pub fn feed(&mut self, data: &[u8]) {
        let mut i = 0;
        while let Some(&byte) = data.get(i) {
            // Skips many bytes at once where possible, and steps through the rest.
            let skipped = match self.at {
                At::Begin => self.skip_good_lines(&data[i..], self.passed + i as u64),
                At::AfterValue => self.skip_references(&data[i..]),
                At::KeyQuote | At::FirstKey => self.skip_key(&data[i..]),
                At::Text if self.text == Text::Address => self.skip_address(&data[i..]),
                At::Text => self.skip_text(&data[i..]),
                At::Damaged => memchr(b'\n', &data[i..]).unwrap_or(data.len() - i),
                _ => 0,
            };
            if skipped > 0 {
                i += skipped;
                continue;
            }
            i += 1;
            if byte == b'\n' {
                self.end_line(self.passed + i as u64);
            } else {
                self.step(byte);
            }
        }
        self.passed += data.len() as u64;
    }

    /// Checks one line with its newline, and returns the reason if it is damaged.
    pub fn check(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let before = self.damaged;
        self.feed(line);
        if self.damaged == before { Ok(()) } else { Err(self.last_why) }
    }

    /// Notes a line that was found good by other means, or was repaired. `bytes` count its newline.
    #[inline]
    pub fn pass(&mut self, lines: u64, bytes: u64) {
        self.line += lines;
        self.passed += bytes;
        self.line_byte = self.passed;
        self.known_lengths |= 1 << self.usual;
    }

    /// Counts a line as damaged that was noted as good.
    pub fn condemn(&mut self, why: &'static str) {
        let line = self.line.saturating_sub(1);
        self.first.get_or_insert(Damage { line, byte: self.line_byte, why });
        self.damaged += 1;
    }

    /// The number of damaged lines so far.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// The length of an address, learned from the lines so far. 0 before the first.
    #[inline]
    pub fn address_length(&self) -> usize {
        self.usual
    }

    /// Ends the check. Returns a message about the damaged lines, if there are any.
    pub fn finish(mut self) -> Option<String> {
        if self.passed > self.line_byte {
            self.damage("it has no newline at its end");
            self.damaged += 1;
        }
        let mut later = Vec::new();
        for (length, odd) in self.odd.iter().enumerate() {
            let Some((line, byte)) = odd.first.filter(|_| self.known_lengths & (1 << length) == 0) else { continue };
            self.damaged += odd.lines;
            later.push(Damage { line, byte, why: "it has a reference to an address that cannot be" });
        }
        for unknown in self.unknown.iter().flatten().filter(|unknown| !unknown.again) {
            self.damaged += 1;
            later.push(Damage { line: unknown.line, byte: unknown.byte, why: "it has a key that no other line has" });
        }
        self.first = self.first.into_iter().chain(later).min_by_key(|damage| damage.line);
        let Damage { line, byte, why } = self.first?;
        let all = match self.damaged {
            1 => String::new(),
            many => format!("; {many} damaged lines in all"),
        };
        Some(format!("line {line} (byte {byte}) of the heap dump is damaged: {why}{all}"))
    }

    fn damage(&mut self, why: &'static str) {
        self.last_why = why;
        self.first.get_or_insert(Damage { line: self.line, byte: self.line_byte, why });
        self.at = At::Damaged;
    }

    fn end_line(&mut self, next: u64) {
        match self.at {
            At::End => self.end_good_line(),
            At::Damaged => {}
            At::Begin => self.damage("it is empty"),
            At::Text | At::Escape | At::Unicode(_) | At::Key => self.damage("it ends inside a string"),
            _ => self.damage("it ends before its last brace"),
        }
        if self.at == At::Damaged {
            self.damaged += 1;
            // This line is already counted as damaged.
            for place in &mut self.unknown {
                *place = place.filter(|unknown| unknown.line != self.line || unknown.again);
            }
        }
        self.at = At::Begin;
        self.line += 1;
        self.line_byte = next;
    }

    fn end_good_line(&mut self) {
        if self.seen & key::TYPE == 0 {
            return self.damage("it has no type");
        }
        // What has a type only says nothing about an object.
        if self.seen & (key::ADDRESS | key::ROOT) == 0 && self.seen != key::TYPE {
            return self.damage("it has no address");
        }
        self.known_lengths |= self.own_length;
        // Internal objects may have any value there.
        if self.seen & key::IMEMO_TYPE == 0 {
            self.lengths |= self.class_length;
        }
        let mut odd = self.lengths & !self.known_lengths;
        while odd != 0 {
            let of_length = &mut self.odd[odd.trailing_zeros() as usize];
            of_length.first.get_or_insert((self.line, self.line_byte));
            of_length.lines += 1;
            odd &= odd - 1;
        }
    }

    fn begin_line(&mut self) {
        self.depth = 0;
        self.objects = 0;
        self.seen = 0;
        self.key = key::OTHER;
        self.bytesize = None;
        self.own_length = 0;
        self.class_length = 0;
        self.lengths = 0;
        self.open(true);
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }

    fn open(&mut self, object: bool) {
        if self.depth == DEEPEST {
            return self.damage("it is nested too deeply");
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u32::from(object);
        self.at = if object { At::FirstKey } else { At::FirstElement };
    }

    fn close(&mut self, object: bool) {
        if self.in_object() != object {
            return self.damage("its braces and brackets do not match");
        }
        self.depth -= 1;
        self.objects >>= 1;
        self.at = if self.depth == 0 { At::End } else { At::AfterValue };
    }
}

#[cfg(test)]
mod tests;
