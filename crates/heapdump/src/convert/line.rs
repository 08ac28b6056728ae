//! The content of one line of a heap dump.

use crate::lines::glance::Fields;
use crate::lines::key;
use crate::record::{Flags, Type};

/// The kind of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    Object(Type),
    Root,
    Shape,
    #[default]
    Missing,
}

/// One line. Texts are as they are in the line; only those that Ruby escapes have escapes in them.
#[derive(Debug, Default)]
pub(super) struct Line<'a> {
    pub kind: Kind,
    pub address: u64,
    pub class: u64,
    pub superclass: u64,
    pub default: u64,
    pub memsize: u64,
    pub slot_size: Option<u64>,
    pub flags: Flags,
    pub bytesize: Option<u64>,
    pub length: Option<u64>,
    /// The content of a string or symbol, and its length without escapes.
    pub value: Option<(&'a [u8], usize)>,
    pub encoding: &'a [u8],
    pub file: &'a [u8],
    pub method: &'a [u8],
    pub line: u64,
    pub generation: Option<u64>,
    /// The name of a class or module.
    pub name: &'a [u8],
    /// The name of the type of a `T_DATA`, `T_IMEMO` or `T_NODE`.
    pub subtype: &'a [u8],
    pub root: &'a [u8],
    pub references: Vec<u64>,
    /// Every address in the line, combined by or.
    pub bits: u64,
    pub repaired: bool,
}

impl<'a> Line<'a> {
    /// An empty line with memory for its references.
    pub fn with(mut references: Vec<u64>) -> Self {
        references.clear();
        Self { references, ..Self::default() }
    }

    /// Empties the line for the next one.
    #[inline]
    pub fn clear(&mut self) {
        let mut references = std::mem::take(&mut self.references);
        references.clear();
        *self = Self { references, ..Self::default() };
    }

    fn set(&mut self, flag: Flags, number: u64) {
        if number > 0 {
            self.flags = self.flags.with(flag);
        }
    }
}

impl<'a> Fields<'a> for Line<'a> {
    #[inline]
    fn number(&mut self, key: u64, number: u64) {
        match key {
            key::MEMSIZE => self.memsize = number,
            key::BYTESIZE => self.bytesize = Some(number),
            key::WB_PROTECTED => self.set(Flags::WB_PROTECTED, number),
            key::OLD => self.set(Flags::OLD, number),
            key::UNCOLLECTIBLE => self.set(Flags::UNCOLLECTIBLE, number),
            key::MARKED => self.set(Flags::MARKED, number),
            key::SLOT_SIZE => self.slot_size = Some(number),
            key::EMBEDDED => self.set(Flags::EMBEDDED, number),
            key::FROZEN => self.set(Flags::FROZEN, number),
            key::SHARED => self.set(Flags::SHARED, number),
            key::FSTRING => self.set(Flags::FSTRING, number),
            key::CHILLED => self.set(Flags::CHILLED, number),
            key::BROKEN => self.set(Flags::BROKEN, number),
            key::SIZE | key::LENGTH => self.length = Some(number),
            key::LINE => self.line = number,
            key::GENERATION => self.generation = Some(number),
            key::SINGLETON => self.set(Flags::SINGLETON, number),
            key::TOO_COMPLEX_SHAPE => self.set(Flags::TOO_COMPLEX_SHAPE, number),
            key::MARKING => self.set(Flags::MARKING, number),
            key::PINNED => self.set(Flags::PINNED, number),
            key::REMEMBERED => self.set(Flags::REMEMBERED, number),
            key::SHAREABLE => self.set(Flags::SHAREABLE, number),
            key::OBJECT_ID => self.set(Flags::OBJECT_ID, number),
            _ => {}
        }
    }

    #[inline]
    fn address(&mut self, key: u64, address: u64) {
        match key {
            key::ADDRESS => self.address = address,
            // The class of an internal object may be anything.
            key::CLASS => {
                self.class = address;
                return;
            }
            key::SUPERCLASS => self.superclass = address,
            key::DEFAULT => self.default = address,
            _ => {}
        }
        self.bits |= address;
    }

    #[inline]
    fn text(&mut self, key: u64, raw: &'a [u8], length: usize) {
        match key {
            key::TYPE => self.kind = kind(raw),
            key::VALUE => self.value = Some((raw, length)),
            key::ENCODING => self.encoding = raw,
            key::FILE => self.file = raw,
            key::METHOD => self.method = raw,
            key::NAME => self.name = raw,
            key::STRUCT | key::IMEMO_TYPE | key::NODE_TYPE => self.subtype = raw,
            key::ROOT => self.root = raw,
            _ => {}
        }
    }

    #[inline]
    fn reference(&mut self, address: u64) {
        self.bits |= address;
        self.references.push(address);
    }
}

fn kind(name: &[u8]) -> Kind {
    Kind::Object(match name {
        b"STRING" => Type::STRING,
        b"OBJECT" => Type::OBJECT,
        b"ARRAY" => Type::ARRAY,
        b"HASH" => Type::HASH,
        b"IMEMO" => Type::IMEMO,
        b"DATA" => Type::DATA,
        b"NONE" => Type::NONE,
        b"ROOT" => return Kind::Root,
        b"SHAPE" => return Kind::Shape,
        // Ruby's word for a moved object, and for whatever it does not know.
        b"UNKNOWN" => Type::MOVED,
        _ => match Type::named(name) {
            Some(kind) => kind,
            None => return Kind::Missing,
        },
    })
}
