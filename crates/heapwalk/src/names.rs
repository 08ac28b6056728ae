//! The names that the graph uses, each given to the receiver once.

#![expect(unsafe_code, reason = "names are C strings and Strings of Ruby")]

use core::ffi::c_char;

use diagctl_heapdump::record::{NameId, NameKind};

use crate::json::decimal;
use crate::layout::Layout;
use crate::memory::Table;
use crate::receiver::Receiver;
use crate::ruby::{self, Id, Ruby, Value};

/// Room for the kind of a name below an ID or an address in a key.
const KIND_BITS: u32 = 4;

/// The longest name of a place in the code, bytes.
const LONGEST_PLACE: usize = 512;

/// Names by what they were made from.
#[derive(Debug)]
pub struct Names {
    /// By ID and kind.
    ids: Table,
    /// By the address of a constant C string.
    texts: Table,
}

impl Names {
    /// No names yet.
    pub const fn new() -> Self {
        Self { ids: Table::new(), texts: Table::new() }
    }

    /// Returns the label of an edge that is called by an ID; none for an internal ID without a name.
    pub fn id(&mut self, ruby: &Ruby, receiver: &mut impl Receiver, kind: NameKind, id: Id) -> NameId {
        let key = (id as u64) << KIND_BITS | kind as u64;
        if let Some(known) = self.ids.get(key) {
            return name_id(known);
        }
        // SAFETY: symbol.c, `rb_id2name`: the bytes of an immortal String, or null. The dumper has one thread, so they stay.
        let text = unsafe { ruby::c_bytes((ruby.id_name)(id)) };
        let name = if text.is_empty() { NameId::NONE } else { receiver.name(kind, text) };
        self.ids.set(key, u64::from(name.0));
        name
    }

    /// Returns the label of a variable of an object or a class, whose kind shows in its name.
    pub fn variable(&mut self, ruby: &Ruby, receiver: &mut impl Receiver, id: Id) -> NameId {
        let key = (id as u64) << KIND_BITS | NameKind::InstanceVariable as u64;
        if let Some(known) = self.ids.get(key) {
            return name_id(known);
        }
        // SAFETY: as in `id`.
        let text = unsafe { ruby::c_bytes((ruby.id_name)(id)) };
        let name = match text {
            [] => NameId::NONE,
            [b'@', b'@', ..] => receiver.name(NameKind::ClassVariable, text),
            [b'@', ..] => receiver.name(NameKind::InstanceVariable, text),
            b"__attached__" => self.constant(receiver, NameKind::Internal, c"attached_object".as_ptr()),
            _ => receiver.name(NameKind::Internal, text),
        };
        self.ids.set(key, u64::from(name.0));
        name
    }

    /// Returns the place of a block in the code, the file and the line; none for a block of C code.
    pub fn place(&mut self, ruby: &Ruby, layout: Layout, receiver: &mut impl Receiver, block: Value) -> NameId {
        let optional = &ruby.optional;
        let (Some(code), Some(path), Some(line)) = (optional.block_code, optional.code_path, optional.code_line) else {
            return NameId::NONE;
        };
        // SAFETY: proc.c, `rb_proc_get_iseq`: the code of a Proc, or null.
        let code = unsafe { code(block, core::ptr::null_mut()) };
        if code == 0 {
            return NameId::NONE;
        }
        let key = (code as u64) << KIND_BITS | NameKind::Frame as u64;
        if let Some(known) = self.texts.get(key) {
            return name_id(known);
        }
        // SAFETY: vm_backtrace.c, `rb_profile_frame_path` and `rb_profile_frame_first_lineno`: a String and a Fixnum of the code, or
        // nil.
        let (path, line) = unsafe { (path(code), line(code)) };
        let mut text = [0; LONGEST_PLACE];
        let name = match ruby::from_fixnum(line).filter(|_| !ruby::is_special(path)) {
            Some(line) => {
                // SAFETY: iseq.c, `rb_iseq_path`: a String.
                let path = unsafe { layout.string(path) };
                receiver.name(NameKind::Frame, spell_place(&mut text, path, line))
            }
            None => NameId::NONE,
        };
        self.texts.set(key, u64::from(name.0));
        name
    }

    /// Returns the name of a C string that is never freed or changed. Null has none.
    pub fn constant(&mut self, receiver: &mut impl Receiver, kind: NameKind, text: *const c_char) -> NameId {
        let key = (text.addr() as u64) << KIND_BITS | kind as u64;
        if text.is_null() {
            return NameId::NONE;
        }
        if let Some(known) = self.texts.get(key) {
            return name_id(known);
        }
        // SAFETY: the caller's promise: a string constant of Ruby or of an extension, or of the walker.
        let name = receiver.name(kind, unsafe { ruby::c_bytes(text) });
        self.texts.set(key, u64::from(name.0));
        name
    }
}

// Of a path that is too long, the end.
fn spell_place<'t>(text: &'t mut [u8; LONGEST_PLACE], path: &[u8], line: usize) -> &'t [u8] {
    let mut digits = [0; 20];
    let digits = decimal(line as u64, &mut digits);
    let path = &path[path.len().saturating_sub(LONGEST_PLACE - 1 - digits.len())..];
    text[..path.len()].copy_from_slice(path);
    text[path.len()] = b':';
    text[path.len() + 1..][..digits.len()].copy_from_slice(digits);
    &text[..path.len() + 1 + digits.len()]
}

fn name_id(number: u64) -> NameId {
    NameId(u32::try_from(number).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_PLACE, spell_place};

    #[test]
    fn a_place_is_a_file_and_a_line_and_of_a_long_file_the_end() {
        let mut text = [0; LONGEST_PLACE];
        assert_eq!(spell_place(&mut text, b"app/worker.rb", 12), b"app/worker.rb:12");
        assert_eq!(spell_place(&mut text, b"", usize::MAX), b":18446744073709551615");
        let long = [b'x'; LONGEST_PLACE + 5];
        let place = spell_place(&mut text, &long, 7);
        assert_eq!(place.len(), LONGEST_PLACE);
        assert!(place.ends_with(b"xx:7"));
    }
}
