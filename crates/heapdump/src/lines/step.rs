//! The check of a line, byte by byte.

use super::{At, HeapLines, LONGEST_KEY, Text, Unknown, key};

impl HeapLines {
    pub(super) fn step(&mut self, byte: u8) {
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

    pub(super) fn keep(&mut self, byte: u8) {
        self.token[self.token_length] = byte;
        self.token_length += 1;
    }

    pub(super) fn end_key(&mut self, token: [u8; LONGEST_KEY], length: usize) {
        self.at = At::Colon;
        if self.depth > 2 {
            return;
        }
        let key = key::of(&token[..length]);
        if self.seen & key != 0 {
            return self.damage("a key comes twice");
        }
        // Other programs sort keys, but then an address comes before anything that only roots have.
        if key == key::ADDRESS && self.seen & key::ROOT != 0 {
            return self.damage("it has the key of a root and an address");
        }
        if key == key::OTHER {
            self.note_unknown(&token[..length]);
        }
        self.seen |= key;
        if self.depth == 1 {
            self.key = key;
        }
    }

    pub(super) fn note_unknown(&mut self, key: &[u8]) {
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

    pub(super) fn end_word(&mut self) {
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

    pub(super) fn begin_text(&mut self) {
        self.at = At::Text;
        self.text_length = 0;
        self.text = match (self.depth, self.key) {
            (1, key::ADDRESS | key::SUPERCLASS) => Text::Address,
            (2, key::REFERENCES) if !self.in_object() => Text::Address,
            (1, key::FILE | key::METHOD | key::NAME | key::REAL_CLASS_NAME | key::STRUCT) => Text::Loose,
            _ => Text::Strict,
        };
    }

    pub(super) fn count_escaped(&mut self) {
        self.text_length += 1;
        self.at = At::Text;
    }

    pub(super) fn end_text(&mut self) {
        if self.depth == 1 && self.key == key::VALUE && self.bytesize.is_some_and(|size| size != self.text_length) {
            return self.damage("it has a string of another length than it says");
        }
        if self.depth == 1 && self.key == key::CLASS {
            self.class_length = 1 << self.text_length.min(31);
        }
        self.at = At::AfterValue;
    }

    pub(super) fn step_in_address(&mut self, byte: u8) {
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

    pub(super) fn end_address(&mut self, length: usize) {
        self.usual = length;
        if self.depth == 1 && self.key == key::ADDRESS {
            self.own_length = 1 << length;
        } else {
            self.lengths |= 1 << length;
        }
        self.at = At::AfterValue;
    }
}

// Objects are aligned to at least four bytes.
fn is_aligned(last_digit: u8) -> bool {
    matches!(last_digit, b'0' | b'4' | b'8' | b'c')
}

pub(super) fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}
