//! The places where Ruby keeps the bytes of a string and the length of an array.

#![expect(unsafe_code, reason = "objects are read through their addresses")]

use crate::ruby::{self, Value, user_flag};

/// `RARRAY_EMBED_FLAG` and `ROBJECT_EMBED` of 3.1 to 3.4, include/ruby/internal/core: the content is in the slot.
pub const EMBEDDED: usize = user_flag(1);
/// `RSTRING_NOEMBED`, include/ruby/internal/core/rstring.h: the bytes are outside of the slot.
pub const STRING_OUTSIDE: usize = user_flag(1);
/// `RSTRING_FSTR`, include/ruby/internal/core/rstring.h.
pub const FSTRING: usize = user_flag(17);
/// `RUBY_ENC_CODERANGE_BROKEN`, include/ruby/internal/encoding/coderange.h.
pub const BROKEN: usize = user_flag(8) | user_flag(9);
/// `RUBY_ENCODING_SHIFT` and `RUBY_ENCODING_INLINE_MAX`, include/ruby/internal/encoding/encoding.h.
const ENCODING_SHIFT: usize = ruby::USER_SHIFT + 10;
const ENCODING_MASK: usize = 127;
/// `RARRAY_EMBED_LEN_SHIFT` and the mask of 3.2 and later, include/ruby/internal/core/rarray.h. In 3.1 the mask has two bits; the
/// other five are zero in an embedded array.
const ARRAY_LENGTH_SHIFT: usize = ruby::USER_SHIFT + 3;
const ARRAY_LENGTH_MASK: usize = 127;
/// `RSTRING_EMBED_LEN_SHIFT` and mask of 3.1, include/ruby/internal/core/rstring.h.
const OLD_LENGTH_SHIFT: usize = ruby::USER_SHIFT + 2;
const OLD_LENGTH_MASK: usize = 31;

const WORD: usize = size_of::<usize>();

/// A layout of one range of versions. `crate::proof` finds the one that this Ruby has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// An embedded string has its length in its flags and its bytes after its head (3.1). Otherwise the length comes after the
    /// head, and then the bytes.
    pub length_in_flags: bool,
    /// `ELTS_SHARED`: a string or an array uses the bytes of another one.
    pub shared: usize,
}

impl Layout {
    /// The layout of Ruby 3.1.
    pub const RUBY_3_1: Self = Self { length_in_flags: true, shared: user_flag(2) };
    /// The layout of Ruby 3.2 and 3.3.
    pub const RUBY_3_2: Self = Self { length_in_flags: false, shared: user_flag(2) };
    /// The layout of Ruby 3.4 and later.
    pub const RUBY_3_4: Self = Self { length_in_flags: false, shared: user_flag(0) };
    /// All of them.
    pub const ALL: [Self; 3] = [Self::RUBY_3_1, Self::RUBY_3_2, Self::RUBY_3_4];

    /// A number for the dumper, which passes it on: 1 and up.
    pub fn number(self) -> usize {
        Self::ALL.into_iter().position(|layout| layout == self).map_or(0, |index| index + 1)
    }

    /// The layout of that number.
    pub fn of_number(number: usize) -> Option<Self> {
        Self::ALL.get(number.checked_sub(1)?).copied()
    }

    /// Returns the bytes of a string.
    ///
    /// # Safety
    ///
    /// `string` is a T_STRING, this is its layout, and nothing changes the string during `'a`.
    pub unsafe fn string<'a>(self, string: Value) -> &'a [u8] {
        // SAFETY: the caller's promise.
        let (start, len) = unsafe { self.place(string) };
        if start == 0 || len.cast_signed() <= 0 {
            return &[];
        }
        // SAFETY: the caller's promise: this is where the string has its bytes.
        unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance(start), len) }
    }

    /// Returns the address of a string's bytes and their number.
    ///
    /// # Safety
    ///
    /// `string` is a T_STRING. Both are wrong if this is not its layout.
    pub unsafe fn place(self, string: Value) -> (usize, usize) {
        // SAFETY: the caller's promise. `struct RString` of include/ruby/internal/core/rstring.h: the head takes two words, then
        // come the length and the address, or the embedded bytes. A slot has at least five words.
        unsafe {
            let flags = ruby::basic(string).flags;
            if flags & STRING_OUTSIDE != 0 {
                (word(string, 3), word(string, 2))
            } else if self.length_in_flags {
                (string + 2 * WORD, flags >> OLD_LENGTH_SHIFT & OLD_LENGTH_MASK)
            } else {
                (string + 3 * WORD, word(string, 2))
            }
        }
    }

    /// Returns true for a string that uses another one's bytes (internal/string.h, `STR_SHARED_P`).
    pub fn is_shared_string(self, flags: usize) -> bool {
        flags & STRING_OUTSIDE != 0 && flags & self.shared != 0
    }

    /// Returns true for a string literal that warns when it is changed (internal/string.h, `STR_CHILLED`). The flag came with the
    /// place of `ELTS_SHARED`.
    pub fn is_chilled(self, flags: usize) -> bool {
        self.shared == user_flag(0) && flags & (user_flag(2) | user_flag(3)) != 0
    }
}

/// Returns the number of elements of an array (include/ruby/internal/core/rarray.h, `rb_array_len`).
///
/// # Safety
///
/// `array` is a T_ARRAY.
pub unsafe fn array_length(array: Value) -> usize {
    // SAFETY: the caller's promise. The length of an array that is not embedded comes after its head.
    unsafe {
        let flags = ruby::basic(array).flags;
        if flags & EMBEDDED != 0 { flags >> ARRAY_LENGTH_SHIFT & ARRAY_LENGTH_MASK } else { word(array, 2) }
    }
}

/// Returns the number of a string's encoding, or `None` if it is not in the flags.
pub fn encoding(flags: usize) -> Option<i32> {
    let number = flags >> ENCODING_SHIFT & ENCODING_MASK;
    (number < ENCODING_MASK).then(|| i32::try_from(number).unwrap_or(0))
}

// SAFETY: `value` is an object with more words than `index`.
unsafe fn word(value: Value, index: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { *core::ptr::with_exposed_provenance::<usize>(value).add(index) }
}

#[cfg(test)]
mod tests {
    use super::Layout;

    #[test]
    fn each_layout_has_a_number_and_none_has_0() {
        for layout in Layout::ALL {
            assert_eq!(Layout::of_number(layout.number()), Some(layout));
        }
        assert_eq!(Layout::of_number(0), None);
        assert_eq!(Layout::of_number(Layout::ALL.len() + 1), None);
    }
}
