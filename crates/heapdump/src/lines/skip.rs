//! Skips lines, texts, keys and addresses of the usual form without a look at each byte.

use memchr::memchr3;

use super::{At, HeapLines, LONGEST_KEY, glance, hex, key};

impl HeapLines {
    pub(super) fn skip_good_lines(&mut self, data: &[u8], begin: u64) -> usize {
        let mut skipped = 0;
        while let Some(length) = glance::good_line(&data[skipped..], self.usual, &mut ()) {
            skipped += length;
            self.line += 1;
            self.known_lengths |= 1 << self.usual;
        }
        self.line_byte = begin + skipped as u64;
        skipped
    }

    pub(super) fn skip_text(&mut self, text: &[u8]) -> usize {
        let length = memchr3(b'"', b'\\', b'\n', text).unwrap_or(text.len());
        self.text_length += length as u64;
        length
    }

    // Skips a complete key and its colon.
    pub(super) fn skip_key(&mut self, data: &[u8]) -> usize {
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
    pub(super) fn skip_address(&mut self, data: &[u8]) -> usize {
        if self.text_length > 0 || !is_address(data, self.usual) {
            return 0;
        }
        self.end_address(self.usual);
        self.usual + 1
    }

    // Skips elements of a list of references that have the same length as the last address.
    pub(super) fn skip_references(&mut self, data: &[u8]) -> usize {
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
