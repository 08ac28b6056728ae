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

use memchr::{memchr, memchr3};

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

    fn step(&mut self, byte: u8) {
        match (self.at, byte) {
            (At::Begin, b'{') => self.begin_line(),
            (At::Begin, _) => self.damage("it does not begin with a brace"),
            (At::FirstKey | At::KeyQuote, b'"') => {
                self.token_length = 0;
                self.at = At::Key;
            }
            (At::FirstKey, b'}') | (At::AfterValue, b'}') => self.close(true),
            (At::KeyQuote | At::Value, b' ') => {}
            (At::FirstKey | At::KeyQuote, _) => self.damage("it has something else where a key is due"),
            (At::Key, b'"') => self.end_key(self.token, self.token_length),
            (At::Key, b'\\') => self.damage("it has a key that cannot be"),
            (At::Key | At::Word, _) if self.token_length == LONGEST_KEY => {
                self.damage("it has a key or a value that cannot be");
            }
            (At::Key, _) => self.keep(byte),
            (At::Colon, b':') => self.at = At::Value,
            (At::Colon, _) => self.damage("it has no colon after a key"),
            (At::FirstElement, b']') | (At::AfterValue, b']') => self.close(false),
            (At::Value | At::FirstElement, b'"') => self.begin_text(),
            (At::Value | At::FirstElement, b'{') => self.open(true),
            (At::Value | At::FirstElement, b'[') => self.open(false),
            (At::Value | At::FirstElement, _) => {
                self.token_length = 0;
                self.keep(byte);
                self.at = At::Word;
            }
            (At::Word, b',' | b'}' | b']') => {
                self.end_word();
                if self.at == At::AfterValue {
                    self.step(byte);
                }
            }
            (At::Word, _) => self.keep(byte),
            (At::Text, _) if self.text == Text::Address => self.step_in_address(byte),
            (At::Text, b'"') if self.text == Text::Loose => self.at = At::LooseQuote,
            (At::Text, b'"') => self.end_text(),
            (At::Text, b'\\') => self.at = At::Escape,
            (At::Text, _) => self.text_length += 1,
            (At::Escape, b'u') if self.text == Text::Strict => self.at = At::Unicode(4),
            (At::Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.count_escaped(),
            (At::Escape, _) if self.text == Text::Loose => self.count_escaped(),
            (At::Escape, _) => self.damage("it has an escape that JSON does not know"),
            (At::Unicode(left), _) if byte.is_ascii_hexdigit() => match left {
                1 => self.count_escaped(),
                _ => self.at = At::Unicode(left - 1),
            },
            (At::Unicode(_), _) => self.damage("it has an escape that JSON does not know"),
            (At::LooseQuote, b',' | b'}') => {
                self.at = At::AfterValue;
                self.step(byte);
            }
            (At::LooseQuote, b'"') => {}
            (At::LooseQuote, b'\\') => self.at = At::Escape,
            (At::LooseQuote, _) => self.at = At::Text,
            (At::AfterValue, b',') => self.at = if self.in_object() { At::KeyQuote } else { At::Value },
            (At::AfterValue, _) => self.damage("it has no comma after a value"),
            (At::End, _) => self.damage("it goes on after its last brace"),
            (At::Damaged, _) => {}
        }
    }

    fn keep(&mut self, byte: u8) {
        self.token[self.token_length] = byte;
        self.token_length += 1;
    }

    fn end_key(&mut self, token: [u8; LONGEST_KEY], length: usize) {
        self.at = At::Colon;
        if self.depth > 2 {
            return;
        }
        let key = key::of(&token[..length]);
        if self.seen & key != 0 {
            return self.damage("a key comes twice");
        }
        if self.seen == 0 && !matches!(key, key::ADDRESS | key::TYPE) || self.seen != 0 && key == key::ADDRESS {
            return self.damage("it does not begin with an address or a type");
        }
        if key == key::OTHER {
            self.note_unknown(&token[..length]);
        }
        self.seen |= key;
        if self.depth == 1 {
            self.key = key;
        }
    }

    fn note_unknown(&mut self, key: &[u8]) {
        let mut name = [0; LONGEST_KEY];
        name[..key.len()].copy_from_slice(key);
        let place = self.unknown.iter_mut().find(|place| place.as_ref().is_none_or(|unknown| unknown.name == name));
        match place {
            Some(Some(unknown)) => unknown.again = true,
            Some(none) => *none = Some(Unknown { name, line: self.line, byte: self.line_byte, again: false }),
            // With so many unknown keys, the dump is from a later version of Ruby.
            None => {}
        }
    }

    fn end_word(&mut self) {
        let word = &self.token[..self.token_length];
        let is_number = word.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e'));
        if !is_number && !matches!(word, b"true" | b"false" | b"null") {
            return self.damage("it has a value that is none");
        }
        if self.depth == 1 && self.key == key::BYTESIZE {
            self.bytesize = std::str::from_utf8(word).ok().and_then(|digits| digits.parse().ok());
        }
        self.at = At::AfterValue;
    }

    fn begin_text(&mut self) {
        self.at = At::Text;
        self.text_length = 0;
        self.text = match (self.depth, self.key) {
            (1, key::ADDRESS | key::SUPERCLASS) => Text::Address,
            (2, key::REFERENCES) if !self.in_object() => Text::Address,
            (1, key::FILE | key::METHOD | key::NAME | key::REAL_CLASS_NAME | key::STRUCT) => Text::Loose,
            _ => Text::Strict,
        };
    }

    fn count_escaped(&mut self) {
        self.text_length += 1;
        self.at = At::Text;
    }

    fn end_text(&mut self) {
        if self.depth == 1 && self.key == key::VALUE && self.bytesize.is_some_and(|size| size != self.text_length) {
            return self.damage("it has a string of another length than it says");
        }
        if self.depth == 1 && self.key == key::CLASS {
            self.class_length = 1 << self.text_length.min(31);
        }
        self.at = At::AfterValue;
    }

    fn step_in_address(&mut self, byte: u8) {
        let fits = match self.text_length {
            0 => byte == b'0',
            1 => byte == b'x',
            2..=17 if byte != b'"' => is_digit(byte),
            3.. => byte == b'"' && is_aligned(self.last),
            _ => false,
        };
        if !fits {
            return self.damage("it has an address that cannot be");
        }
        if byte == b'"' {
            return self.end_address(self.text_length as usize);
        }
        self.last = byte;
        self.text_length += 1;
    }

    fn end_address(&mut self, length: usize) {
        self.usual = length;
        if self.depth == 1 && self.key == key::ADDRESS {
            self.own_length = 1 << length;
        } else {
            self.lengths |= 1 << length;
        }
        self.at = At::AfterValue;
    }

    fn skip_good_lines(&mut self, data: &[u8], begin: u64) -> usize {
        let mut skipped = 0;
        while let Some(length) = glance::good_line(&data[skipped..], self.usual, &mut ()) {
            skipped += length;
            self.line += 1;
            self.known_lengths |= 1 << self.usual;
        }
        self.line_byte = begin + skipped as u64;
        skipped
    }

    fn skip_text(&mut self, text: &[u8]) -> usize {
        let length = memchr3(b'"', b'\\', b'\n', text).unwrap_or(text.len());
        self.text_length += length as u64;
        length
    }

    // Skips a complete key and its colon.
    fn skip_key(&mut self, data: &[u8]) -> usize {
        let begin = match data {
            [b'"', ..] => 1,
            [b' ', b'"', ..] if self.at == At::KeyQuote => 2,
            _ => return 0,
        };
        let Some(window) = data.get(begin..begin + LONGEST_KEY) else { return 0 };
        let end = window.iter().position(|&byte| matches!(byte, b'"' | b'\\' | b'\n')).unwrap_or(0);
        if !window[end..].starts_with(b"\":") {
            return 0;
        }
        let mut token = [0; LONGEST_KEY];
        token[..end].copy_from_slice(&window[..end]);
        self.end_key(token, end);
        if self.at == At::Colon {
            self.at = At::Value;
        }
        begin + end + 2
    }

    // Skips a complete address and its closing quote.
    fn skip_address(&mut self, data: &[u8]) -> usize {
        if self.text_length > 0 || !is_address(data, self.usual) {
            return 0;
        }
        self.end_address(self.usual);
        self.usual + 1
    }

    // Skips elements of a list of references that have the same length as the last address.
    fn skip_references(&mut self, data: &[u8]) -> usize {
        if self.depth != 2 || self.key != key::REFERENCES || self.in_object() {
            return 0;
        }
        let mut skipped = 0;
        while data[skipped..].starts_with(b", \"") && is_address(&data[skipped + 3..], self.usual) {
            skipped += self.usual + 4;
        }
        skipped
    }
}

// Returns true if the data begins with an address of this length and a quote.
fn is_address(data: &[u8], length: usize) -> bool {
    hex::read(data, length).is_some()
}

// Objects are aligned to at least four bytes.
fn is_aligned(last_digit: u8) -> bool {
    matches!(last_digit, b'0' | b'4' | b'8' | b'c')
}

fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests;
