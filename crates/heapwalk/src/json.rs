//! JSON, written piece by piece.

use crate::output::Output;

const BUFFER: usize = 16 << 10;

/// Collects pieces and writes them in blocks.
pub struct Json<'a> {
    output: &'a Output<'a>,
    buffer: [u8; BUFFER],
    len: usize,
}

impl<'a> Json<'a> {
    /// Nothing written yet.
    pub fn new(output: &'a Output<'a>) -> Self {
        Self { output, buffer: [0; BUFFER], len: 0 }
    }

    /// Writes bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.byte(*byte);
        }
    }

    /// Writes a number.
    pub fn number(&mut self, number: u64) {
        let mut digits = [0; 20];
        self.raw(decimal(number, &mut digits));
    }

    /// Writes the inside of a string. What is not UTF-8 becomes `?`.
    pub fn text(&mut self, text: &[u8]) {
        for chunk in text.utf8_chunks() {
            for byte in chunk.valid().bytes() {
                match byte {
                    b'"' | b'\\' => self.raw(&[b'\\', byte]),
                    0..=0x1f | 0x7f => {
                        let digit = |number: u8| b"0123456789abcdef"[usize::from(number & 15)];
                        self.raw(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)]);
                    }
                    _ => self.byte(byte),
                }
            }
            if !chunk.invalid().is_empty() {
                self.byte(b'?');
            }
        }
    }

    /// Writes what is left.
    pub fn flush(&mut self) {
        self.output.write(&self.buffer[..self.len]);
        self.len = 0;
    }

    fn byte(&mut self, byte: u8) {
        if self.len == BUFFER {
            self.flush();
        }
        self.buffer[self.len] = byte;
        self.len += 1;
    }
}

/// Returns a number's digits.
pub fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut place = digits.len();
    loop {
        place -= 1;
        digits[place] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            return &digits[place..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 7, 10, 1234, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}
