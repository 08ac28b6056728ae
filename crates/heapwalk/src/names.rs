//! The names that the graph uses, each given to the receiver once.

#![expect(unsafe_code, reason = "names are C strings and Strings of Ruby")]

use core::ffi::c_char;

use diagctl_heapdump::record::{NameId, NameKind};

use crate::memory::Table;
use crate::receiver::Receiver;
use crate::ruby::{self, Id, Ruby};

/// Room for the kind of a name below an ID or an address in a key.
const KIND_BITS: u32 = 4;

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

fn name_id(number: u64) -> NameId {
    NameId(u32::try_from(number).unwrap_or(0))
}
